"""Every figure that a report or a comparison can have, walked through: what its axes and letters
say, and that nothing hides or leaves the paper.
"""

from __future__ import annotations

import json
import math
import pickle
import re
from collections.abc import Callable, Iterator
from dataclasses import replace
from itertools import combinations, pairwise
from pathlib import Path

import matplotlib
import numpy as np
import pytest
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.collections import LineCollection
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.text import Text

from reports import compare, compare_content, content, data, style
from reports.parts import Block
from reports.picture import PANEL_TITLES, Picture
from tests import comparison_samples, history_samples, step_samples
from tests import synthetic_results as synthetic
from tests.test_report_gate import several, write

E = synthetic.ENVIRONMENT.environment_id
RECORDED = Path(__file__).parents[1] / "reports" / "recorded"
JOULES = {"counter_net_j": 0.5}
BARE = re.compile(r"[-−]?[\d.,]+")
UNIT = re.compile(r"\([^)]+\)$")


def kernels(folder: Path) -> Path:
    """Layers, machines, implementations, attainment, energy, training runs."""
    measured = []
    for environment in (synthetic.ENVIRONMENT, synthetic.OTHER):
        for m in synthetic.sweep(environment):
            work = {
                "flops": m.cell.case.shape.flops(),
                "energy": {"counter_net_j": sum(m.samples_s)},
                "ceilings": {"flops_per_s": 2e12, "bytes_per_s": 4e10, "cache_bytes": 1 << 20},
            }
            measured.append(replace(m, detail=m.detail | work))
    machines = (synthetic.ENVIRONMENT, synthetic.OTHER)
    return synthetic.write(folder, measured, synthetic.training_runs(E), machines)


def steps(folder: Path) -> Path:
    lines = [
        step_samples.line(E, energy={"dense": JOULES, "sparse": {"counter_net_j": 0.2}}),
        step_samples.line(E, "other", model="resnet50", mode="compile"),
        step_samples.failed_line(E),
    ]
    synthetic.write(folder)
    text = "".join(json.dumps(line) + "\n" for line in lines)
    (folder / "steps.jsonl").write_text(text, encoding="utf-8")
    return folder


def of_folder(folder: Path) -> Iterator[Block]:
    for section in content.sections(data.load(folder)):
        yield from section.blocks


def of_comparison(folders: list[Path]) -> Iterator[Block]:
    found = compare.load(folders)
    cells = compare.shared_cells(found)
    for section in compare_content.sections(found, cells, whole=True):
        yield from section.blocks


def compared(base: Path) -> list[Path]:
    first = comparison_samples.stored(base / "first", comparison_samples.FIRST)
    return [first, comparison_samples.stored(base / "second", comparison_samples.SECOND)]


SOURCES: dict[str, Callable[[Path], Iterator[Block]]] = {
    "kernels": lambda base: of_folder(kernels(base)),
    "steps": lambda base: of_folder(steps(base)),
    "gate": lambda base: of_folder(write(base, several())),
    "break-even": lambda _: of_folder(RECORDED / "epyc-2core-2026-11-24" / "quick"),
    "quality": lambda _: of_folder(RECORDED / "epyc-2core-2026-11-26" / "quality"),
    "comparison": lambda base: of_comparison(compared(base)),
    "trend": lambda base: of_comparison(history_samples.slower_fprop(base)),
}
Drawn = dict[str, tuple[Picture, Figure]]


@pytest.fixture(scope="module", params=SOURCES)
def drawn(request, tmp_path_factory) -> Drawn:
    """The pictures of one source by name, drawn as they stand alone."""
    found = {}
    with matplotlib.rc_context():
        matplotlib.rcdefaults()
        matplotlib.rcParams.update(style.RC)
        for block in SOURCES[request.param](tmp_path_factory.mktemp("figures")):
            if isinstance(block, Picture):
                figure = block.standalone(titled=True)
                FigureCanvasAgg(figure).draw()
                found[block.name] = (block, figure)
    assert found
    return found


def texts(figure: Figure) -> list[Text]:
    """Return the letters that show; ticks beyond an axis' ends have letters that do not."""
    beyond = set()
    for axes in figure.findobj(Axes):
        for axis in (axes.xaxis, axes.yaxis):
            shown = {id(label) for _, label in within(axis)}
            beyond |= {id(label) for label in axis.get_ticklabels(which="both")} - shown
    found = figure.findobj(Text)
    return [t for t in found if t.get_visible() and t.get_text().strip() and id(t) not in beyond]


def within(axis: Axis) -> list[tuple[float, Text]]:
    """Return ticks that show: (place, label)."""
    low, high = sorted(axis.get_view_interval())
    slack = 1e-9 * (high - low)
    places = zip(axis.get_ticklocs(), axis.get_ticklabels(), strict=True)
    return [(place, label) for place, label in places if low - slack <= place <= high + slack]


