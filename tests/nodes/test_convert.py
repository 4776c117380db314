import sys
import types

import pytest

pytest.importorskip("sensor_msgs.msg", reason="ROS 2 is missing: source scripts/env.sh")

import cv2
import numpy as np
from sensor_msgs.msg import CompressedImage, Image
from std_msgs.msg import Header

from hassod_ros.errors import InputError
from hassod_ros.nodes.convert import array_to_image, compressed_to_array, image_to_array, to_rgb


@pytest.fixture
def picture():
    smooth = cv2.resize(np.random.default_rng(0).integers(0, 256, (5, 7, 3), np.uint8), (70, 50))
    return np.ascontiguousarray(smooth)


@pytest.mark.parametrize("encoding", ["rgb8", "bgr8"])
def test_colours_are_not_copied(picture, encoding):
    message = array_to_image(picture, encoding, Header())
    pixels, order = image_to_array(message)
    np.testing.assert_array_equal(pixels, picture)
    assert order == encoding[:3].upper()
    message.data[0] = 255 - message.data[0]
    assert pixels[0, 0, 0] == message.data[0]


@pytest.mark.parametrize("kind", [bytes, list, lambda data: np.frombuffer(data, np.uint8)])
def test_data_may_be_of_any_type(picture, kind):
    class Message:
        height, width, encoding, is_bigendian, step = 50, 70, "rgb8", 0, 210
        data = kind(picture.tobytes())

    np.testing.assert_array_equal(image_to_array(Message)[0], picture)


