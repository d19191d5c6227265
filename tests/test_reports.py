from __future__ import annotations

import math
import re
import statistics
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import pytest

from bench.records import Measurement, Status
from bench.store import StoreError
from reports import ReportFiles, build_report, style
from tests import synthetic_results as synthetic

E = synthetic.ENVIRONMENT.environment_id
NASTY = "<b>&é$x$|*"


@pytest.fixture(scope="module", autouse=True)
def _coarse_pictures():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(style, "PNG_DPI", 50)  # quicker; nothing here looks at pixels
        yield


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    target = tmp_path_factory.mktemp("one")
    return synthetic.write(target, synthetic.sweep(), synthetic.training_runs(E))


@pytest.fixture(scope="module")
def report(folder) -> ReportFiles:
    return build_report(folder)


def text_of(page: Path) -> str:
    """Return what a reader of an HTML page sees, scripts and styles left out."""
    texts: list[str] = []

    class Reader(HTMLParser):
        tag = ""

        def handle_starttag(self, tag, attrs):
            self.tag = tag

        def handle_data(self, data):
            if self.tag not in ("script", "style"):
                texts.append(data)

    Reader().feed(page.read_text(encoding="utf-8"))
    return "\n".join(texts)


def every_file(files: ReportFiles) -> dict[str, bytes]:
    return {
        str(path.relative_to(files.pdf.parent)): path.read_bytes()
        for path in sorted(files.pdf.parent.rglob("*.*"))
    }


def both_speedups(density: float) -> list[float]:
    """Return forward + backward of each case from the raw samples, by plain Python."""
    medians: dict[tuple, float] = {}
    for m in synthetic.sweep():
        case = m.cell.case
        if case.recipe.density == density and m.cell.impl in ("dense", "block_sparse"):
            key = (case.layer, case.recipe.block, m.cell.impl)
            medians[key] = medians.get(key, 0.0) + statistics.median(m.samples_s)
    return [
        medians[layer, block, "dense"] / medians[layer, block, "block_sparse"]
        for layer, block, impl in medians
        if impl == "dense"
    ]


@pytest.mark.parametrize("density", [0.5, 0.25, 0.125])
def test_headline_speedup_from_the_raw_samples(report, density):
    speedups = both_speedups(density)
    mean = math.prod(speedups) ** (1 / len(speedups))
    start = f"Forward + backward at density {density}: {mean:.2f}× dense ({len(speedups)} cells, "
    reach = f"{min(speedups):.2f} to {max(speedups):.2f}×"
    assert any(line.startswith(start + reach) for line in report.headline)


@pytest.mark.parametrize("density", [0.5, 0.25, 0.125])
def test_headline_accuracy_and_steps_from_the_raw_runs(report, density):
    runs = synthetic.training_runs(E)
    ours = [r for r in runs if r["arm"] == "hrbp2" and r["density"] == density]
    dense = statistics.mean(r["accuracy"] for r in runs if r["arm"] == "dense")
    gap = 100 * (dense - statistics.mean(r["accuracy"] for r in ours))
    start = f"Accuracy at density {density}: dense − hrbp2 = {gap:+.2f} points (95 %: "
    assert any(line.startswith(start) for line in report.headline)
    steps = [
        statistics.median(
            d / s for d, s in zip(r["step"]["dense_s"], r["step"]["sparse_s"], strict=True)
        )
        for r in ours
    ]
    mean = math.prod(steps) ** (1 / len(steps))
    start = f"Training step at density {density}: hrbp2 {mean:.2f}× dense (95 %: "
    assert any(line.startswith(start) for line in report.headline)


def test_headline_counts_cells_and_fits_a_terminal(report):
    assert report.headline[0] == "96 cells: 95 ok, 1 failed, 0 skipped, 0 missing"
    assert max(map(len, report.headline)) <= 100
    assert not any("\n" in line for line in report.headline)


