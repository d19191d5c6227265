"""Folders side by side: what is shared, the figures by hand, and what a page says of them."""

from __future__ import annotations

import math
import statistics
from dataclasses import replace

import pytest

from bench.table import ALL
from reports import compare, compare_content, compare_findings, figures_compare
from tests import synthetic_results as synthetic
from tests.comparison_samples import (
    FIRST,
    GPU,
    IMPLS,
    SECOND,
    WIDE,
    E,
    measured,
    page,
    pair,
    stored,
)


def test_what_is_shared_and_its_ratios_by_hand(tmp_path):
    _, cells = pair(tmp_path)
    found = {(c["layer"], c["pass"]): c for c in cells}
    assert len(found) == 8  # two layers, three passes and their sum
    assert found["conv_a", "fprop"].speedup(0)[0] == pytest.approx(2.0)
    assert found["conv_a", "fprop"].speedup(1)[0] == pytest.approx(2.5)
    assert found["conv_a", ALL].speedup(1)[0] == pytest.approx(8 / 4.3)
    for (layer, name), cell in found.items():
        place = ("fprop", "dgrad", "wgrad", ALL).index(name)
        if place < 3:
            (d0, s0), (d1, s1) = FIRST[layer][place], SECOND[layer][place]
            assert cell.ratio(1)[0] == pytest.approx((d1 / s1) / (d0 / s0))
            assert cell.time_ratio(1) == pytest.approx(s1 / s0)
            assert cell.time_ratio(1, dense=True) == pytest.approx(d1 / d0)
    # dense and ours were not paired: the interval of a speed-up is that of the medians' corners,
    # and nine samples at 95 % leave out the lowest and the highest
    span, edge = found["conv_a", "fprop"].speedup(1), WIDE * 3 / 4
    assert span[1] == pytest.approx(2.5 * (1 - edge) / (1 + edge))
    low = (2.5 * (1 - edge) / (1 + edge)) / (2.0 * (1 + edge) / (1 - edge))
    assert found["conv_a", "fprop"].ratio(1)[1] == pytest.approx(low)


def test_means_are_over_cells_and_never_over_folders(tmp_path):
    _, cells = pair(tmp_path)
    part = [c for c in cells if c["pass"] == "fprop"]
    ratios = [1.25, 1.5]
    logs = [math.log(r) for r in ratios]
    mean, half = statistics.mean(logs), 12.7062047 * statistics.stdev(logs) / math.sqrt(2)
    value, low, high = compare.mean_ratio(part, 1)
    assert value == pytest.approx(math.sqrt(1.25 * 1.5))
    assert (low, high) == pytest.approx((math.exp(mean - half), math.exp(mean + half)), rel=1e-6)
    assert compare.mean_speedup(part, 0)[0] == pytest.approx(2.0)
    assert compare.mean_speedup(part, 1)[0] == pytest.approx(math.sqrt(2.5 * 3.0))
    assert compare.mean_ratio(part[:1], 1) == part[0].ratio(1)


def test_who_is_faster_on_how_many_cells(tmp_path):
    folders, cells = pair(tmp_path)
    told = list(compare_findings.speedups(folders, cells))
    assert told[0] == (
        "fprop: the speed-ups over dense of second are 1.37× (95 %: 0.43× to 4.36×) those of "
        "first. Of 2 shared cells, second is faster over dense on 2 beyond both intervals, first "
        "on 0; 0 undecided."
    )
    assert "second is faster over dense on 0 beyond both intervals, first on 0; 2 und" in told[1]
    assert "second is faster over dense on 0 beyond both intervals, first on 1; 1 und" in told[2]
    apart = list(compare_findings.differing(folders, cells))
    assert apart[0] == "second against first: 3 cells of 6:"
    assert apart[1].startswith("conv_b, 16x16, 75 %, fprop: 1.50× (95 %: ")
    assert max(map(len, compare_findings.headline(folders, cells))) <= 100
    findings = page(folders, cells)["Findings"]
    assert "10 to 20 % apart" in findings
    assert "python -m bench gate" in findings


def test_times_of_one_machine_are_divided_and_those_of_two_are_not(tmp_path):
    folders, cells = pair(tmp_path / "same")
    times = page(folders, cells)["Times"]
    assert "second over first: ours; dense" in times
    assert "0.80×; 1.00×" in times
    told = page(folders, cells)["Findings"]
    ours = math.prod([0.8, 1, 1.25, 1, 1, 1]) ** (1 / 6)
    assert f"ours took {ours:.2f}× (95 %: " in told
    threads = replace(E, threads=7)
    for other in (GPU, threads):
        folders, cells = pair(tmp_path / other.environment_id, environment=other)
        times = page(folders, cells)["Times"]
        assert "another machine than first" in times
        assert "over first" not in times.replace("than first", "")
        assert "800 µs" in times
        assert "no ratio is made of them" in page(folders, cells)["Findings"]
    assert "they differ in threads" in times


