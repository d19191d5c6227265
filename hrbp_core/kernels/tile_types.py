"""The kinds of tiles that the GPU kernels come in."""

from __future__ import annotations

from dataclasses import dataclass


class _Common:
    """What both kinds of tile have."""

    reduce: int
    warps: int
    stages: int
    fallback: bool

    @property
    def options(self) -> dict[str, int]:
        """What a launch passes to Triton."""
        return {"num_warps": self.warps, "num_stages": self.stages}

    def _named(self, extent: int, on_m: bool) -> str:
        side = "m" if on_m else "n"
        shape = f"{extent}x{self.reduce}.{side}.w{self.warps}s{self.stages}"
        return shape + ".fallback" * self.fallback


@dataclass(frozen=True)
class GatherTile(_Common):
    """A tile of fprop (filters x pixels) or dgrad (channels x pixels).

    Attributes:
        pixels: output pixels of a program.
        reduce: reduced channels (fprop) or filters (dgrad) a step.
        warps, stages: of a program; loads in flight.
        out_on_m: filters or channels, not pixels, on the matrix unit's M side. M comes in 64s
            and N up to 256, and an operand on N is read from shared memory once: for groups of
            64 and 128 this reads a third less of it.
        fallback: serves channel counts not divisible by 8, one number a load.
    """

    pixels: int
    reduce: int
    warps: int
    stages: int
    out_on_m: bool
    fallback: bool = False

    @property
    def name(self) -> str:
        """Short and unique, for tables."""
        return self._named(self.pixels, self.out_on_m)


@dataclass(frozen=True)
class WgradTile(_Common):
    """A tile of wgrad (filters x columns); a column is a channel of an entry.

    Attributes:
        columns: of a program; more than block_c spans neighbouring entries of a filter group.
        reduce: pixels a step.
        warps, stages: of a program; loads in flight.
        filters_on_m: filters, not columns, on the matrix unit's M side.
        fallback: serves channel counts not divisible by 8, one number a load.
    """

    columns: int
    reduce: int
    warps: int
    stages: int
    filters_on_m: bool
    fallback: bool = False

    @property
    def name(self) -> str:
        """Short and unique, for tables."""
        return self._named(self.columns, self.filters_on_m)


@dataclass(frozen=True)
class RowTile(_Common):
    """A tile of fprop or dgrad that loads each row of pixels once for three taps.

    Attributes:
        rows: output rows of a program, one accumulator each.
        lanes: (image, column) pairs of a row.
        reduce: reduced channels (fprop) or filters (dgrad) a step; divides the block.
        warps, stages, out_on_m: as in ``GatherTile``.
    """

    rows: int
    lanes: int
    reduce: int
    warps: int
    stages: int
    out_on_m: bool
    fallback: bool = False

    @property
    def name(self) -> str:
        """Short and unique, for tables."""
        return f"{self.rows}rows.{self._named(self.lanes, self.out_on_m)}"


@dataclass(frozen=True)
class RowWgradTile(_Common):
    """A tile of wgrad that makes the gradients of three taps from the same rows of pixels.

    Attributes:
        rows: rows of dy a step.
        reduce: (image, column) pairs of a row: that many pixels a product sums over.
        columns, warps, stages, filters_on_m: as in ``WgradTile``; columns are whole blocks.
    """

    rows: int
    columns: int
    reduce: int
    warps: int
    stages: int
    filters_on_m: bool
    fallback: bool = False

    @property
    def name(self) -> str:
        """Short and unique, for tables."""
        return f"{self.rows}rows.{self._named(self.columns, self.filters_on_m)}"


Tile = GatherTile | WgradTile | RowTile | RowWgradTile
