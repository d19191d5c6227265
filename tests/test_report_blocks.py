"""The table of speed-ups by block says what the raw samples say."""

from __future__ import annotations

import math
import statistics

import pytest

from reports import build_report, style
from tests import synthetic_results as synthetic


def by_block() -> dict[tuple[str, float], list[float]]:
    """Return forward + backward over dense by (block or all, density), by plain Python."""
    seconds: dict[tuple, list[float]] = {}
    for m in synthetic.sweep():
        case = m.cell.case
        if m.cell.impl in ("dense", "block_sparse"):
            key = (case.layer, case.recipe.block, case.recipe.density, m.cell.impl)
            seconds.setdefault(key, []).extend(
                [statistics.median(m.samples_s)] if m.samples_s else []
            )
    found: dict[tuple[str, float], list[float]] = {}
    for (layer, block, density, impl), passes in seconds.items():
        ours = seconds[layer, block, density, "block_sparse"]
        if impl == "dense" and len(passes) == len(ours) == 3:
            for name in ("all", f"{block[0]}x{block[1]}"):
                found.setdefault((name, density), []).append(sum(passes) / sum(ours))
    return found


def test_a_row_a_block_and_density(tmp_path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(style, "PNG_DPI", 50)
    folder = synthetic.write(tmp_path, synthetic.sweep(), [])
    text = (build_report(folder).pdf.parent / "report.md").read_text()
    rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in text.splitlines()]
    expected = by_block()
    assert len({block for block, _ in expected}) > 2, "this tests nothing"
    for (block, density), speedups in expected.items():
        mean = math.prod(speedups) ** (1 / len(speedups))
        wanted = [block, style.percent(1 - density), f"{mean:.2f}×"]
        assert any(row[:3] == wanted for row in rows), wanted
    blocks = [row[0] for row in rows if row and row[0] in {b for b, _ in expected}]
    assert blocks == sorted(blocks, key=lambda b: 0 if b == "all" else int(b.split("x")[0]))
