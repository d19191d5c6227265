"""The facts of a sweep as frozen types, and their JSON. Floor 0: no torch.

``results.jsonl`` holds one line a cell::

    {"schema": 1, "cell_id": ..., "case_id": ..., "impl": "block_sparse", "status": "ok",
     "samples_s": [...], "cell": {...}, "environment": "<id>", "errors": {...}, "flags": [...],
     "prep_s": ..., "detail": {...}, "reason": null}

and ``environment.json`` beside it maps each environment id to its facts.
"""

from __future__ import annotations

import hashlib
import json
import math
from dataclasses import asdict, dataclass, field, fields
from enum import StrEnum
from functools import cached_property
from typing import Any

from hrbp_core.shapes import ConvShape, Pair, Pass

SCHEMA = 1
OURS = "block_sparse"
REFERENCE_IMPL = "dense"


class Status(StrEnum):
    """What became of a cell; all but ``ok`` carry a reason."""

    OK = "ok"
    WRONG = "wrong"
    IMPOSSIBLE = "impossible"
    SKIPPED = "skipped"
    OOM = "oom"
    TIMEOUT = "timeout"
    CRASHED = "crashed"


class Flag(StrEnum):
    """What a reader must know about the samples of a cell."""

    NOISY = "noisy"
    THROTTLED = "throttled"
    POWER_LIMITED = "power_limited"
    LAUNCH_BOUND = "launch_bound"
    BIMODAL = "bimodal"
    WARMUP_UNSTABLE = "warmup_unstable"
    SINGLE_PROCESS = "single_process"
    UNLOCKED = "unlocked"
    WINOGRAD = "winograd"


class RecordError(ValueError):
    """A stored record that cannot be read; the text says what was expected."""


class WorkerError(RuntimeError):
    """A measuring process that does not even start; the text says why."""


