from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from scipy import stats

from bench import accuracy_table, table
from bench.records import Cell, Flag, Measurement, Status
from bench.stats import median_interval
from bench.store import Results
from hrbp_core.shapes import Pass
from tests import synthetic_results as synthetic

E = synthetic.ENVIRONMENT.environment_id


def results(measurements: list[Measurement]) -> Results:
    environments = {e.environment_id: e for e in (synthetic.ENVIRONMENT, synthetic.OTHER)}
    return Results(measurements, environments, [], Path())


def some_cells(impl: str = "block_sparse") -> list[Cell]:
    """Return the three passes of one case."""
    return [c for c in synthetic.cells() if c.impl == impl][:3]


def with_dense(cell: Cell) -> Cell:
    return replace(cell, impl="dense")


def ok(cell: Cell, *samples: float, **changes) -> Measurement:
    return Measurement(cell, E, Status.OK, samples_s=samples, **changes)


def test_paired_speedup_is_the_median_of_the_ratios():
    cell = some_cells()[0]
    dense = [4.0, 9.0, 2.0, 8.0, 5.0, 6.0, 7.0]
    ours = [1.0, 3.0, 2.0, 2.0, 1.0, 4.0, 1.0]
    detail = {"rounds": "r1"}
    row = table.rows(
        results([ok(cell, *ours, detail=detail), ok(with_dense(cell), *dense, detail=detail)])
    ).set_index("impl")
    ratios = [4, 3, 1, 4, 5, 1.5, 7]
    assert row.loc["block_sparse", "speedup"] == 4
    expected = median_interval(ratios)
    found = row.loc["block_sparse", ["speedup_low", "speedup_high"]]
    assert tuple(found) == expected
    assert row.loc["block_sparse", "paired"]
    assert list(row.loc["dense", ["speedup", "speedup_low", "speedup_high"]]) == [1, 1, 1]


@pytest.mark.parametrize("rounds", [("a", "b"), (None, None), ("a", None)])
def test_unpaired_speedup_is_the_ratio_of_medians_with_the_widest_interval(rounds):
    cell = some_cells()[0]
    dense, ours = [5.0, 6.0, 7.0, 8.0, 9.0], [1.0, 2.0, 3.0, 4.0, 5.0]
    found = table.rows(
        results(
            [
                ok(cell, *ours, detail={"rounds": rounds[0]}),
                ok(with_dense(cell), *dense, detail={"rounds": rounds[1]}),
            ]
        )
    )
    row = found[found["impl"] == "block_sparse"].iloc[0]
    assert row["speedup"] == pytest.approx(7 / 3)
    assert row["speedup_low"] == pytest.approx(5 / 5)  # fewer than six samples: the range
    assert row["speedup_high"] == pytest.approx(9 / 1)
    assert not row["paired"]


def test_times_are_those_of_the_samples_and_rates_count_stored_weights():
    cell = some_cells()[1]
    samples = [*np.linspace(1e-3, 2e-3, 20), 1.0]
    row = table.rows(results([ok(cell, *samples)])).iloc[0]
    assert row["median_s"] == np.median(samples)
    assert (row["low_s"], row["high_s"]) == median_interval(samples)
    assert row["min_s"] == 1e-3
    assert row["severe"] == 1
    assert row["samples"] == 21
    shape = cell.case.shape
    flops = 2 * cell.case.stored_weights * shape.N * shape.P * shape.Q
    assert row["gflops"] == pytest.approx(flops / np.median(samples) / 1e9)
    assert math.isnan(row["speedup"])  # no dense cell


def test_dense_of_another_machine_is_never_the_reference():
    cell = some_cells()[0]
    dense = replace(ok(with_dense(cell), 8.0), environment=synthetic.OTHER.environment_id)
    found = table.rows(results([ok(cell, 2.0), dense]))
    assert found[found["impl"] == "block_sparse"]["speedup"].isna().all()