def named(axes: Axes, side: str) -> str:
    """Return what an axis is called: by itself, or by a panel in line with it."""
    own = getattr(axes, f"{side}axis").get_label().get_text()
    box = axes.get_window_extent()
    for other in axes.figure.findobj(Axes) if not own else ():
        its = other.get_window_extent()
        pair = (box.x0, its.x0) if side == "x" else (box.y0, its.y0)
        if math.isclose(*pair, abs_tol=0.5):
            own = own or getattr(other, f"{side}axis").get_label().get_text()
    return own


def unlabelled(axes: Axes) -> Iterator[str]:
    """Yield an axis with something to read at its ticks, and no name; or bare numbers, no unit."""
    for side, axis in (("x", axes.xaxis), ("y", axes.yaxis)):
        ticks = [label.get_text() for _, label in within(axis) if label.get_text()]
        name = named(axes, side)
        bare = ticks and all(BARE.fullmatch(tick) for tick in ticks)
        if ticks and (not name or (bare and not UNIT.search(name))):
            yield f"{side} axis with {ticks[:3]} is called {name!r}"


def test_every_axis_says_what_it_is_and_in_which_unit(drawn: Drawn) -> None:
    found = {
        (name, fault)
        for name, (_, figure) in drawn.items()
        for axes in figure.findobj(Axes)
        for fault in unlabelled(axes)
    }
    assert found == set()


def test_no_letter_is_smaller_than_the_style_allows(drawn: Drawn) -> None:
    small = {
        (name, text.get_text(), text.get_fontsize())
        for name, (_, figure) in drawn.items()
        for text in texts(figure)
        if float(text.get_fontsize()) < style.LEAST_PT
    }
    assert small == set()


def test_nothing_written_leaves_the_paper(drawn: Drawn) -> None:
    outside = set()
    for name, (_, figure) in drawn.items():
        width, height = figure.bbox.size
        for text in texts(figure):
            box = text.get_window_extent()
            if box.x0 < -1 or box.y0 < -1 or box.x1 > width + 1 or box.y1 > height + 1:
                outside.add((name, text.get_text()))
    assert outside == set()


def test_no_two_texts_lie_on_each_other(drawn: Drawn) -> None:
    over = set()
    for name, (_, figure) in drawn.items():
        boxes = [(t.get_text(), t.get_window_extent().padded(-1.0)) for t in texts(figure)]
        over |= {(name, a, b) for (a, one), (b, two) in combinations(boxes, 2) if one.overlaps(two)}
    assert over == set()


def test_every_caption_has_a_finding_and_the_commands(drawn: Drawn) -> None:
    for name, (picture, _) in drawn.items():
        finding, command = re.split(r"(?:Measured|Made) by: ", picture.caption)
        assert re.search(r"\d", finding), name
        assert "python -m bench " in command, name


def test_every_picture_can_go_to_another_process(drawn: Drawn) -> None:
    for picture, _ in drawn.values():
        assert pickle.loads(pickle.dumps(picture)).name == picture.name


def spans(figure: Figure) -> int:
    """Return how many straight pieces are drawn that could be an interval."""
    count = 0
    for line in figure.findobj(Line2D):
        points = [(float(x), float(y)) for x, y in np.asarray(line.get_xydata())]
        free = line.axes is not None and line.get_transform() == line.axes.transData
        if free and line.get_visible() and line.get_linestyle() != "None":
            count += sum(a != b and not math.isnan(sum(a + b)) for a, b in pairwise(points))
    return count + sum(len(lines.get_segments()) for lines in figure.findobj(LineCollection))


def test_intervals_that_a_caption_claims_are_drawn(drawn: Drawn) -> None:
    for name, (picture, figure) in drawn.items():
        if re.search(r"95 % interval|\b(its|the) bars?\b|its interval", picture.caption):
            assert spans(figure) > 0, name


@pytest.mark.parametrize("drawn", ["kernels"], indirect=True)
def test_every_point_of_a_roofline_has_its_interval(drawn: Drawn) -> None:
    _, figure = drawn["roofline-1"]
    panels = [
        axes for axes in figure.findobj(Axes) if axes.get_title("left") in PANEL_TITLES.values()
    ]
    assert len(panels) == 3
    for axes in panels:
        lines = [np.asarray(line.get_xydata()) for line in axes.lines + list(axes.artists)]
        marks = sum(len(xy) for xy, line in zip(lines, axes.lines, strict=False)
                    if line.get_linestyle() == "None")  # fmt: skip
        bars = sum(int(np.isnan(xy[:, 0]).sum()) for xy in lines)
        assert bars == marks > 0
