"""The tables that the GPU kernels read say what the pattern says, by brute force."""

from __future__ import annotations

from collections import Counter

import torch
from hypothesis import given
from hypothesis import strategies as st

from hrbp_core.launch_tables import AHEAD, RUNS, launch_tables, sections
from hrbp_core.pattern import BlockPattern
from tests.pattern_samples import geometries, random_pattern

Record = tuple[int, int, int, int]


def signed(number: int) -> int:
    return number - 2**16 if number >= 2**15 else number


def decode(record: int) -> Record:
    """(group, tap, row shift, column shift)."""
    low = record & 0xFFFFFFFF
    return record >> 40, (record >> 32) & 0xFF, signed(low >> 16), signed(low & 0xFFFF)


class Tables:
    """The sections of one tensor, as lists."""

    def __init__(self, pattern: BlockPattern, stride: tuple[int, int], *rest: tuple[int, int]):
        e, g, h = len(pattern.entries), len(pattern.filters), len(pattern.channels)
        lots = stride[0] * stride[1] * h
        kept = Counter((int(a), int(b)) for a, b, _ in pattern.entries)
        taps = pattern.shape[2] * pattern.shape[3]
        self.whole = set(kept.values()) == {taps}
        at = sections(e, g, h, stride[0] * stride[1], len(kept) if self.whole else 0)
        tensor = launch_tables(pattern, stride, *rest)
        assert tensor.dtype == torch.int64
        assert tensor.numel() == at.size
        every = tensor.tolist()
        self.records = [decode(n) for n in every[at.records : at.records + e]]
        self.starts = every[at.starts : at.starts + g + 1]
        self.twins = [decode(n) for n in every[at.twins : at.twins + e]]
        self.places = every[at.places : at.places + e]
        self.heads = every[at.heads : at.heads + lots + 1]
        self.tiles = {r: every[s : s + n] for r, (s, n) in zip(RUNS, at.tiles, strict=True)}
        self.blocks = {r: every[s : s + n] for r, (s, n) in zip(RUNS, at.blocks, strict=False)}
        assert bool(self.blocks) == self.whole
        runs = (*at.tiles, *at.blocks)
        bounds = sorted([at.records, at.starts, at.twins, at.places, at.heads,
                         *(s for s, _ in runs), at.size])  # fmt: skip
        lengths = [e, g + 1, e, e, lots + 1, *(n for _, n in runs)]
        for start, end, length in zip(bounds[:-1], bounds[1:], lengths, strict=True):
            assert start % 16 == 0
            assert end - start >= length + AHEAD


@st.composite
def cases(draw: st.DrawFn) -> tuple[BlockPattern, tuple]:
    r, s, geometry, _ = draw(geometries(4))
    k, c = draw(st.integers(1, 30)), draw(st.integers(1, 30))
    block = draw(st.integers(1, min(k, 9))), draw(st.integers(1, min(c, 9)))
    style = draw(st.sampled_from(["random", "dense", "one_block", "same_columns"]))
    pattern = random_pattern((k, c, r, s), block, draw(st.integers(0, 99)), style, some_taps=True)
    return pattern, geometry


@given(cases())
def test_fprop_lists(case: tuple) -> None:
    pattern, (stride, padding, dilation) = case
    tables, s = Tables(pattern, stride, padding, dilation), pattern.shape[3]
    entries = pattern.entries.tolist()
    for (group, tap, dh, dw), (_, channel, own) in zip(tables.records, entries, strict=True):
        assert (group, tap) == (channel, own)
        assert dh == tap // s * dilation[0] - padding[0]
        assert dw == tap % s * dilation[1] - padding[1]
    for group in range(len(pattern.filters)):
        first, last = tables.starts[group : group + 2]
        assert all(e[0] == group for e in entries[first:last])
    assert tables.starts[-1] == len(entries)


