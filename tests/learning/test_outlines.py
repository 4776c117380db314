import numpy as np
import pytest
import torch

from hassod_ros.learning.outlines import draw_mask
from hassod_ros.runtime.postprocess import paste_masks


def disc(height, width, centre, radius):
    y, x = np.mgrid[:height, :width] + 0.5
    return np.hypot(y - centre[0], x - centre[1]) < radius


def rough(radius, steep=6.0):
    """(28, 28) probabilities of a disc in the middle, 0.5 at that part of the half side."""
    y, x = (np.mgrid[:28, :28] + 0.5) / 14 - 1
    return (1 / (1 + np.exp(steep * (np.hypot(y, x) - radius)))).astype(np.float32)


def whole(shape, drawn):
    left, top, mask = drawn
    out = np.zeros(shape, np.uint8)
    out[top : top + mask.shape[0], left : left + mask.shape[1]] = mask
    return out


@pytest.mark.parametrize("scale", [1, 3])
def test_outlines_follow_the_image(scale):
    truth = disc(120 * scale, 160 * scale, (60 * scale, 80 * scale), 36 * scale)
    image = np.where(truth[..., None], [200, 60, 40], [50, 90, 120]).astype(np.uint8)
    box = np.array([40, 20, 120, 100], np.float32) * scale

    def iou(rounds):
        mask = whole(truth.shape, draw_mask(image, box, rough(0.75), rounds))
        return (mask & truth).sum() / (mask | truth).sum()

    assert iou(0) == pytest.approx((30 / 36) ** 2, abs=0.03)
    assert iou(1) > 0.95


def test_the_same_mask_each_time():
    noise = np.random.default_rng(0).integers(0, 255, (90, 90, 3), np.uint8)
    box = np.array([10, 20, 70, 80], np.float32)
    first, second = (draw_mask(noise, box, rough(0.6, 2.0)) for _ in range(2))
    np.testing.assert_array_equal(first[2], second[2])
    assert 0 < first[2].sum() < first[2].size


def test_without_rounds_it_is_what_the_runtime_pastes():
    values = torch.rand(1, 7, 7, generator=torch.Generator().manual_seed(0)).numpy()
    values = np.repeat(np.repeat(values, 4, axis=1), 4, axis=2)  # plateaus: the detour over the square blurs a little
    box = np.array([[3.3, 5.1, 91.7, 83.9]], np.float32)
    (there,) = paste_masks(values, np.array([0]), box, 0.5)
    left, top, here = draw_mask(np.zeros((100, 100, 3), np.uint8), box[0], values[0], 0)
    assert (left, top, here.shape) == (3, 5, there.shape)
    assert (here != there).mean() < 0.05


def test_nothing_is_drawn_outside_the_image_or_the_box():
    image = np.full((30, 40, 3), 90, np.uint8)
    left, top, mask = draw_mask(image, np.array([-20, -10, 60, 50], np.float32), np.ones((28, 28), np.float32))
    assert (left, top, mask.shape) == (0, 0, (30, 40))
    assert mask.all()
    left, top, mask = draw_mask(image, np.array([50, 5, 60, 9], np.float32), np.ones((28, 28), np.float32))
    assert mask.size == 0
    _, _, mask = draw_mask(image, np.array([5, 5, 25, 25], np.float32), np.zeros((28, 28), np.float32))
    assert mask.sum() == 0  # no colours of a foreground: no GrabCut