def test_totals_add_the_passes_and_say_what_is_missing():
    cells = some_cells()
    stored = [ok(c, 1.0 * i, 1.1 * i, 1.2 * i) for i, c in enumerate(cells, 1)]
    stored += [ok(with_dense(c), 4.0, 5.0, 6.0) for c in cells]
    whole = table.totals(table.rows(results(stored))).set_index("impl")
    assert whole.loc["block_sparse", "speedup"] == pytest.approx(15 / (1.1 * 6))
    assert whole.loc["block_sparse", "speedup_low"] == pytest.approx(12 / (1.2 * 6))
    assert whole.loc["block_sparse", "speedup_high"] == pytest.approx(18 / (1.0 * 6))
    assert whole.loc["block_sparse", "incomplete"] == ""
    failed = Measurement(cells[2], E, Status.OOM, reason="no memory")
    part = table.totals(table.rows(results([stored[0], failed, *stored[3:]])))
    row = part[part["impl"] == "block_sparse"].iloc[0]
    assert math.isnan(row["speedup"])
    assert row["incomplete"] == "dgrad: missing, wgrad: oom"
    two = table.totals(table.rows(results([*stored[:2], *stored[3:]])))
    assert two[two["impl"] == "block_sparse"]["speedup"].isna().all()  # no sum of two passes


def test_coverage_counts_throttled_cells():
    sweep = synthetic.sweep()
    hot = [
        replace(m, flags=(Flag.THROTTLED,))
        if m.cell.impl == "block_sparse" and m.cell.case.layer == "conv3_1"
        else m
        for m in sweep
    ]
    cover = table.coverage(table.rows(results(hot)))
    ours = cover[(cover["impl"] == "block_sparse") & (cover["pass"] == "all")]
    ours = ours[ours["block"] == "all"].set_index("density")["throttled"]
    assert ours.to_dict() == {0.5: 3, 0.25: 6, 0.125: 0}
    assert cover[cover["impl"] == "dense"]["throttled"].sum() == 0


def test_coverage_counts_every_cell_and_means_are_geometric():
    rows = table.rows(results(synthetic.sweep()))
    cover = table.coverage(rows)
    one = cover[(cover["impl"] == "gather_grouped") & (cover["block"] == "all")]
    wgrad = one[(one["density"] == 0.125) & (one["pass"] == "wgrad")].iloc[0]
    assert (wgrad["ok"], wgrad["crashed"], wgrad["cells"]) == (1, 1, 1)
    both = one[(one["density"] == 0.125) & (one["pass"] == "all")].iloc[0]
    assert (both["ok"], both["crashed"], both["cells"]) == (5, 1, 1)
    ours = rows[(rows["impl"] == "block_sparse") & (rows["density"] == 0.25)]
    fprop = ours[ours["pass"] == "fprop"]["speedup"].to_numpy(dtype=float)
    found = cover[
        (cover["impl"] == "block_sparse") & (cover["density"] == 0.25) & (cover["pass"] == "fprop")
    ].set_index("block")
    assert found.loc["all", "speedup"] == pytest.approx(math.prod(fprop) ** (1 / len(fprop)))
    assert found.loc["all", "cells"] == 4
    assert found.loc["32x32", "cells"] == 2
    statuses = cover[(cover["pass"] != "all") & (cover["block"] != "all")][table.STATUSES]
    assert statuses.to_numpy().sum() == len(rows)


def test_a_cell_without_a_line_is_missing():
    lost = next(c for c in synthetic.cells() if c.impl == "masked_dense")
    rows = table.rows(results([m for m in synthetic.sweep() if m.cell != lost]))
    found = table.missing(rows)
    assert len(found) == 1
    assert found.iloc[0]["impl"] == "masked_dense"
    assert found.iloc[0]["pass"] == str(lost.case.conv_pass)
    assert table.coverage(rows)["missing"].sum() == 4  # its pass and all, its block and all
    assert table.missing(table.rows(results(synthetic.sweep()))).empty


def test_machines_are_never_averaged_together():
    stored = synthetic.sweep() + synthetic.sweep(synthetic.OTHER, seed=1)
    cover = table.coverage(table.rows(results(stored)))
    alone = table.coverage(table.rows(results(synthetic.sweep())))
    part = cover[cover["environment"] == E].reset_index(drop=True)
    assert set(cover["environment"]) == {E, synthetic.OTHER.environment_id}
    assert part["speedup"].tolist() == pytest.approx(alone["speedup"].tolist(), nan_ok=True)
    assert (part["cells"] == alone["cells"]).all()