@given(cases())
def test_dgrad_reaches_each_pixel_by_the_right_taps(case: tuple) -> None:
    """For each input row and column, the twins of its phase are the taps that torch sums."""
    pattern, (stride, padding, dilation) = case
    tables, (_, _, r, s) = Tables(pattern, stride, padding, dilation), pattern.shape
    channel_groups = len(pattern.channels)
    for h in range(stride[0] + 2):
        for w in range(stride[1] + 2):
            phase = h % stride[0] * stride[1] + w % stride[1]
            found: Counter[tuple] = Counter()
            for channel in range(channel_groups):
                first, last = tables.heads[phase * channel_groups + channel :][:2]
                for group, tap, dh, dw in tables.twins[first:last]:
                    found[group, channel, tap, h // stride[0] + dh, w // stride[1] + dw] += 1
            expected: Counter[tuple] = Counter()
            for group, channel, tap in pattern.entries.tolist():
                up = h + padding[0] - tap // s * dilation[0]
                left = w + padding[1] - tap % s * dilation[1]
                if up % stride[0] == 0 and left % stride[1] == 0:
                    p, q = up // stride[0], left // stride[1]
                    expected[group, channel, tap, p, q] += 1
            assert found == expected
    assert r * s > max(tap for _, tap, *_ in tables.twins)


@given(cases())
def test_places_point_at_the_values(case: tuple) -> None:
    pattern, geometry = case
    tables, (block_k, _) = Tables(pattern, *geometry), pattern.block
    # values that say which (filter group, channel group, tap) and lane they are
    weight = torch.arange(pattern.mask().numel(), dtype=torch.float64).view(pattern.shape) + 1
    values, s = pattern.pack(weight), pattern.shape[3]
    channel_groups = len(pattern.channels)
    for number, ((group, tap, *_), place) in enumerate(
        zip(tables.twins, tables.places, strict=True)
    ):
        row, pitch = place & 0xFFFFFFFF, place >> 32
        channel = sum(head <= number for head in tables.heads) - 1
        for lane in range(block_k):
            filter_ = int(pattern.filters[group, lane])
            first = int(pattern.channels[channel % channel_groups, 0])
            if filter_ >= 0:
                expected = weight[filter_, first, tap // s, tap % s]
                assert values[row + lane * pitch, 0] == expected


@given(cases())
def test_wgrad_runs_cover_each_entry_once(case: tuple) -> None:
    pattern, geometry = case
    tables = Tables(pattern, *geometry)
    for run, tiles in tables.tiles.items():
        real = [t for t in tiles if t >= 0]
        assert tiles[: len(real)] == real
        covered: list[int] = []
        for tile in real:
            group, entry = tile >> 32, tile & 0xFFFFFFFF
            covered += range(entry, min(entry + run, tables.starts[group + 1]))
            assert tables.starts[group] <= entry
        assert covered == list(range(len(pattern.entries)))


@given(cases(), st.booleans())
def test_runs_of_blocks_cover_each_whole_block_once(case: tuple, whole: bool) -> None:
    """A run starts at the first tap's entry of its first block; its blocks are of one group."""
    pattern, geometry = case
    if whole:
        kept = torch.zeros(len(pattern.filters), len(pattern.channels), dtype=torch.bool)
        kept[pattern.entries[:, 0].long(), pattern.entries[:, 1].long()] = True
        pattern = BlockPattern.from_blocks(
            pattern.shape, pattern.block, pattern.filters, pattern.channels, kept
        )
    tables = Tables(pattern, *geometry)
    assert tables.whole >= whole
    entries = pattern.entries.tolist()
    for run, words in tables.blocks.items():
        blocks = []
        for word in (w for w in words if w >= 0):
            group, first = word >> 32, word & 0xFFFFFFFF
            found = [e for e in entries[first : first + run] if e[0] == group and e[2] == 0]
            assert found
            blocks += [(e[0], e[1]) for e in found]
        assert sorted(blocks) == sorted({(e[0], e[1]) for e in entries})
