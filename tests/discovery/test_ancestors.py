"""What may be a parent, by its place and its score."""

from __future__ import annotations

import numpy as np
import pytest

from hassod_ros.discovery.ancestors import possible_parents
from hassod_ros.discovery.filters import Masks

SIZE = (80, 100)


def solid(*boxes: tuple[int, int, int, int], scores: list[float] | None = None) -> Masks:
    """Filled rectangles x0 y0 x1 y1."""
    crops = [np.ones((y1 - y0, x1 - x0), np.uint8) for x0, y0, x1, y1 in boxes]
    return Masks(np.array(boxes, np.int64), crops, np.array(scores or [0.5] * len(boxes), np.float32))


@pytest.mark.parametrize(
    ("box", "may"),
    [
        ((20, 20, 60, 60), True),
        ((0, 20, 40, 60), True),  # a square at one side
        ((0, 0, 40, 40), False),  # in a corner
        ((60, 40, 100, 80), False),
        ((0, 60, 100, 80), False),  # a floor
        ((1, 60, 99, 79), True),  # nearly
        ((1, 1, 99, 79), False),  # all but the border
        ((0, 0, 15, 15), True),  # small things lie anywhere
    ],
)
def test_what_is_probably_scene_is_nobodys_parent(box, may):
    allowed = possible_parents(solid(box, (30, 30, 35, 35)), SIZE)
    assert allowed[1, 0] == may


def test_an_outline_at_the_border_counts_not_its_box():
    plate = Masks(np.array([[0, 0, 60, 60]]), [np.eye(60, dtype=np.uint8)[::-1]], np.full(1, 0.5, np.float32))
    plate.crops[0][10:50, 10:50] = 1  # its box is in the corner, two of its pixels touch the border
    assert possible_parents(plate, SIZE)[0, 0]


def test_a_parent_is_about_as_likely_as_its_child():
    allowed = possible_parents(solid((10, 10, 60, 60), (20, 20, 40, 40), scores=[0.3, 0.5]), SIZE)
    assert not allowed[1, 0]
    allowed = possible_parents(solid((10, 10, 60, 60), (20, 20, 40, 40), scores=[0.4, 0.5]), SIZE)
    assert allowed[1, 0]


def test_nothing_has_no_parents():
    assert possible_parents(solid().select(np.zeros(0, np.int64)), SIZE).shape == (0, 0)
