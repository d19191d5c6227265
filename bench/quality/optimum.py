"""The best grouping there is, by trying every one, and what share of it a method reaches.

Two-sided, under coverage: every partition of the filters and of the channels into groups; the
blocks of each pair of partitions are first bounded by the best blocks without coverage, and
chosen exactly from the best bound downwards until no bound is left above the best choice.
One-sided, without coverage: every partition of the filters; each group's best channels are then
its largest, in runs of ``block_c``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np

from bench.jsonl import append_line, read_lines
from bench.quality import families
from bench.quality.plan import OPTIMUM, OPTIMUM_KEY
from bench.records import SCHEMA, digest
from hrbp_core.regrouping import regroup, retained
from hrbp_core.regrouping.own_channels import block_sums
from hrbp_core.regrouping.problem import Integers, Limits, quantise
from hrbp_core.regrouping.selection import choose_blocks

Progress = Callable[[int, int, str], None]
CASES = (
    ((6, 6), 2, (0.45, 0.7)),
    ((8, 8), 2, (0.4, 0.65)),
    ((10, 10), 2, (0.4, 0.6)),
    ((6, 6), 3, (0.5, 0.75)),
    ((9, 9), 3, (0.45, 0.65)),
)
SEEDS = 3


@dataclass(frozen=True)
class Small:
    """A layer that can be solved: size x size x 3 x 3, blocks of block x block."""

    family: str
    size: int
    block: int
    density: float
    seed: int


def cases(seeds: int = SEEDS) -> Iterator[Small]:
    """Yield every small layer of the exhaustive preset."""
    for family in families.FAMILIES:
        for (size, _), block, densities in CASES:
            for density in densities:
                for seed in range(seeds):
                    yield Small(family, size, block, density, seed)


def shares(case: Small) -> dict[str, Any]:
    """Return what hrbp2 and hrbp retain, and what the best groupings do."""
    scores = families.draw(case.family, (case.size, case.size, 3, 3), case.seed)
    options: dict[str, Any] = {"block": case.block, "seed": case.seed}
    two = retained(scores, regroup(scores, case.density, method="hrbp2", **options))
    one = retained(scores, regroup(scores, case.density, method="hrbp", coverage=False, **options))
    kernel_wise = quantise(scores.numpy()).sum(axis=(2, 3))
    total = float(kernel_wise.sum())
    groups = case.size // case.block
    blocks = round(case.density * groups**2)
    return {
        "hrbp2": two,
        "best_two_sided": best_two_sided(kernel_wise, case.block, blocks) / total,
        "hrbp": one,
        "best_one_sided": best_one_sided(kernel_wise, case.block, blocks) / total,
    }


def partitions(size: int, block: int) -> Integers:
    """Return int64 [count, groups, block]: every way to cut 0 .. size - 1 into equal groups."""

    def cut(free: tuple[int, ...]) -> Iterator[list[tuple[int, ...]]]:
        if not free:
            yield []
            return
        first, rest = free[0], free[1:]
        for others in combinations(rest, block - 1):
            left = tuple(i for i in rest if i not in others)
            for tail in cut(left):
                yield [(first, *others), *tail]

    return np.array(list(cut(tuple(range(size)))), dtype=np.int64)


def best_two_sided(scores: Integers, block: int, blocks: int) -> int:
    """Return the greatest score of ``blocks`` blocks of any two partitions, under coverage.

    Args:
        scores: int64 [n, n], kernel-wise; n divides by ``block``.
    """
    cuts = partitions(len(scores), block)
    groups = cuts.shape[1]
    limits = Limits.of((groups, groups), blocks, coverage=True, balance="none")
    bounds = np.empty((len(cuts), len(cuts)), dtype=np.int64)
    for row, filters in enumerate(cuts):
        parts = scores[filters].sum(axis=1)  # [groups, n]
        sums = parts[:, cuts].sum(axis=3)  # [groups, cuts, groups]
        flat = sums.transpose(1, 0, 2).reshape(len(cuts), -1)
        bounds[row] = -np.partition(-flat, blocks - 1, axis=1)[:, :blocks].sum(axis=1)
    best = 0
    for place in np.argsort(-bounds, axis=None, kind="stable"):
        row, column = np.unravel_index(place, bounds.shape)
        if bounds[row, column] <= best:
            break
        sums = scores[cuts[row]].sum(axis=1)[:, cuts[column]].sum(axis=2)
        best = max(best, int(sums[choose_blocks(sums, limits)].sum()))
    return best


def best_one_sided(scores: Integers, block: int, blocks: int) -> int:
    """Return the greatest score when each filter group chooses its own channels, uncovered."""
    best = 0
    for filters in partitions(len(scores), block):
        runs = block_sums(scores[filters].sum(axis=1), block)
        best = max(best, int(-np.sort(-runs, axis=None)[:blocks].sum()))
    return best


def run_optimum(out: Path, progress: Progress) -> list[dict[str, Any]]:
    """Append the missing lines to ``out``/optimum.jsonl and return all of them."""
    path = out / OPTIMUM
    done = (
        {line[OPTIMUM_KEY]: line for line in read_lines(path, OPTIMUM_KEY).records}
        if path.exists()
        else {}
    )
    lines, wanted = [], list(cases())
    for number, case in enumerate(wanted):
        progress(number, len(wanted), f"{case.family} {case.size}x{case.size}, {case.block}")
        name = digest(asdict(case))
        if name not in done:
            line = {"schema": SCHEMA, OPTIMUM_KEY: name} | asdict(case) | shares(case)
            append_line(path, line, OPTIMUM_KEY)
            done[name] = line
        lines.append(done[name])
    progress(len(wanted), len(wanted), "done")
    return lines


def told(lines: list[dict[str, Any]]) -> list[str]:
    """Return a sentence for each method: the mean and the least share of the best."""
    sentences = []
    for method, best, what in (
        ("hrbp2", "best_two_sided", "two-sided"),
        ("hrbp", "best_one_sided", "one-sided, uncovered"),
    ):
        reached = np.array([line[method] / line[best] for line in lines])
        found = int((reached >= 1 - 1e-9).sum())
        sentences.append(
            f"{method}: {reached.mean():.2%} of the best {what} grouping on average over "
            f"{len(lines)} layers, {reached.min():.2%} at least; the best itself on {found}"
        )
    return sentences
