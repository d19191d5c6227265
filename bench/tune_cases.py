"""What is tuned: the distinct problems of a sweep, and the candidates of each pass.

Problems that the kernels cannot tell apart are one, be they of two layers, balanced or not, or
standing alone: the first that a sweep asks for is timed. A candidate is a legal tile, for
wgrad with a number of parts; those of the untuned default come first.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from bench.problem import torch_dtype
from bench.records import Case, digest
from bench.suites import ONE_SIDED, Infeasible, Sweep, cases
from bench.tile_cases import KINDS, Kind
from hrbp_core.kernels.choice import Choice, default_choice, default_parts, legal_tiles, parts_limit
from hrbp_core.kernels.limits import check_problem
from hrbp_core.kernels.problem import Problem
from hrbp_core.kernels.tile_types import RowWgradTile, Tile, WgradTile
from hrbp_core.shapes import Pass

FACTORS = (1.0, 0.5, 2.0, 0.75, 1.5)  # times the parts that the default takes
# what a time depends on: the kernels of a GPU, their tiles, and how they are timed
KERNELS = (
    "choice", "dgrad", "fastdiv", "fprop", "gather", "gpu", "launch", "problem", "rows",
    "tile_types", "tiles", "wgrad", "wgrad_rows",
)  # fmt: skip
TIMING = ("tune", "tune_cases", "tune_device", "tune_offline", "tune_rounds")


@dataclass(frozen=True)
class Candidate:
    """A tile, and for wgrad into how many parts it cuts the pixels."""

    tile: Tile
    parts: int | None = None

    @property
    def name(self) -> str:
        """Short and unique among the candidates of a pass."""
        return self.tile.name if self.parts is None else f"{self.tile.name} in {self.parts}"


@dataclass(frozen=True)
class Task:
    """One pass of one distinct problem. ``case`` is that of the first layer that has it."""

    case: Case

    @property
    def lot(self) -> str:
        """Names the inputs, which the passes share."""
        case = self.case
        recipe = {**vars(case.recipe), "block": list(case.recipe.block)}
        return digest({"shape": case.shape.to_dict(), "dtype": case.dtype, "recipe": recipe})

    def key(self, gpu: str, code: str) -> str:
        """Return what a finished line is found by: the kernels' code belongs to it."""
        return digest([self.lot, str(self.case.conv_pass), gpu, code])

    @property
    def dtype(self) -> torch.dtype:
        """Of x, y and values."""
        return torch_dtype(self.case.dtype)

    @property
    def label(self) -> str:
        """Names it for people."""
        case, recipe = self.case, self.case.recipe
        block = "x".join(map(str, recipe.block))
        unusual = [f" {recipe.method}"] * (recipe.method != "hrbp2")
        unusual += [f" balance {recipe.balance}"] * (recipe.balance != "none")
        return (
            f"{case.layer} {case.conv_pass} density {recipe.density:g} block {block} "
            f"{case.dtype} batch {case.shape.N}{''.join(unusual)}"
        )


def tasks(sweep: Sweep) -> tuple[list[Task], list[Infeasible]]:
    """Return the distinct tasks of a sweep, and the patterns that no layer can have.

    Raises:
        ValueError: anything unknown; a method, dtype or block that no tile is chosen for; no
            pattern that a layer can have.
    """
    if sweep.method in ONE_SIDED:
        raise ValueError(
            f"expected a method whose groups share their channels (hrbp2, aligned, ...), got "
            f"{sweep.method}: its kernels run on channels gathered before them"
        )
    wanted, infeasible = cases(sweep)
    if not wanted:
        reasons = sorted({f"{i.layer}: {i.reason}" for i in infeasible})
        raise ValueError("expected a pattern that a layer can have; " + "; ".join(reasons[:4]))
    found: dict[tuple[Pass, Problem], Task] = {}
    for case in wanted:
        problem = kernel_problem(case)
        check_problem(problem, torch_dtype(case.dtype), device=-1)
        found.setdefault((case.conv_pass, problem), Task(case))
    return list(found.values()), infeasible


def kind_of(case: Case) -> Kind:
    """Return how a case's dtype is stored and multiplied.

    Raises:
        ValueError: a dtype that the GPU kernels do not take.
    """
    if case.dtype not in KINDS:
        raise ValueError(f"expected a dtype of {', '.join(KINDS)}; got {case.dtype!r}")
    return KINDS[case.dtype]


def kernel_problem(case: Case, whole: bool | None = None) -> Problem:
    """Return a case as the kernels see it.

    Args:
        whole: the pattern's blocks keep all their taps; as its method says when left out.
    """
    shape, recipe = case.shape, case.recipe
    if whole is None:
        whole = not recipe.method.endswith("_pp") or shape.R * shape.S == 1
    return Problem(
        shape.filter_shape, recipe.block, (shape.stride, shape.padding, shape.dilation),
        shape.N, (shape.H, shape.W), case.entries, kind_of(case).precision, whole,
    )  # fmt: skip


def candidates(
    conv_pass: Pass, problem: Problem, dtype: torch.dtype, processors: int, capability: int
) -> tuple[Choice, list[Candidate]]:
    """Return the untuned default, and every candidate; the default is the first.

    Args:
        processors, capability: of the device.
    """
    default = default_choice(conv_pass, problem, dtype, processors, capability)
    found = [Candidate(default.tile, default.parts)]
    for tile in legal_tiles(conv_pass, problem, dtype, capability):
        if isinstance(tile, WgradTile | RowWgradTile):
            usual = default_parts(problem, tile, dtype.itemsize, processors)
            most = parts_limit(problem, tile, dtype.itemsize)
            found += [Candidate(tile, parts) for parts in parts_around(usual, most)]
        else:
            found.append(Candidate(tile))
    return default, list(dict.fromkeys(found))


def parts_around(usual: int, most: int) -> list[int]:
    """Return numbers of parts to try: the usual one, half, twice, and between; at most ``most``."""
    tried = [min(most, max(1, round(usual * factor))) for factor in FACTORS]
    return list(dict.fromkeys(tried))


def kernels_digest() -> str:
    """Return a hash of the GPU kernels and of what tunes them: a time holds for that code."""
    root, found = Path(__file__).resolve().parent.parent, hashlib.sha256()
    names = [f"hrbp_core/kernels/{name}.py" for name in KERNELS]
    names += ["hrbp_core/launch_tables.py", *(f"bench/{name}.py" for name in TIMING)]
    for name in names:
        found.update((root / name).read_bytes())
    return found.hexdigest()[:16]


def grouped(wanted: Sequence[Task]) -> list[list[Task]]:
    """Return the tasks by the inputs they share, in their order."""
    lots: dict[Any, list[Task]] = {}
    for task in wanted:
        lots.setdefault(task.lot, []).append(task)
    return list(lots.values())
