"""The picture of a trend: nothing overlaps, everything is inside, and the caption says it."""

from __future__ import annotations

import itertools
import math
from pathlib import Path

import matplotlib
import numpy as np
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from bench.gating.trend import trend
from hrbp_core.shapes import Pass
from reports import figures_trend, style
from reports.picture import Picture
from tests.history_samples import commit, environment, folder, history, noisy, step_at, usual


def drawn(picture: Picture) -> Figure:
    with matplotlib.rc_context():
        matplotlib.rcdefaults()
        matplotlib.rcParams.update(style.RC)
        figure = picture.standalone(titled=True)
        FigureCanvasAgg(figure).draw()
    return figure


def texts(figure: Figure) -> list[matplotlib.text.Text]:
    """Return every text that shows."""
    found = figure.findobj(matplotlib.text.Text)
    return [t for t in found if t.get_visible() and t.get_text().strip()]


def boxes(figure: Figure):
    return [(t.get_text(), t.get_window_extent()) for t in texts(figure)]


def many_steps(number: int, layer: int, conv_pass: Pass) -> float:
    """Slower and faster again, every four folders."""
    return 1.12 if number // 4 % 2 else 1.0


def picture_of(folders: list[Path]) -> Picture:
    return figures_trend.pictures(trend(folders), folders)[0]


@pytest.mark.parametrize("count", [2, 5, 30, 60])
def test_nothing_overlaps_and_all_is_inside(count: int, tmp_path: Path) -> None:
    factor = noisy(many_steps, 0.001)
    picture = picture_of(history(tmp_path, count, factor, layers=(0,)))
    figure = drawn(picture)
    width, height = figure.bbox.size
    found = boxes(figure)
    for text, box in found:
        assert box.x0 >= 0, text
        assert box.y0 >= 0, text
        assert box.x1 <= width, text
        assert box.y1 <= height, text
    for (one, a), (other, b) in itertools.combinations(found, 2):
        assert not a.overlaps(b), (one, other)
    if count >= 30:
        said = sum("slower by" in text or "faster by" in text for text, _ in found[:-1])
        assert said >= 4 * 6


def test_long_labels_are_cut(tmp_path: Path) -> None:
    folders = [
        folder(tmp_path / f"{i} {'a very long name of a folder ' * 4}", i, usual,
               layers=(0,), facts=environment(0))
        for i in range(30)
    ]  # fmt: skip
    figure = drawn(picture_of(folders))
    height = figure.bbox.size[1]
    assert all(box.y0 >= 0 and box.y1 <= height for _, box in boxes(figure))
    assert sum(text.endswith("…") for text, _ in boxes(figure)) == 30


def test_a_label_at_the_edge_moves_inside(tmp_path: Path) -> None:
    late = noisy(step_at(43), 0.001)
    folders = history(tmp_path, 45, late, layers=(0,), passes=(Pass.FPROP,))
    figure = drawn(picture_of(folders))
    (box,) = [box for text, box in boxes(figure) if text.startswith("slower by")]
    assert box.x1 <= figure.bbox.size[0]


def test_a_panel_a_pass_with_its_steps(tmp_path: Path) -> None:
    def factor(number: int, layer: int, conv_pass: Pass) -> float:
        return 1.2 if number >= 6 and conv_pass is Pass.DGRAD else 1.0

    figure = drawn(picture_of(history(tmp_path, 12, noisy(factor, 0.004))))
    panels = {t.get_text().split(" ")[0]: axes for axes in figure.axes for t in axes.texts[:]
              if "cells" in t.get_text()}  # fmt: skip
    assert list(panels) == ["fprop", "dgrad", "wgrad", "forward"]
    lines = {
        name: [
            np.asarray(line.get_xdata())[0] for line in axes.lines if line.get_linestyle() == "--"
        ]
        for name, axes in panels.items()
    }
    assert lines["dgrad"] == [5.5]
    assert lines["fprop"] == lines["wgrad"] == []
    assert all(axes.get_yscale() == "log" for axes in panels.values())
    assert all(axes.get_ylabel() == "speed-up" for axes in panels.values())
    assert figure.axes[-1].get_xlabel().startswith("revision")


