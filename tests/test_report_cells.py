"""Every cell as data: the page's table and cells.csv say the same, and what is stored."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pandas as pd

from bench.records import Measurement
from reports import build_report, data, style
from reports.cells import write_csv
from reports.page import write_html
from tests import synthetic_results as synthetic

E = synthetic.ENVIRONMENT.environment_id


def report_of(folder: Path, stored: list[Measurement]) -> tuple[Path, Path]:
    """Write the page, without its sections, and cells.csv."""
    loaded = data.load(synthetic.write(folder, stored))
    write_html(folder / "report.html", loaded, [])
    write_csv(folder / "cells.csv", loaded)
    return folder / "report.html", folder / "cells.csv"


def table_of(page: Path) -> dict[str, Any]:
    """Return the page's table of cells as its script reads it."""
    found = re.search(r'id="table">(.*?)</script>', page.read_text(encoding="utf-8"))
    assert found
    return json.loads(found[1])


def test_every_cell_stands_in_the_page_and_beside_it(tmp_path):
    page, csv = report_of(tmp_path, synthetic.sweep())
    table, beside = table_of(page), pd.read_csv(csv)
    assert table["rows"] == len(beside) == 96
    for column in table["columns"]:
        assert len(column["at"]) == 96
        if column["csv"]:
            kept = column.get("values", column["texts"])
            told = [kept[i] for i in column["at"]]
            stored = beside[column["csv"]].astype(object).where(beside[column["csv"]].notna(), None)
            assert [t or None for t in told] == [s or None for s in stored], column["csv"]


def test_a_cell_that_no_line_reports_is_in_the_files(tmp_path):
    page, csv = report_of(tmp_path, synthetic.sweep()[:-1])
    beside = pd.read_csv(csv)
    assert list(beside["status"]).count("missing") == 1
    assert beside["samples"].dtype == float  # one is absent
    assert "31.0" not in csv.read_text(encoding="utf-8")
    assert table_of(page)["rows"] == 96


def test_without_a_cell_no_file_stays(tmp_path, monkeypatch):
    monkeypatch.setattr(style, "PNG_DPI", 50)
    stale = tmp_path / "report" / "cells.csv"
    stale.parent.mkdir()
    stale.write_text("")
    files = build_report(synthetic.write(tmp_path, runs=synthetic.training_runs(E)))
    assert files.cells is None
    assert not stale.exists()
