"""The tables that the machine code walks: bands of rows, tiles of pixels, offsets of entries.

Everything here depends on sizes and the pattern alone, not on the batch, and is worked out once.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from hrbp_core.launch_tables import Geometry
from hrbp_core.shapes import Pair

# A band's copy of its input rows stays in a core's L2 cache (512 KiB on Zen 3, 1 to 2 MiB since)
# beside the weights of one group.
BAND_BYTES = 256 * 1024
TILES = (6, 5, 4, 1)  # pixels; with two vectors each, twelve sums of sixteen registers


@dataclass(frozen=True)
class Axis:
    """One spatial axis of a pass: how output places read input places.

    An output place of a phase is ``i * out_step + phase``; it reads ``i * in_step + shift`` for
    each of the phase's taps.

    Attributes:
        in_step, out_step: between neighbouring output places of a phase.
        shifts: by phase, tap -> shift of the input place.
        extents: by phase, its output places.
    """

    in_step: int
    out_step: int
    shifts: tuple[dict[int, int], ...]
    extents: tuple[int, ...]

    @property
    def low(self) -> int:
        """The least shift."""
        return min((v for s in self.shifts for v in s.values()), default=0)

    @property
    def reach(self) -> int:
        """How far the greatest shift lies above the least."""
        return max((v for s in self.shifts for v in s.values()), default=0) - self.low


def forward_axis(taps: int, stride: int, padding: int, dilation: int, out: int) -> Axis:
    """Return an axis of fprop and wgrad."""
    return Axis(stride, 1, ({t: t * dilation - padding for t in range(taps)},), (out,))


def backward_axis(taps: int, stride: int, padding: int, dilation: int, size: int) -> Axis:
    """Return an axis of dgrad: every stride-th place of x takes the same taps of dy."""
    shifts = tuple(
        {
            t: (phase + padding - t * dilation) // stride
            for t in range(taps)
            if (phase + padding - t * dilation) % stride == 0
        }
        for phase in range(stride)
    )
    extents = tuple(max(0, -(-(size - phase) // stride)) for phase in range(stride))
    return Axis(1, stride, shifts, extents)


def axes(kernel: Pair, geometry: Geometry, size: Pair, *, forward: bool) -> tuple[Axis, Axis]:
    """Return the rows' and the columns' axis.

    Args:
        size: of the output: (P, Q) forward, (H, W) of x backward.
    """
    make = forward_axis if forward else backward_axis
    rows, columns = (
        make(kernel[i], geometry[0][i], geometry[1][i], geometry[2][i], size[i]) for i in (0, 1)
    )
    return rows, columns


@dataclass(frozen=True)
class Copy:
    """The copy of a band's input rows: [groups, rows, columns, block] float32.

    Attributes:
        rows, columns: of the copy.
        first, last: the columns that lie inside the image.
        shift: the image's column of column 0.
    """

    groups: int
    rows: int
    columns: int
    block: int
    first: int
    last: int
    shift: int

    @property
    def row_floats(self) -> int:
        """From a row to the next."""
        return self.columns * self.block

    @property
    def group_floats(self) -> int:
        """From a group to the next."""
        return self.rows * self.row_floats

    @property
    def floats(self) -> int:
        """In all."""
        return self.groups * self.group_floats


def plan_bands(
    rows: Axis, columns: Axis, width: int, groups: int, block: int, images: int, threads: int
) -> tuple[int, Copy]:
    """Return (output rows of a phase in a band, the copy that it reads).

    As many rows as keep the copy in cache, and few enough that every thread has work; but no
    fewer than lie between the outermost taps, or dilated taps would copy each row many times.
    """
    wide = max(1, (max(columns.extents) - 1) * columns.in_step + columns.reach + 1)
    first = min(max(0, -columns.low), wide)
    last = max(first, min(wide, width - columns.low))
    line_bytes = 4 * wide * groups * block
    most = max(rows.extents)
    fitting = (BAND_BYTES // line_bytes - rows.reach - 1) // rows.in_step + 1
    fitting = max(fitting, -(-(rows.reach + 1) // rows.in_step))
    enough = most if images >= 2 * threads else -(-most * images // (2 * threads))
    bands = -(-most // max(1, min(fitting, enough, most)))
    band = -(-most // bands)  # as even as can be
    lines = (band - 1) * rows.in_step + rows.reach + 1
    return band, Copy(groups, lines, wide, block, first, last, columns.low)


@lru_cache(maxsize=4096)
def cut_pixels(pixels: int) -> tuple[int, ...]:
    """Return how many tiles of each size of ``TILES`` cover ``pixels``, at the least cost.

    49 pixels are 4 sixes and 5 fives, which take 49 steps of two products a channel where 8 sixes
    and a single pixel take 52: below four pixels a tile waits for its sums.
    """
    if pixels >= 20:  # any number from 20 on is made of sixes and fives
        fives = -pixels % 6
        return ((pixels - 5 * fives) // 6, fives, 0, 0)
    best: list[tuple[int, tuple[int, ...]]] = [(0, (0,) * len(TILES))]
    for n in range(1, pixels + 1):
        options = []
        for place, size in enumerate(TILES):
            if size <= n:
                cost, cut = best[n - size]
                more = tuple(c + (i == place) for i, c in enumerate(cut))
                options.append((cost + max(size, 4), more))
        best.append(min(options))
    return best[pixels][1]


@dataclass(frozen=True)
class Bands:
    """A pass's bands and pixels, as int32 tables.

    Attributes:
        count: bands of an image. phases: of the output.
        rows [count]: the first input row. out [count, phases]: the first output number.
        tiles [count, phases, len(TILES)], pixels [count, phases]: of the output.
        offsets [phases]: where a phase's pixels start in the next two.
        pixel_in, pixel_out: numbers from the band's first.
    """

    count: int
    phases: int
    rows: np.ndarray
    out: np.ndarray
    tiles: np.ndarray
    pixels: np.ndarray
    offsets: np.ndarray
    pixel_in: np.ndarray
    pixel_out: np.ndarray


def make_bands(rows: Axis, columns: Axis, band: int, copy: Copy, out_pixel: int) -> Bands:
    """Return the tables.

    Args:
        band: output rows of a phase in a band.
        out_pixel: numbers from an output pixel to the next.
    """
    width = sum(columns.extents)
    count = -(-max(rows.extents) // band)
    starts = np.arange(count) * band
    out, pixels, offsets, ins, outs = [], [], [0], [], []
    for a, b in _phases(rows, columns):
        origin = (starts * rows.out_step + a) * width + b
        out.append(origin * out_pixel)
        pixels.append(np.clip(rows.extents[a] - starts, 0, band) * columns.extents[b])
        i, j = np.divmod(np.arange(band * columns.extents[b]), max(1, columns.extents[b]))
        ins.append(i * rows.in_step * copy.row_floats + j * columns.in_step * copy.block)
        outs.append((i * rows.out_step * width + j * columns.out_step) * out_pixel)
        offsets.append(offsets[-1] + len(i))
    counted = np.stack(pixels, 1)
    tiles = np.array([[cut_pixels(int(n)) for n in line] for line in counted])
    return Bands(
        count, len(out), _int32(starts * rows.in_step + rows.low), _int32(np.stack(out, 1)),
        _int32(tiles), _int32(counted), _int32(np.array(offsets)), _int32(np.concatenate(ins)),
        _int32(np.concatenate(outs)),
    )  # fmt: skip


def entry_offsets(
    entries: np.ndarray, taps_across: int, rows: Axis, columns: Axis, copy: Copy, groups: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return (order, starts, offsets) of entries by (phase, output group, input group, tap).

    Args:
        entries: int [E, 3]: (output group, input group, tap).
        groups: output groups.

    Returns:
        order: int64 [.]: which entry stands at each place; an entry belongs to one phase.
        starts: int32 [phases * groups + 1]. offsets: int32: numbers from the band's first.
    """
    out, into, tap = entries.T
    r, s = np.divmod(tap, taps_across)
    orders, starts, offsets = [], [np.zeros(1, np.int64)], []
    for a, b in _phases(rows, columns):
        down, across = _above_least(rows, a, r), _above_least(columns, b, s)
        chosen = np.flatnonzero((down >= 0) & (across >= 0))
        chosen = chosen[np.lexsort((tap[chosen], into[chosen], out[chosen]))]
        orders.append(chosen)
        counts = np.bincount(out[chosen], minlength=groups)
        starts.append(starts[-1][-1] + np.cumsum(counts))
        offsets.append(
            into[chosen] * copy.group_floats
            + down[chosen] * copy.row_floats
            + across[chosen] * copy.block
        )
    return np.concatenate(orders), _int32(np.concatenate(starts)), _int32(np.concatenate(offsets))


def _phases(rows: Axis, columns: Axis) -> Iterator[Pair]:
    for a in range(len(rows.extents)):
        for b in range(len(columns.extents)):
            yield a, b


def _above_least(axis: Axis, phase: int, tap: np.ndarray) -> np.ndarray:
    """Return each tap's shift above the axis' least, or -1 where the phase lacks the tap."""
    return np.array([axis.shifts[phase].get(int(t), axis.low - 1) - axis.low for t in tap], int)


def _int32(table: np.ndarray) -> np.ndarray:
    return np.ascontiguousarray(table, dtype=np.int32)
