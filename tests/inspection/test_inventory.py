"""Which things of good pictures are components."""

import numpy as np
import pytest

from hassod_ros.inspection.inventory import take_inventory
from hassod_ros.instances import Instances

SIZE = (120, 160)


def view(*boxes):
    """What the detector finds in a picture: things that fill their boxes x0, y0, x1, y1."""
    masks = np.zeros((len(boxes), *SIZE), bool)
    for mask, (x0, y0, x1, y1) in zip(masks, boxes, strict=True):
        mask[y0:y1, x0:x1] = True
    return Instances.from_dense(masks, image_size=SIZE)


FIRST, SECOND = (20, 20, 50, 50), (90, 60, 130, 90)


@pytest.mark.parametrize("found", [5, 4])
def test_what_most_pictures_show_is_a_component(found):
    views = [view(FIRST, SECOND)] * found + [view(FIRST)] * (5 - found)
    components = take_inventory(views, SIZE)
    assert [(each.box, each.present) for each in components] == [(SECOND, found), (FIRST, 5)]


def test_what_two_of_five_do_not_show_is_none():
    components = take_inventory([view(FIRST, SECOND)] * 3 + [view(FIRST)] * 2, SIZE)
    assert [each.box for each in components] == [FIRST]


def test_what_is_found_alike_in_three_and_seen_in_five_is_one():
    large, small = (84, 54, 136, 96), (92, 61, 128, 88)  # both like SECOND, but not like each other
    views = [view(FIRST, each) for each in (large, SECOND, SECOND, small, small)]
    components = take_inventory(views, SIZE)
    assert [(each.box, each.present) for each in components] == [(SECOND, 5), (FIRST, 5)]


def test_parts_hang_on_what_holds_them():
    whole, part = (10, 10, 90, 90), (30, 30, 60, 60)
    components = take_inventory([view(whole, part)] * 3, SIZE)
    assert [each.parent for each in components] == [-1, 0]
