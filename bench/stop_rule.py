"""When a cell is warm, and when it has samples enough. Floor 0: no torch."""

from __future__ import annotations

from dataclasses import dataclass

LEAST_ROUNDS = 30


@dataclass(frozen=True)
class StopRule:
    """When a case has samples enough.

    Attributes:
        precision: half-width of each median's 95 % interval over the median.
        cap_s: seconds of sampling a cell; what is not precise by then is flagged noisy.
        steady: difference of two windows' medians at which a warm-up is over.
        warmup_cap_s: seconds of warm-up; what is not steady by then is flagged.
    """

    precision: float = 0.02
    cap_s: float = 1.5
    least_rounds: int = LEAST_ROUNDS
    steady: float = 0.005
    warmup_cap_s: float = 3.0
