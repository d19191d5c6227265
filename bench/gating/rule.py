"""When the gate calls a cell slower, as fast, or undecided. Floor 0: no torch."""

from __future__ import annotations

from dataclasses import dataclass, replace


@dataclass(frozen=True)
class Rule:
    """The gate's thresholds; effects are shares of base's time (0.03 is 3 % slower).

    A trial is three fresh processes that take turns: base, head, and base again.

    Attributes:
        screen: trials that every cell gets.
        looks: a cell that was not cleared gets fresh trials, and is judged at so many of them.
        spent: each look's share of alpha, so that looking often finds nothing by chance; few
            trials get little of it, for stray ones among them weigh most.
        tolerance: a slow-down that nobody minds; tests are against it, not against nothing.
        flag_p: a cell with a smaller p in the screen is not cleared there.
        early, early_p: after so many trials of the screen, a cell with so small a p is suspected
            at once: who is twice as slow is found in half the time.
        alpha: of the whole run, over all cells and looks.
        least_margin: no smaller slow-down fails, however sure it is.
        least_s: nor one of fewer seconds.
        worst_margin: a run that cannot see a slow-down of this size says nothing of a cell.
        see: trials go on while the run cannot see so small a slow-down, if there is time, but
            not beyond ``most``: three times as many see little more than half as much.
    """

    screen: int = 6
    looks: tuple[int, ...] = (3, 6, 12, 24, 36)
    spent: tuple[float, ...] = (0.02, 0.18, 0.3, 0.25, 0.25)
    tolerance: float = 0.02
    flag_p: float = 0.10
    early: int = 3
    early_p: float = 1e-3
    alpha: float = 0.05
    least_margin: float = 0.03
    least_s: float = 1e-6
    worst_margin: float = 0.10
    see: float = 0.05
    most: int = 18


def rule_for(device: str, see: float | None = None) -> Rule:
    """Return the device's rule: +10 % must be found on a CPU, +5 % on a GPU.

    Args:
        see: the smallest slow-down that more trials are spent on, as a share.

    Raises:
        ValueError: ``see`` outside (0, worst margin].
    """
    rule = Rule() if device == "cpu" else Rule(worst_margin=0.05, see=0.03)
    if see is None:
        return rule
    if not rule.least_margin <= see <= rule.worst_margin:
        raise ValueError(
            f"expected a smallest visible slow-down from {rule.least_margin:.0%} to "
            f"{rule.worst_margin:.0%} on {device}, got {see:.3g}"
        )
    return replace(rule, see=see)
