import cv2
import numpy as np
import pytest

from hassod_ros.errors import InputError
from hassod_ros.instances import Instances
from hassod_ros.runtime.region import Region

PIXELS = np.arange(40 * 60 * 3, dtype=np.uint8).reshape(40, 60, 3)


def found(size: tuple[int, int], *rectangles: tuple[int, int, int, int]) -> Instances:
    masks = np.zeros((len(rectangles), *size), bool)
    for mask, (x0, y0, x1, y1) in zip(masks, rectangles, strict=True):
        mask[y0:y1, x0:x1] = True
    return Instances.from_dense(masks, image_size=size, scene=np.arange(len(rectangles)) == 1)


@pytest.mark.parametrize(
    ("rectangle", "expected"),
    [
        ((0, 0, 0, 0), PIXELS),
        ((10, 5, 20, 30), PIXELS[5:35, 10:30]),
        ((10, 5, 0, 0), PIXELS[5:, 10:]),
        ((0, 0, 60, 40), PIXELS),
    ],
)
def test_the_region_is_cut_out_without_a_copy(rectangle, expected):
    cut = Region(rectangle).crop(PIXELS)
    np.testing.assert_array_equal(cut, expected)
    assert np.shares_memory(cut, PIXELS)


def test_what_was_found_lies_where_it_is_in_the_whole_image():
    region = Region((10, 5, 20, 30))
    placed = region.place(found((30, 20), (0, 0, 5, 7), (3, 4, 20, 30)), (40, 60))
    expected = found((40, 60), (10, 5, 15, 12), (13, 9, 30, 35))
    np.testing.assert_array_equal(placed.dense(), expected.dense())
    np.testing.assert_array_equal(placed.boxes, expected.boxes)
    assert placed.scene.tolist() == [False, True]


def test_a_box_between_pixels_keeps_its_pixels_far_from_the_corner():
    boxes = np.nextafter(np.array([[4, 4, 8, 8]], np.float32), np.float32([[0, 0, 20, 20]]))
    assert boxes[0, 0] < 4 < boxes[0, 2] > 8
    instances = Instances(image_size=(20, 20), boxes=boxes, masks=[np.ones((6, 6), np.uint8)])
    placed = Region((9000, 8000, 20, 20)).place(instances, (9000, 10_000))
    assert placed.regions.tolist() == [[9003, 8003, 9009, 8009]]


def test_what_lies_mostly_on_white_is_left_out(tmp_path):
    mask = np.zeros((40, 60), np.uint8)
    mask[:, 30:] = 255
    cv2.imwrite(str(tmp_path / "mask.png"), mask)
    region = Region.load([0, 0, 0, 0], tmp_path / "mask.png")
    region.crop(PIXELS)
    kept = region.place(found((40, 60), (0, 0, 10, 10), (25, 0, 34, 10), (28, 0, 40, 10)), (40, 60))
    assert kept.regions[:, 0].tolist() == [0, 25]
    empty = Instances(image_size=(40, 60), boxes=np.empty((0, 4)), masks=[])
    assert len(region.place(empty, (40, 60))) == 0


@pytest.mark.parametrize(
    ("rectangle", "sentence"),
    [
        ([50, 0, 20, 10], "does not lie in the image of 60 x 40"),
        ([60, 0, 0, 0], "does not lie in the image"),
        ([0, 41, 0, 0], "does not lie in the image"),
        ([0, 0, 5], "a region is x, y, width and height"),
        ([-1, 0, 5, 5], "none below 0"),
    ],
)
def test_regions_that_make_no_sense_are_refused(rectangle, sentence):
    with pytest.raises(InputError, match=sentence):
        Region.load(rectangle).crop(PIXELS)


def test_a_mask_of_another_size_is_refused():
    with pytest.raises(InputError, match="the ignore mask is 20 x 10, the image 60 x 40"):
        Region(ignored=np.zeros((10, 20), bool)).crop(PIXELS)
