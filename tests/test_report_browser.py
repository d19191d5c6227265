"""The page in a browser: opened from disk, without a network, as a reader uses it."""

from __future__ import annotations

import io
import json
import statistics
from dataclasses import replace
from pathlib import Path

import matplotlib
import pandas as pd
import pytest

from bench.records import Measurement, Status
from reports import content, data, page, style
from reports.cells import write_csv
from tests import synthetic_results as synthetic

CHROMIUM = Path("/usr/bin/chromium")
playwright = pytest.importorskip("playwright.sync_api")
pytestmark = pytest.mark.skipif(
    not CHROMIUM.exists(), reason=f"expected Chromium at {CHROMIUM} (Debian's package), got none"
)
QUIET = [
    "--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking",
    "--disable-component-update", "--disable-sync", "--disable-quic",
]  # fmt: skip
SOME = ("Findings", "Every implementation", "Cells without a time")  # fewer pictures: quicker
MANY = 10_000
NASTY = ("</script><script>window.hit=1</script>", "<img src=x onerror='window.hit=1'>", '"&é$,|',
         "\u202eright to left \u05d0\u05d1", "x" * 400)  # fmt: skip
E = synthetic.ENVIRONMENT.environment_id


def written(folder: Path, stored: list[Measurement]) -> Path:
    """Write page and cells.csv alone: a whole report's PDF says nothing here."""
    both = (synthetic.ENVIRONMENT, synthetic.OTHER)
    loaded = data.load(synthetic.write(folder, stored, environments=both))
    write_csv(folder / "cells.csv", loaded)
    parts = [part for part in content.sections(loaded) if part.title in SOME]
    with matplotlib.rc_context(style.RC):
        page.write_html(folder / "report.html", loaded, parts)
    return folder / "report.html"


@pytest.fixture(scope="module")
def browser():
    with playwright.sync_playwright() as run:
        found = run.chromium.launch(executable_path=CHROMIUM, args=QUIET)
        yield found
        found.close()


@pytest.fixture(scope="module")
def path(tmp_path_factory) -> Path:
    stored = synthetic.sweep()[:-1] + synthetic.sweep(synthetic.OTHER, seed=1)
    return written(tmp_path_factory.mktemp("page"), stored)


@pytest.fixture
def opened(browser):
    """Return a function that opens a page; at the end nothing was fetched and nothing failed."""
    contexts, wrong, asked, paths = [], [], [], []

    def open_page(path: Path, **settings):
        context = browser.new_context(**settings)
        contexts.append(context)
        paths.append(path.as_uri())
        context.set_default_timeout(10_000)
        view = context.new_page()
        view.on("console", lambda message: wrong.append(message.text))
        view.on("pageerror", lambda error: wrong.append(str(error)))
        view.on("request", lambda request: asked.append(request.url))
        view.goto(path.as_uri())
        return view

    yield open_page
    for context in contexts:
        context.close()
    assert wrong == []
    assert asked == paths


def column(view, name: str) -> list[str]:
    """Return the texts of a column's rows on the page."""
    return view.evaluate(
        "name => { const t = document.getElementById('every');"
        "const i = [...t.tHead.rows[0].cells].findIndex(c => c.textContent === name);"
        "return [...t.tBodies[0].rows].map(r => r.cells[i].textContent); }",
        name,
    )


def count(view) -> str:
    return view.text_content("#shown")


def test_a_number_sorts_both_ways_and_empty_ones_stay_last(opened, path):
    view = opened(path)
    assert count(view) == "192 of 192 cells"
    assert view.locator("#still").count() == 0  # the note for pages whose script did not run
    for turn in (1, -1):
        view.get_by_role("button", name="speed-up", exact=True).click()
        assert view.get_attribute("th[aria-sort]", "aria-sort") == (
            "ascending" if turn == 1 else "descending"
        )
        first = column(view, "speed-up")
        view.get_by_role("button", name="next").click()
        told = first + column(view, "speed-up")
        view.get_by_role("button", name="first").click()
        there = [float(text.removesuffix("×")) for text in told if text != "—"]
        assert there == sorted(there, reverse=turn < 0)
        assert told[len(there) :] == ["—"] * 3  # two crashed, one is missing
        assert len(told) == 192


def test_names_with_numbers_sort_as_a_reader_counts(opened, path):
    order = opened(path).evaluate(
        """() => {
          const texts = ["32x32", "8x8", "16x16"];
          const column = { name: "block", csv: "block", texts, at: [0, 1, 2] };
          const cells = new Cells({ rows: 3, columns: [column] });
          cells.sort(column, false);
          return cells.shown.map(row => column.texts[row]);
        }"""
    )
    assert order == ["8x8", "16x16", "32x32"]


