"""Ceilings with a scripted clock: the arithmetic, the choice of the best, what fails."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest
import torch
from typer.testing import CliRunner

from bench import ceilings, ceilings_file
from bench.ceilings import Ceiling, best, copy_rate, launch_cost, matrix_rate, sample
from bench.cli import app
from bench.environment import environment


@dataclass
class Scripted:
    """A clock whose calls last what the script says; time passes by what it hands out."""

    script: Iterator[float]
    run_calls: bool = True
    time: float = 0.0
    repeats: list[int] = field(default_factory=list)

    def sample(self, run: Callable[[], object], repeats: int) -> float:
        if self.run_calls:
            run()
        self.repeats.append(repeats)
        seconds = next(self.script)
        self.time += abs(seconds) * repeats
        return seconds

    def now(self) -> float:
        return self.time


def forever(seconds: float) -> Iterator[float]:
    while True:
        yield seconds


def script(warm: float, *then: float) -> Iterator[float]:
    """Three long calls of warm-up, then these, and the last of them for ever."""
    yield from (warm,) * 3
    yield from then
    yield from forever(then[-1])


def test_a_copy_counts_bytes_read_and_written() -> None:
    found = copy_rate("cpu", 1000, Scripted(forever(1e-3)))
    assert found.rate == pytest.approx(2 * 1000 / 1e-3)
    assert len(found.samples_s) == ceilings.SAMPLES


def test_a_product_counts_multiplications_and_additions() -> None:
    found = matrix_rate("cpu", "bfloat16", (8, 16, 32), Scripted(forever(1e-3)))
    assert found.rate == pytest.approx(2 * 8 * 16 * 32 / 1e-3)


def test_the_median_is_taken_not_the_mean() -> None:
    clock = Scripted(script(0.1, *[1e-3] * 11, *[9e-3] * 9))
    assert copy_rate("cpu", 1000, clock).rate == pytest.approx(2 * 1000 / 1e-3)


def test_warm_up_lasts_and_is_not_a_sample() -> None:
    clock = Scripted(script(0.1, 1e-3))
    assert set(sample(lambda: None, clock)) == {1e-3}
    clock = Scripted(forever(0.01))
    sample(lambda: None, clock)
    assert len(clock.repeats) == 20 + ceilings.SAMPLES  # 0.2 s of 10 ms calls, then samples


def test_short_calls_repeat_until_a_sample_is_long_enough() -> None:
    clock = Scripted(forever(1e-5))
    sample(lambda: None, clock)
    assert clock.repeats[-1] == 200
    clock = Scripted(forever(0.05))
    sample(lambda: None, clock)
    assert clock.repeats[-1] == 1


def test_slow_calls_get_fewer_samples() -> None:
    assert len(sample(lambda: None, Scripted(forever(0.5)))) == ceilings.LEAST_SAMPLES


@pytest.mark.parametrize("seconds", [0.0, -1e-3])
def test_a_clock_that_stands_or_runs_back_gives_no_rate(seconds: float) -> None:
    found = copy_rate("cpu", 1000, Scripted(script(0.1, 1e-3, seconds)))
    assert found.rate is None
    assert "expected a clock that moves" in (found.reason or "")


def test_a_launch_costs_its_share() -> None:
    clock = Scripted(forever(4e-6))
    assert launch_cost("cpu", clock).rate == pytest.approx(4e-6)
    assert clock.repeats[-1] == ceilings.LAUNCHES


def test_inputs_are_random_and_the_product_is_done(monkeypatch: pytest.MonkeyPatch) -> None:
    seen = []
    real = torch.mm

    def watched(a, b, *, out):
        seen.append((a, b, real(a, b, out=out)))
        return out

    monkeypatch.setattr(torch, "mm", watched)
    matrix_rate("cpu", "float32", (8, 16, 32), Scripted(forever(0.1)))
    a, b, out = seen[0]
    assert len(a.unique()) > 200
    assert len(b.unique()) > 400
    assert out.abs().max() > 0.1


def test_one_size_that_fails_does_not_take_the_others_along(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def refuse(*args, **kwargs):
        raise torch.OutOfMemoryError("wanted 4 GiB")

    monkeypatch.setattr(torch, "mm", refuse)
    found = ceilings.measure_ceilings("cpu", Scripted(forever(1e-2)), quick=True)
    by_name = best(found)
    assert by_name["float32"].rate is None
    assert "wanted 4 GiB" in (by_name["float32"].reason or "")
    assert by_name["copy"].rate
    assert by_name["launch"].rate


def test_the_best_is_the_highest_rate_and_the_least_cost() -> None:
    found = [
        Ceiling("copy", (1,), 5.0),
        Ceiling("copy", (2,), 7.0),
        Ceiling("copy", (3,), None, reason="no memory"),
        Ceiling("tf32", (1, 1, 1), None, reason="none"),
        Ceiling("tf32", (2, 2, 2), 3.0),
        Ceiling("launch", (200,), 2e-6),
        Ceiling("launch", (400,), 1e-6),
    ]
    chosen = best(found)
    assert {name: each.size[0] for name, each in chosen.items()} == {
        "copy": 2, "tf32": 2, "launch": 400,
    }  # fmt: skip


def test_tf32_is_switched_for_its_own_product_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    before = torch.backends.cuda.matmul.allow_tf32
    for allowed in (True, False):
        with ceilings._tf32(allowed):
            assert torch.backends.cuda.matmul.allow_tf32 is allowed
        assert torch.backends.cuda.matmul.allow_tf32 is before


def test_what_is_written_holds_rates_samples_and_the_machine(tmp_path: Path) -> None:
    found = ceilings.measure_ceilings("cpu", Scripted(forever(1e-2), run_calls=False), quick=True)
    path = ceilings_file.write(found, environment("cpu"), tmp_path / "new" / "folder")
    data = json.loads(path.read_text())
    assert data["copy_bytes_per_s"] == pytest.approx(2 * 64 * 2**20 / 1e-2)
    assert data["matrix_flops_per_s"]["float32"] == pytest.approx(2 * 4096 * 256 * 1152 / 1e-2)
    assert data["matrix_flops_per_s"]["tf32"] is None
    assert data["graph_launch_s"] is None
    assert data["environment"]["device"] == "cpu"
    assert all(m["rate"] is not None or m["reason"] for m in data["measured"])
    assert all(len(m["samples_s"]) > 0 for m in data["measured"] if m["rate"] is not None)


def test_the_command_prints_a_table_and_refuses_what_is_unknown(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ceilings, "clock_for", lambda device: Scripted(forever(1e-2), False))
    words = ["ceilings", "--device", "cpu", "--quick", "--out", str(tmp_path)]
    done = CliRunner().invoke(app, words)
    assert done.exit_code == 0, done.output
    assert "GB/s" in done.output
    assert "no tf32 on a CPU" in done.output
    assert (tmp_path / "ceilings.json").exists()
    words[2] = "tpu"
    done = CliRunner().invoke(app, words)
    assert done.exit_code == 2
    assert "expected a device" in done.output