def test_nothing_ok_and_nothing_at_all():
    cells = synthetic.cells()[:12]
    rows = table.rows(results([Measurement(c, E, Status.TIMEOUT, reason="slow") for c in cells]))
    cover = table.coverage(rows)
    assert cover["timeout"].sum() == 4 * len(cells)
    assert (cover["cells"] == 0).all()
    assert cover["speedup"].isna().all()
    empty = table.rows(results([]))
    assert table.totals(empty).empty
    assert table.missing(empty).empty
    assert table.coverage(empty).empty


def test_rows_do_not_depend_on_the_order_of_the_lines():
    stored = synthetic.sweep()
    first = table.rows(results(stored))
    second = table.rows(results(stored[::-1]))
    assert first.equals(second)
    assert first["pass"].iloc[:3].tolist() == [str(p) for p in Pass]


def test_accuracy_rows_pair_the_steps():
    run = synthetic.training_runs(E)[-1]
    rows = accuracy_table.accuracy_rows([run])
    pairs = zip(run["step"]["dense_s"], run["step"]["sparse_s"], strict=True)
    assert rows["step_speedup"].iloc[0] == np.median([d / s for d, s in pairs])
    assert rows["pattern"].iloc[0] == "balance none, block 16x16"
    assert rows["training"].iloc[0] == "batch 64, epochs 12, lr 0.1"
    run["step"]["dense_s"].pop()
    with pytest.raises(ValueError, match="expected as many dense as sparse steps, got 20 and 21"):
        accuracy_table.accuracy_rows([run])


def test_accuracy_summary_and_gap_by_textbook():
    runs = synthetic.training_runs(E)
    rows = accuracy_table.accuracy_rows(runs)
    ours = [r["accuracy"] for r in runs if r["arm"] == "hrbp2" and r["density"] == 0.25]
    dense = [r["accuracy"] for r in runs if r["arm"] == "dense"]
    summary = accuracy_table.accuracy_summary(rows)
    row = summary[(summary["arm"] == "hrbp2") & (summary["density"] == 0.25)].iloc[0]
    low, high = stats.t.interval(0.95, 2, np.mean(ours), stats.sem(ours))
    assert row["accuracy"] == pytest.approx(np.mean(ours))
    assert (row["accuracy_low"], row["accuracy_high"]) == pytest.approx((low, high))
    gaps = accuracy_table.accuracy_gaps(rows)
    gap = gaps[(gaps["arm"] == "hrbp2") & (gaps["density"] == 0.25)].iloc[0]
    welch = stats.ttest_ind(dense, ours, equal_var=False).confidence_interval(0.95)
    assert gap["gap"] == pytest.approx(np.mean(dense) - np.mean(ours))
    assert (gap["gap_low"], gap["gap_high"]) == pytest.approx((welch.low, welch.high))


def test_a_diverged_run_is_counted_and_not_averaged():
    runs = [r for r in synthetic.training_runs(E) if r["arm"] == "aligned" and r["density"] == 0.5]
    runs[1] |= {"accuracy": None, "status": "diverged", "reason": "not finite"}
    row = accuracy_table.accuracy_summary(accuracy_table.accuracy_rows(runs)).iloc[0]
    assert (row["runs"], row["n"], row["diverged"]) == (3, 2, 1)
    assert row["accuracy"] == pytest.approx((runs[0]["accuracy"] + runs[2]["accuracy"]) / 2)


def test_one_run_has_no_interval_and_no_run_is_no_error():
    rows = accuracy_table.accuracy_rows(synthetic.training_runs(E)[:1])
    row = accuracy_table.accuracy_summary(rows).iloc[0]
    assert math.isnan(row["accuracy_low"])
    empty = accuracy_table.accuracy_rows([])
    assert accuracy_table.accuracy_summary(empty).empty
    assert accuracy_table.accuracy_gaps(empty).empty


def test_settings_are_taken_apart_at_commas_that_values_must_not_have() -> None:
    told = accuracy_table._settings({"lr": 0.1, "images": "CIFAR-10 (JPEG-75, 5 + 5 images)"})
    assert told.split(", ") == ["images CIFAR-10 (JPEG-75; 5 + 5 images)", "lr 0.1"]
