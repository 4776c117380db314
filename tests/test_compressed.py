import io
import zlib
from types import SimpleNamespace

import cv2
import numpy as np
import pytest
from PIL import Image

from hassod_ros import compressed
from hassod_ros.compressed import decode
from hassod_ros.errors import InputError
from hassod_ros.image_messages import compressed_to_array, to_rgb

HEIGHT, WIDTH = 120, 168
KINDS = {
    "baseline": [],
    "progressive": [cv2.IMWRITE_JPEG_PROGRESSIVE, 1],
    "restarts": [cv2.IMWRITE_JPEG_RST_INTERVAL, 4],
    "optimised": [cv2.IMWRITE_JPEG_OPTIMIZE, 1],
}


@pytest.fixture(scope="module")
def picture():
    """(H, W, 3) uint8 in the order BGR, with some texture everywhere."""
    rng = np.random.default_rng(3)
    smooth = cv2.resize(rng.integers(0, 256, (6, 8, 3), np.uint8), (WIDTH, HEIGHT), interpolation=cv2.INTER_CUBIC)
    return np.clip(smooth + rng.normal(0, 4, smooth.shape), 0, 255).astype(np.uint8)


def jpeg(pixels, *options) -> bytes:
    return cv2.imencode(".jpg", pixels, [cv2.IMWRITE_JPEG_QUALITY, 90, *options])[1].tobytes()


def png(pixels) -> bytes:
    return cv2.imencode(".png", pixels)[1].tobytes()


def with_size(data: bytes, height: int | None = None, width: int | None = None) -> bytes:
    """A JPEG whose header claims another size."""
    place = next(i for i in range(len(data)) if data[i] == 0xFF and data[i + 1] in (0xC0, 0xC1, 0xC2))
    old_height, old_width = (int.from_bytes(data[place + i : place + i + 2], "big") for i in (5, 7))
    size = (height or old_height).to_bytes(2, "big") + (width or old_width).to_bytes(2, "big")
    return data[: place + 5] + size + data[place + 9 :]


@pytest.mark.parametrize("kind", KINDS)
def test_a_jpeg_is_whole_without_its_end_marker_and_with_zeros_behind_it(picture, kind):
    data = jpeg(picture, *KINDS[kind])
    expected = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)
    for whole in (data, data[:-2], data + bytes(1000), data[:-2] + bytes(1000), data + b"\xff\xff\x13"):
        np.testing.assert_array_equal(decode(whole), expected)


@pytest.mark.parametrize("kind", ["baseline", "restarts", "optimised"])
@pytest.mark.parametrize("share", [0.3, 0.5, 0.8, 0.97])
def test_a_jpeg_that_was_cut_is_refused_whatever_fills_its_place(picture, kind, share):
    data = jpeg(picture, *KINDS[kind])
    cut = data[: int(len(data) * share)]
    with_end = [cut + b"\xff\xd9"] if share < 0.9 else []  # then part of the last blocks is missing at most
    for damaged in (cut, cut + bytes(len(data) - len(cut)), cut + bytes(5000), *with_end):
        with pytest.raises(InputError, match="cut short"):
            decode(damaged)


def test_pictures_with_a_plain_lower_edge_are_whole(picture):
    for colour in (0, 128, 255):
        plain = picture.copy()
        plain[60:] = colour
        for pixels in (plain, np.full_like(picture, colour)):
            data = jpeg(pixels)
            np.testing.assert_array_equal(decode(data), cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR))


@pytest.mark.parametrize(
    ("size", "sentence"),
    [
        ({"height": 65_000}, "claims 168 x 65000 pixels"),
        ({"width": 16_000, "height": 16_000}, "claims 16000 x 16000 pixels"),
        ({"width": 16_000, "height": 8_000}, "bytes of JPEG cannot hold 16000 x 8000 pixels"),
        ({"height": HEIGHT + 64}, "cut short"),
        ({"width": WIDTH + 64}, "cut short"),
    ],
)
def test_a_damaged_size_is_refused_before_memory_is_taken_for_it(picture, size, sentence):
    with pytest.raises(InputError, match=sentence):
        decode(with_size(jpeg(picture), **size))


def test_a_png_that_claims_gigabytes_is_refused_by_its_header(picture):
    data = png(picture)

    def claiming(width: int, height: int) -> bytes:
        header = b"IHDR" + width.to_bytes(4, "big") + height.to_bytes(4, "big") + data[24:29]
        return data[:12] + header + zlib.crc32(header).to_bytes(4, "big") + data[33:]

    assert decode(claiming(WIDTH, HEIGHT)).shape == (HEIGHT, WIDTH, 3)
    for width, height, sentence in ((2**31 - 1, 5, "claims|too large"), (16_000, 16_000, "claims|too large")):
        with pytest.raises(InputError, match=sentence):
            decode(claiming(width, height))
    assert len(data) * 8 * 1032 > 2**27  # so that a smaller one is needed for the last limit
    small = png(np.zeros((4, 4), np.uint8))
    header = b"IHDR" + (16_000).to_bytes(4, "big") + (8_000).to_bytes(4, "big") + small[24:29]
    with pytest.raises(InputError, match="bytes of PNG cannot hold 16000 x 8000 pixels"):
        decode(small[:12] + header + zlib.crc32(header).to_bytes(4, "big") + small[33:])


