"""The accuracy part of the report: the picture, verdicts, and what others published."""

from __future__ import annotations

import itertools
import math
import statistics

import matplotlib
import numpy as np
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from reports import figures_accuracy, findings, findings_accuracy, style
from reports.accuracy_tables import anchor_blocks, equivalence_blocks
from reports.content import sections
from reports.data import load, own_pattern
from reports.figures_accuracy import HEIGHT_IN, accuracy_pictures
from reports.parts import Paragraph, Table
from tests import synthetic_results as synthetic

E = synthetic.ENVIRONMENT.environment_id
ARMS = (
    "unstructured", "aligned", "shuffled", "hrbp", "hrbp2", "hrbp_pp", "hrbp2_pp", "grouped",
    "elementwise", "dsb", "two_four", "thin", "unstructured:rigl", "hrbp2:rigl",
)  # fmt: skip


def runs_of(arms, densities, seeds=3, seed=1, **change):
    """Return made-up runs of ``arms``; "hrbp2:rigl" moves. Nothing was measured."""
    rng = np.random.default_rng(seed)
    runs = []
    for arm, density in [("dense", 1.0), *itertools.product(arms, densities)]:
        name, _, dst = arm.partition(":")
        loss, gain = rng.uniform(0.001, 0.009), rng.uniform(0.6, 0.8) / density**0.4
        for number in range(seeds):
            run = synthetic._run(E, name, density, number, loss, gain, rng)
            if dst:
                run["recipe"] |= {"dst": dst, "dst_every": 100, "dst_until": 0.75}
            runs.append(run | {"run_id": f"{arm}-{run['run_id']}"} | change)
    return runs


def loaded(tmp_path, runs):
    return load(synthetic.write(tmp_path, runs=runs))


def words(blocks):
    """Return all text of some blocks."""
    texts = []
    for block in blocks:
        if isinstance(block, Paragraph):
            texts.append(block.text)
        elif isinstance(block, Table):
            texts += [*block.columns, *(cell for row in block.rows for cell in row)]
    return "\n".join(texts)


# --- the picture -------------------------------------------------------------------------------


def drawn(picture):
    """Return (axes, a renderer) of a picture at 100 dots an inch."""
    with matplotlib.rc_context(style.RC):
        figure = Figure(figsize=(style.WIDTH_IN, HEIGHT_IN), dpi=100)
        picture.draw(figure)
        canvas = FigureCanvasAgg(figure)
        canvas.draw()
    return figure.axes[0], canvas.get_renderer()


@pytest.mark.parametrize(("arms", "densities"), [(ARMS, (0.1,)), (ARMS[:5], (0.2, 0.1, 0.05))])
def test_set_letters_of_labels_do_not_touch(tmp_path, arms, densities):
    (picture,) = accuracy_pictures(loaded(tmp_path, runs_of(arms, densities)))
    axes, renderer = drawn(picture)
    found = {text.get_text().replace("\n", " "): text for text in axes.texts}
    moving = any(":" in arm for arm in arms)
    name = {"hrbp2": "hrbp2, dst static", "unstructured": "unstructured, dst static"}
    expected = {name.get(a, a) if moving else a for a in arms if ":" not in a}
    expected |= {f"{a.split(':')[0]}, dst rigl" for a in arms if ":" in a}
    assert found.keys() == {"dense", *expected}
    boxes = [text.get_window_extent(renderer) for text in found.values()]
    for one, other in itertools.combinations(boxes, 2):
        assert not (one.x0 < other.x1 and other.x0 < one.x1 and one.y0 < other.y1 - 2
                    and other.y0 < one.y1 - 2), (one, other)  # fmt: skip
    frame = axes.get_window_extent(renderer)
    assert all(frame.x0 <= b.x0 and b.x1 <= frame.x1 + 2 for b in boxes)


def test_the_front_is_drawn_through_the_undominated_means(tmp_path):
    data = loaded(tmp_path, runs_of(ARMS[:8], (0.1,)))
    (picture,) = accuracy_pictures(data)
    axes, _ = drawn(picture)
    (stairs,) = [line for line in axes.lines if line.get_drawstyle() == "steps-pre"]
    rows = data.summary.to_dict("records")
    best = [
        (r["step_speedup"], 100 * r["accuracy"])
        for r in rows
        if not any(
            o["step_speedup"] >= r["step_speedup"] and o["accuracy"] >= r["accuracy"] and o != r
            for o in rows
        )
    ]
    assert 1 < len(best) < len(rows)
    inner = list(zip(stairs.get_xdata(), stairs.get_ydata(), strict=True))[1:-1]
    assert np.allclose(inner, sorted(best))
    front = picture.caption.split("Pareto front of the means: ")[1].split(";")[0]
    assert front.count(" at ") + front.count("dense") == len(best)


