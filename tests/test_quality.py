"""The quality sweep: scores, plans, lines, the best grouping by trial, the report's section."""

from __future__ import annotations

import itertools
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from typer.testing import CliRunner

from bench.cli import app
from bench.jsonl import read_lines
from bench.quality import families, optimum
from bench.quality.bounds import block_bound
from bench.quality.plan import FILE, KEY, QualityPlan, make_plan, shape_of
from bench.quality.run import load_scores, run_quality
from bench.quality.table import frame, orders, summary
from hrbp_core import regroup, retained
from hrbp_core.regrouping.problem import Limits
from hrbp_core.regrouping.selection import choose_blocks
from reports import build_report
from reports.data import load
from reports.quality import advice

PLAN = QualityPlan(
    ("clustered",), ("hrbp2", "sorted", "hrbp", "elementwise", "unstructured", "two_four"),
    (8, 16), (0.5, 0.25), ((64, 64, 3, 3),), balanced=(8, 0.5),
)  # fmt: skip


def nothing(done: int, total: int, text: str) -> None:
    pass


@pytest.fixture(scope="module")
def results(tmp_path_factory) -> Path:
    out = tmp_path_factory.mktemp("quality")
    run_quality(PLAN, out, nothing)
    return out


@pytest.mark.parametrize("family", families.FAMILIES)
def test_families_are_draws_of_their_seed(family):
    first, again, other = (families.draw(family, (8, 6, 3, 1), seed) for seed in (0, 0, 1))
    assert first.shape == (8, 6, 3, 1)
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    assert (first > 0).all()


def test_lines_hold_what_was_retained(results):
    lines = read_lines(results / FILE, KEY).records
    assert len(lines) == 2 * 2 * 6 + 2 * 3  # balanced: hrbp2, sorted and hrbp
    scores = families.draw("clustered", (64, 64, 3, 3), 0)
    for line in lines:
        if line["method"] == "two_four" and line["density"] == 0.25:
            assert line["status"] == "impossible"
            assert "expected density 0.5 with two_four" in line["reason"]
            continue
        assert line["status"] == "ok"
        again = regroup(
            scores, line["density"], method=line["method"], block=line["block"],
            balance=line["balance"],
        )  # fmt: skip
        assert line["retained"] == retained(scores, again)
        assert line["density_reached"] == again.density
        assert line["dead_filters"] == line["dead_channels"] == 0
    assert {line["survives_dgrad"] for line in lines if line["method"] == "elementwise"} == {False}


def test_a_run_goes_on_and_does_nothing_twice(results):
    before = (results / FILE).read_bytes()
    run_quality(PLAN, results, nothing)
    assert (results / FILE).read_bytes() == before


def test_a_file_of_scores(tmp_path):
    scores = families.draw("rank_one", (16, 16, 1, 1), 3)
    np.save(tmp_path / "a.npy", scores.numpy())
    torch.save(scores, tmp_path / "a.pt")
    for name in ("a.npy", "a.pt"):
        assert torch.equal(load_scores(str(tmp_path / name), (1, 1, 1, 1), 0), scores)
    plan = make_plan(
        "small", scores=(str(tmp_path / "a.npy"),), methods=("sorted",), blocks=(4,),
        densities=(0.5,),
    )  # fmt: skip
    (line,) = run_quality(plan, tmp_path / "out", nothing)
    assert line["shape"] == [16, 16, 1, 1]


def test_bad_scores_are_a_line_with_the_reason(tmp_path):
    np.save(tmp_path / "bad.npy", np.full((8, 8, 1, 1), -1.0))
    plan = make_plan("small", scores=(str(tmp_path / "bad.npy"),), methods=("sorted",), blocks=(4,))
    lines = run_quality(plan, tmp_path / "out", nothing)
    assert all("64 negative of 64" in line["reason"] for line in lines)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--preset", "large"], "expected a preset of small, full, exhaustive; got 'large'"),
        (["--scores", "magic"], "expected scores of independent"),
        (["--methods", "hrbp3"], "expected methods of aligned"),
        (["--densities", "0"], r"expected densities in (0, 1], got 0"),
        (["--blocks", "0"], "expected blocks of at least 1, got 0"),
        (["--shapes", "64x64"], "expected a shape such as 512x512x3x3, got '64x64'"),
        (["--preset", "exhaustive", "--blocks", "4"], "expected --out alone"),
    ],
)
def test_usage_errors(arguments, message, tmp_path):
    done = CliRunner().invoke(app, ["quality", "--out", str(tmp_path), *arguments])
    assert done.exit_code == 2
    assert message in done.stderr


def test_a_file_that_holds_something_else(tmp_path):
    np.save(tmp_path / "flat.npy", np.ones(4))
    with pytest.raises(ValueError, match=r"expected a tensor \[K, C, R, S\] in .*, got \[4\]"):
        load_scores(str(tmp_path / "flat.npy"), (1, 1, 1, 1), 0)
    assert shape_of("512X256x3x1") == (512, 256, 3, 1)


def test_the_command_prints_a_table_and_its_report_says_what_to_take(tmp_path):
    arguments = [
        "quality", "--scores", "clustered", "--shapes", "32x32x3x3", "--blocks", "8",
        "--densities", "0.5,0.25", "--out", str(tmp_path),
    ]  # fmt: skip
    done = CliRunner().invoke(app, arguments)
    assert done.exit_code == 0, done.stderr
    assert "hrbp at least hrbp2: 2 of 2 cells" in done.stdout
    files = build_report(tmp_path)
    assert [path.stem for path in files.figures] == ["quality-density-blocks", "quality-time"]
    text = files.markdown.read_text()
    assert "hrbp2, by default" in text
    assert "Nothing is stored" not in text


