"""Blank frames: nothing is the right answer, of the shipped model, of training-free mode and of pseudo-labels."""

from dataclasses import replace

import numpy as np
import pytest

from hassod_ros.discovery.features import load_features, suited_options
from hassod_ros.discovery.hassod import HassodConfig, discover
from hassod_ros.discovery.method import change
from hassod_ros.images import list_images, read_image
from hassod_ros.runtime.segmenter import open_segmenter
from hassod_ros.visibility import visible

SIZE = (480, 640)
SQUARE = np.array([220, 150, 420, 330])  # x0 y0 x1 y1


def uniform(value: int) -> np.ndarray:
    return np.full((*SIZE, 3), value, np.uint8)


def noisy(image: np.ndarray, deviation: float) -> np.ndarray:
    noise = np.random.default_rng(0).normal(0, deviation, image.shape)
    return np.clip(image + noise, 0, 255).astype(np.uint8)


def gradient() -> np.ndarray:
    return np.broadcast_to(np.linspace(0, 255, SIZE[0]).astype(np.uint8)[:, None, None], (*SIZE, 3)).copy()


def square() -> np.ndarray:
    image = uniform(128)
    x0, y0, x1, y1 = SQUARE
    image[y0:y1, x0:x1] = 200, 30, 30
    return image


BLANK = {
    "lens_cap": uniform(0),
    "uniform_grey": uniform(128),
    "sensor_noise": noisy(uniform(128), 10),
    "dark_sensor_noise": noisy(uniform(3), 4),
    "gradient": gradient(),
}
FINDERS = ("shipped_model", "shipped_int8", "outlines_that_do_not_follow_colours", "training_free", "pseudo_label")


@pytest.fixture(scope="module")
def finders():
    features = load_features("handcrafted")
    config = HassodConfig(keep_aspect=True)
    uncoloured = open_segmenter("default-int8")
    uncoloured.options = replace(uncoloured.options, color_weight=0.0)
    return {
        "shipped_model": open_segmenter("default-fp32"),
        "shipped_int8": open_segmenter("default-int8"),
        "outlines_that_do_not_follow_colours": uncoloured,
        "training_free": open_segmenter("training_free"),
        "pseudo_label": lambda image: discover(image, features, change(config, suited_options("handcrafted"))),
    }


@pytest.mark.parametrize("finder", FINDERS)
@pytest.mark.parametrize("frame", BLANK)
def test_a_blank_frame_gives_nothing(finders, finder, frame):
    assert len(finders[finder](BLANK[frame])) == 0


@pytest.mark.parametrize("finder", FINDERS)
def test_a_red_square_on_grey_is_found_alone(finders, finder):
    found = finders[finder](square())
    assert len(found) == 1
    assert np.abs(found.boxes[0] - SQUARE).max() < 16


@pytest.mark.parametrize("place", [(244, 290, 356, 402), (56, 169, 162, 275), (362, 254, 543, 435), (496, 2, 596, 102)])
@pytest.mark.parametrize("finder", FINDERS[:2])
def test_wherever_it_lies_a_square_is_one_thing(finders, finder, place):
    image, (x0, y0, x1, y1) = uniform(110), place
    image[y0:y1, x0:x1] = 200, 30, 30
    found = finders[finder](image)
    assert len(found) == 1
    assert np.abs(found.boxes[0] - place).max() < 24


def test_two_masks_of_a_square_are_one_however_far_a_few_pixels_of_one_lie():
    x0, y0, x1, y1 = SQUARE
    stray = np.zeros((480, x1 - x0), np.uint8)
    stray[y0:y1] = stray[:3, :3] = 1
    regions = np.array([[x0, 0, x1, 480], SQUARE])
    masks = [stray, np.ones((y1 - y0, x1 - x0), np.uint8)]
    assert np.count_nonzero(visible(square(), regions, masks, SIZE)) == 1


def test_strips_along_an_outline_are_no_things():
    regions = np.array([[208, 138, 432, 150], SQUARE, [0, 0, 220, 480]])
    masks = [np.ones((y1 - y0, x1 - x0), np.uint8) for x0, y0, x1, y1 in regions]
    assert visible(square(), regions, masks, SIZE).tolist() == [False, True, False]


@pytest.mark.parametrize("channel", range(3))
def test_steps_in_any_channel_make_a_picture_busy(channel):
    image = uniform(128)
    image[..., channel] = np.kron(np.random.default_rng(0).integers(0, 255, (24, 32)), np.ones((20, 20)))
    regions, masks = np.array([[3, 3, 13, 13]]), [np.ones((10, 10), np.uint8)]
    assert visible(image, regions, masks, SIZE).all()
    assert not visible(uniform(128), regions, masks, SIZE).any()


def test_photographs_lose_nothing(shared):
    """Masks anywhere in a photograph stay: it shows colour steps all over. One in a hundred is as empty as sky."""
    paths = list_images(shared / "coco_subset" / "images")[::8] if (shared / "coco_subset").is_dir() else []
    paths = paths or list_images(shared / "data" / "coco_subset" / "images")[::8]
    regions, masks = np.array([[3, 3, 13, 13]]), [np.ones((10, 10), np.uint8)]
    kept = [visible(image, regions, masks, image.shape[:2])[0] for image in map(read_image, paths)]
    assert len(kept) - sum(kept) <= 0.03 * len(kept)
