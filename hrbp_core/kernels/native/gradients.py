"""wgrad by machine code written for this processor: the host's side of ``wgrad``."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from hrbp_core.kernels.native import layout, machine
from hrbp_core.kernels.native.launching import address, code, launch, memory, source_slots
from hrbp_core.kernels.native.wgrad import WGRAD_SLOTS, WgradSpec, wgrad_module
from hrbp_core.kernels.plan import Plan
from hrbp_core.launch_tables import Geometry
from hrbp_core.shapes import Pair

# Pixels whose x and dy of one block (128 bytes each at blocks of 32) lie in a core's L1 cache.
SPAN_BYTES = 20 * 1024


@dataclass
class _Tables:
    """What a launch needs beside the tensors; kept between calls.

    Attributes:
        rows: of each entry in ``values``, in the order of ``offsets``.
        pitch: by filter group, from one filter's row to the next.
        groups: where each run of filter groups starts; images: each run of images.
    """

    copy: layout.Copy
    bands: layout.Bands
    starts: np.ndarray
    offsets: np.ndarray
    rows: np.ndarray
    pitch: np.ndarray
    groups: np.ndarray
    images: np.ndarray


def wgrad(dy: Tensor, x: Tensor, plan: Plan, geometry: Geometry) -> Tensor:
    """Return dvalues [entries * block_k, block_c]; dy, x as ``passes`` takes them."""
    threads, (block_k, block_c) = torch.get_num_threads(), plan.block
    spec = WgradSpec(str(x.dtype).removeprefix("torch."), machine.lanes(), block_k, block_c)
    images, filters, *size = dy.shape
    key = ((size[0], size[1]), (x.shape[2], x.shape[3]), geometry, images, threads)
    tables: _Tables = plan.kept(("wgrad", *key), lambda: _make_tables(plan, *key))
    copy, bands = tables.copy, tables.bands
    parts = len(tables.images) - 1
    out = torch.zeros(parts, plan.entry_count * block_k, block_c)
    own = copy.floats + int(bands.pixels.max()) * block_k
    copies = memory("copies", threads * own)
    slots = {
        "items": (len(tables.groups) - 1) * parts, "memory": address(copies), "memory_floats": own,
        "rows_floats": copy.floats, "group_runs": len(tables.groups) - 1,
        "first_group": address(tables.groups), "first_image": address(tables.images),
        "bands": bands.count, "band_rows": address(bands.rows), "band_dy": address(bands.out),
        "band_pixels": address(bands.pixels), "starts": address(tables.starts),
        "entries": address(tables.offsets), "rows": address(tables.rows),
        "pitch": address(tables.pitch), "pixel_in": address(bands.pixel_in),
        "span": max(1, SPAN_BYTES // (4 * (block_k + block_c))), "dy": dy.data_ptr(),
        "dy_image": filters * size[0] * size[1], "dy_pixel": filters, "out": address(out),
        "out_floats": out[0].numel(), **source_slots(x, copy),
    }  # fmt: skip
    launch(code(wgrad_module, spec), WGRAD_SLOTS, slots, threads)
    total = out[0] if parts == 1 else out.sum(0)
    return total.to(x.dtype)


def _make_tables(
    plan: Plan, size: Pair, extents: Pair, geometry: Geometry, images: int, threads: int
) -> _Tables:
    rows, columns = layout.axes(plan.shape[2:], geometry, size, forward=True)
    k_groups, c_groups = plan.grid
    block_k, block_c = plan.block
    # a thread takes all images of its groups: no more bands than the cache asks for
    band, copy = layout.plan_bands(
        rows, columns, extents[1], c_groups, block_c, 2 * threads, threads
    )
    bands = layout.make_bands(rows, columns, band, copy, k_groups * block_k)
    order, starts, offsets = layout.entry_offsets(
        plan.entries, plan.shape[3], rows, columns, copy, k_groups
    )
    value_rows, _ = plan.value_rows(order)
    runs = even_runs(np.diff(starts), threads)
    parts = min(images, -(-threads // (len(runs) - 1)))
    cuts = np.linspace(0, images, parts + 1).astype(np.int32)
    return _Tables(
        copy, bands, starts, offsets, value_rows, plan.pitch, runs.astype(np.int32), cuts
    )  # fmt: skip


def even_runs(counts: np.ndarray, most: int) -> np.ndarray:
    """Return where at most ``most`` runs of neighbouring groups start, about equal in entries."""
    ends = np.cumsum(counts)
    wanted = np.arange(1, most) * (ends[-1] / most)
    inner = np.searchsorted(ends - counts / 2, wanted)
    return np.unique(np.concatenate([[0], inner, [len(counts)]]))