def digest(data: Any) -> str:
    """Return 16 hex digits that name ``data`` by its canonical JSON."""
    text = json.dumps(data, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


@dataclass(frozen=True)
class Recipe:
    """How a cell's pattern is made: everything ``regroup`` takes, and the scores' family."""

    method: str
    density: float
    block: Pair
    balance: str = "none"
    coverage: bool = True
    scores: str = "independent"
    seed: int = 0
    taps: int | None = None  # of every block of a ++ method; None: as many as are best


@dataclass(frozen=True)
class Case:
    """What is computed, whoever computes it.

    Attributes:
        suite: the suite it was taken from; layer: the layer's name there.
        device: "cpu" or "cuda". dtype: "float32", "bfloat16", "float16" or "float64".
        entries: stored blocks of block_k x block_c weights.
        layout: "canonical" (channel orders absorbed by the neighbours) or "standalone".
    """

    suite: str
    layer: str
    shape: ConvShape
    dtype: str
    device: str
    conv_pass: Pass
    recipe: Recipe
    entries: int
    layout: str = "canonical"

    @property
    def stored_weights(self) -> int:
        """Weights in storage, padding included."""
        return self.entries * math.prod(self.recipe.block)


@dataclass(frozen=True)
class Cell:
    """One case, one implementation, one timing mode ("cold", "hot", "sustained", "host")."""

    case: Case
    impl: str
    mode: str

    def to_dict(self) -> dict[str, Any]:
        """Return plain JSON types."""
        parts = (self.case, self.case.recipe)
        # asdict copies deeply, and took a fifth of reading a folder
        case, recipe = ({n: getattr(p, n) for n in p.__dataclass_fields__} for p in parts)
        recipe["block"] = list(self.case.recipe.block)
        if recipe["taps"] is None:  # ids from before there were taps stay
            del recipe["taps"]
        case |= {"shape": self.case.shape.to_dict(), "recipe": recipe}
        return {"case": case, "impl": self.impl, "mode": self.mode}

    @cached_property
    def cell_id(self) -> str:
        """Names the cell by content."""
        return digest(self.to_dict())

    @cached_property
    def case_id(self) -> str:
        """Names case and mode; leaves the implementation out, so that speed-ups join safely."""
        return digest({k: v for k, v in self.to_dict().items() if k != "impl"})

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> Cell:
        """Return the cell that :meth:`to_dict` wrote.

        Raises:
            RecordError: fields are missing, unknown or illegal.
        """
        try:
            case = dict(data["case"])
            recipe = dict(case["recipe"])
            recipe["block"] = tuple(recipe["block"])
            case["recipe"] = Recipe(**recipe)
            case["shape"] = ConvShape.from_dict(case["shape"])
            case["conv_pass"] = Pass(case["conv_pass"])
            return cls(Case(**case), data["impl"], data["mode"])
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            raise RecordError(f"expected a cell of schema {SCHEMA}, got {error!r}") from error


@dataclass(frozen=True)
class Environment:
    """Where and with what a run was made. Absent facts are None.

    ``hard`` facts must agree before two runs are compared; ``soft`` ones are annotated.
    Live clocks, temperatures and host names are never part of it.
    """

    device: str
    device_name: str
    capability: str | None
    sm_count: int | None
    memory_gib: int | None
    mig: str | None
    ecc: str | None
    power_limit_w: float | None
    clock_mode: str | None
    driver: str | None
    cuda: str | None
    cudnn: str | None
    torch: str | None
    triton: str | None
    python: str
    cpu: str
    threads: int
    platform: str
    commit: str | None
    dirty: bool | None
    schema: int = SCHEMA

    HARD = (
        "device", "device_name", "capability", "sm_count", "memory_gib",
        "mig", "ecc", "power_limit_w", "clock_mode", "schema",
    )  # fmt: skip
    SOFT = ("driver", "cuda", "cudnn", "torch", "triton", "cpu", "threads")

    @property
    def environment_id(self) -> str:
        """Names the environment by content."""
        return digest(asdict(self))

    @property
    def hard(self) -> dict[str, Any]:
        """Facts whose difference makes two runs incomparable."""
        return {name: getattr(self, name) for name in self.HARD}

    @property
    def soft(self) -> dict[str, Any]:
        """Facts whose difference is annotated."""
        return {name: getattr(self, name) for name in self.SOFT}

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> Environment:
        """Return the environment that ``asdict`` wrote.

        Raises:
            RecordError: fields are missing or unknown.
        """
        try:
            return cls(**data)
        except TypeError as error:
            raise RecordError(f"expected an environment of schema {SCHEMA}, got {error}") from error


@dataclass(frozen=True)
class Measurement:
    """One cell's outcome.

    Attributes:
        environment: the id of the Environment.
        reason: why the status is not ok; None otherwise.
        samples_s: raw seconds in order; empty unless ok.
        errors: error figures against the oracle: max_abs, rel_rms, and their bounds.
        flags: labels a reader needs.
        prep_s: seconds for compiling, indexing and packing; never inside a sample.
        detail: facts about the run (variant chosen, rounds rejected, load average, ...).

    Raises:
        ValueError: fields that contradict the status.
    """

    cell: Cell
    environment: str
    status: Status
    reason: str | None = None
    samples_s: tuple[float, ...] = ()
    errors: dict[str, float] = field(default_factory=dict)
    flags: tuple[Flag, ...] = ()
    prep_s: float | None = None
    detail: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.status is Status.OK:
            if self.reason is not None or not self.samples_s:
                raise ValueError("expected samples and no reason for status ok")
            if not all(math.isfinite(s) and s > 0 for s in self.samples_s):
                raise ValueError("expected finite samples above 0 s")
        elif not self.reason or (self.samples_s and self.status is not Status.IMPOSSIBLE):
            raise ValueError(f"expected a reason and no samples for status {self.status}")

    def to_dict(self) -> dict[str, Any]:
        """Return the JSON line's content."""
        return {
            "schema": SCHEMA,
            "cell_id": self.cell.cell_id,
            "case_id": self.cell.case_id,
            "impl": self.cell.impl,
            "status": str(self.status),
            "reason": self.reason,
            "samples_s": list(self.samples_s),
            "cell": self.cell.to_dict(),
            "environment": self.environment,
            "errors": self.errors,
            "flags": [str(f) for f in self.flags],
            "prep_s": self.prep_s,
            "detail": self.detail,
        }

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> Measurement:
        """Return the measurement that :meth:`to_dict` wrote.

        Raises:
            RecordError: another schema, missing fields, an id that is not the cell's own.
        """
        if data.get("schema") != SCHEMA:
            raise RecordError(f"expected schema {SCHEMA}, got {data.get('schema')!r}")
        try:
            known = {f.name: data[f.name] for f in fields(cls) if f.name != "cell"}
            known["status"] = Status(data["status"])
            known["samples_s"] = tuple(data["samples_s"])
            known["flags"] = tuple(Flag(f) for f in data["flags"])
            measurement = cls(cell=Cell.from_dict(data["cell"]), **known)
        except (KeyError, TypeError, ValueError) as error:
            if isinstance(error, RecordError):
                raise
            text = f"expected a measurement of schema {SCHEMA}, got {error!r}"
            raise RecordError(text) from error
        if measurement.cell.cell_id != data.get("cell_id"):
            raise RecordError(
                f"expected cell_id {measurement.cell.cell_id}, got {data.get('cell_id')!r}"
            )
        return measurement
