"""The pages of a comparison: every renderer, many cells, odd names, bad input, the command."""

from __future__ import annotations

import json
import re
import shutil
import warnings
from dataclasses import replace
from pathlib import Path

import pytest
from typer.testing import CliRunner

from bench.cli import app
from bench.store import StoreError
from reports import build_comparison, build_report, compare, compare_content, style
from reports.compare import Folder
from tests import history_samples
from tests import synthetic_results as synthetic
from tests.comparison_samples import (
    FIRST,
    IMPLS,
    PASSES,
    SECOND,
    E,
    measured,
    page,
    stored,
)
from tests.step_samples import line, trial
from tests.store_samples import SHAPE

NASTY = "_<b>&$x$|*層"


@pytest.fixture(autouse=True)
def _coarse_pictures(monkeypatch):
    monkeypatch.setattr(style, "PNG_DPI", 40)  # quicker; nothing here looks at pixels


@pytest.fixture
def _no_pdf(monkeypatch):
    """Leave out what takes the time: another test draws it."""
    monkeypatch.setattr("reports.press.write_pdf", lambda path, parts: path.write_bytes(b"%PDF"))


def many_layers(tmp_path: Path) -> list[Folder]:
    """Two folders of thirty layers; the eighth is twice as fast in the second."""
    stores = []
    for name, gain in (("a", 1), ("b", 2)):
        lines = [
            measured(f"conv{i}", which, impl, 1.0 if impl == "block_sparse" else
                     2.0 * (gain if i == 7 else 1), shape=replace(SHAPE, C=16 * (i + 1)))
            for i in range(30) for which in PASSES for impl in IMPLS
        ]  # fmt: skip
        stores.append(synthetic.write(tmp_path / name, lines))
    return compare.load(stores)


def test_many_cells_are_all_on_the_page_and_summarised_elsewhere(tmp_path):
    folders = many_layers(tmp_path)
    cells = compare.shared_cells(folders)
    title = "Speed-up over dense, side by side"
    whole, brief = (page(folders, cells, whole=w)[title] for w in (True, False))
    assert whole.count(", fprop | ") == 30
    assert "left out" not in whole
    rows = [line for line in brief.splitlines() if "grad | " in line or "fprop | " in line]
    assert len(rows) == compare_content.MOST_ROWS
    assert all("conv7," in row for row in rows[:3])  # furthest apart
    assert "50 shared cells left out here, the HTML page has all of them" in brief
    assert "by layer" in brief
    assert "by block and sparsity" in brief


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        (["x/quick", "y/targets"], ["quick", "targets"]),
        (["x/quick", "y/quick"], ["x/quick", "y/quick"]),
        (["a/x/quick", "b/x/quick", "c"], ["a/x/quick", "b/x/quick", "c"]),
        (["x/one  two\nlines", "y"], ["one two lines", "y"]),
        (["a" * 60, "a" * 30 + "b" + "a" * 29], ["a" * 17 + "…" + "a" * 18] * 2),
    ],
)
def test_labels_are_short_and_told_apart(tmp_path, names, expected):
    told = compare.labels([tmp_path / name for name in names])
    assert len(set(told)) == len(told)
    assert [label.removesuffix(" (2)") for label in told] == expected


def test_what_cannot_be_compared(tmp_path):
    one = stored(tmp_path / "one", FIRST)
    with pytest.raises(StoreError, match="expected two folders or more to compare, got 1"):
        compare.load([one])
    with pytest.raises(StoreError, match=r"each folder once in a comparison, got .*one 2 ×"):
        compare.load([one, one.parent / "one" / ".." / "one"])
    with pytest.raises(StoreError, match=r"expected a folder of results at .*none, got none"):
        compare.load([one, tmp_path / "none"])
    (tmp_path / "empty").mkdir()
    with pytest.raises(StoreError, match="empty, got none of them"):
        compare.load([one, tmp_path / "empty"])
    other = stored(tmp_path / "other", SECOND)
    text = (other / "results.jsonl").read_text().replace('"schema": 1', '"schema": 99')
    (other / "results.jsonl").write_text(text)
    with pytest.raises(StoreError, match=r"other.*schema 1, got 99"):
        compare.load([one, other])


def everything(path: Path, gain: float = 1.0) -> Path:
    """Write cells, training runs and timings of steps."""
    cells = synthetic.sweep(seed=round(gain * 10))[:24]
    runs = synthetic.training_runs(E.environment_id)
    for run in runs:
        run["accuracy"] -= 0.01 * (gain - 1)
    synthetic.write(path, cells, runs)
    step = line(E.environment_id, trials=[trial(2.0 * gain, 1.0) for _ in range(3)])
    (path / "steps.jsonl").write_text(json.dumps(step) + "\n")
    return path


def test_the_files_and_that_twice_gives_the_same_bytes(tmp_path):
    folders = [everything(tmp_path / NASTY), everything(tmp_path / "other", 1.5)]
    kept = []
    for name in ("one", "two"):
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            files = build_comparison(folders, tmp_path / name)
        found = sorted(files.pdf.parent.rglob("*.*"))
        kept.append({p.name: p.read_bytes() for p in found})
    assert kept[0] == kept[1]
    names = [p.name for p in files.figures]
    assert names == ["compare-speedup-1.png", "compare-accuracy-1.png", "compare-steps-1.png"]
    assert files.pdf.read_bytes().startswith(b"%PDF")
    text, html = files.markdown.read_text(), files.html.read_text()
    assert re.findall(r"\]\((figures/.*?\.png)\)", text) == [f"figures/{n}" for n in names]
    assert "&lt;b&gt;&amp;$x$\\|\\*層" in text
    assert "_&lt;b&gt;&amp;$x$|*層" in html
    assert "<b>&" not in html + text
    assert html.count("<svg") == 3