def test_summary_and_orders_by_hand():
    common = {
        "scores": "x", "scores_sha": "", "shape": [4, 4, 1, 1], "seed": 0, "block": 2,
        "balance": "none", "coverage": True, "status": "ok", "reason": None, "block_bound": 1.0,
        "survives_dgrad": True, "partitioned": True, "dgrad_fill": 1.0, "dead_filters": 0,
        "dead_channels": 0, "environment": "e",
    }  # fmt: skip

    def line(method: str, density: float, kept: float, seconds: float) -> dict:
        return common | {
            "method": method, "density": density, "retained": kept, "regroup_s": seconds,
            "density_reached": density * 2,
        }  # fmt: skip

    rows = frame([
        line("hrbp2", 0.5, 0.6, 1), line("hrbp2", 0.25, 0.3, 3), line("sorted", 0.5, 0.5, 1),
        line("sorted", 0.25, 0.38, 1), line("unstructured", 0.5, 0.8, 1),
        line("unstructured", 0.25, 0.5, 1), line("unstructured", 0.1, 0.2, 1),
    ])  # fmt: skip
    table = summary(rows).set_index("method")
    assert table.loc["hrbp2", "retained"] == pytest.approx(0.45)
    assert table.loc["hrbp2", "of_unstructured"] == pytest.approx((0.6 / 0.8 + 0.3 / 0.5) / 2)
    assert table.loc["unstructured", "cases"] == 2  # where hrbp2 has none is left out
    assert table.loc["hrbp2", "density_ratio"] == 2
    assert (table.loc["hrbp2", "regroup_s"], table.loc["hrbp2", "regroup_most_s"]) == (2, 3)
    first = orders(rows)[0]
    assert (first["method"], first["other"], first["cases"]) == ("hrbp2", "sorted", 2)
    assert [row["density"] for row in first["broken"]] == [0.25]
    assert first["mean_gain"] == pytest.approx(0.01)
    assert "hrbp2, by default: +1.0 points of all score over sorted" in next(advice(rows))


@pytest.mark.parametrize(("size", "block", "count"), [(4, 2, 3), (6, 3, 10), (10, 2, 945)])
def test_partitions(size, block, count):
    cuts = optimum.partitions(size, block)
    assert cuts.shape == (count, size // block, block)
    assert len({tuple(map(tuple, cut)) for cut in cuts.tolist()}) == count
    assert (np.sort(cuts.reshape(count, -1), axis=1) == np.arange(size)).all()


@settings(max_examples=10)
@given(blocks=st.integers(2, 4), seed=st.integers(0, 99), tail=st.sampled_from([0.0, 1.5]))
def test_the_best_groupings_by_permutations(blocks, seed, tail):
    """Every order of 4 filters and 4 channels, cut into pairs; every choice of blocks."""
    rng = np.random.default_rng(seed)
    scores = (1000 * rng.lognormal(0, 1 + tail, (4, 4))).astype(np.int64)
    limits = Limits.of((2, 2), blocks, coverage=True, balance="none")
    two, one = 0, 0
    for rows in itertools.permutations(range(4)):
        parts = scores[list(rows)].reshape(2, 2, 4).sum(axis=1)
        for columns in itertools.permutations(range(4)):
            sums = parts[:, list(columns)].reshape(2, 2, 2).sum(axis=2)
            two = max(two, int(sums[choose_blocks(sums, limits)].sum()))
        for left in range(max(0, blocks - 2), min(2, blocks) + 1):
            kept = (
                np.sort(parts[0])[::-1][: 2 * left],
                np.sort(parts[1])[::-1][: 2 * blocks - 2 * left],
            )
            one = max(one, int(sum(k.sum() for k in kept)))
    assert optimum.best_two_sided(scores, 2, blocks) == two
    assert optimum.best_one_sided(scores, 2, blocks) == one


def test_shares_of_the_best(tmp_path):
    case = optimum.Small("clustered", 6, 2, 0.45, 0)
    found = optimum.shares(case)
    assert 0.9 <= found["hrbp2"] / found["best_two_sided"] <= 1 + 1e-9
    assert 0.9 <= found["hrbp"] / found["best_one_sided"] <= 1 + 1e-9
    path = tmp_path / "optimum.jsonl"
    path.write_text(json.dumps({"schema": 1, "optimum_id": "a"} | found) + "\n")
    assert load(tmp_path).optimum[0]["hrbp2"] == found["hrbp2"]
    assert "of the best two-sided grouping on average over 1 layers" in optimum.told([found])[0]
    assert "of the best grouping of its kind" in build_report(tmp_path).markdown.read_text()


@given(
    size=st.tuples(st.integers(2, 12), st.integers(2, 12)),
    block=st.tuples(st.integers(1, 2), st.integers(1, 3)),
    seed=st.integers(0, 99),
)
def test_nothing_exceeds_the_bound(size, block, seed):
    block = (block[0], min(block[1], size[1]))
    scores = families.draw("heavy_tailed", (*size, 1, 1), seed)
    blocks = round(0.6 * -(-size[0] // block[0]) * -(-size[1] // block[1]))
    found = retained(scores, regroup(scores, 0.6, method="hrbp", block=block, coverage=False))
    assert found <= block_bound(scores, blocks, block) + 1e-9
