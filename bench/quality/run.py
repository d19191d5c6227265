"""Runs the quality sweep: one cell, one line of quality.jsonl; what is there is not done again."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from bench.environment import environment
from bench.jsonl import append_line, read_lines
from bench.quality import families, networks
from bench.quality.bounds import block_bound
from bench.quality.plan import FILE, KEY, REAL, SYNTHETIC, QualityCell, QualityPlan
from bench.quality.structure import dgrad_fill
from bench.records import SCHEMA
from bench.store import Store
from hrbp_core import BlockPattern, regroup, retained
from hrbp_core.shapes import FilterShape, block_grid

Progress = Callable[[int, int, str], None]


def load_scores(name: str, shape: FilterShape, seed: int) -> Tensor:
    """Return scores [K, C, R, S] by name: a family, a network, or a .pt or .npy file.

    Args:
        shape: of a family's draw; the others have their own.

    Raises:
        ValueError: an unknown name, or a file that holds no tensor of four axes.
    """
    if name in SYNTHETIC:
        return families.draw(name, shape, seed)
    if name in REAL:
        return networks.magnitudes(name, seed)
    path = Path(name)
    if path.suffix not in (".pt", ".npy") or not path.is_file():
        known = ", ".join((*SYNTHETIC, *REAL))
        raise ValueError(f"expected scores of {known}, or a .pt or .npy file; got {name!r}")
    if path.suffix == ".npy":
        held: Any = torch.from_numpy(np.load(path, allow_pickle=False))
    else:
        held = torch.load(path, map_location="cpu", weights_only=True)
    if not isinstance(held, Tensor) or held.dim() != 4:
        got = list(held.shape) if isinstance(held, Tensor) else type(held).__name__
        raise ValueError(f"expected a tensor [K, C, R, S] in {path}, got {got}")
    return held


def run_quality(plan: QualityPlan, out: Path, progress: Progress) -> list[dict[str, Any]]:
    """Append the missing lines to ``out``/quality.jsonl; return those of the plan.

    Raises:
        ValueError: scores that cannot be had, or that regroup refuses.
    """
    path = out / FILE
    done = {line[KEY]: line for line in read_lines(path, KEY).records} if path.exists() else {}
    with Store(out) as store:
        known = store.add_environment(environment("cpu"))
    lines = []
    layers = [(n, shape) for n in plan.scores for shape in _shapes(plan, n)]
    for number, (name, shape) in enumerate(layers, 1):
        scores = load_scores(name, shape, plan.seed)
        sha = hashlib.sha256(scores.double().contiguous().numpy().tobytes()).hexdigest()[:16]
        cells = list(plan.cells(name, sha, scores.shape))
        for place, cell in enumerate(cells):
            label = f"scores {number} of {len(layers)}, {name}: {cell.method}"
            progress(place, len(cells), label)
            if cell.cell_id not in done:
                line = _line(cell, scores) | {"environment": known}
                append_line(path, line, KEY)
                done[cell.cell_id] = line
            lines.append(done[cell.cell_id])
    progress(1, 1, "done")
    return lines


def _shapes(plan: QualityPlan, name: str) -> tuple[FilterShape, ...]:
    return plan.shapes if name in SYNTHETIC else plan.shapes[:1]


def _line(cell: QualityCell, scores: Tensor) -> dict[str, Any]:
    """Return what became of a cell; a refusal is a line with its reason."""
    facts = {
        "schema": SCHEMA, KEY: cell.cell_id, "scores": cell.scores, "scores_sha": cell.sha,
        "shape": list(cell.shape), "seed": cell.seed, "method": cell.method, "block": cell.block,
        "density": cell.density, "balance": cell.balance, "coverage": cell.coverage,
    }  # fmt: skip
    start = time.perf_counter()
    try:
        kept = regroup(
            scores, cell.density, method=cell.method, block=cell.block, seed=cell.seed,
            coverage=cell.coverage, balance=cell.balance,
        )  # fmt: skip
    except ValueError as error:
        return facts | {"status": "impossible", "reason": str(error)}
    seconds = time.perf_counter() - start
    gk, gc = block_grid(cell.shape, cell.block)
    mask = kept.mask()
    pattern = kept if isinstance(kept, BlockPattern) else None
    return facts | {
        "status": "ok",
        "reason": None,
        "retained": retained(scores, kept),
        "block_bound": block_bound(scores, round(cell.density * gk * gc), (cell.block,) * 2),
        "density_reached": kept.density,
        "survives_dgrad": True if pattern is not None else kept.survives_dgrad,  # type: ignore[union-attr]
        "partitioned": pattern.partitioned if pattern is not None else None,
        "dgrad_fill": dgrad_fill(kept, cell.block),
        "dead_filters": int((~mask.flatten(1).any(1)).sum()),
        "dead_channels": int((~mask.transpose(0, 1).flatten(1).any(1)).sum()),
        "regroup_s": seconds,
    }
