"""Labels beside their points, without a renderer: no two overlap, and few cover anything else.

All lengths are points (1/72 inch) from the lower left corner of the axes. Each label in turn,
the most crowded first, takes the cheapest of many places around its point; what it must not do
(leave the axes, touch a label) is left out, the rest has a price.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

Spot = tuple[float, float]
Segment = tuple[Spot, Spot]
MARK_PT, AIR_PT = 4.5, 1.5  # half a marker; air around a label
LEADER_PT = 9.0  # a label further from its point than this is led to it by a line
RADII_PT = (7, 10, 14, 19, 25, 33, 43, 55, 70, 90, 115, 145, 180)
ANGLES = 24
OWN_SPOT, LED_ACROSS = 150.0, 200.0  # a point under a label; a leader across one
COVERED_MARK, CROSSED_MARK, COVERED_LINE, CROSSED_LINE, PER_PT = 60.0, 15.0, 5.0, 0.7, 0.25


@dataclass(frozen=True)
class Box:
    """An upright rectangle."""

    left: float
    bottom: float
    right: float
    top: float

    def grown(self, by: float) -> Box:
        """Return the box with ``by`` more on every side."""
        return Box(self.left - by, self.bottom - by, self.right + by, self.top + by)

    def meets(self, other: Box) -> bool:
        """Return whether the two share more than an edge."""
        return (
            self.left < other.right
            and other.left < self.right
            and self.bottom < other.top
            and other.bottom < self.top
        )

    def within(self, other: Box) -> bool:
        """Return whether the box lies inside ``other``."""
        return (
            other.left <= self.left
            and self.right <= other.right
            and other.bottom <= self.bottom
            and self.top <= other.top
        )

    def nearest(self, spot: Spot) -> Spot:
        """Return the place of the box next to ``spot``."""
        x, y = spot
        return min(max(x, self.left), self.right), min(max(y, self.bottom), self.top)

    def crossed(self, segment: Segment) -> bool:
        """Return whether a part of the segment lies inside (Liang and Barsky 1984)."""
        (x, y), (to_x, to_y) = segment
        dx, dy = to_x - x, to_y - y
        start, end = 0.0, 1.0
        for step, room in (
            (-dx, x - self.left),
            (dx, self.right - x),
            (-dy, y - self.bottom),
            (dy, self.top - y),
        ):
            if step == 0:
                if room <= 0:
                    return False
            elif step < 0:
                start = max(start, room / step)
            else:
                end = min(end, room / step)
        return start < end


def around(spot: Spot, half: float = MARK_PT) -> Box:
    """Return the square around a marker."""
    return Box(spot[0], spot[1], spot[0], spot[1]).grown(half)


def place_labels(
    spots: Sequence[Spot],
    sizes: Sequence[Spot],
    area: Spot,
    marks: Sequence[Spot] = (),
    lines: Sequence[Segment] = (),
) -> list[Box | None]:
    """Return a box for each label, None where there is no room left for one.

    Args:
        spots: the point of each label. sizes: (width, height) of each.
        area: (width, height) of the axes.
        marks, lines: what labels had better not cover: all markers, bars and curves.
    """
    crowd = [sum(math.dist(a, b) < 60 for b in marks) for a in spots]
    found: list[Box | None] = [None] * len(spots)
    for index in sorted(range(len(spots)), key=lambda i: -crowd[i]):
        spot = spots[index]
        taken = [(box, spots[i]) for i, box in enumerate(found) if box]
        waiting = [s for i, s in enumerate(spots) if i != index]
        others = [m for m in marks if math.dist(m, spot) > MARK_PT]
        best = math.inf
        for box in _candidates(spot, sizes[index], area):
            if _allowed(box, spot, area, [b for b, _ in taken]):
                price = _price(box, spot, others, lines) + _among(box, spot, taken, waiting)
                if price < best:
                    found[index], best = box, price
    return found


def _candidates(spot: Spot, size: Spot, area: Spot) -> Iterator[Box]:
    width, height = size
    for radius in RADII_PT:
        for turn in range(ANGLES):
            angle = 2 * math.pi * turn / ANGLES
            # the side next to the point, not the middle, lies at the radius
            x = spot[0] + radius * math.cos(angle) - width * (1 - math.cos(angle)) / 2
            y = spot[1] + radius * math.sin(angle) - height * (1 - math.sin(angle)) / 2
            yield Box(x, y, x + width, y + height)
    columns, rows = int(area[0] // (width + 6)), int(area[1] // (height + 4))
    for column in range(columns):
        for row in range(rows):
            x, y = 3 + column * (width + 6), 2 + row * (height + 4)
            yield Box(x, y, x + width, y + height)


def leader(box: Box, spot: Spot) -> Segment | None:
    """Return the line from the point to its label; None where the label is near enough."""
    end = box.nearest(spot)
    return (spot, end) if math.dist(spot, end) > LEADER_PT else None


def _allowed(box: Box, spot: Spot, area: Spot, taken: Sequence[Box]) -> bool:
    wide = box.grown(AIR_PT)
    if not box.within(Box(0, 0, *area)) or wide.meets(around(spot, MARK_PT / 2)):
        return False
    return not any(wide.meets(other) for other in taken)


def _among(
    box: Box, spot: Spot, taken: Sequence[tuple[Box, Spot]], waiting: Sequence[Spot]
) -> float:
    """Return the price of what a label does to other labels: theirs to it and its to theirs."""
    line, price = leader(box, spot), 0.0
    for other, theirs in taken:
        led = leader(other, theirs)
        price += LED_ACROSS * (bool(line and other.crossed(line)) + bool(led and box.crossed(led)))
    return price + OWN_SPOT * sum(box.meets(around(s, MARK_PT / 2)) for s in waiting)


def _price(box: Box, spot: Spot, marks: Sequence[Spot], lines: Sequence[Segment]) -> float:
    price = PER_PT * math.dist(spot, box.nearest(spot))
    line, wide = leader(box, spot), box.grown(AIR_PT)
    for mark in marks:
        square = around(mark)
        price += COVERED_MARK * wide.meets(square)
        price += CROSSED_MARK * bool(line and square.crossed(line))
    for segment in lines:
        price += COVERED_LINE * box.crossed(segment)
        price += CROSSED_LINE * bool(line and _cross(line, segment))
    return price


def _cross(a: Segment, b: Segment) -> bool:
    def side(line: Segment, p: Spot) -> float:
        (x, y), (to_x, to_y) = line
        return (to_x - x) * (p[1] - y) - (to_y - y) * (p[0] - x)

    return side(a, b[0]) * side(a, b[1]) < 0 and side(b, a[0]) * side(b, a[1]) < 0
