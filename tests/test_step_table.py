"""bench.step_table: stored steps become rows, each figure worked out by hand here."""

from __future__ import annotations

import json
import math

import pytest

from bench.jsonl import StoreError
from bench.step_table import amdahl_bound, is_noisy, read_steps, share_rows, speedup, step_rows
from tests.step_samples import SPENT, failed_line, line, trial


def test_the_speed_up_is_a_geometric_mean_over_trials_with_a_t_interval() -> None:
    mean, low, high = speedup([trial(2.0, 1.0), trial(8.0, 1.0)])
    assert mean == pytest.approx(4)
    half = 12.7062 * math.log(2)  # t of one degree of freedom; sd / sqrt(2) = log 2
    assert (low, high) == (
        pytest.approx(4 / math.exp(half), rel=1e-4),
        pytest.approx(4 * math.exp(half), rel=1e-4),
    )


def test_of_one_trial_no_interval_is_known_and_it_is_noisy() -> None:
    mean, low, high = speedup([trial(3.0, 2.0)])
    assert mean == pytest.approx(1.5)
    assert math.isnan(low)
    assert math.isnan(high)
    assert is_noisy([trial(3.0, 2.0)])
    assert all(math.isnan(v) for v in speedup([]))


def test_noisy_is_an_interval_wider_than_two_percent() -> None:
    assert not is_noisy([trial(d, 1.0) for d in (2.0, 2.01, 1.99)])  # t: 4.30 * 0.5 % / 1.73
    assert is_noisy([trial(d, 1.0) for d in (2.0, 2.06, 1.94)])


@pytest.mark.parametrize(
    ("share", "density", "bound"), [(0.0, 0.25, 1), (1.0, 0.25, 4), (0.8, 0.25, 2.5), (0.5, 1, 1)]
)
def test_amdahls_bound(share: float, density: float, bound: float) -> None:
    assert amdahl_bound(share, density) == pytest.approx(bound)


def test_a_row_by_hand() -> None:
    energy = {"dense": {"counter_net_j": None, "power_net_j": 6.0}, "sparse": {"power_net_j": 2.0}}
    (row,) = step_rows([line("e", energy=energy)]).to_dict("records")
    assert row["speedup"] == pytest.approx(2, rel=1e-3)
    assert (row["dense_step_s"], row["sparse_step_s"]) == (2.0, 1.0)
    assert row["amdahl_share"] == pytest.approx(0.6)
    assert row["amdahl_bound"] == pytest.approx(1 / (0.4 + 0.6 * 0.25))
    assert (row["dense_peak_bytes"], row["sparse_peak_bytes"]) == (300 * 2**20, 200 * 2**20)
    assert (row["dense_energy_j"], row["sparse_energy_j"]) == (6.0, 2.0)
    assert (row["prep_s"], row["canonical"], row["standalone"]) == (4.0, 12, 0)


def test_kernels_are_a_share_of_the_step_as_it_was_timed() -> None:
    spent = {"dense": SPENT["dense"] | {"on_device": True, "span_s": 50.0}}
    (row,) = step_rows([line("e", spent=spent)]).to_dict("records")
    assert row["amdahl_share"] == pytest.approx(0.6 / 2.0)
    shares = share_rows([line("e", spent=spent)]).set_index("kind")
    assert shares.loc["convolution fprop", "seconds"] == pytest.approx(0.2)
    assert shares.loc["unattributed", "share"] == pytest.approx(0.6)


def test_shares_add_up_and_scale_to_the_step_as_it_was_timed() -> None:
    shares = share_rows([line("e")])
    for side, step_s, fprop in (("dense", 2.0, 0.2), ("sparse", 1.0, 0.2)):
        part = shares[shares["side"] == side].set_index("kind")
        assert part["share"].sum() == pytest.approx(1)
        assert part["seconds"].sum() == pytest.approx(step_s)
        assert part.loc["convolution fprop", "share"] == pytest.approx(fprop)
    assert shares[shares["side"] == "dense"].set_index("kind").loc["unattributed", "share"] == (
        pytest.approx(0.2)
    )


def test_a_failed_comparison_is_a_row_without_figures() -> None:
    (row,) = step_rows([failed_line("e")]).to_dict("records")
    assert (row["status"], row["noisy"]) == ("oom", False)
    for name in ("speedup", "amdahl_bound", "dense_step_s", "dense_peak_bytes", "prep_s"):
        assert math.isnan(row[name])
    assert share_rows([failed_line("e")]).empty


def test_lines_are_read_back_and_a_torn_one_is_left_out(tmp_path) -> None:
    assert read_steps(tmp_path) == []
    path = tmp_path / "steps.jsonl"
    path.write_text(json.dumps(line("e")) + "\n" + '{"schema": 1, "run')
    with pytest.warns(UserWarning, match="torn last line"):
        assert [r["run_id"] for r in read_steps(tmp_path)] == ["one"]
    path.write_text(2 * (json.dumps(line("e")) + "\n"))
    with pytest.raises(StoreError, match="expected each run_id once"):
        read_steps(tmp_path)
