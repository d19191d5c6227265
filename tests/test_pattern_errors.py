"""BlockPattern cannot be built wrong: every broken invariant, and every wrong argument."""

from __future__ import annotations

import pytest
import torch

from hrbp_core.pattern import BlockPattern
from tests.pattern_samples import GOOD, example, table

PARTITION = "expected each of 5 filters in exactly one of 3 groups, and padding in the last"
SORTED = "expected distinct entries sorted by"
BROKEN = [
    ("shape", (5, 6, 1), "expected shape as"),
    ("shape", (5, 6, 0, 2), "expected shape as"),
    ("block", (0, 3), "expected block as"),
    ("block", (6, 3), "no larger than the layer"),
    ("block", (2, 7), "no larger than the layer"),
    ("filters", table([0, 1, 2], [3, 4, -1]), r"filters as \[n >= 1, 2\], got \[2, 3\]"),
    ("filters", torch.empty(0, 2, dtype=torch.int32), r"got \[0, 2\]"),
    ("filters", table([0, 1], [2, 3], [5, -1]), r"filters in \[-1, 5\), got -1 to 5"),
    ("filters", table([0, 1], [2, 3], [4, -2]), r"filters in \[-1, 5\), got -2 to 4"),
    ("filters", torch.tensor([[0, 1], [2, 3], [4, 2**32]]), "filters within int32"),
    ("filters", table([0, 1], [2, 3], [-1, 4]), "each row of filters to hold an index and pad"),
    ("filters", table([0, 1], [2, 3], [-1, -1]), "each row of filters to hold an index and pad"),
    ("filters", table([0, 1], [2, 3], [3, -1]), PARTITION),  # 3 twice, 4 never
    ("filters", table([0, 1], [2, 3]), PARTITION),  # 4 in no group
    ("filters", table([0, 1], [2, -1], [3, 4]), PARTITION),  # padding before the last
    ("channels", table([0, 1, 2], [3, 4, 6]), r"channels in \[-1, 6\), got 0 to 6"),
    ("channels", table([0, 1, 2], [3, -1, 4]), "each row of channels to hold an index and pad"),
    ("channels", table([0, 1, 2], [2, 3, 4]), "no channel twice in one filter group"),
    ("channels", table([0, 1, 1], [3, 4, 5]), "no channel twice in one filter group"),
    ("entries", torch.empty(0, 3, dtype=torch.int32), r"entries as \[n >= 1, 3\]"),
    ("entries", torch.zeros(3, dtype=torch.int32), r"entries as \[n >= 1, 3\], got \[3\]"),
    ("entries", table([3, 0, 0]), r"\(3, 2, 2\), got"),
    ("entries", table([0, 2, 0]), r"\(3, 2, 2\), got"),
    ("entries", table([0, 0, 2]), r"\(3, 2, 2\), got"),
    ("entries", table([0, 0, -1]), r"\(3, 2, 2\), got"),
    ("entries", table([0, 0, 0], [0, 0, 0]), SORTED),
    ("entries", table([1, 0, 0], [0, 0, 0]), SORTED),
    ("entries", table([0, 0, 1], [0, 0, 0]), SORTED),
    ("entries", table([0, 0, 1], [0, 1, 0]), SORTED),  # channel group before tap
]


def test_the_unbroken_tables_are_accepted() -> None:
    pattern = BlockPattern(**GOOD)
    assert pattern.partitioned
    assert pattern.is_canonical
    assert pattern.values_shape == (8, 3)


@pytest.mark.parametrize(("name", "value", "message"), BROKEN)
def test_every_broken_invariant_is_refused(name: str, value: object, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        BlockPattern(**GOOD | {name: value})


@pytest.mark.parametrize("name", ["filters", "channels", "entries"])
@pytest.mark.parametrize("kind", [torch.float32, torch.bool, torch.complex64, list])
def test_tables_are_integer_tensors(name: str, kind: object) -> None:
    value = GOOD[name].tolist() if kind is list else GOOD[name].to(kind)
    with pytest.raises(TypeError, match=f"expected {name} as an integer tensor, got"):
        BlockPattern(**GOOD | {name: value})


def test_tables_are_copied() -> None:
    entries = GOOD["entries"].clone()
    pattern = BlockPattern(**GOOD | {"entries": entries})
    entries.zero_()
    assert torch.equal(pattern.entries, GOOD["entries"])


@pytest.mark.parametrize("dtype", [torch.int8, torch.int16, torch.int64])
def test_integer_tables_become_int32(dtype: torch.dtype) -> None:
    tables = {name: GOOD[name].to(dtype) for name in ("filters", "channels", "entries")}
    pattern = BlockPattern(**GOOD | tables)
    assert pattern == BlockPattern(**GOOD)
    assert pattern.entries.dtype == torch.int32


@pytest.mark.parametrize(
    "kept",
    [
        torch.ones(3, 2),
        torch.ones(2, 3, dtype=torch.bool),
        torch.ones(3, 2, 3, dtype=torch.bool),
    ],
)
def test_from_blocks_refuses_other_masks(kept: torch.Tensor) -> None:
    with pytest.raises(ValueError, match=r"expected kept as bool \[3, 2\] or \[3, 2, 2\], got"):
        BlockPattern.from_blocks((5, 6, 1, 2), (2, 3), GOOD["filters"], GOOD["channels"], kept)


def test_from_blocks_refuses_a_pattern_of_nothing() -> None:
    kept = torch.zeros(3, 2, dtype=torch.bool)
    with pytest.raises(ValueError, match="expected entries"):
        BlockPattern.from_blocks((5, 6, 1, 2), (2, 3), GOOD["filters"], GOOD["channels"], kept)


@pytest.mark.parametrize("name", ["hrbp.pattern/0", None])
def test_another_format_is_refused(name: str | None) -> None:
    data = example().to_dict() | {"format": name}
    with pytest.raises(ValueError, match=r"expected format 'hrbp\.pattern/1', got"):
        BlockPattern.from_dict(data)


def test_errors_of_pack_and_unpack() -> None:
    pattern = example()
    with pytest.raises(ValueError, match=r"expected weight \[4, 3, 1, 2\], got \[4, 3, 2, 1\]"):
        pattern.pack(torch.zeros(4, 3, 2, 1))
    with pytest.raises(ValueError, match=r"expected values \[8, 1\] .*, got \[1, 8\]"):
        pattern.unpack(torch.zeros(1, 8))
    with pytest.raises(TypeError, match="expected values of a floating-point dtype, got"):
        pattern.unpack(torch.zeros(8, 1, dtype=torch.int64))
    for call, shape in ((pattern.pack, pattern.shape), (pattern.unpack, (8, 1))):
        with pytest.raises(ValueError, match="on the pattern's device cpu, got meta"):
            call(torch.zeros(shape, device="meta"))
