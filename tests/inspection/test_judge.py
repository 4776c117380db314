"""What findings are told apart by."""

from types import SimpleNamespace

import cv2
import numpy as np
import pytest

from hassod_ros.inspection.inventory import Detector
from hassod_ros.inspection.judge import _Case, _is_left_out, _same_shape, _tell_strangers
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


@pytest.mark.parametrize("alone", [True, False])
def test_what_is_new_is_the_tightest_thing_that_holds_what_differs(alone):
    """A loose mask around it is off as well: cells are, far around."""
    ideal = np.full((*SIZE, 3), 120, np.uint8)
    now = cv2.circle(ideal.copy(), (60, 60), 15, (230, 230, 40), -1)
    tight = cv2.circle(np.zeros(SIZE, np.uint8), (60, 60), 16, 1, -1) > 0
    loose = np.zeros(SIZE, bool)
    loose[30:90, 30:100] = True
    masks = np.stack([loose] if alone else [loose, tight])
    case = _Case(
        view=SimpleNamespace(pixels=now, detector=Detector(Instances.from_dense(masks, image_size=SIZE))),  # type: ignore[arg-type]
        known=SimpleNamespace(lab=cv2.cvtColor(ideal, cv2.COLOR_RGB2LAB), masks=[]),  # type: ignore[arg-type]
        measured=SimpleNamespace(heat=np.where(loose, 2, 0)),  # type: ignore[arg-type]
        margin=1.5,
        bad=loose,
        usable=~loose,
        counts=np.zeros(0, np.int64),
        explained=np.zeros(SIZE, bool),
    )
    (told,) = _tell_strangers(case)
    assert np.array_equal(told.place, loose if alone else tight)
    assert np.array_equal(case.explained, loose)  # nothing more is told of what is off around it
