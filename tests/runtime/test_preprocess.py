import numpy as np
import pytest

from hassod_ros.errors import InputError
from hassod_ros.runtime.preprocess import Letterbox, letterbox

FILL = (124, 116, 104)


@pytest.mark.parametrize(
    ("image", "network", "content"),
    [
        ((480, 640), (480, 640), (480, 640)),
        ((1080, 1920), (480, 640), (360, 640)),
        ((1920, 1080), (480, 640), (480, 270)),
        ((24, 32), (480, 640), (480, 640)),
        ((1, 5000), (320, 320), (1, 320)),
        ((479, 641), (320, 320), (239, 320)),
    ],
)
def test_fit_keeps_the_aspect_ratio(image, network, content):
    assert Letterbox.fit(image, network).content_size == content


def test_boxes_return_to_the_image():
    placed = Letterbox.fit((1080, 1920), (480, 640))
    boxes = np.array([[0, 0, 640, 360], [100, 50, 200, 100], [-5, -5, 700, 480]], np.float32)
    expected = [[0, 0, 1920, 1080], [300, 150, 600, 300], [0, 0, 1920, 1080]]
    np.testing.assert_allclose(placed.to_image(boxes), expected)
    assert placed.to_image(boxes).dtype == np.float32


def test_an_image_of_the_right_size_is_untouched():
    image = np.random.default_rng(0).integers(0, 256, (48, 64, 3), np.uint8)
    out = np.zeros_like(image)
    letterbox(image, out, fill=FILL)
    np.testing.assert_array_equal(out, image)


@pytest.mark.parametrize("size", [(24, 32), (48, 64), (200, 100), (90, 300)])
def test_bgr_gives_what_rgb_gives(size):
    image = np.random.default_rng(0).integers(0, 256, (*size, 3), np.uint8)
    rgb, bgr = np.zeros((48, 64, 3), np.uint8), np.zeros((48, 64, 3), np.uint8)
    before = image.copy()
    letterbox(image, rgb, fill=FILL)
    letterbox(np.ascontiguousarray(image[..., ::-1]), bgr, fill=FILL, color_order="BGR")
    np.testing.assert_array_equal(rgb, bgr)
    np.testing.assert_array_equal(image, before)


def test_padding_is_filled_again_on_reuse():
    out = np.full((48, 64, 3), 7, np.uint8)
    placed = letterbox(np.zeros((100, 50, 3), np.uint8), out, fill=FILL)
    rows, columns = placed.content_size
    assert (rows, columns) == (48, 24)
    assert (out[:, :24] == 0).all()
    assert (out[:, 24:] == FILL).all()


def test_strided_images_are_taken():
    wide = np.random.default_rng(0).integers(0, 256, (40, 80, 3), np.uint8)
    part, whole = np.zeros((48, 64, 3), np.uint8), np.zeros((48, 64, 3), np.uint8)
    letterbox(wide[:, 10:50], part, fill=FILL)
    letterbox(wide[:, 10:50].copy(), whole, fill=FILL)
    np.testing.assert_array_equal(part, whole)


@pytest.mark.parametrize(
    "image",
    [
        np.zeros((4, 4), np.uint8),
        np.zeros((4, 4, 4), np.uint8),
        np.zeros((4, 4, 3), np.float32),
        np.zeros((0, 4, 3), np.uint8),
    ],
)
def test_other_arrays_are_refused(image):
    with pytest.raises(InputError, match="an image must be uint8"):
        letterbox(image, np.zeros((48, 64, 3), np.uint8), fill=FILL)


def test_unknown_color_order():
    with pytest.raises(InputError, match="RGB, BGR"):
        letterbox(np.zeros((4, 4, 3), np.uint8), np.zeros((8, 8, 3), np.uint8), fill=FILL, color_order="HSV")


def test_a_large_image_is_averaged_over_its_pixels():
    fine = np.indices((1080, 1920)).sum(axis=0) % 2 * 255  # every second pixel: grey from afar
    gradient = np.broadcast_to(np.linspace(0, 255, 1920), (1080, 1920))
    image = np.stack([fine, gradient, gradient[:, ::-1]], axis=2).astype(np.uint8)
    out = np.empty((360, 640, 3), np.uint8)
    letterbox(image, out, fill=(0, 0, 0))
    exact = image.reshape(360, 3, 640, 3, 3).mean(axis=(1, 3))
    np.testing.assert_allclose(out, exact, atol=16)
    np.testing.assert_allclose(out[..., 1:], exact[..., 1:], atol=2)