def test_bars_lie_on_both_axes_and_the_caption_says_how_it_was_made(tmp_path):
    data = loaded(tmp_path, runs_of(("unstructured", "hrbp2"), (0.1,)))
    (picture,) = accuracy_pictures(data)
    assert picture.caption.endswith("Drawn by: python -m bench report DIR.")
    assert "Measured by: python -m bench accuracy --data digits" in picture.caption
    axes, _ = drawn(picture)
    ours = data.summary[data.summary["arm"] == "hrbp2"].iloc[0]
    segments = [s.tolist() for c in axes.collections for s in c.get_segments()]
    x, y = ours["step_speedup"], 100 * ours["accuracy"]
    for ends in (
        [[ours["step_low"], y], [ours["step_high"], y]],
        [[x, 100 * ours["accuracy_low"]], [x, 100 * ours["accuracy_high"]]],
    ):
        assert any(np.allclose(ends, segment) for segment in segments)


def test_the_interval_of_two_seeds_does_not_flatten_the_picture(tmp_path):
    runs = runs_of(("unstructured", "hrbp2"), (0.1,), seeds=2)
    for run, value in zip(runs, (0.95, 0.97, 0.951, 0.952, 0.953, 0.954), strict=True):
        run["accuracy"] = value  # dense: 12.7 * 1.4 / sqrt(2), 12.7 points to each side
    (picture,) = accuracy_pictures(loaded(tmp_path, runs))
    low, high = drawn(picture)[0].get_ylim()
    assert 93 < low < 95.1
    assert 96 < high < 98


def test_not_even_when_every_interval_is_wide(tmp_path):
    runs = runs_of(("unstructured", "hrbp2"), (0.1,), seeds=2)
    for run, value in zip(runs, (0.95, 0.97) * 3, strict=True):
        run["accuracy"] = value  # every mean is 96, every interval 12.7 points to each side
    (picture,) = accuracy_pictures(loaded(tmp_path, runs))
    low, high = drawn(picture)[0].get_ylim()
    assert low > 90
    assert high < 101


def test_a_name_without_room_stands_in_the_key(tmp_path, monkeypatch):
    (picture,) = accuracy_pictures(loaded(tmp_path, runs_of(("aligned", "hrbp2"), (0.1,))))
    monkeypatch.setattr(figures_accuracy, "place_labels", lambda spots, *rest: [None] * len(spots))
    axes, _ = drawn(picture)
    assert not axes.texts
    (legend,) = axes.figure.legends
    names = [text.get_text() for text in legend.get_texts()]
    assert names == ["90 % sparse", "Pareto front of the means", "dense", "aligned", "hrbp2"]


def test_arms_that_share_a_colour_differ_in_their_dashes(tmp_path):
    arms = (*ARMS[2:7], *ARMS[10:])  # three of them blue: hrbp2, hrbp2 by RigL and hrbp2_pp
    (picture,) = accuracy_pictures(loaded(tmp_path, runs_of(arms, (0.1, 0.05), seeds=2)))
    axes, _ = drawn(picture)
    curves = [
        (line.get_color(), line.get_linestyle())
        for line in axes.lines
        if isinstance(line, Line2D) and line.get_linewidth() == 0.9 and len(line.get_xdata()) == 2
    ]
    assert len(curves) == len(arms)
    assert len(set(curves)) == len(arms)


# --- words -------------------------------------------------------------------------------------


def test_patterns_are_told_apart_in_few_words():
    still, moving = "block 8x8, scores snip", "block 8x8, dst rigl, dst_every 9, scores snip"
    later = moving.replace("9", "10")
    assert own_pattern(still, {still, moving}) == "dst static"
    assert own_pattern(moving, {still, moving}) == "dst rigl"
    assert own_pattern(later, {still, moving, later}) == "dst rigl, dst_every 10"
    assert own_pattern("block 8x8", {"block 8x8", "block 4x4"}) == "block 8x8"


def test_the_verdicts_stand_in_the_report_with_their_margin(tmp_path):
    runs = runs_of(("unstructured", "hrbp2"), (0.5, 0.25), seeds=4)
    for run in runs:  # hrbp2: equal at 0.5, 3 points below at 0.25
        low = run["arm"] == "hrbp2" and run["density"] == 0.25
        run["accuracy"] = 0.95 + 0.001 * run["seed"] - 0.03 * low
    data = loaded(tmp_path, runs)
    blocks = list(equivalence_blocks(data))
    titles = [b.text for b in blocks if isinstance(b, Paragraph) and b.strong]
    assert titles == [
        "As accurate as unstructured? Margin 1 point", "As accurate as dense? Margin 1 point",
    ]  # fmt: skip
    against, dense = (b for b in blocks if isinstance(b, Table))
    assert [(r[0], r[1], r[2], r[-1]) for r in against.rows] == [
        ("hrbp2", "50 %", "4, 4", "equivalent"), ("hrbp2", "75 %", "4, 4", "not shown"),
    ]  # fmt: skip
    assert len(dense.rows) == 4
    # sd of 0, 1, 2, 3 thousandths: sqrt(5 / 3) = 1.291e-3; error of a difference of four runs
    # each: 1.291e-3 sqrt(2 / 4) = 0.9129e-3; t at 95 % and 6 degrees 1.943: half 0.177 points
    assert against.rows[0][3] == "+0.00 (−0.18 to +0.18)"
    assert against.rows[1][3] == "−3.00 (−3.18 to −2.82)"
    # 2 (0.129 * 2.9264 / 0.5)^2 = 1.1: three, as two leave no freedom for t
    assert "an arm needs 2 for a margin of 1 point and 3 for a margin of 0.5 points" in words(
        blocks
    )
    assert set(blocks) <= set(sections(data)[1].blocks)


