import numpy as np
import pytest

from hassod_ros.masks import paste_masks
from hassod_ros.outlines import follow_colors


def disc(height, width, centre, radius):
    y, x = np.mgrid[:height, :width] + 0.5
    return np.hypot(y - centre[0], x - centre[1]) < radius


def rough(radius, steep=4.0, side=28):
    """(side, side) probabilities of a disc in the middle, 0.5 at that part of the half side."""
    y, x = (np.mgrid[:side, :side] + 0.5) * 2 / side - 1
    return (1 / (1 + np.exp(steep * (np.hypot(y, x) - radius)))).astype(np.float32)


@pytest.mark.parametrize("radius", [0.7, 1.1], ids=["too small", "too large"])
@pytest.mark.parametrize("side", [14, 28])
@pytest.mark.parametrize(
    "colors", [((200, 60, 40), (50, 90, 120)), ((120, 100, 100), (100, 110, 105))], ids=["far", "near"]
)
def test_outlines_follow_the_image(radius, side, colors):
    truth = disc(120, 160, (60, 80), 34)
    image = np.where(truth[..., None], *colors).astype(np.uint8)
    boxes = np.array([[40, 20, 120, 100]], np.float32)
    before = rough(radius, side=side)[None]

    def iou(maps):
        (mask,) = paste_masks(maps, boxes, 0.5)
        inside = truth[20:100, 40:120]
        return (mask & inside).sum() / (mask | inside).sum()

    after = follow_colors(before, image, boxes, 3.0)
    assert (after.shape, after.dtype) == (before.shape, np.float32)
    assert iou(before) < 0.75
    assert iou(after) > iou(before) + 0.15


def test_a_faint_mask_does_not_vanish():
    truth = disc(120, 160, (60, 80), 34)
    image = np.where(truth[..., None], (200, 60, 40), (50, 90, 120)).astype(np.uint8)
    boxes = np.array([[40, 20, 120, 100]], np.float32)
    sure = rough(0.8)[None]
    faint = 0.4 * sure  # nowhere above 0.4, as if every second label had left the cell out
    (mask,) = paste_masks(follow_colors(faint, image, boxes, 3.0), boxes, 0.3)
    inside = truth[20:100, 40:120]
    assert (mask & inside).sum() / (mask | inside).sum() > 0.85
    both = follow_colors(np.concatenate([sure, faint]), image, boxes[[0, 0]], 3.0)
    np.testing.assert_array_equal(both[0], follow_colors(sure, image, boxes, 3.0)[0])


def test_each_mask_has_colours_of_its_own():
    image = np.random.default_rng(0).integers(0, 255, (60, 90, 3), np.uint8)
    boxes = np.array([[-5, 3, 40, 50], [30.5, 10.2, 88, 70], [0, 0, 7, 5]], np.float32)
    maps = np.stack([rough(0.6), rough(0.9), rough(1.2)])
    together = follow_colors(maps, image, boxes, 3.0)
    for number in range(3):
        one = slice(number, number + 1)
        np.testing.assert_array_equal(together[one], follow_colors(maps[one], image, boxes[one], 3.0))
    assert together.min() >= 0
    assert together.max() <= 1


def test_where_colours_tell_nothing_the_mask_is_only_smoothed():
    image = np.full((60, 90, 3), 90, np.uint8)
    maps = rough(0.6)[None]
    after = follow_colors(maps, image, np.array([[10, 10, 50, 50]], np.float32), 0.0)[0]
    mean = sum(maps[0, 8 + y : 20 + y, 8 + x : 20 + x] for y in (-1, 0, 1) for x in (-1, 0, 1)) / 9
    np.testing.assert_allclose(after[8:-8, 8:-8], mean, atol=1e-5)
    assert after[0, 0] < 0.05


@pytest.mark.parametrize("side", [1, 2, 3, 7])
def test_maps_of_any_size(side):
    maps = np.full((2, side, side), 0.9, np.float32)
    boxes = np.array([[0, 0, 9, 9], [2, 3, 5, 8]], np.float32)
    assert follow_colors(maps, np.zeros((9, 9, 3), np.uint8), boxes, 3.0).shape == maps.shape


def test_nothing_comes_of_nothing():
    empty = np.zeros((0, 28, 28), np.float32)
    assert follow_colors(empty, np.zeros((5, 5, 3), np.uint8), np.zeros((0, 4), np.float32), 3.0).shape == (0, 28, 28)
