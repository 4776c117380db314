import cv2
import numpy as np
import pytest

from hassod_ros.inspection.align import Aligner, Keypoints
from hassod_ros.inspection.inspector import Inspector
from hassod_ros.inspection.inventory import Component, Detector
from hassod_ros.inspection.places import allowed, around, find_moved, find_thing, learn_wander, shift_cells, shift_mask
from hassod_ros.inspection.reference import learn
from hassod_ros.inspection.settings import Settings
from hassod_ros.inspection.verdict import Kind, Result
from hassod_ros.instances import Instances
from tests.inspection.parts import observe, part, taken

BOX = (40, 30, 70, 60)


def mark(x: int, y: int) -> np.ndarray:
    """(120, 160, 3) uint8 RGB with a mark whose upper left corner lies there."""
    picture = np.full((120, 160, 3), 120, np.uint8)
    cv2.circle(picture, (x + 15, y + 15), 13, (200, 40, 40), -1)
    cv2.line(picture, (x + 8, y + 8), (x + 22, y + 18), (20, 20, 20), 3)
    return picture


@pytest.fixture
def component() -> Component:
    mask = np.zeros((30, 30), np.uint8)
    cv2.circle(mask, (15, 15), 13, 1, -1)
    return Component(BOX, mask > 0, 5, 1.0, -1)


def test_a_component_is_found_where_it_lies_and_not_where_nothing_is(component: Component) -> None:
    ideal = mark(40, 30)
    found = find_moved(mark(49, 26), ideal, component, [around(component, 12)])
    assert found is not None
    assert found[:2] == (9, -4)
    assert found[2] > 0.95
    empty = np.random.default_rng(0).integers(100, 140, (120, 160, 3)).astype(np.uint8)
    nothing = find_moved(empty, ideal, component, [around(component, 12)])
    assert nothing is None or nothing[2] < 0.6


def test_the_detectors_thing_of_its_shape_is_where_a_component_lies(component: Component) -> None:
    full = component.full((120, 160))
    box = np.array([(46, 27, 76, 57)], np.float32)
    seen = Instances(image_size=(120, 160), boxes=box, masks=[component.mask.astype(np.uint8)])
    assert find_thing(Detector(seen), component, full, 10) == (6, -3)
    assert find_thing(Detector(seen), component, full, 5) is None
    assert find_thing(Detector(None), component, full, 10) is None


def test_good_parts_tell_how_far_components_lie_off(component: Component) -> None:
    good = [mark(40, 30), mark(43, 34), mark(38, 30)]
    wander = learn_wander(good, good[0], [component])
    assert wander == pytest.approx([5])
    assert allowed(component, 5, margin=1.5, position=3) == pytest.approx(12.5)
    assert allowed(component, 0, margin=1.5, position=3) == 3


def test_cells_and_masks_move() -> None:
    ramp = np.tile(np.arange(8, dtype=np.float32), (1, 5, 1))
    assert np.allclose(shift_cells(ramp, 1.5, 0)[0, :, 3:], ramp[0, :, 3:] - 1.5)
    assert np.allclose(shift_cells(ramp, -0.25, 2)[0, :, :6], ramp[0, :, :6] + 0.25)
    mask = np.zeros((6, 8), bool)
    mask[2, 3] = True
    assert np.argwhere(shift_mask(mask, (2, -1))).tolist() == [[1, 5]]


def test_a_print_that_wanders_in_good_parts_may_and_far_off_it_has_moved() -> None:
    good = [
        taken(part(red={"at": (80 + x, 70 + y)}), i)
        for i, (x, y) in enumerate([(0, 0), (4, 0), (-4, 3), (0, -4), (2, 4)])
    ]
    reference = learn(good, Settings(), name="plate", observe=observe, model_sha256="a" * 64)
    inspector = Inspector(reference, observe)
    assert inspector(taken(part(red={"at": (85, 75)}), 20)).result == Result.OK
    verdict = inspector(taken(part(red={"at": (110, 82)}), 21))
    assert verdict.result == Result.NG
    assert verdict.findings[0].kind == Kind.MOVED
    assert inspector(taken(part(red=None), 22)).findings[0].kind == Kind.MISSING


def test_no_row_that_lies_partly_beyond_the_border_speaks_against_a_placement() -> None:
    picture = part()
    right = np.array([[1, 0, 2.3], [0, 1, 1.7]])
    moved = cv2.warpAffine(picture, right, picture.shape[1::-1], borderMode=cv2.BORDER_REFLECT_101)
    aligner = Aligner(picture, np.full(picture.shape[:2], 255, np.uint8))
    back = cv2.invertAffineTransform(right)
    agreement = aligner._agreement(Keypoints(moved), back)
    assert agreement > 0.9
    assert agreement > aligner._agreement(Keypoints(moved), np.eye(2, 3)) + 0.1
