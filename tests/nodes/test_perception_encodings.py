import pytest

pytest.importorskip("hassod_msgs.msg", reason="ROS 2 or hassod_msgs is missing: source scripts/env.sh")


import cv2
import numpy as np
from sensor_msgs.msg import Image

from hassod_msgs.msg import Instance
from tests.nodes.bench import COLORS, HEIGHT, NODE, RECTANGLES, WIDTH, Bench, gray, image, label_map, scene


def mosaic(pattern: str) -> np.ndarray:
    """What a sensor with this colour filter would see of the scene."""
    rgb, raw = scene(), np.empty((HEIGHT, WIDTH), np.uint8)
    for i, color in enumerate(pattern):
        raw[i // 2 :: 2, i % 2 :: 2] = rgb[i // 2 :: 2, i % 2 :: 2, "rgb".index(color)]
    return raw


def yuv(order: str) -> np.ndarray:
    """(H, W, 2) uint8 with the chroma of two pixels shared."""
    ycc = cv2.cvtColor(scene(), cv2.COLOR_RGB2YUV).astype(np.float32)
    # OpenCV decodes 4:2:2 with the video range, 16 to 235.
    r, g, b = (scene()[..., i].astype(np.float32) for i in range(3))
    y = 16 + 0.257 * r + 0.504 * g + 0.098 * b
    u = 128 - 0.148 * r - 0.291 * g + 0.439 * b
    v = 128 + 0.439 * r - 0.368 * g - 0.071 * b
    packed = np.empty((*ycc.shape[:2], 2), np.float32)
    luma, chroma = (1, 0) if order == "uyvy" else (0, 1)
    packed[..., luma] = y
    packed[:, 0::2, chroma] = (u[:, 0::2] + u[:, 1::2]) / 2
    packed[:, 1::2, chroma] = (v[:, 0::2] + v[:, 1::2]) / 2
    return np.round(packed).astype(np.uint8)


# encoding, pixels, big-endian, padding in bytes, whether edges are sharp and colours survive
LAYOUTS = {
    "rgb8": ("rgb8", scene, False, 0, True, True),
    "rgb8 padded": ("rgb8", scene, False, 13, True, True),
    "bgr8": ("bgr8", lambda: scene()[..., ::-1], False, 0, True, True),
    "bgr8 padded": ("bgr8", lambda: scene()[..., ::-1], False, 64, True, True),
    "rgba8": ("rgba8", lambda: np.dstack([scene(), gray()]), False, 0, True, True),
    "bgra8": ("bgra8", lambda: np.dstack([scene()[..., ::-1], gray()]), False, 4, True, True),
    "mono8": ("mono8", gray, False, 3, True, False),
    "mono16": ("mono16", lambda: gray().astype("<u2") * 257, False, 0, True, False),
    "mono16 big-endian": ("mono16", lambda: (gray().astype(np.uint16) * 257).astype(">u2"), True, 6, True, False),
    "rgb16": ("rgb16", lambda: scene().astype("<u2") * 257, False, 0, True, True),
    "8UC3": ("8UC3", lambda: scene()[..., ::-1], False, 0, True, True),
    "yuv422": ("yuv422", lambda: yuv("uyvy"), False, 0, False, True),
    "yuv422_yuy2": ("yuv422_yuy2", lambda: yuv("yuyv"), False, 2, False, True),
    "bayer_rggb8": ("bayer_rggb8", lambda: mosaic("rggb"), False, 0, False, True),
    "bayer_bggr8": ("bayer_bggr8", lambda: mosaic("bggr"), False, 0, False, True),
    "bayer_gbrg8": ("bayer_gbrg8", lambda: mosaic("gbrg"), False, 0, False, True),
    "bayer_grbg8": ("bayer_grbg8", lambda: mosaic("grbg"), False, 5, False, True),
}


@pytest.fixture(scope="module")
def bench(module_ros):
    bench = Bench(module_ros)
    bench.labels = [module_ros.collect(Image, f"/{NODE}/labels/{name}", 50) for name in ("whole", "part", "subpart")]
    publishers = [f"/{NODE}/labels/{name}" for name in ("whole", "part", "subpart")]
    module_ros.until(lambda: all(module_ros.node.count_publishers(name) for name in publishers))
    module_ros.until(lambda: bench.send(image("mono8", gray())) and all(bench.labels))
    return bench


@pytest.mark.parametrize("layout", LAYOUTS)
def test_every_encoding_becomes_correct_masks(bench, layout):
    encoding, pixels, big_endian, padding, sharp, colored = LAYOUTS[layout]
    sent = image(encoding, pixels(), big_endian=big_endian, padding=padding, second=100 + list(LAYOUTS).index(layout))
    answer = bench.send_and_see_labels(sent)

    answer.instances.sort(key=lambda found: found.level)
    assert [found.level for found in answer.instances] == [Instance.WHOLE, Instance.PART, Instance.SUBPART]
    by_id = {found.id: found for found in answer.instances}
    assert [by_id[found.parent_id].level if found.parent_id else None for found in answer.instances] == [None, 0, 1]
    tolerance = 0 if sharp else 2
    for found, (y0, x0, y1, x1), received, color in zip(
        answer.instances, RECTANGLES, bench.labels, COLORS, strict=True
    ):
        roi = found.roi
        box = np.array([roi.y_offset, roi.x_offset, roi.y_offset + roi.height, roi.x_offset + roi.width])
        assert np.abs(box - [y0, x0, y1, x1]).max() <= tolerance
        mask = np.frombuffer(found.mask.data, np.uint8).reshape(found.mask.height, found.mask.width)
        assert (found.mask.encoding, found.mask.height, found.mask.width) == ("mono8", roi.height, roi.width)
        labels = label_map(received[-1])
        expected = np.zeros((HEIGHT, WIDTH), bool)
        expected[y0:y1, x0:x1] = True
        assert set(np.unique(labels)) == {0, found.id}
        if sharp:
            np.testing.assert_array_equal(labels > 0, expected)
            assert mask.min() == mask.max() == 255
        else:
            assert np.mean((labels > 0) == expected) > 0.96
        if colored:
            assert found.score == pytest.approx(color[0] / 255, abs=0.02)


def test_header_of_every_output_equals_the_input(bench):
    sent = image("rgb8", scene(), second=1234)
    answer = bench.send_and_see_labels(sent)
    assert answer.header == sent.header
    assert (answer.height, answer.width, answer.model_name, answer.model_sha256) == (HEIGHT, WIDTH, "threshold", "")
    assert all(found.mask.header == sent.header for found in answer.instances)
    assert all(received[-1].header == sent.header for received in bench.labels)
