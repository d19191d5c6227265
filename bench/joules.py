"""Which of the stored joules of a call counts. Floor 0: no torch."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any


def joules(energy: Mapping[str, Any] | None) -> float:
    """Return joules a call less idle power, of what ``bench.energy`` found; NaN for none.

    The device's counter where it was read, else power over time.
    """
    for name in ("counter_net_j", "power_net_j"):
        if energy and energy.get(name) is not None:
            return float(energy[name])
    return math.nan