def test_slower_than_dense_is_said_plainly(report):
    assert "NOT faster than dense at density 0.5." in report.markdown.read_text(encoding="utf-8")


def test_every_file_is_there_and_holds_the_headline(report):
    assert report.pdf.read_bytes().startswith(b"%PDF")
    assert b"/FontFile2" in report.pdf.read_bytes()  # TrueType letters: searchable
    assert len(report.figures) == 7
    assert all(p.read_bytes().startswith(b"\x89PNG") for p in report.figures)
    page, markdown = text_of(report.html), report.markdown.read_text(encoding="utf-8")
    for line in report.headline:
        assert line in page
        assert line in markdown
    linked = re.findall(r"\]\((figures/.*?\.png)\)", markdown)
    assert linked == [f"figures/{p.name}" for p in report.figures]


def test_the_page_needs_no_network(report):
    page = report.html.read_text(encoding="utf-8")
    assert page.count("<svg") == 7
    assert not re.search(r'(src|href)="(?!#)', page)
    assert "@import" not in page
    assert "url(http" not in page


def test_ids_on_the_page_are_unique(report):
    ids = re.findall(r'\sid="([^"]+)"', report.html.read_text(encoding="utf-8"))
    assert len(ids) == len(set(ids))


def test_the_failed_cell_is_listed_with_its_reason(report):
    reason = " ".join(synthetic.CRASH.split())
    for text in (text_of(report.html), report.markdown.read_text(encoding="utf-8")):
        section = text[text.index("1 cell without a time.") :]
        assert "conv5_1, block 64x64, sparsity 87.5 %" in section
        assert "gather_grouped" in section
        assert reason in " ".join(section.split())


def test_the_same_results_give_the_same_bytes(report, tmp_path, monkeypatch):
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "1")  # another day
    again = build_report(
        synthetic.write(tmp_path / "two", synthetic.sweep(), synthetic.training_runs(E))
    )
    assert every_file(report) == every_file(again)


def test_names_are_escaped_everywhere(tmp_path):
    names = dict.fromkeys(synthetic.LAYERS, NASTY)
    cells = synthetic.cells(names)[:12]
    stored = [synthetic.measure(c, E) for c in cells[:-1]]
    stored.append(Measurement(cells[-1], E, Status.CRASHED, reason="<script>alert(1)</script>"))
    files = build_report(synthetic.write(tmp_path, stored))
    page = files.html.read_text(encoding="utf-8")
    assert "<b>" not in page
    assert "<script>alert" not in page
    assert "&lt;b&gt;&amp;é$x$|*" in page
    assert NASTY in text_of(files.html)
    markdown = files.markdown.read_text(encoding="utf-8")
    assert "&lt;b&gt;&amp;é$x$\\|\\*" in markdown
    assert "<" not in markdown


def test_results_alone(tmp_path):
    files = build_report(synthetic.write(tmp_path, synthetic.sweep()))
    text = text_of(files.html)
    assert "No network was trained here" in text
    assert len(files.figures) == 6
    assert not any("Accuracy" in line for line in files.headline)


def test_accuracy_alone(tmp_path):
    files = build_report(synthetic.write(tmp_path, runs=synthetic.training_runs(E)))
    text = text_of(files.html)
    assert "No cell was measured, so no cell failed." in text
    assert "SYNTHETIC, nothing was measured (cpu)" in text
    assert [p.stem for p in files.figures] == ["headline", "accuracy-speedup-1"]


def test_nothing_ok(tmp_path):
    cells = synthetic.cells()[:12]
    failed = [Measurement(c, E, Status.OOM, reason="no memory") for c in cells]
    runs = synthetic.training_runs(E)[-3:]
    for run in runs:
        run |= {"accuracy": None, "status": "diverged", "reason": "not finite", "step": None}
    files = build_report(synthetic.write(tmp_path, failed, runs))
    text = text_of(files.html)
    assert files.figures == []
    assert "No cell gave a valid time" in text
    assert "12 cells without a time." in text
    assert "so there is nothing to draw here." in text
    assert files.headline[0] == "12 cells: 0 ok, 12 failed, 0 skipped, 0 missing"
    assert "3 of 3 runs of hrbp2 diverged at density 0.125" in files.headline