def test_accuracy_and_steps_by_hand(tmp_path):
    folders = compare.load([everything(tmp_path / "a"), everything(tmp_path / "b", 1.5)])
    told = page(folders, compare.shared_cells(folders))
    runs = synthetic.training_runs(E.environment_id)
    dense = [r["accuracy"] for r in runs if r["arm"] == "dense"]
    mean = 100 * sum(dense) / len(dense)
    row = next(r for r in told["Accuracy"].splitlines() if r.startswith("dense | "))
    assert row.startswith(f"dense | {mean:.2f} (")
    assert f" | {mean - 0.5:.2f} (" in row
    assert row.endswith("n = 3 | yes")
    assert "hrbp2, 75 % | " in told["Accuracy"]
    assert "a holds 24 cells, 30 training runs and 1 step timing. SYNTHETIC" in told["Findings"]
    assert (
        "vgg16 N 16, 75 %, block 32 | 2.00× (2.00× to 2.00×); 2 s / 1 s | 3.00×"
        in (told["Whole training steps"])
    )


def test_training_that_differs_is_told(tmp_path):
    one, other = everything(tmp_path / "a"), everything(tmp_path / "b")
    runs = [json.loads(text) for text in (other / "accuracy.jsonl").read_text().splitlines()]
    for run in runs:
        run["recipe"] |= {"epochs": 90, "smoothing": 0.1}
    (other / "accuracy.jsonl").write_text("".join(json.dumps(r) + "\n" for r in runs))
    folders = compare.load([one, other])
    told = page(folders, compare.shared_cells(folders))["Accuracy"]
    assert "Note 1: differing: epochs 12 / 90. told by some alone: smoothing 0.1" in told
    assert "| note 1" in told


@pytest.mark.usefixtures("_no_pdf")
def test_an_older_comparisons_pictures_go_and_a_users_stay(tmp_path):
    out = tmp_path / "out"
    one, other = everything(tmp_path / "a"), everything(tmp_path / "b")
    (other / "results.jsonl").unlink()
    build_comparison([one, other], out)
    own = out / "figures" / "holiday.png"
    own.write_bytes(b"mine")
    (other / "steps.jsonl").unlink()
    build_comparison([one, other], out)
    assert {p.name for p in own.parent.iterdir()} == {
        "compare-accuracy-1.png", "holiday.png",
    }  # fmt: skip


@pytest.mark.usefixtures("_no_pdf")
def test_a_place_that_cannot_be_written_names_itself_and_a_way_out(tmp_path, monkeypatch):
    folder = stored(tmp_path / "one", FIRST)
    (folder / "report").write_text("a file is in the way, as on a read-only disk")
    wanted = rf"expected to write into {re.escape(str(folder))}/report, got .*: name another folder"
    with pytest.raises(StoreError, match=wanted):
        build_report(folder)
    files = build_report(folder, tmp_path / "elsewhere")
    assert files.pdf == tmp_path / "elsewhere" / "report.pdf"
    assert files.html.exists()

    def refuse(*args: object, **more: object) -> None:
        raise OSError(30, "Read-only file system")

    monkeypatch.setattr("reports.press.write_pdf", refuse)  # made already, and now read-only
    with pytest.raises(StoreError, match="elsewhere, got Read-only file system: name another"):
        build_report(folder, tmp_path / "elsewhere")


@pytest.mark.usefixtures("_no_pdf")
def test_the_command_takes_the_folders_in_any_place(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    asked, made = [], []

    def build(folders, out):
        asked.append(([str(f) for f in folders], str(out)))
        if not made:
            made.append(build_comparison(folders, out))
        return made[0]

    monkeypatch.setattr("reports.build_comparison", build)
    for name in "abc":
        stored(tmp_path / name, SECOND if name == "b" else FIRST)
    for words in ("a --compare b --compare c", "--compare a b c", "a b c --compare"):
        done = CliRunner().invoke(app, ["report", *words.split()])
        assert done.exit_code == 0, done.output
        assert "Of 2 shared cells, b is faster over dense on 2 beyond" in " ".join(
            done.output.split()
        )
    assert asked == [(["a", "b", "c"], "results/compare")] * 3
    assert (tmp_path / "results" / "compare" / "report.html").exists()
    monkeypatch.undo()
    shutil.rmtree(tmp_path / "c")
    for words, text in (
        ("a b", "expected one folder, or --compare with several; got 2"),
        ("a --compare", "expected two folders or more to compare, got 1"),
        ("a a --compare", "expected each folder once"),
        ("a c --compare", "expected a folder of results at"),
    ):
        given = [w if w.startswith("-") else str(tmp_path / w) for w in words.split()]
        done = CliRunner().invoke(app, ["report", *given])
        assert done.exit_code == 2, words
        assert text in done.stderr
        assert done.stderr.count("\n") == 1


@pytest.mark.usefixtures("_no_pdf")
def test_one_folder_goes_elsewhere_with_out(tmp_path):
    stored(tmp_path / "a", FIRST)
    done = CliRunner().invoke(
        app, ["report", str(tmp_path / "a"), "--out", str(tmp_path / "there")]
    )
    assert done.exit_code == 0, done.output
    assert (tmp_path / "there" / "report.pdf").exists()
    assert not (tmp_path / "a" / "report").exists()


def test_four_folders_have_a_trend_and_three_have_none(tmp_path):
    folders = history_samples.history(tmp_path, 4, history_samples.step_at(2, 1.5))
    told = page(*_found(folders))
    assert "over 4 folders" in told["Trend"]
    assert "python -m bench trend" in told["Trend"]
    assert "Trend" not in page(*_found(folders[:3]))


def _found(folders):
    found = compare.load(folders)
    return found, compare.shared_cells(found)
