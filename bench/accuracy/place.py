"""Which of the processes that torchrun started this one is. No torch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

NAMES = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE")
MEETING = ("MASTER_ADDR", "MASTER_PORT")


@dataclass(frozen=True)
class Place:
    """A process among those that train one network together.

    Attributes:
        rank, ranks: its number among all of them.
        local_rank, local_ranks: its number among those of its machine.
    """

    rank: int = 0
    ranks: int = 1
    local_rank: int = 0
    local_ranks: int = 1

    @property
    def first(self) -> bool:
        """Whether this process writes and prints."""
        return self.rank == 0

    def cores(self, cores: int) -> int:
        """Return how many of the machine's ``cores`` are this process's: at least one."""
        return max(1, cores // self.local_ranks)


ONE = Place()


def place_of(environment: Mapping[str, str]) -> Place:
    """Return the place that torchrun's variables name; without any of them, one process's.

    Raises:
        ValueError: some of them alone, or numbers that do not fit together.
    """
    if not any(name in environment for name in NAMES):
        return ONE
    missing = [name for name in NAMES if name not in environment]
    if missing:
        raise ValueError(
            f"expected {', '.join(NAMES)} together, as torchrun sets them, got no "
            f"{', no '.join(missing)}; unset the others to train in one process"
        )
    place = Place(*(_number(name, environment[name]) for name in NAMES))
    for name, value, below in (
        ("RANK", place.rank, place.ranks),
        ("LOCAL_RANK", place.local_rank, place.local_ranks),
        ("LOCAL_WORLD_SIZE", place.local_ranks - 1, place.ranks),
    ):
        if not value < below:
            told = ", ".join(f"{each}={environment[each]}" for each in NAMES)
            raise ValueError(f"expected {name} in range of its world, got {told}")
    if place.ranks > 1:
        for name in MEETING:
            if not environment.get(name):
                raise ValueError(f"expected {name} beside RANK, as torchrun sets it, got none")
    return place


def _number(name: str, text: str) -> int:
    least = int("WORLD_SIZE" in name)
    if not (text.isascii() and text.isdigit() and int(text) >= least):
        raise ValueError(f"expected {name} as an int >= {least}, as torchrun sets it, got {text!r}")
    return int(text)
