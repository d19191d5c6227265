"""What the offline report says of candidates: real compilations, and each binary once."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest

from bench import tune_offline
from bench.occupancy import ARCHS
from bench.offline_table import Job
from bench.profile import Facts, Row
from bench.tune_cases import Candidate, Task, candidates, kernel_problem
from bench.tune_offline import Objections
from hrbp_core.kernels import choice
from hrbp_core.kernels.problem import Problem
from hrbp_core.kernels.tile_types import GatherTile, Tile
from hrbp_core.shapes import Pass
from tests.tuning_samples import quick

FPROP, WGRAD = quick((Pass.FPROP,))[0], quick((Pass.WGRAD,))[0]
PROBLEM = kernel_problem(FPROP.case)


class Compiler:
    """Notes what it is asked to compile; says ``changes`` of each binary."""

    def __init__(self, **changes: Any) -> None:
        self.jobs: list[Job] = []
        self.processes: list[int] = []
        usual: dict[str, Any] = {
            "kernel": "k", "registers": 90, "stack_bytes": 0, "shared_bytes": 1000, "warps": 4,
            "programs": 2, "matrix": {"HGMMA": 8}, "async_loads": {}, "loads": {},
            "two_byte_loads": 0, "hot_loop": 1, "instructions": 9,
        }  # fmt: skip
        self.facts = Facts(**{**usual, **changes})

    def __call__(self, jobs: Sequence[Job], processes: int) -> list[Row]:
        self.jobs += jobs
        self.processes.append(processes)
        return [Row(job, self.facts) for job in jobs]


def told(task: Task = FPROP, **changes: Any) -> str | None:
    found = Objections(90, 1, Compiler(**changes))
    return found.of(task, PROBLEM, Candidate(GatherTile(128, 64, 4, 3, True)))


def test_what_is_told() -> None:
    assert told() is None
    spilling = told(registers=255, stack_bytes=736)
    assert spilling is not None
    assert spilling.startswith("spilling (255 registers, 736 bytes of stack, ")
    assert str(told(matrix={"HMMA": 4})).startswith("without wgmma (")
    assert str(told(shared_bytes=300_000)).startswith("too much shared memory (")


def test_each_binary_is_compiled_once_and_most_side_by_side() -> None:
    compiler = Compiler()
    objections = Objections(90, 7, compiler)
    objections.foresee([FPROP, WGRAD, FPROP], 132, 90)
    assert compiler.processes == [7]
    first = len(compiler.jobs)
    for task in (FPROP, WGRAD):
        dtype, conv_pass = task.dtype, task.case.conv_pass
        found = candidates(conv_pass, PROBLEM, dtype, 132, 90)[1]
        assert len(found) > 3
        assert {objections.of(task, PROBLEM, c) for c in found} == {None}
    assert (compiler.processes, len(compiler.jobs)) == ([7], first)
    assert [job.summing for job in compiler.jobs].count(True) == 1
    other = kernel_problem(quick((Pass.FPROP,), layers=("conv5_3x3",), blocks=(32,))[0].case)
    objections.of(FPROP, other, Candidate(choice.legal_tiles(Pass.FPROP, other, FPROP.dtype)[0]))
    assert compiler.processes == [7, 1]


def test_one_part_and_several_are_two_binaries() -> None:
    compiler = Compiler()
    tile = choice.legal_tiles(Pass.WGRAD, PROBLEM, WGRAD.dtype)[0]
    objections = Objections(90, 1, compiler)
    for parts, count in ((1, 1), (4, 3), (8, 3)):
        objections.of(WGRAD, PROBLEM, Candidate(tile, parts))
        assert len(compiler.jobs) == count


def test_an_architecture_without_a_report_prunes_nothing() -> None:
    objections = Objections(89, 1, Compiler(stack_bytes=100))
    assert (objections.able, Objections(90).able) == (False, True)
    assert "sm_89" not in ARCHS
    objections.foresee([FPROP], 132, 89)
    assert objections.of(FPROP, PROBLEM, Candidate(GatherTile(128, 64, 4, 3, True))) is None


@pytest.mark.parametrize(
    ("tile", "words"),
    [
        (GatherTile(64, 64, 4, 4, True), None),  # a legal one
        (GatherTile(256, 64, 4, 3, False), "spilling"),  # 256 pixels in four warps
    ],
)
def test_a_real_compiler_is_asked(tile: Tile, words: str | None) -> None:
    problem = Problem((256, 256, 3, 3), (128, 128), PROBLEM.geometry, 128, (14, 14), 18, whole=True)
    reason = Objections(90, 1, tune_offline.compile_rows).of(FPROP, problem, Candidate(tile))
    assert reason is None if words is None else words in str(reason)
