"""Spaces of channels, and what is tied to what."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

FILTERS, CHANNELS, FEATURES_OUT, FEATURES_IN, EACH = (
    "filters", "channels", "features_out", "features_in", "each",
)  # fmt: skip


@dataclass(frozen=True)
class Axis:
    """The channels (dimension 1) of a traced tensor.

    Attributes:
        spaces: numbers of spaces, side by side.
        rank: dimensions of the tensor.
        batch: what its dimension 0 is: equal for tensors of one batch.
        flat: each channel may stand for several features, its pixels.
        ones: dimensions that are surely of extent 1.
    """

    spaces: tuple[int, ...]
    rank: int
    batch: object
    flat: bool = False
    ones: frozenset[int] = frozenset()

    def flattened(self) -> Axis:
        """Return the axis of ``flatten(1)``."""
        pixels = not {*range(2, self.rank)} <= self.ones
        return Axis(self.spaces, 2, self.batch, self.flat or pixels)

    def without(self, dims: set[int]) -> Axis:
        """Return the axis after these dimensions are gone."""
        left = (d - sum(gone < d for gone in dims) for d in self.ones - dims)
        return replace(self, rank=self.rank - len(dims), ones=frozenset(left))


@dataclass(frozen=True)
class Fixed:
    """A traced value whose channels, if it has any, must stay where they are, and why.

    Attributes:
        rank: its dimensions, where they are known.
        batch: as of an Axis; None where unknown.
    """

    reason: str
    rank: int | None = None
    batch: object = None


Value = Axis | Fixed | None  # None: a number, a size, a dtype


@dataclass
class Spaces:
    """What was found.

    Attributes:
        roles: module name -> {role: spaces side by side}. Roles are filters and channels of a
            convolution, features_out and features_in of a linear layer, and each for what has
            one weight a channel.
        repeats: module name -> features a channel, of features_in and each alone.
        untraced: why torch.fx could not trace the model, or None; then there is nothing else.
        boxes: submodules that it could not trace, and why; they are taken as they are.
        stuck: modules whose weights have to stay as they are, and why.
    """

    untraced: str | None = None
    boxes: dict[str, str] = field(default_factory=dict)
    stuck: dict[str, str] = field(default_factory=dict)
    roles: dict[str, dict[str, tuple[int, ...]]] = field(default_factory=dict)
    repeats: dict[str, int] = field(default_factory=dict)
    _sizes: list[int] = field(default_factory=list)
    _parents: list[int] = field(default_factory=list)
    _pins: dict[int, str] = field(default_factory=dict)

    def new(self, size: int, pin: str | None = None) -> int:
        """Return the number of a new space of ``size`` channels."""
        self._sizes.append(size)
        self._parents.append(len(self._parents))
        number = len(self._parents) - 1
        if pin is not None:
            self._pins[number] = pin
        return number

    def find(self, number: int) -> int:
        """Return the one number of all spaces that were tied to this one."""
        while self._parents[number] != number:
            self._parents[number] = self._parents[self._parents[number]]
            number = self._parents[number]
        return number

    def size(self, number: int) -> int:
        """Return the space's channels."""
        return self._sizes[number]

    def width(self, spaces: tuple[int, ...]) -> int:
        """Return the channels of spaces side by side."""
        return sum(self._sizes[n] for n in spaces)

    def pinned(self, number: int) -> str | None:
        """Return why the space's order has to stay, or None."""
        return self._pins.get(self.find(number))

    def pin(self, spaces: tuple[int, ...], reason: str) -> None:
        """Keep the order of these spaces; the first reason stays."""
        for number in spaces:
            self._pins.setdefault(self.find(number), reason)

    def tie(self, some: tuple[int, ...], others: tuple[int, ...]) -> None:
        """Make one space of each two; where they are cut differently, all are pinned."""
        if [self._sizes[n] for n in some] != [self._sizes[n] for n in others]:
            self.pin((*some, *others), "it meets channels that are concatenated otherwise")
            return
        for one, other in zip(some, others, strict=True):
            kept, gone = sorted((self.find(one), self.find(other)))
            if kept != gone:
                self._parents[gone] = kept
                if gone in self._pins:
                    self._pins.setdefault(kept, self._pins.pop(gone))

    def add_role(self, name: str, role: str, spaces: tuple[int, ...]) -> None:
        """Note a module's role; a module that is called twice ties the spaces of both calls."""
        before = self.roles.setdefault(name, {}).setdefault(role, spaces)
        if before != spaces:
            self.tie(before, spaces)
