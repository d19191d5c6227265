"""Where a training stopped: one file a run, replaced as a whole, gone when the run is stored."""

from __future__ import annotations

import io
import os
import time
from pathlib import Path
from typing import Any

import torch

from bench.accuracy.ranks import ALONE, Team
from bench.jsonl import make_folder

FOLDER = "checkpoints"
EVERY_S = 20.0  # a shorter loss costs less than writing


class Checkpoint:
    """The state of one run on disk.

    Args:
        out: the results folder. every_s: seconds between two writes at least.
    """

    def __init__(self, out: Path, run_id: str, every_s: float = EVERY_S) -> None:
        self.path = out / FOLDER / f"{run_id}.pt"
        self.every_s, self._last = every_s, time.monotonic()

    def save(self, state: dict[str, Any]) -> None:
        """Write, unless that was done just now. A kill leaves the old file or the new one."""
        if time.monotonic() - self._last < self.every_s:
            return
        make_folder(self.path.parent)
        held = io.BytesIO()
        torch.save(state, held)
        fresh = self.path.with_suffix(".new")
        with fresh.open("wb") as file:
            file.write(held.getvalue())
            file.flush()
            os.fsync(file.fileno())
        fresh.replace(self.path)
        self._last = time.monotonic()

    def load(self, device: str, team: Team = ALONE) -> dict[str, Any] | None:
        """Return the state; None where there is none, or one that cannot be read.

        A file that is torn costs its epochs, not the sweep. The first rank of a team reads.
        """
        held = team.decided(self._held)
        return None if held is None else _state_of(held, device)

    def _held(self) -> bytes | None:
        if not self.path.exists():
            return None
        try:
            held = self.path.read_bytes()
            _state_of(held, "cpu")
        except Exception as error:  # torch raises what its readers raise: a dozen kinds
            print(f"{self.path}: cannot be read ({error}); this run starts again")
            return None
        return held

    def drop(self) -> None:
        """Remove it, and its folder when that is empty."""
        self.path.unlink(missing_ok=True)
        self.path.with_suffix(".new").unlink(missing_ok=True)
        if self.path.parent.is_dir() and not any(self.path.parent.iterdir()):
            self.path.parent.rmdir()


def _state_of(held: bytes, device: str) -> dict[str, Any]:
    state = torch.load(io.BytesIO(held), map_location=device, weights_only=True)
    # random states live on the CPU wherever the network is
    for name in ("generator", "torch"):
        state[name] = state[name].cpu()
    state["cuda"] = [each.cpu() for each in state["cuda"]]
    return state  # type: ignore[no-any-return]
