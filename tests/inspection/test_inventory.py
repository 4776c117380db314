"""Which things of good pictures are components."""

import cv2
import numpy as np
import pytest

from hassod_ros.inspection.inventory import compare_surroundings, take_inventory
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


def test_what_casts_its_shadow_now_here_now_there_is_one():
    left, right, up = (66, 60, 130, 90), (90, 60, 154, 90), (90, 36, 130, 90)  # like SECOND, but not like each other
    views = [view(each) for each in (left, left, SECOND, SECOND, SECOND, right, right, right, up, up)]
    components = take_inventory(views, SIZE)
    assert [(each.box, each.present) for each in components] == [(SECOND, 10)]


def test_what_is_found_with_its_shadow_and_without_is_without():
    shadows = [(90, top, 130, 90) for top in (48, 52, 54)]
    views = [view(SECOND), view(SECOND), *(view(each, SECOND) for each in shadows)]
    assert [(each.box, each.present) for each in take_inventory(views, SIZE)] == [(SECOND, 5)]


def test_what_went_with_a_place_is_not_what_surrounds_it():
    taught = np.full((*SIZE, 3), 250, np.uint8)
    taught[50:74, 70:94] = (60, 180, 60)
    now = np.full((*SIZE, 3), 250, np.uint8)
    place = np.zeros(SIZE, bool)
    place[57:67, 77:87] = True  # of the square, only its middle is beyond the limit
    votes = compare_surroundings(now, cv2.cvtColor(taught, cv2.COLOR_RGB2LAB), place, ~place, whole=False)
    assert votes.missing
    assert not votes.extra


def test_parts_hang_on_what_holds_them():
    whole, part = (10, 10, 90, 90), (30, 30, 60, 60)
    components = take_inventory([view(whole, part)] * 3, SIZE)
    assert [each.parent for each in components] == [-1, 0]