def test_faster_is_dotted_and_gaps_are_crosses(tmp_path: Path) -> None:
    def factor(number: int, layer: int, conv_pass: Pass) -> float:
        return 0.0 if number == 2 else 0.8 if number >= 6 else 1.0

    figure = drawn(picture_of(history(tmp_path, 12, noisy(factor, 0.004), layers=(0,))))
    axes = figure.axes[0]
    assert any(line.get_linestyle() == ":" for line in axes.lines)
    assert not any(line.get_linestyle() == "--" for line in axes.lines)
    (crosses,) = [line for line in axes.lines if line.get_marker() == "x"]
    assert np.asarray(crosses.get_xdata()).tolist() == [2]
    low, high = axes.get_ylim()
    shown = [np.asarray(line.get_ydata()) for line in axes.lines if line.get_marker() == "o"]
    assert all(((low < each) & (each < high)).all() for each in shown)


@pytest.mark.parametrize(("seconds", "unit"), [(2e3, "s"), (1.0, "ms"), (1e-2, "µs")])
def test_times_have_their_unit(seconds: float, unit: str, tmp_path: Path) -> None:
    folders = history(tmp_path, 3, lambda *_: seconds, layers=(0,), paired=False)
    figure = drawn(picture_of(folders))
    assert figure.axes[0].get_ylabel() == f"time ({unit})"
    ticks = [float(label.get_text()) for label in figure.axes[0].get_yticklabels()]
    assert any(0.5 <= tick < 5000 for tick in ticks)


def test_the_caption_states_finding_and_command(tmp_path: Path) -> None:
    def factor(number: int, layer: int, conv_pass: Pass) -> float:
        return 1.3 if number >= 4 and conv_pass is Pass.WGRAD else 1.0

    folders = history(tmp_path, 9, noisy(factor, 0.003))
    caption = picture_of(folders).caption
    assert caption.startswith("wgrad: slower by ")
    assert f"since {commit(4)[:7]}" in caption
    assert caption.endswith(
        f"Made by: python -m bench trend {folders[0]} … {folders[-1]} (9 folders)"
    )
    assert picture_of(folders[:3]).caption.startswith("Fewer than 4 folders")
    assert picture_of(folders[:4]).caption.startswith("No pass stepped.")
    said = "".join(t.get_text() for t in texts(drawn(picture_of(folders))))
    assert "Made by:" in said.replace("\n", " ")


def test_the_same_trend_gives_the_same_bytes_and_stale_pictures_go(tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(style, "PNG_DPI", 50)
    folders = history(tmp_path / "in", 3, layers=(0,))
    folders += [
        folder(tmp_path / "in" / f"b{i}", i, usual, layers=(0,),
               facts=environment(i, device_name="another"))
        for i in range(2)
    ]  # fmt: skip
    out = tmp_path / "out"
    out.mkdir()
    both = trend(folders)
    paths = figures_trend.write(figures_trend.pictures(both, folders), out)
    names = ["trend.png", "trend.svg", "trend-2.png", "trend-2.svg"]
    assert [path.name for path in paths] == names
    first = {path.name: path.read_bytes() for path in paths}
    figures_trend.write(figures_trend.pictures(trend(folders), folders), out)
    assert {path.name: path.read_bytes() for path in paths} == first
    (out / "trend-mine.png").write_bytes(b"")
    figures_trend.write(figures_trend.pictures(trend(folders[:3]), folders[:3]), out)
    assert {p.name for p in out.iterdir()} == {"trend.png", "trend.svg", "trend-mine.png"}


@pytest.mark.parametrize(("low", "high"), [(0.98, 1.03), (1.5, 1.9), (0.02, 40), (3, 3.001)])
def test_ticks_are_round_and_few(low: float, high: float) -> None:
    ticks = figures_trend._ticks(low, high)
    assert 1 <= len(ticks) <= 5
    assert all(low <= tick <= high for tick in ticks)
    assert all(len(f"{tick:.6g}") <= 6 for tick in ticks)
    assert not math.isnan(sum(ticks))
