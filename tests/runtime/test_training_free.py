import numpy as np
import pytest

from hassod_ros.errors import InputError
from hassod_ros.runtime.segmenter import open_segmenter

pytest.importorskip("numba")


@pytest.fixture(scope="module")
def segmenter():
    segmenter = open_segmenter("training_free", size=128)
    segmenter.warm_up()
    return segmenter


def scene() -> np.ndarray:
    """A red and a blue square on grey, with a little noise."""
    image = np.full((120, 160, 3), 128, np.uint8)
    image[30:80, 20:70] = (220, 30, 30)
    image[40:90, 95:140] = (30, 30, 220)
    return image + np.random.default_rng(0).integers(0, 6, image.shape, np.uint8)


def test_finds_things_without_any_model(segmenter):
    instances = segmenter(scene())
    assert instances.image_size == (120, 160)
    found = instances.dense()
    for rows, columns in ((slice(30, 80), slice(20, 70)), (slice(40, 90), slice(95, 140))):
        square = np.zeros((120, 160), bool)
        square[rows, columns] = True
        assert max((mask & square).sum() / (mask | square).sum() for mask in found) > 0.8


def test_bgr_is_rgb_in_another_order(segmenter):
    rgb = segmenter(scene())
    (bgr,) = segmenter.segment([np.ascontiguousarray(scene()[..., ::-1])], color_order="BGR")
    np.testing.assert_array_equal(rgb.boxes, bgr.boxes)


def test_wrong_images_are_named(segmenter):
    with pytest.raises(InputError, match="uint8"):
        segmenter(scene().astype(np.float32))
    with pytest.raises(InputError, match="RGB, BGR"):
        segmenter(scene(), color_order="HSV")
