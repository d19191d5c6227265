"""The report's section on whole steps: what it says, draws, and says where nothing is."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from bench.frames import records
from bench.step_table import share_rows, step_rows
from reports import data
from reports.build import build_report
from reports.content import sections
from reports.figures_steps import finding, step_pictures
from reports.parts import Bullets, Table
from reports.picture import Picture
from reports.steps import labelled, step_blocks
from tests.step_samples import failed_line, line, trial
from tests.synthetic_results import ENVIRONMENT, training_runs, write

HERE = ENVIRONMENT.environment_id
SLOWER = [trial(1.0, d) for d in (1.25, 1.26, 1.24)]
LINES = [
    line(HERE),
    line(HERE, "half", density=0.5, balance="none", trials=SLOWER),
    failed_line(HERE, "two", model="wrn28_10"),
]


def folder_of(path: Path, *lines: dict) -> Path:
    write(path)
    (path / "steps.jsonl").write_text("".join(json.dumps(each) + "\n" for each in lines))
    return path


def test_a_folder_of_steps_alone_is_a_report(tmp_path) -> None:
    files = build_report(folder_of(tmp_path, *LINES))
    assert {f.name for f in files.figures} == {
        "headline.png", "steps-speedup-1.png", "steps-shares-vgg16-16.png",
    }  # fmt: skip
    text = files.markdown.read_text()
    assert "Whole training steps" in text
    for part in ("1 of 2 comparisons faster than dense beyond the interval, 1 slower",
                 "python -m bench step", "2.00×", "1.82× of 60 %", "300 / 200",
                 "oom, dense: out of memory; take a smaller --batch", "steps.jsonl",
                 "SYNTHETIC, nothing was measured"):  # fmt: skip
        assert part in text, part
    assert "Every implementation" not in text


def test_a_folder_without_steps_says_so(tmp_path) -> None:
    loaded = data.load(write(tmp_path, runs=training_runs(HERE)))
    titles = [s.title for s in sections(loaded)]
    assert "Whole training steps" not in titles
    (absent,) = [s for s in sections(loaded) if s.title == "Not measured here"]
    (lines,) = [b.items for b in absent.blocks if isinstance(b, Bullets)]
    told = "Whole training steps: none was timed here. python -m bench step --model MODEL --out DIR"
    assert told in lines


def test_comparisons_that_all_failed_draw_nothing(tmp_path) -> None:
    blocks = list(step_blocks(data.load(folder_of(tmp_path, LINES[2]))))
    assert not [b for b in blocks if isinstance(b, Picture | Table)]


def test_the_finding_names_the_extremes() -> None:
    rows = labelled(step_rows(LINES))
    told = finding(records(rows[rows["speedup"].notna()]))
    assert "most 2.00× (vgg16 N 16, 75 %, block 32, hrbp2, balance both)" in told
    assert "least 0.80× (vgg16 N 16, 50 %, block 32, hrbp2)" in told


def test_labels_name_what_differs_alone() -> None:
    rows = labelled(step_rows([LINES[0], line(HERE, "amp", precision="bfloat16", seed=3)]))
    assert list(rows["own_label"]) == [
        "75 %, block 32, hrbp2, balance both, float32, seed 0",
        "75 %, block 32, hrbp2, balance both, bfloat16, seed 3",
    ]


def test_bars_end_where_the_step_ends_and_intervals_are_drawn() -> None:
    rows, shares = labelled(step_rows(LINES)), share_rows(LINES)
    speeds, bars = (p.standalone() for p in step_pictures(rows, shares))
    patches = [p for p in bars.axes[0].patches if isinstance(p, Rectangle)]
    ends = [round(p.get_x() + p.get_width()) for p in patches]
    assert max(ends) == 2000  # ms
    assert {1000, 1250} <= set(ends)
    texts = [t.get_text() for t in speeds.axes[0].texts]
    assert [t for t in texts if t.endswith("×")] == ["2.00×", "0.80×"]
    drawn = [np.asarray(each.get_xdata(), dtype=float) for each in speeds.axes[0].lines]
    assert any(xs[0] < 2.0 < xs[1] for xs in drawn if len(xs) == 2)


@pytest.mark.parametrize("count", [1, 30])
def test_many_comparisons_fill_more_pictures(count: int) -> None:
    lines = [line(HERE, str(i), seed=i) for i in range(count)]
    pictures = step_pictures(labelled(step_rows(lines)), share_rows(lines))
    assert len({p.name for p in pictures}) == len(pictures) == (2 if count == 1 else 3 + 5)
    assert all(p.height_in < 9 for p in pictures)
    assert isinstance(pictures[-1].standalone(titled=True), Figure)