def test_no_cell_failed_is_said(tmp_path):
    stored = [synthetic.measure(c, E) for c in synthetic.cells()[:12]]
    text = text_of(build_report(synthetic.write(tmp_path, stored)).html)
    assert "No cell failed, was skipped or is missing." in text


def test_two_machines_are_kept_apart(tmp_path):
    stored = synthetic.sweep() + synthetic.sweep(synthetic.OTHER, seed=1)
    both = (synthetic.ENVIRONMENT, synthetic.OTHER)
    files = build_report(synthetic.write(tmp_path, stored, environments=both))
    lines = files.headline
    first, second = lines.index("E1:"), lines.index("E2:")
    assert lines[second + 1] != lines[first + 1]
    mean = math.prod(both_speedups(0.25)) ** (1 / 4)
    assert "E2: SYNTHETIC, nothing was measured" in text_of(files.html)
    assert f"{mean:.2f}× dense" in lines[second + 2]
    assert len(files.figures) == 11


def test_two_recipes_and_two_blocks_are_told_apart_by_what_differs(tmp_path):
    runs = synthetic.training_runs(E)
    for name, change in {"more": {"epochs": 24}, "small": {"block": [8, 8]}}.items():
        for run in synthetic.training_runs(E):
            recipe = run["recipe"] | change
            runs.append(run | {"run_id": name + run["run_id"], "recipe": recipe})
    runs = [r for r in runs if not (r["run_id"].startswith("small") and r["arm"] == "dense")]
    files = build_report(synthetic.write(tmp_path, runs=runs))
    found = [line for line in files.headline if line.endswith(":")]
    assert found == ["epochs 12 · block 16x16:", "epochs 12 · block 8x8:", "epochs 24:"]
    assert len(files.figures) == 3


def test_rounds_that_cells_share_are_rejected_once(tmp_path):
    stored = [
        replace(m, detail={"rounds": m.cell.case_id, "rounds_rejected": 2, "peak_bytes": 3 << 20})
        for m in synthetic.sweep()[:8]  # two cases, four implementations each
    ]
    text = text_of(build_report(synthetic.write(tmp_path, stored)).html)
    assert "the dense reference itself had slowed down: 4." in text
    assert "its output included, at most: block_sparse 3 MiB, dense 3 MiB" in text


def test_nothing_stored_is_an_error_that_says_so(tmp_path):
    wanted = r"expected results\.jsonl, accuracy\.jsonl, .* in .*; to measure: python -m bench run"
    with pytest.raises(StoreError, match=wanted):
        build_report(tmp_path)


def test_a_torn_line_is_reported(tmp_path):
    synthetic.write(tmp_path, synthetic.sweep(), synthetic.training_runs(E))
    for name in ("results.jsonl", "accuracy.jsonl"):
        path = tmp_path / name
        path.write_bytes(path.read_bytes() + b'{"schema": 1, "torn')
    text = text_of(build_report(tmp_path).html)
    assert text.count("A torn line could not be read and was left out") == 2


def test_stale_pictures_go(tmp_path):
    stale = tmp_path / "report" / "figures" / "older.png"
    stale.parent.mkdir(parents=True)
    stale.write_bytes(b"")
    build_report(synthetic.write(tmp_path, runs=synthetic.training_runs(E)))
    assert not stale.exists()


def test_letters_that_the_font_lacks_do_not_stop_a_report(tmp_path):
    cells = synthetic.cells(dict.fromkeys(synthetic.LAYERS, "層\x07"))[:12]
    stored = [synthetic.measure(c, E) for c in cells]
    files = build_report(synthetic.write(tmp_path, stored))
    assert "層" in text_of(files.html)