def test_settings_apart_share_nothing_and_are_still_shown(tmp_path):
    folders, cells = pair(tmp_path, dtype="bfloat16", mode="cold")
    assert cells == []
    near = compare.nearly_shared(folders)
    assert len(near) == 8
    told = page(folders, cells)
    wanted = "6 cells agree in layer, block, sparsity, pattern, layout and pass, but differ in "
    assert (
        f"{wanted}number format (float32 against bfloat16) and mode (hot against cold)."
        in (told["Findings"])
    )
    assert "Mean ratio" not in told["Speed-up over dense, side by side"]
    assert "2.50× (" in told["Speed-up over dense, side by side"]
    assert "Times" not in told


def test_no_cell_at_all_still_says_what_each_has(tmp_path):
    folders = compare.load([
        stored(tmp_path / "a", {"conv_a": FIRST["conv_a"]}),
        synthetic.write(tmp_path / "b", runs=synthetic.training_runs(E.environment_id)),
    ])  # fmt: skip
    told = page(folders, compare.shared_cells(folders))
    assert "a and b share no cell with a speed-up" in told["Findings"]
    assert (
        "cells of block_sparse: float32 · canonical · hot" in told["What some have and others lack"]
    )
    assert "| 3 | a | b | conv_a N2 (3)" in told["What some have and others lack"]
    assert (
        "arms of training: digits, digits-cnn | 10 | b | a |"
        in (told["What some have and others lack"])
    )
    assert "Machines and software" in told


def test_differing_facts_are_marked_and_the_rest_is_not(tmp_path):
    folders, cells = pair(tmp_path, environment=GPU)
    lines = page(folders, cells)["Machines and software"].splitlines()
    assert "≠ | device name | SYNTHETIC, nothing was measured | SYNTHETIC GPU" in lines
    assert "≠ | commit | 0123456789ab | ffffffffffff" in lines
    assert "≠ | uncommitted changes | yes | no" in lines
    assert " | torch | 2.13.0 | 2.13.0" in lines
    assert "≠ | capability | — | 9.0" in lines
    assert not any("power limit" in line for line in lines)


def test_of_a_cell_in_two_environments_the_later_one_counts(tmp_path):
    later = replace(E, commit="c0ffee")
    key, new = E.environment_id, later.environment_id
    lines = [
        measured("conv_a", "fprop", impl, t, where)
        for where, both in ((new, (2.0, 0.5)), (key, (2.0, 1.0)))
        for impl, t in zip(IMPLS, both, strict=True)
    ]
    twice = synthetic.write(tmp_path / "twice", lines, environments=(E, later))
    folders = compare.load([twice, stored(tmp_path / "once", FIRST)])
    cells = compare.shared_cells(folders)
    assert [c.speedup(0)[0] for c in cells] == [pytest.approx(4.0)]
    assert folders[0].doubled == 1
    assert "twice: 1 cell stored again" in page(folders, cells)["Findings"]


def test_layers_of_one_shape_are_shared_under_other_names_and_suites(tmp_path):
    folders = compare.load([
        stored(tmp_path / "c", {"conv_a": FIRST["conv_a"]}),
        stored(tmp_path / "d", {"renamed_a": SECOND["conv_a"]}, suite="another"),
    ])  # fmt: skip
    shared = compare.shared_cells(folders)
    assert len(shared) == 4
    assert {c["layer"] for c in shared} == {"conv_a"}


def test_three_folders_share_what_all_have(tmp_path):
    folders = compare.load([
        stored(tmp_path / "a", FIRST), stored(tmp_path / "b", SECOND),
        stored(tmp_path / "c", {"conv_b": FIRST["conv_b"]}),
    ])  # fmt: skip
    cells = compare.shared_cells(folders)
    assert {c["layer"] for c in cells} == {"conv_b"}
    told = page(folders, cells)
    assert "With a alone share: b 6, c 3." in told["Findings"]
    assert "| 3 | a, b | c | conv_a N2 (3)" in told["What some have and others lack"]


def test_the_table_of_every_cell_names_the_folder(tmp_path):
    folders, _ = pair(tmp_path)
    merged = compare_content.every_cell(folders)
    told = [merged.names[key] for key in merged.rows["environment"]]
    assert told == ["first"] * 12 + ["second"] * 12
    ours = merged.rows[merged.rows["impl"] == "block_sparse"]
    assert ours["speedup"].tolist() == pytest.approx([2] * 6 + [2.5, 2, 1.6, 3, 2, 2])
    assert merged.runs.empty


def test_older_matplotlibs_hide_no_folder_whose_name_begins_with_a_line(tmp_path):
    _, cells = pair(tmp_path)
    picture = next(figures_compare.speedup_pictures(cells, ["_a", "b"], compare.SETTINGS))
    (legend,) = picture.standalone().legends
    texts = [text.get_text() for text in legend.get_texts()]
    assert texts == ["\u200a_a", "b"]