def test_filters_and_clear(opened, path):
    view = opened(path)
    view.select_option("select[data-column=status]", label="all but ok")
    assert sorted(column(view, "status")) == ["crashed", "crashed", "missing"]
    view.select_option("select[data-column=machine]", index=1)
    assert set(column(view, "machine")) == {"E1"}
    view.click("text=Clear filters")
    playwright.expect(view.locator("#shown")).to_have_text("192 of 192 cells")
    view.fill("#words", "CONV5_1 masked")
    assert set(column(view, "layer")) == {"conv5_1"}
    assert set(column(view, "implementation")) == {"masked_dense"}
    assert count(view) == "12 of 192 cells"
    view.get_by_label("sparsity, least (%)").fill("80")
    assert set(column(view, "sparsity")) == {"87.5 %"}
    view.get_by_label("sparsity, least (%)").fill("99")
    assert count(view) == "0 of 192 cells"


def test_the_shown_cells_are_saved_as_they_stand_in_cells_csv(opened, path):
    view = opened(path)
    view.fill("#words", "conv4_1 block_sparse")
    with view.expect_download() as waiting:
        view.click("#save")
    saved = pd.read_csv(io.StringIO(Path(waiting.value.path()).read_text(encoding="utf-8")))
    whole = pd.read_csv(path.parent / "cells.csv")
    wanted = whole[(whole["layer"] == "conv4_1") & (whole["impl"] == "block_sparse")]
    assert len(saved) == 18
    pd.testing.assert_frame_equal(
        saved, wanted[saved.columns].reset_index(drop=True), check_exact=True, check_dtype=False
    )


def test_the_theme_switch_recolours_text_and_pictures(opened, path):
    view = opened(path, color_scheme="light")
    colours = (
        "[getComputedStyle(document.body).color, getComputedStyle("
        "document.querySelector('.picture svg [style*=\"fill: var(--ink)\"]')).fill]"
    )
    light = view.evaluate(colours)
    view.select_option("#theme", "dark")
    dark = view.evaluate(colours)
    assert light == ["rgb(27, 27, 31)"] * 2
    assert dark == ["rgb(236, 236, 241)"] * 2
    view.emulate_media(media="print")
    assert view.evaluate(colours) == light  # paper is white
    view.emulate_media(media="screen")
    view.select_option("#theme", "auto")
    assert view.evaluate(colours) == light


def test_nothing_overflows_a_phone_sideways(opened, path):
    view = opened(path, viewport={"width": 390, "height": 844})
    assert view.evaluate("document.documentElement.scrollWidth") == 390
    assert view.evaluate("document.querySelector('.picture svg').clientWidth") > 600


def test_without_scripts_the_page_names_the_file(opened, path):
    view = opened(path, java_script_enabled=False)
    assert view.get_by_text("All 192 cells are in cells.csv").is_visible()
    assert not view.locator("#choose").is_visible()


def test_hostile_names_are_inert(opened, tmp_path):
    names = dict(zip(synthetic.LAYERS, NASTY, strict=False))
    cells = synthetic.cells(names)
    stored = [synthetic.measure(c, E) for c in cells]
    stored[1:5] = [
        Measurement(c, E, Status.CRASHED, reason=text)
        for c, text in zip(cells[1:5], NASTY[1:], strict=True)
    ]
    view = opened(written(tmp_path, stored), viewport={"width": 390, "height": 844})
    assert view.evaluate("window.hit") is None
    assert view.locator("#every img").count() == 0
    view.select_option("select[data-column=status]", label="crashed")
    assert sorted(column(view, "reason")) == sorted(NASTY[1:])
    assert view.evaluate("document.documentElement.scrollWidth") == 390


def test_ten_thousand_cells_sort_and_filter_at_once(opened, tmp_path):
    few = data.load(synthetic.write(tmp_path, synthetic.sweep()))
    often = range(MANY // len(few.rows) + 1)  # 10,000 lines of results would take 8 s to read
    rows = pd.concat([few.rows.assign(layer=f"layer{i}") for i in often], ignore_index=True)
    rows["median_s"] *= 1 + rows.index / MANY  # as measured ones, no two are alike
    path = tmp_path / "report.html"
    page.write_html(path, replace(few, rows=rows[:MANY]), [])
    assert path.stat().st_size < 4e6
    view = opened(path)
    assert count(view) == "10,000 of 10,000 cells"
    took = view.evaluate(
        """async () => {
          const frame = () => new Promise(done => requestAnimationFrame(() => setTimeout(done)));
          const heads = [...document.querySelectorAll("#every th button")];
          const words = document.getElementById("words");
          const lap = async act => {
            const start = performance.now();
            act();
            await frame();
            return performance.now() - start;
          };
          const search = text => {
            words.value = text;
            words.dispatchEvent(new Event("input", { bubbles: true }));
          };
          const sorts = [], filters = [];
          for (let i = 0; i < 12; i++) sorts.push(await lap(() => heads[i % heads.length].click()));
          for (const text of ["layer1", "layer12 dense", "", "fprop 2", ""])
            filters.push(await lap(() => search(text)));
          return { sorts, filters };
        }"""
    )  # fmt: skip
    print(json.dumps(took))
    assert statistics.median(took["sorts"]) <= 300
    assert statistics.median(took["filters"]) <= 300