def test_the_iso_accuracy_speedup_is_a_finding(tmp_path):
    runs = runs_of(("unstructured", "hrbp2", "aligned"), (0.5, 0.25), seeds=4)
    for run in runs:
        low = run["arm"] == "hrbp2" and run["density"] == 0.25
        run["accuracy"] = 0.95 + 0.001 * run["seed"] - 0.03 * (low or run["arm"] == "aligned")
    data = loaded(tmp_path, runs)
    ratios = [
        statistics.median(map(lambda d, s: d / s, r["step"]["dense_s"], r["step"]["sparse_s"]))
        for r in runs
        if (r["arm"], r["density"]) == ("hrbp2", 0.5)
    ]
    speed = f"{math.prod(ratios) ** (1 / 4):.2f}×"
    line = f"Less than 1 point below unstructured is shown up to {speed}: hrbp2 at density 0.5"
    assert line in findings.headline(data)
    (sentence,) = [s for s in findings.meaning(data) if "shown to be" in s]
    assert sentence.startswith(
        "The largest speed-up with an accuracy shown to be less than 1 point below unstructured "
        f"is {speed} ("
    )
    assert "of hrbp2 at sparsity 50 %" in sentence
    assert "5 %, shared by 2 arms" in sentence


def test_no_iso_accuracy_speedup_is_said_with_the_seeds_it_would_take(tmp_path):
    runs = runs_of(("unstructured", "hrbp2"), (0.5,), seeds=3)
    for run, value in zip(runs, (0.95, 0.96, 0.97) * 3, strict=True):
        run["accuracy"] = value - 0.05 * (run["arm"] == "hrbp2")
    data = loaded(tmp_path, runs)
    assert "Less than 1 point below unstructured is shown at no density of hrbp2" in (
        findings.headline(data)
    )
    (sentence,) = findings_accuracy.iso_finding(data, data.arm_contexts()[0])
    assert sentence.startswith("No arm with step times has an accuracy shown to be less than")
    assert "Runs spread by 1.00 points (sd)" in sentence
    # 2 (1.00 * 2.9264 / 1)^2 = 17.1, and one more for t: as seeds_needed(1, 1)
    assert "18 seeds of each" in sentence


def test_without_a_reference_nothing_is_said_of_equivalence(tmp_path):
    runs = [r for r in runs_of(("hrbp2",), (0.5,)) if r["arm"] != "dense"]
    data = loaded(tmp_path, runs)
    assert list(equivalence_blocks(data)) == []
    assert not any("below" in line for line in [*findings.headline(data), *findings.meaning(data)])


def test_headlines_fit_a_terminal(tmp_path):
    runs = runs_of(("unstructured", "hrbp2", "hrbp2:rigl"), (0.5, 0.3333, 0.0123), seeds=2)
    data = loaded(tmp_path, runs)
    assert max(map(len, findings.headline(data))) <= 100
    heads = [line for line in findings.headline(data) if line.endswith(":")]
    assert heads == ["dst static:", "dst rigl:"]


# --- what others published ---------------------------------------------------------------------


@pytest.mark.parametrize("images", ["CIFAR-10", "CIFAR-10 (JPEG-75)"])
def test_published_figures_stand_beside_and_are_said_not_to_compare(tmp_path, images):
    runs = runs_of(("hrbp2",), (0.1,), data="cifar10", model="resnet18")
    for run in runs:
        run["recipe"] |= {"images": images}
    data = loaded(tmp_path, runs)
    text = words(anchor_blocks(data))
    assert f"Published for resnet18, beside our {images}; never a reference" in text
    assert "dense: 94.90 †; 90 %: 94.29 †; 94.4 %: 93.69 †; 98.2 %: 91.84 †" in text
    assert ("not comparable: our images are JPEG-coded" in text) == ("JPEG" in images)
    assert text.count("not comparable: ") == 4
    (picture,) = accuracy_pictures(data)
    assert picture.title == f"Speed-up against accuracy: E1 · {images} · resnet18"
    # never a reference: the verdicts know nothing of it
    assert "SNIP" not in words(equivalence_blocks(data))


def test_other_networks_have_no_published_figures_here(tmp_path):
    assert list(anchor_blocks(loaded(tmp_path, runs_of(("hrbp2",), (0.1,))))) == []
