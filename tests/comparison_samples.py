"""MADE-UP folders of results to lay side by side: times chosen by hand, nothing was measured."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

from bench.records import Case, Cell, Measurement, Recipe, Status
from hrbp_core.shapes import Pass
from reports import compare, compare_content
from reports.compare import Folder, SharedCell
from reports.parts import Block, Bullets, Paragraph, Table
from tests import synthetic_results as synthetic
from tests.store_samples import SHAPE

E = synthetic.ENVIRONMENT
GPU = replace(
    E, device="cuda", device_name="SYNTHETIC GPU", capability="9.0", commit="f" * 40, dirty=False
)
WIDE = 0.01  # half-width of the samples' range, as a fraction
PASSES = ("fprop", "dgrad", "wgrad")
IMPLS = ("dense", "block_sparse")
# layer -> (dense, ours) in ms of fprop, dgrad, wgrad, in two folders
FIRST = {
    "conv_a": ((2.0, 1.0), (2.0, 1.0), (4.0, 2.0)),
    "conv_b": ((2.0, 1.0), (2.0, 1.0), (2.0, 1.0)),
}
SECOND = {
    "conv_a": ((2.0, 0.8), (2.0, 1.0), (4.0, 2.5)),
    "conv_b": ((3.0, 1.0), (2.0, 1.0), (2.0, 1.0)),
}


def samples(milliseconds: float) -> tuple[float, ...]:
    """Nine samples around a time; the interval of their median is the whole range but two."""
    return tuple(milliseconds * 1e-3 * (1 + WIDE * step / 4) for step in range(-4, 5))


def measured(
    layer: str, name: str, impl: str, milliseconds: float, environment: str = E.environment_id,
    mode: str = "hot", **changes: Any,
) -> Measurement:  # fmt: skip
    """Return an ok cell; ``changes`` are of its case. Layers on "a" have 16 channels, others 32."""
    case = Case(
        suite="made up", layer=layer, shape=replace(SHAPE, C=16 if layer.endswith("a") else 32),
        dtype="float32", device="cpu", conv_pass=Pass(name),
        recipe=Recipe("hrbp2", 0.25, (16, 16)), entries=12,
    )  # fmt: skip
    cell = Cell(replace(case, **changes), impl, mode)
    return Measurement(cell, environment, Status.OK, samples_s=samples(milliseconds))


def stored(path: Path, times: dict[str, Any], environment: Any = E, **more: Any) -> Path:
    """Write a results folder with these times."""
    lines = [
        measured(layer, name, impl, milliseconds, environment.environment_id, **more)
        for layer, passes in times.items()
        for name, both in zip(PASSES, passes, strict=True)
        for impl, milliseconds in zip(IMPLS, both, strict=True)
    ]
    return synthetic.write(path, lines, environments=(environment,))


def pair(tmp_path: Path, **more: Any) -> tuple[list[Folder], list[SharedCell]]:
    """Return folders "first" and "second", and what they share; ``more`` is of the second."""
    first = stored(tmp_path / "first", FIRST)
    folders = compare.load([first, stored(tmp_path / "second", SECOND, **more)])
    return folders, compare.shared_cells(folders)


def texts(blocks: Iterable[Block]) -> str:
    """Return what blocks say, a line an item."""
    told: list[str] = []
    for block in blocks:
        if isinstance(block, Paragraph):
            told.append(block.text)
        elif isinstance(block, Bullets):
            told += block.items
        elif isinstance(block, Table):
            told += [" | ".join(row) for row in (block.columns, *block.rows)]
        else:
            told += [block.title, block.caption]
    return "\n".join(told)


def page(folders: list[Folder], cells: list[SharedCell], whole: bool = True) -> dict[str, str]:
    """Return what each section says, by its title."""
    parts = compare_content.sections(folders, cells, whole=whole)
    return {part.title: texts(part.blocks) for part in parts}