@pytest.mark.parametrize("extension", [".jpg", ".png", ".webp", ".bmp", ".tiff"])
def test_whatever_bits_are_flipped_there_is_a_picture_or_a_sentence(picture, extension):
    data = cv2.imencode(extension, picture[:40, :56])[1].tobytes()
    rng = np.random.default_rng(1)
    for _ in range(150):
        damaged = bytearray(data)
        for place in rng.integers(0, min(len(data), 700), 3):
            damaged[place] = rng.integers(256)
        try:
            pixels = decode(bytes(damaged))
        except InputError:
            continue
        assert pixels.ndim == 3
        assert pixels.shape[2] == 3


def test_an_orientation_in_the_file_does_not_turn_the_picture(picture):
    exif = Image.Exif()
    exif[0x0112] = 6
    for kind in ("JPEG", "PNG"):
        plain, turned = io.BytesIO(), io.BytesIO()
        Image.fromarray(picture).save(plain, kind)
        Image.fromarray(picture).save(turned, kind, exif=exif)
        np.testing.assert_array_equal(decode(turned.getvalue()), decode(plain.getvalue()))


@pytest.mark.parametrize(
    ("format_", "sentence"),
    [
        ("16UC1; png compressed ", "encoding 16UC1 is a depth image"),
        ("32FC1; png", "encoding 32FC1 is a depth image"),
        ("16UC1; compressedDepth png", "encoding 16UC1 is a depth image"),
        ("compressedDepth", "'compressedDepth' is a depth image"),
        ("h264", r"are H\.264 video \(format 'h264'\)"),
        ("bgr8; H.264", r"are H\.264 video"),
        ("hevc", r"are H\.265 video"),
        ("av1", "are AV1 video"),
    ],
)
def test_what_is_no_colour_picture_is_named_by_its_format(picture, format_, sentence):
    with pytest.raises(InputError, match=sentence):
        compressed_to_array(SimpleNamespace(format=format_, data=png(picture)))


def test_video_is_recognised_by_its_start_code():
    with pytest.raises(InputError, match=r"are H\.264 or H\.265 video .*republish"):
        decode(b"\x00\x00\x00\x01\x67\x42\x00\x1e" + bytes(100), "")


@pytest.mark.parametrize("format_", ["jpeg", "", "bgr8; jpeg compressed bgr8", "rgb8; jpeg compressed bgr8"])
def test_colours_are_those_of_the_file(picture, format_):
    pixels = to_rgb(*compressed_to_array(SimpleNamespace(format=format_, data=jpeg(picture))))
    assert np.abs(pixels[..., ::-1].astype(int) - picture).mean() < 6


@pytest.mark.parametrize("pattern", ["rggb", "bggr", "gbrg", "grbg"])
@pytest.mark.parametrize("write", [jpeg, png])
def test_a_mosaic_that_was_compressed_becomes_colours(pattern, write):
    rgb = cv2.resize(np.array([[[200, 60, 30], [40, 90, 210]]], np.uint8), (64, 48), interpolation=cv2.INTER_LINEAR)
    mosaic = np.empty((48, 64), np.uint8)
    for i, colour in enumerate(pattern):
        mosaic[i // 2 :: 2, i % 2 :: 2] = rgb[i // 2 :: 2, i % 2 :: 2, "rgb".index(colour)]
    message = SimpleNamespace(format=f"bayer_{pattern}8; {write.__name__} compressed ", data=write(mosaic))
    pixels = to_rgb(*compressed_to_array(message))
    assert np.abs(pixels.astype(int) - rgb)[4:-4, 4:-4].mean() < (10 if write is jpeg else 2)


def test_a_picture_of_sixteen_bits_keeps_what_a_camera_of_twelve_writes():
    values = np.linspace(0, 4095, 60 * 80).astype(np.uint16).reshape(60, 80)
    pixels, _ = compressed_to_array(SimpleNamespace(format="mono16; png compressed ", data=png(values)))
    np.testing.assert_allclose(pixels[..., 0], values / 4095 * 255, atol=1)


@pytest.mark.parametrize(
    "data", [b"", b"no image", b"\xff\xd8", b"\xff\xd8\xff", b"\xff\xd8\xff\xd9", b"\x89PNG\r\n\x1a\n"]
)
def test_what_is_no_picture_is_refused(data):
    with pytest.raises(InputError):
        decode(data)


def test_a_jpeg_without_its_end_is_looked_at_closer_only_where_its_last_corner_is_plain(picture, monkeypatch):
    closer = []
    monkeypatch.setattr(compressed, "_refuse_cut", closer.append)
    decode(jpeg(picture)[:-2])
    assert not closer
    decode(jpeg(picture, *KINDS["progressive"])[:-2])
    plain = picture.copy()
    plain[-24:, -24:] = 90
    decode(jpeg(plain)[:-2])
    assert len(closer) == 2
