"""The check of tiles with real kernels, in processes that interpret them."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from typer.testing import CliRunner

from bench import tile_judge
from bench.cli import app
from bench.tile_cases import TileBatch
from hrbp_core.kernels import gpu

ROOT = Path(__file__).resolve().parent.parent


def a_little_off(batch: TileBatch, device: str) -> Iterator[dict[str, Any]]:
    """The real check of a dgrad that is wrong in one number, and of a wgrad that wavers."""
    dgrad, wgrad, calls = gpu.dgrad, gpu.wgrad, iter(range(1000))

    def wrong(*args: Any, **more: Any) -> torch.Tensor:
        out = dgrad(*args, **more)
        out[1, 3, 12, 10] += 0.1
        return out

    def wavering(*args: Any, **more: Any) -> torch.Tensor:
        return wgrad(*args, **more) * (1 + next(calls) * 2**-22)

    gpu.dgrad, gpu.wgrad = wrong, wavering
    yield from tile_judge.check_batch(batch, device)


def test_real_tiles_pass_and_planted_faults_do_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two processes interpret the kernels; the second call's kernels are tampered with."""
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    words = ["check", "--device", "interpreter", "--dtypes", "float32", "--blocks", "16",
             "--quick", "--jobs", "1", "--out"]  # fmt: skip
    right = CliRunner().invoke(app, [*words, str(tmp_path / "right"), "--passes", "dgrad"])
    assert (right.exit_code, "1 ok" in right.output) == (0, True), right.output

    monkeypatch.setattr(tile_judge, "check_batch", a_little_off)
    wrong = CliRunner().invoke(app, [*words, str(tmp_path / "wrong")])
    assert wrong.exit_code == 5
    assert "1 not repeatable, 1 ok, 1 wrong" in wrong.output
    assert "WRONG: dgrad float32 block 16x16 tile" in wrong.output
    assert "1 of 20592 numbers beyond the bound" in wrong.output
    assert "[1, 3, 12, 10]" in wrong.output
    assert "NOT REPEATABLE: wgrad" in wrong.output


def interpreted(code: str) -> list[str]:
    """Return the lines that a program prints in a process that interprets the kernels."""
    environment = {**os.environ, "TRITON_INTERPRET": "1", "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, env=environment, capture_output=True, text=True,
        timeout=120, check=True,
    )  # fmt: skip
    return done.stdout.splitlines()


def test_unwritten_memory_is_seen() -> None:
    """A kernel that writes nothing leaves NaN: the poison reaches the passes' own outputs."""
    found = interpreted(
        "from bench import tile_judge\n"
        "from bench.tile_cases import EVEN, KINDS, Item, TileBatch\n"
        "from hrbp_core.kernels import launch\n"
        "from hrbp_core.kernels.tiles import legal\n"
        "from hrbp_core.shapes import Pass\n"
        "launch.Launch.run = lambda self: None\n"
        "items = tuple(Item(p, legal(p, 'ieee', (16, 16))[0]) for p in Pass)\n"
        "batch = TileBatch(KINDS['float32'], (16, 16), EVEN, items)\n"
        "for record in tile_judge.check_batch(batch, 'cpu'):\n"
        "    print(record['status'], record['reason'])\n"
    )
    assert len(found) == 3
    for line in found:
        assert re.match(r"wrong .* (\d+) of \1 numbers beyond the bound, \1 not finite", line)


def test_images_beyond_32_bits_are_judged_where_they_are_looked_at() -> None:
    """The wide problem at a small size, right and with the last image spoilt."""
    found = interpreted(
        "import torch\n"
        "from bench.tile_cases import BEYOND_INT32, Item\n"
        "from bench.tile_judge import judge\n"
        "from bench.tile_wide import WideProblem\n"
        "from hrbp_core.kernels.tiles import legal\n"
        "from hrbp_core.shapes import Pass\n"
        "shape = BEYOND_INT32.shape((16, 16))\n"
        "made = WideProblem(shape, (16, 16), 6, (5, 7), 'cpu', torch.float16)\n"
        "print(made.looked_at)\n"
        "for p in Pass:\n"
        "    out = made.run(Item(p, legal(p, 'half', (16, 16))[0]))\n"
        "    for add in (0, 1):\n"
        "        out[-1] += add\n"
        "        print(p, judge(made.sample(p, out), made.answer(p)).reason)\n"
    )
    assert found[0] == "[0, 3, 4, 5]"
    for right, wrong in zip(found[1::2], found[2::2], strict=True):
        assert right.split()[1] == "None"
        assert "beyond the bound" in wrong
