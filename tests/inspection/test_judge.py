"""What findings are told apart by."""

from types import SimpleNamespace

import cv2
import numpy as np
import pytest

from hassod_ros.inspection.inventory import Component, Detector
from hassod_ros.inspection.judge import (
    _Case,
    _is_left_out,
    _pair_moved,
    _same_shape,
    _tell_component,
    _tell_spot,
    _tell_strangers,
    _Told,
)
from hassod_ros.inspection.verdict import TIMES, Kind
from hassod_ros.instances import Instances

SIZE = (120, 160)


def picture(*, left: bool = True, colour: tuple[int, int, int] = (200, 60, 60)) -> np.ndarray:
    """A dull disc and a striped square, of one component; RGB."""
    scene = np.full((*SIZE, 3), 120, np.uint8)
    if left:
        cv2.circle(scene, (50, 60), 25, colour, -1)
        cv2.circle(scene, (50, 60), 12, tuple(value // 2 for value in colour), 2)
    for x in range(90, 130, 8):
        scene[40:80, x : x + 4] = 255
        scene[40:80, x + 4 : x + 8] = 0
    return scene


def test_light_and_dark_are_held_against_each_other_place_by_place():
    mask = np.zeros(SIZE, bool)
    mask[35:85, 25:130] = True
    taught = cv2.cvtColor(picture(), cv2.COLOR_RGB2LAB)
    assert _same_shape(picture(), taught, mask)
    assert _same_shape(picture(colour=(40, 60, 230)), taught, mask)  # another colour
    assert not _same_shape(picture(left=False), taught, mask)  # though what stays has all of the contrast
    a, b = (cv2.cvtColor(each, cv2.COLOR_RGB2LAB)[..., 0][mask] for each in (picture(), picture(left=False)))
    assert np.corrcoef(a, b)[0, 1] > 0.75  # as a whole they are alike


@pytest.mark.parametrize(("left_out", "told"), [(True, True), (False, False)])
def test_a_mask_that_is_as_usual_but_for_a_place_says_that_it_is_left_out(left_out, told):
    tight, loose, place = (np.zeros(SIZE, bool) for _ in range(3))
    tight[20:100, 20:100] = loose[20:90, 20:130] = place[60:70, 80:100] = True
    seen = tight & ~place if left_out else tight
    detector = Detector(Instances.from_dense(np.stack([seen, loose]), image_size=SIZE))
    known = SimpleNamespace(masks=[loose, tight, loose], components=[SimpleNamespace(overlap=0.9)] * 3)
    assert _is_left_out(place, [1, 2], known, detector) == told  # type: ignore[arg-type]
    assert not _is_left_out(place, [2], known, detector)  # type: ignore[arg-type]


def case_of(now, masks, known, heat, **measured):
    """A picture of which nothing has been told; it covers the reference, the detector finds `masks` (N, H, W) bool."""
    detector = Detector(Instances.from_dense(masks, image_size=SIZE))
    view = SimpleNamespace(pixels=now, detector=detector, covered=np.ones(SIZE, bool))
    return _Case.of(view, known, SimpleNamespace(heat=heat, **measured), margin=1.5)


@pytest.mark.parametrize("alone", [True, False])
def test_what_is_new_is_the_tightest_thing_that_holds_what_differs(alone):
    """A loose mask around it is off as well: cells are, far around."""
    ideal = np.full((*SIZE, 3), 120, np.uint8)
    now = cv2.circle(ideal.copy(), (60, 60), 15, (230, 230, 40), -1)
    tight = cv2.circle(np.zeros(SIZE, np.uint8), (60, 60), 16, 1, -1) > 0
    loose = np.zeros(SIZE, bool)
    loose[30:90, 30:100] = True
    masks = np.stack([loose] if alone else [loose, tight])
    taught = SimpleNamespace(lab=cv2.cvtColor(ideal, cv2.COLOR_RGB2LAB), masks=[])
    case = case_of(now, masks, taught, np.where(loose, 2, 0))
    (told,) = _tell_strangers(case)
    assert np.array_equal(told.place, loose if alone else tight)
    assert np.array_equal(case.explained, loose)  # nothing more is told of what is off around it


BOX = (90, 40, 130, 80)


def at_box(left=0):
    """(H, W) bool of the striped square of `picture`, so many pixels further left."""
    mask = np.zeros(SIZE, bool)
    mask[BOX[1] : BOX[3], BOX[0] - left : BOX[2] - left] = True
    return mask


def known():
    """The striped square as the only component."""
    ideal = picture(left=False)
    component = Component(BOX, np.ones((40, 40), bool), 5, 1.0, -1)
    lab = cv2.cvtColor(ideal, cv2.COLOR_RGB2LAB)
    return SimpleNamespace(ideal=ideal, lab=lab, components=[component], masks=[at_box()], allowed=[4.0])


@pytest.mark.parametrize("stays", [True, False])
def test_what_is_still_there_has_not_moved_though_its_like_is_found_beside_it(stays):
    now = picture(left=False)
    now[at_box(40)] = now[at_box()]
    now[at_box()] = now[at_box()] // np.array([1, 2, 4], np.uint8) if stays else 120  # orange and black
    heat = np.where(at_box() | at_box(40), 3, 0).astype(np.float32)
    case = case_of(now, at_box(40)[None], known(), heat, pixels=heat, looks=np.ones(1), unlike=np.zeros(1))
    told = _tell_component(case, 0, 1.0)
    assert told is not None
    assert told.kind == (Kind.CHANGED if stays else Kind.MOVED)


@pytest.mark.parametrize(("was_there", "kind"), [(True, Kind.MISSING), (False, Kind.MOVED)])
def test_what_always_lay_beside_a_missing_component_is_not_taken_for_it(was_there, kind):
    """Cells are off beside what is gone."""
    now = picture(left=False)
    now[at_box(50)] = now[at_box()]
    now[at_box()] = 120
    taught = known()
    if was_there:
        taught.lab[at_box(50)] = taught.lab[at_box()]
    found = [
        _Told(Kind.MISSING, 1, at_box(), 3.0, 1.5, TIMES, "Component 1 is missing", True),
        _Told(Kind.DEFECT, 0, at_box(50), 2.0, 1.5, TIMES, "There is a defect"),
    ]
    told = _pair_moved(found, SimpleNamespace(pixels=now), taught, at_box() | at_box(50), [1.0])  # type: ignore[arg-type]
    assert told[0].kind == kind


@pytest.mark.parametrize(("features", "kind"), [(2.0, Kind.EXTRA), (0.5, Kind.DEFECT)])
def test_a_new_thing_on_two_surfaces_is_extra_though_it_is_unlike_only_one(features, kind):
    ideal = np.zeros((*SIZE, 3), np.uint8)
    ideal[:, 80:] = 240
    now = cv2.circle(ideal.copy(), (80, 60), 16, (120, 120, 120), -1)
    spot = cv2.circle(np.zeros(SIZE, np.uint8), (80, 60), 16, 1, -1) > 0
    lab = cv2.cvtColor(ideal, cv2.COLOR_RGB2LAB)
    taught = SimpleNamespace(lab=lab, masks=[], components=[], seen=np.zeros(SIZE, np.float32))
    case = case_of(now, spot[None], taught, np.where(spot, 2, 0), features=np.full((30, 40), features, np.float32))
    assert _tell_spot(case, spot).kind == kind


def test_what_holds_a_new_thing_and_a_place_that_something_left_is_not_what_is_new():
    ideal = cv2.circle(np.full((*SIZE, 3), 120, np.uint8), (110, 60), 14, (20, 20, 20), -1)
    now = cv2.circle(np.full((*SIZE, 3), 120, np.uint8), (40, 60), 18, (230, 230, 40), -1)
    thing = cv2.circle(np.zeros(SIZE, np.uint8), (40, 60), 18, 1, -1) > 0
    both = np.zeros(SIZE, bool)
    both[36:84, 16:130] = True
    taught = SimpleNamespace(lab=cv2.cvtColor(ideal, cv2.COLOR_RGB2LAB), masks=[])
    case = case_of(now, np.stack([both, thing]), taught, np.where(both, 2, 0))
    (told,) = _tell_strangers(case)
    assert np.array_equal(told.place, thing)
    assert np.array_equal(case.explained, thing)  # what left is yet to be told
