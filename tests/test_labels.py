"""Labels beside their points: none touches another, all stay inside the axes."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from reports.labels import Box, around, leader, place_labels


def test_a_segment_crosses_a_box_when_a_part_lies_inside():
    box = Box(0, 0, 2, 1)
    for segment, crossed in (
        (((-1, 0.5), (3, 0.5)), True),  # through
        (((0.5, 0.5), (1, 0.6)), True),  # inside
        (((-1, 2), (3, 2)), False),  # above
        (((-1, 1), (3, 1)), False),  # along the edge
        (((1, -1), (1, 3)), True),  # upright
        (((3, -1), (3, 3)), False),
        (((-1, 0.2), (0.1, 1.5)), False),  # past the corner (0, 1): at x = 0 it is at 1.38
        (((-2, 0.5), (-1, 0.5)), False),  # ends before
    ):
        assert box.crossed(segment) == crossed, segment


def test_a_near_label_has_no_leader_and_a_far_one_ends_at_its_box():
    assert leader(Box(5, -4, 40, 5), (0, 0)) is None
    assert leader(Box(30, -4, 60, 5), (0, 0)) == ((0, 0), (30, 0))


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize(("spread", "led_across"), [(25, 2), (60, 0)])
def test_labels_never_touch_and_stay_inside(seed, spread, led_across):
    rng = np.random.default_rng(seed)
    area, number = (430.0, 260.0), 14
    crowd = rng.normal(rng.uniform((80, 60), (350, 200)), spread, (number, 2))
    spots = [(float(x), float(y)) for x, y in np.clip(crowd, 4, (426, 256))]
    sizes = [(float(rng.uniform(20, 90)), 9.0 * int(rng.integers(1, 3))) for _ in spots]
    boxes = place_labels(spots, sizes, area, spots)
    assert None not in boxes
    for box, (width, height) in zip(boxes, sizes, strict=True):
        assert (box.right - box.left, box.top - box.bottom) == pytest.approx((width, height))
        assert box.within(Box(0, 0, *area))
    for one, other in itertools.combinations(boxes, 2):
        assert not one.meets(other)
    lines = [leader(box, spot) for box, spot in zip(boxes, spots, strict=True)]
    crossed = [
        box.crossed(line)
        for line, own in zip(lines, boxes, strict=True)
        for box in boxes
        if line and box != own
    ]
    assert sum(crossed) <= led_across


def test_a_label_shuns_markers_and_curves():
    # the cheapest place, to the right, is taken by a marker, the left by a curve
    (free,) = place_labels([(100, 100)], [(30, 9)], (200, 200))
    assert free.bottom > 90
    marks = [(free.left + 10, (free.bottom + free.top) / 2)]
    (moved,) = place_labels([(100, 100)], [(30, 9)], (200, 200), marks)
    assert not moved.meets(around(marks[0]))
    curve = ((free.left, free.bottom), (free.right, free.top))
    (moved,) = place_labels([(100, 100)], [(30, 9)], (200, 200), (), [curve])
    assert not moved.crossed(curve)


def test_where_there_is_no_room_there_is_no_label():
    assert place_labels([(5, 5), (6, 6)], [(9, 9), (9, 9)], (10, 10)) == [None, None]