@pytest.mark.parametrize(
    ("encoding", "pixels"),
    [
        ("mono8", np.arange(20, dtype=np.uint8).reshape(4, 5)),
        ("mono16", np.arange(20, dtype=np.uint16).reshape(4, 5)),
        ("16UC1", np.arange(40, dtype=np.uint16).reshape(4, 10)[:, ::2]),
        ("rgb8", np.arange(60, dtype=np.uint8).reshape(4, 5, 3)),
    ],
)
def test_array_to_image_holds_the_array(encoding, pixels):
    header = Header(frame_id="here")
    message = array_to_image(pixels, encoding, header)
    assert (message.header, message.encoding, message.is_bigendian) == (header, encoding, 0)
    assert (message.height, message.width, message.step) == (4, 5, len(message.data) // 4)
    assert bytes(message.data) == pixels.tobytes()


@pytest.mark.parametrize(("encoding", "shape", "dtype"), [("rgb8", (4, 5), "u1"), ("16UC1", (4, 5), "u1")])
def test_array_to_image_refuses_another_layout(encoding, shape, dtype):
    with pytest.raises(ValueError, match="is not an image of encoding"):
        array_to_image(np.zeros(shape, dtype), encoding, Header())


def test_sixteen_bits_are_scaled_and_alpha_is_dropped():
    values = np.array([[0, 257, 32896, 65535]], "<u2")
    message = Image(height=1, width=4, encoding="mono16", step=8, data=values.tobytes())
    assert image_to_array(message)[0][0, :, 0].tolist() == [0, 1, 128, 255]
    message = Image(height=1, width=1, encoding="rgba16", step=8, data=values.tobytes())
    assert image_to_array(message)[0][0, 0].tolist() == [0, 1, 128]


def two_planes(rgb: np.ndarray, name: str) -> tuple[np.ndarray, np.ndarray]:
    """Brightness and pairs of colour values in the video range of BT.601."""
    r, g, b = (rgb[..., i].astype(float) for i in range(3))
    y = 16 + 0.257 * r + 0.504 * g + 0.098 * b
    pairs = np.stack([128 - 0.148 * r - 0.291 * g + 0.439 * b, 128 + 0.439 * r - 0.368 * g - 0.071 * b], axis=-1)
    if name != "nv24":
        pairs = (pairs[::2, ::2] + pairs[1::2, ::2] + pairs[::2, 1::2] + pairs[1::2, 1::2]) / 4
    if name == "nv21":
        pairs = pairs[..., ::-1]
    return np.round(y).astype(np.uint8), np.round(pairs).astype(np.uint8)


@pytest.mark.parametrize("name", ["nv12", "nv21", "nv24", "NV12"])
@pytest.mark.parametrize("padding", [0, 6])
def test_brightness_and_colours_in_two_planes(picture, name, padding):
    luma, pairs = two_planes(picture, name.lower())
    step = 70 + padding
    data = np.full((50 + (100 if name == "nv24" else 25), step), 255, np.uint8)
    data[:50, :70] = luma
    if name == "nv24":
        data[50:].reshape(50, 2 * step)[:, :140] = pairs.reshape(50, -1)
    else:
        data[50:, :70] = pairs.reshape(25, -1)
    message = Image(height=50, width=70, encoding=name, step=step, data=data.tobytes())
    pixels, order = image_to_array(message)
    assert order == "RGB"
    assert np.abs(pixels.astype(int) - picture).mean() < 4  # colours are shared by four pixels
    message.data = message.data[:-1]
    with pytest.raises(InputError, match=f"pixels of {name} with step {step} need {data.size}"):
        image_to_array(message)


def test_the_names_of_encodings_are_printed_as_ros_writes_them():
    with pytest.raises(InputError, match=r"use one of rgb8, bgr8, .*8UC1, 8UC3, 8UC4, yuv422, .*nv21, nv24"):
        image_to_array(Image(height=4, width=5, encoding="rgb9", step=15))


def stand_in(monkeypatch, convert):
    """A cv_bridge that can be imported, with `convert` in the place of its conversion."""
    package, boost, native = (types.ModuleType(name) for name in ("cv_bridge", "boost", "cv_bridge_boost"))
    package.CvBridge = lambda: types.SimpleNamespace(imgmsg_to_cv2=convert)
    package.boost, boost.cv_bridge_boost = boost, native
    for module, name in ((package, ""), (boost, ".boost"), (native, ".boost.cv_bridge_boost")):
        monkeypatch.setitem(sys.modules, f"cv_bridge{name}", module)


def test_an_encoding_that_only_cv_bridge_knows_is_left_to_it(monkeypatch):
    expected = np.arange(60, dtype=np.uint8).reshape(4, 5, 3)
    message = Image(height=4, width=5, encoding="nv99", step=5)

    def convert(given, encoding):
        assert given is message
        assert encoding == "rgb8"
        return expected

    stand_in(monkeypatch, convert)
    pixels, order = image_to_array(message)
    assert order == "RGB"
    np.testing.assert_array_equal(pixels, expected)


def test_what_cv_bridge_cannot_read_is_refused_with_its_reason(monkeypatch):
    def convert(given, encoding):
        raise RuntimeError("[nv99] is not a color format")

    stand_in(monkeypatch, convert)
    with pytest.raises(InputError, match=r"'nv99' is not known; .* cannot read it either: \[nv99\] is not"):
        image_to_array(Image(height=4, width=5, encoding="nv99", step=5))


def test_a_cv_bridge_that_cannot_be_imported_is_not_needed(monkeypatch):
    monkeypatch.setitem(sys.modules, "cv_bridge", types.ModuleType("cv_bridge"))  # without its compiled part
    assert image_to_array(array_to_image(np.zeros((4, 5, 3), np.uint8), "rgb8", Header()))[1] == "RGB"
    with pytest.raises(InputError, match="'nv99' is not known; use one of"):
        image_to_array(Image(height=4, width=5, encoding="nv99", step=5))


@pytest.mark.parametrize(
    ("fields", "sentence"),
    [
        ({"encoding": "16UC1"}, "is a depth image; connect `image` to the camera's colour"),
        ({"encoding": "rgb9"}, "encoding 'rgb9' is not known; use one of"),
        ({"encoding": ""}, "encoding '' is not known"),
        ({"height": 0}, "an image of 5 x 0 pixels cannot be read"),
        ({"width": 20_000}, "each side must be 1 to 16384"),
        ({"step": 14}, "step is 14 bytes, 5 pixels of rgb8 need 15"),
        ({"height": 5}, "holds 60 bytes, 5 x 5 pixels of rgb8 with step 15 need 75"),
        ({"encoding": "yuv422", "step": 20}, "must have an even width, got 5"),
        ({"encoding": "nv12", "step": 20}, "must have an even width, got 5"),
        ({"encoding": "nv21", "width": 4, "height": 3}, "must have an even height, got 3"),
        ({"encoding": "bayer_rggb8", "height": 2, "width": 2}, "too small to interpolate"),
    ],
)
def test_what_does_not_fit_is_refused_with_a_sentence(fields, sentence):
    message = array_to_image(np.zeros((4, 5, 3), np.uint8), "rgb8", Header())
    for name, value in fields.items():
        setattr(message, name, value)
    with pytest.raises(InputError, match=sentence):
        image_to_array(message)


@pytest.mark.parametrize("extension", [".jpg", ".png"])
def test_compressed_images(picture, extension):
    data = cv2.imencode(extension, picture[..., ::-1])[1].tobytes()
    pixels = to_rgb(*compressed_to_array(CompressedImage(data=data)))
    assert np.abs(pixels.astype(int) - picture).max() <= (0 if extension == ".png" else 40)
    for damaged in (data[: len(data) // 2], b"", b"no image"):
        with pytest.raises(InputError):
            compressed_to_array(CompressedImage(data=damaged))
