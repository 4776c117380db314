import numpy as np
import pytest

from hassod_ros.pixel_range import PixelRange


def gradient(low: int, high: int) -> np.ndarray:
    return np.linspace(low, high, 80 * 100).astype(np.uint16).reshape(80, 100, 1)


@pytest.mark.parametrize("white", [255, 1023, 4095, 16383, 65535])
def test_the_bits_that_a_camera_uses_are_found(white):
    pixels = PixelRange().to_uint8(gradient(0, white))
    assert (pixels.dtype, pixels.shape) == (np.uint8, (80, 100, 1))
    np.testing.assert_allclose(pixels, gradient(0, white) / white * 255, atol=1)


@pytest.mark.parametrize(("low", "high"), [(7000, 8500), (29_000, 31_000)])
def test_a_thermal_picture_is_stretched(low, high):
    pixels = PixelRange().to_uint8(gradient(low, high))
    assert (pixels.min(), pixels.max()) == (0, 255)
    assert np.abs(np.diff(pixels.ravel().astype(int))).max() <= 1


def test_a_scene_without_contrast_does_not_become_noise():
    noise = np.random.default_rng(0).integers(7000, 7008, (80, 100, 1), np.uint16)
    assert np.ptp(PixelRange().to_uint8(noise)) < 20


def test_the_range_holds_for_some_frames_and_then_follows():
    seen = PixelRange()
    before = seen.to_uint8(gradient(7000, 8500))
    assert seen.to_uint8(gradient(7400, 7600)).max() < 200  # the same scale as before, not stretched anew
    np.testing.assert_array_equal(seen.to_uint8(gradient(7000, 8500)), before)
    for _ in range(40):
        last = seen.to_uint8(gradient(7400, 7600))
    assert (last.min(), last.max()) == (0, 255)


def test_a_given_range_is_kept():
    fixed = PixelRange(1000, 3000)
    values = np.array([[[0], [1000], [2000], [3000], [65535]]], np.uint16)
    assert fixed.to_uint8(values).ravel().tolist() == [0, 0, 128, 255, 255]


def test_alpha_does_not_count():
    pixels = np.concatenate([gradient(0, 4095)] * 3 + [np.full((80, 100, 1), 65535, np.uint16)], axis=2)
    assert PixelRange().to_uint8(pixels)[-1, -1].tolist() == [255] * 4
