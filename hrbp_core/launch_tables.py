"""A pattern's index as the GPU kernels read it: one int64 tensor for all three passes.

It belongs to a canonical pattern *and* a geometry: a record holds the shift of its tap, so that
the kernels' inner loops divide nothing. Sections, each padded to 16 numbers:

=========  =====================  ==========================================================
section    length                 what stands there
=========  =====================  ==========================================================
records    entries                fprop, wgrad: (channel group, tap, shift) of each entry
starts     filter groups + 1      the first entry of each filter group
twins      entries                dgrad: (filter group, tap, shift), by phase and channel group
places     entries                dgrad: the first row of ``values`` of each twin, and its pitch
heads      phases * Hc + 1        dgrad: the first twin of each (phase, channel group)
tiles g    about entries / g      wgrad: (filter group, first entry) of each run of g entries
blocks g   about blocks / g       the same of each run of g blocks, by the entry of its first tap
=========  =====================  ==========================================================

The last section is there for whole patterns alone, whose blocks keep all their taps; kernels that
load a row of pixels once for all taps above each other need that, and see it by the length.

A strided dgrad falls into stride_h * stride_w phases, one for each remainder of an input
pixel's place; a tap belongs to one phase alone, so no product is done for nothing (masking
instead does stride_h * stride_w times the work).
"""

from __future__ import annotations

from functools import lru_cache
from typing import NamedTuple

import torch
from torch import Tensor

from hrbp_core.shapes import FilterShape, Pair
from hrbp_core.tables import IndexTables

Geometry = tuple[Pair, Pair, Pair]
RUNS = (1, 2, 4)  # entries that one wgrad tile may span
AHEAD = 16  # kernels load an index one step before they use it, so lists are read past their end
MAX_TAPS = 64  # one bit each in a pixel's set of taps inside the image
MAX_SHIFT = 2**15 - 1
MAX_GROUPS = 2**23


class Sections(NamedTuple):
    """Where each section starts; ``tiles`` and ``blocks``: (start, length) for each of ``RUNS``.

    ``blocks`` is empty where a block may lack taps.
    """

    records: int
    starts: int
    twins: int
    places: int
    heads: int
    tiles: tuple[tuple[int, int], ...]
    blocks: tuple[tuple[int, int], ...]
    size: int


@lru_cache(maxsize=1024)
def sections(
    entries: int, filter_groups: int, channel_groups: int, phases: int, blocks: int = 0
) -> Sections:
    """Return the layout of the tensor that ``launch_tables`` makes.

    Args:
        blocks: of a whole pattern; 0 where a block may lack taps.
    """
    at, starts = 0, []
    runs = [_most_runs(entries, run, filter_groups) for run in RUNS]
    block_runs = [_most_runs(blocks, run, filter_groups) for run in RUNS] if blocks else []
    lists = (entries, filter_groups + 1, entries, entries, phases * channel_groups + 1)
    for length in (*lists, *runs, *block_runs):
        starts.append(at)
        at += -(-(length + AHEAD) // 16) * 16
    tiles = tuple(zip(starts[5:], runs, strict=False))
    whole = tuple(zip(starts[5 + len(RUNS) :], block_runs, strict=True))
    return Sections(*starts[:5], tiles, whole, at)  # type: ignore[call-arg, arg-type]


def _most_runs(count: int, run: int, groups: int) -> int:
    return count if run == 1 else count // run + groups


def group_counts(shape: FilterShape, block: Pair) -> Pair:
    """Return (filter groups, channel groups)."""
    return -(-shape[0] // block[0]), -(-shape[1] // block[1])


def record(group: Tensor, tap: Tensor, dh: Tensor, dw: Tensor) -> Tensor:
    """Return int64: group (bits 40-63), tap (32-39), row shift (16-31), column shift (0-15)."""
    low = ((dh & 0xFFFF) << 16) | (dw & 0xFFFF)
    return (group << 40) | ((tap & 0xFF) << 32) | low


def launch_tables(pattern: IndexTables, stride: Pair, padding: Pair, dilation: Pair) -> Tensor:
    """Return the int64 tables of a partitioned pattern, on its device.

    Group tables are not read: the groups' numbers alone matter, as in the canonical form.
    """
    _, _, r, s = pattern.shape
    group, channel, tap = pattern.entries.long().unbind(1)
    groups, channel_groups = group_counts(pattern.shape, pattern.block)
    at = sections(len(group), groups, channel_groups, stride[0] * stride[1], whole_blocks(pattern))
    tables = torch.zeros(at.size, dtype=torch.int64, device=group.device)
    h = (tap // s) * dilation[0] - padding[0]
    w = (tap % s) * dilation[1] - padding[1]
    _write(tables, at.records, record(channel, tap, h, w))
    counts = torch.bincount(group, minlength=groups)
    starts = _starts(counts)
    _write(tables, at.starts, starts)

    a, b = h % stride[0], w % stride[1]  # the phase that this tap reaches
    lot = (a * stride[1] + b) * channel_groups + channel
    order = torch.argsort((lot * (int(tap.max()) + 1) + tap) * groups + group)
    shifts = (a - h) // stride[0], (b - w) // stride[1]  # exact
    _write(tables, at.twins, record(group, tap, *shifts)[order])
    row = starts[group] * (pattern.block[0] - 1) + torch.arange(len(group), device=group.device)
    _write(tables, at.places, ((counts[group] << 32) | row)[order])
    lots = torch.bincount(lot, minlength=stride[0] * stride[1] * channel_groups)
    _write(tables, at.heads, _starts(lots))
    for run, (start, length) in zip(RUNS, at.tiles, strict=True):
        _write(tables, start, _runs(counts, starts, run, length))
    for run, (start, length) in zip(RUNS, at.blocks, strict=False):
        _write(tables, start, _runs(counts // (r * s), starts, run, length))
    return tables


def whole_blocks(pattern: IndexTables) -> int:
    """Return how many blocks there are when each keeps all of its taps, else 0."""
    group, channel, _ = pattern.entries.long().unbind(1)
    taps = pattern.shape[2] * pattern.shape[3]
    kept = torch.bincount(group * (int(channel.max()) + 1) + channel)
    return len(group) // taps if bool(((kept == 0) | (kept == taps)).all()) else 0


def _write(tables: Tensor, start: int, content: Tensor) -> None:
    tables[start : start + len(content)] = content


def _starts(counts: Tensor) -> Tensor:
    """Return int64 [n + 1]: 0 and the running sums."""
    return torch.cat((counts.new_zeros(1), torch.cumsum(counts, 0)))


def _runs(counts: Tensor, starts: Tensor, run: int, length: int) -> Tensor:
    """Return int64 [length]: filter group << 32 | first entry of each run; -1 after the last."""
    pieces = -(-counts // run)
    group = torch.repeat_interleave(torch.arange(len(counts), device=counts.device), pieces)
    place = torch.arange(len(group), device=counts.device) - _starts(pieces)[group]
    tiles = torch.full((length,), -1, dtype=torch.int64, device=counts.device)
    tiles[: len(group)] = (group << 32) | (starts[group] + place * run)
    return tiles
