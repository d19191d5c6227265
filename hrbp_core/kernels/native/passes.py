"""fprop and dgrad by machine code written for this processor: the host's side of ``gather``.

The functions take a plan and dense channels_last tensors of at least one image, whose channels
fill whole groups; ``kernels.cpu`` sees to both, and decides who computes.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from hrbp_core.kernels.native import layout, machine
from hrbp_core.kernels.native.gather import SLOTS, GatherSpec, gather_module
from hrbp_core.kernels.native.launching import CL, address, code, launch, memory, source_slots
from hrbp_core.kernels.native.weights import WEIGHT_SLOTS, weight_module
from hrbp_core.kernels.plan import Plan
from hrbp_core.launch_tables import Geometry
from hrbp_core.shapes import Pair


def fprop(
    x: Tensor, values: Tensor, bias: Tensor | None, plan: Plan, out_size: Pair, geometry: Geometry
) -> Tensor:
    """Return y [N, filter groups * block_k, P, Q]. x: [N, channel groups * block_c, H, W]."""
    return _gather(x, values, bias, plan, out_size, geometry, forward=True)


def dgrad(dy: Tensor, values: Tensor, plan: Plan, input_size: Pair, geometry: Geometry) -> Tensor:
    """Return dx [N, channel groups * block_c, H, W]. dy: [N, filter groups * block_k, P, Q]."""
    return _gather(dy, values, None, plan, input_size, geometry, forward=False)


@dataclass
class _Tables:
    """What a launch needs beside the tensors; kept between calls.

    Attributes:
        starts, offsets: see ``layout.entry_offsets``.
        rows, pitches: of each entry in ``values``. places: of each entry in the laid out weights.
        chunk_floats: from one chunk of an entry's output channels to the next.
        runs: where the runs of entries start that a thread lays out at a time.
    """

    copy: layout.Copy
    bands: layout.Bands
    starts: np.ndarray
    offsets: np.ndarray
    rows: np.ndarray
    pitches: np.ndarray
    places: np.ndarray
    chunk_floats: np.ndarray
    runs: np.ndarray


def _gather(
    source: Tensor, values: Tensor, bias: Tensor | None, plan: Plan, size: Pair,
    geometry: Geometry, *, forward: bool,
) -> Tensor:  # fmt: skip
    threads = torch.get_num_threads()
    dtype = str(source.dtype).removeprefix("torch.")
    block_k, block_c = plan.block
    block_in, block_out = (block_c, block_k) if forward else (block_k, block_c)
    spec = GatherSpec(dtype, machine.lanes(), block_in, block_out)
    images, _, height, width = source.shape
    key = (forward, size, (height, width), geometry, min(images, 2 * threads), threads, spec.chunk)
    tables: _Tables = plan.kept(key, lambda: _make_tables(plan, *key))
    copy, bands, groups = tables.copy, tables.bands, plan.grid[0 if forward else 1]
    shape = (images, groups * block_out, *size)
    out = torch.empty(shape, dtype=source.dtype, memory_format=CL)
    weights = _lay_weights(values, tables, spec, threads, forward=forward)
    copies = memory("copies", threads * copy.floats)
    bias = _float_bias(bias, shape[1])
    slots = {
        "items": images * bands.count, "out": out.data_ptr(), "weights": address(weights),
        "bias": address(bias), "memory": address(copies), "memory_floats": copy.floats,
        "bands": bands.count, "phases": bands.phases, "groups": groups,
        "entries": address(tables.offsets), "starts": address(tables.starts),
        "offsets": address(bands.offsets), "pixel_in": address(bands.pixel_in),
        "pixel_out": address(bands.pixel_out), "tiles": address(bands.tiles),
        "band_rows": address(bands.rows), "band_out": address(bands.out),
        "out_image": math.prod(shape[1:]), **source_slots(source, copy),
    }  # fmt: skip
    launch(code(gather_module, spec), SLOTS, slots, threads)
    return out


def _make_tables(
    plan: Plan, forward: bool, size: Pair, extents: Pair, geometry: Geometry, images: int,
    threads: int, chunk: int,
) -> _Tables:  # fmt: skip
    rows, columns = layout.axes(plan.shape[2:], geometry, size, forward=forward)
    k_groups, c_groups = plan.grid
    entries = plan.entries if forward else plan.entries[:, [1, 0, 2]]
    out_groups, in_groups = (k_groups, c_groups) if forward else (c_groups, k_groups)
    block_in, block_out = plan.block[::-1] if forward else plan.block
    band, copy = layout.plan_bands(rows, columns, extents[1], in_groups, block_in, images, threads)
    bands = layout.make_bands(rows, columns, band, copy, out_groups * block_out)
    order, starts, offsets = layout.entry_offsets(
        entries, plan.shape[3], rows, columns, copy, out_groups
    )
    counts = np.diff(starts)
    first = np.repeat(starts[:-1], counts).astype(np.int64)
    within = np.arange(len(order)) - first
    places = first * (block_in * block_out) + within * (block_in * chunk)
    value_rows, pitches = plan.value_rows(order)
    runs = np.linspace(0, len(order), 4 * threads + 1).astype(np.int64)
    return _Tables(
        copy, bands, starts, offsets, value_rows, pitches, places,
        np.repeat(counts, counts).astype(np.int64) * (block_in * chunk), runs,
    )  # fmt: skip


def _lay_weights(
    values: Tensor, tables: _Tables, spec: GatherSpec, threads: int, *, forward: bool
) -> Tensor:
    """Return the weights as the machine code reads them; see ``weights``."""
    laid = memory("weights", len(tables.offsets) * spec.block_in * spec.block_out)
    values = values.contiguous()
    slots = {
        "items": len(tables.runs) - 1, "first": address(tables.runs), "values": address(values),
        "weights": address(laid), "rows": address(tables.rows), "pitches": address(tables.pitches),
        "places": address(tables.places), "chunk_floats": address(tables.chunk_floats),
    }  # fmt: skip
    if len(tables.offsets):
        launch(code(weight_module, spec, forward), WEIGHT_SLOTS, slots, threads)
    return laid


def _float_bias(bias: Tensor | None, channels: int) -> Tensor:
    """Return float32 [channels], zeros where there is none."""
    start = torch.zeros(channels)
    if bias is not None:
        start[: len(bias)] = bias
    return start
