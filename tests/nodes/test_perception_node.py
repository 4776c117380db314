import pytest

pytest.importorskip("hassod_msgs.msg", reason="ROS 2 or hassod_msgs is missing: source scripts/env.sh")

from collections import Counter

import cv2
import numpy as np
from diagnostic_msgs.msg import DiagnosticArray
from lifecycle_msgs.srv import GetState
from rclpy.qos import qos_profile_sensor_data
from sensor_msgs.msg import Image

from hassod_msgs.msg import Instance, InstanceArray

NODE = "perception_node"
HEIGHT, WIDTH = 96, 128
RECTANGLES = ((8, 12, 88, 120), (20, 24, 72, 96), (32, 40, 56, 80))  # y0 x0 y1 x1 of whole, part, subpart
COLORS = ((200, 60, 40), (60, 200, 60), (250, 250, 220))


def scene() -> np.ndarray:
    """(H, W, 3) uint8 RGB: three nested rectangles on black."""
    image = np.zeros((HEIGHT, WIDTH, 3), np.uint8)
    for (y0, x0, y1, x1), color in zip(RECTANGLES, COLORS, strict=True):
        image[y0:y1, x0:x1] = color
    return image


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


def gray() -> np.ndarray:
    return cv2.cvtColor(scene(), cv2.COLOR_RGB2GRAY)


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


def image(encoding: str, pixels: np.ndarray, *, big_endian: bool = False, padding: int = 0, second: int = 7) -> Image:
    rows = np.ascontiguousarray(pixels).reshape(len(pixels), -1).view(np.uint8)
    rows = np.pad(rows, ((0, 0), (0, padding)), constant_values=255)
    message = Image(height=pixels.shape[0], width=pixels.shape[1], encoding=encoding, is_bigendian=big_endian)
    message.step = rows.shape[1]
    message.data.frombytes(rows.tobytes())
    message.header.stamp.sec, message.header.stamp.nanosec, message.header.frame_id = second, 123_456_789, "optical"
    return message


def label_map(message: Image) -> np.ndarray:
    assert (message.encoding, message.step) == ("16UC1", 2 * message.width)
    return np.frombuffer(message.data, "<u2").reshape(message.height, message.width)


class Bench:
    """Subscribers and a camera around a running threshold node, connected and seen working."""

    def __init__(self, ros, model="threshold", qos=qos_profile_sensor_data, **parameters):
        self.ros = ros
        self.child = ros.start("threshold_node.py", model=model, autostart=True, **parameters)
        self.instances = ros.collect(InstanceArray, f"/{NODE}/instances", 50)
        self.diagnostics = ros.collect(DiagnosticArray, "/diagnostics", 50)
        self.camera = ros.node.create_publisher(Image, "/image", qos)
        self.baseline = {}
        self.prime()

    def prime(self) -> None:
        """Send images until the first answer: both sides have found each other then."""
        before = len(self.instances)
        while len(self.instances) == before:
            self.ros.until(self.camera.get_subscription_count)
            self.camera.publish(image("rgb8", scene()))
            for _ in range(50):
                self.ros.executor.spin_once(timeout_sec=0.01)

    def send(self, message: Image) -> InstanceArray:
        """Publish once and wait for the answer."""
        before = len(self.instances)
        self.camera.publish(message)
        self.ros.until(lambda: len(self.instances) > before)
        return self.instances[-1]

    def status(self) -> dict[str, object]:
        """The node's next diagnostics: level, message and values."""
        before = len(self.diagnostics)
        self.ros.until(lambda: len(self.diagnostics) > before)
        status = self.diagnostics[-1].status[0]
        return {value.key: value.value for value in status.values} | {"level": status.level, "message": status.message}

    def counts(self) -> "Counter[str]":
        """The frames counted since `settle`; a cause that never occurred counts 0."""
        status = self.status()
        keys = [key for key in status if key in ("received", "processed") or key.startswith("dropped.")]
        return Counter({key: int(status[key]) - self.baseline.get(key, 0) for key in keys})

    def settle(self) -> None:
        """Count from now on; returns when every earlier frame is counted."""
        self.baseline = {}
        before = self.counts()
        while (now := self.counts()) != before or 2 * now["received"] != sum(now.values()):
            before = now
        self.baseline = before


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
    for received in bench.labels:
        received.clear()
    answer = bench.send(image(encoding, pixels(), big_endian=big_endian, padding=padding))
    bench.ros.until(lambda: all(bench.labels))

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
    for received in bench.labels:
        received.clear()
    sent = image("rgb8", scene(), second=1234)
    answer = bench.send(sent)
    bench.ros.until(lambda: all(bench.labels))
    assert answer.header == sent.header
    assert (answer.height, answer.width, answer.model_name, answer.model_sha256) == (HEIGHT, WIDTH, "threshold", "")
    assert all(found.mask.header == sent.header for found in answer.instances)
    assert all(received[-1].header == sent.header for received in bench.labels)


def broken(name: str) -> Image:
    message = image("rgb8", scene())
    if name == "short data":
        del message.data[-10:]
    elif name == "unknown encoding":
        message.encoding = "rgb9"
    elif name == "depth image":
        message.encoding = "32FC1"
    elif name == "zero size":
        message.height = message.width = 0
        del message.data[:]
    elif name == "step too small":
        message.step = 7
    elif name == "too wide":
        message.width, message.step = 20_000, 60_000
    elif name == "stamp":
        message.header.stamp.nanosec = 4_000_000_000
    return message


def test_malformed_images_are_counted_warned_about_once_and_survived(ros):
    bench = Bench(ros)
    bench.settle()
    names = ("short data", "unknown encoding", "depth image", "zero size", "step too small", "too wide", "stamp")
    for name in names:
        bench.camera.publish(broken(name))
        for _ in range(10):  # no frame is to supersede another here
            ros.executor.spin_once(timeout_sec=0.01)
    ros.until(lambda: bench.counts()["dropped.malformed"] == len(names))
    assert len(bench.send(image("rgb8", scene())).instances) == 3
    ros.until(lambda: bench.counts() == Counter({"received": 8, "processed": 1, "dropped.malformed": 7}))
    printed = ros.stop(bench.child)
    assert printed.count("WARN") == 1
    assert "an image cannot be used: the image holds 36854 bytes" in printed
    assert "Traceback" not in printed


def test_a_failing_model_is_an_error_in_diagnostics_until_the_next_good_frame(ros):
    bench = Bench(ros)
    bench.camera.publish(image("mono8", np.full((HEIGHT, WIDTH), 255, np.uint8)))
    ros.until(lambda: bench.counts()["dropped.failed"] == 1)
    status = bench.status()
    assert (status["level"], status["message"]) == (b"\2", "segmentation failed: white")
    bench.send(image("rgb8", scene()))
    ros.until(lambda: bench.status()["level"] != b"\2")


def test_newest_frame_wins_and_drops_are_counted(ros):
    bench = Bench(ros, model="threshold:0.3")
    bench.settle()
    bench.instances.clear()
    for second in range(20):
        bench.camera.publish(image("rgb8", scene(), second=second))
        ros.executor.spin_once(timeout_sec=0.03)
    ros.until(lambda: bench.instances and bench.instances[-1].header.stamp.sec == 19)
    stamps = [answer.header.stamp.sec for answer in bench.instances]
    assert stamps == sorted(stamps)
    assert len(stamps) < 20
    ros.until(lambda: bench.counts()["received"] == 20)
    counts = bench.counts()
    assert (counts["processed"], counts["dropped.superseded"]) == (len(stamps), 20 - len(stamps))


def test_outputs_are_made_only_while_somebody_subscribes(ros):
    ros.start("threshold_node.py", model="threshold", autostart=True)
    camera = ros.node.create_publisher(Image, "/image", qos_profile_sensor_data)
    diagnostics = ros.collect(DiagnosticArray, "/diagnostics")
    ros.until(camera.get_subscription_count)

    def figures() -> dict[str, str]:
        camera.publish(image("rgb8", scene()))
        return {value.key: value.value for value in diagnostics[-1].status[0].values} if diagnostics else {}

    ros.until(lambda: int(figures().get("dropped.unwatched", 0)) >= 3)
    assert figures()["processed"] == "0"
    labels = ros.collect(Image, f"/{NODE}/labels/part")
    ros.until(lambda: figures() and labels)
    assert label_map(labels[-1]).any()


def test_reliable_and_best_effort_subscribers_are_both_served(ros):
    bench = Bench(ros, input_reliability="reliable", qos=10)
    best_effort = ros.collect(InstanceArray, f"/{NODE}/instances", qos_profile_sensor_data)
    ros.until(lambda: bench.send(image("rgb8", scene())) and best_effort)


def test_lifecycle(ros):
    child = ros.start("threshold_node.py", model="threshold")
    camera = ros.node.create_publisher(Image, "/image", qos_profile_sensor_data)
    answers = ros.collect(InstanceArray, f"/{NODE}/instances")

    def state() -> str:
        return ros.call(GetState, f"/{NODE}/get_state", GetState.Request()).current_state.label

    def answered() -> bool:
        camera.publish(image("rgb8", scene()))
        return bool(answers)

    assert state() == "unconfigured"
    for _ in range(2):
        assert ros.transition(NODE, "configure")
        assert state() == "inactive"
        assert camera.get_subscription_count() == 0
        assert ros.transition(NODE, "activate")
        ros.until(answered)
        assert ros.transition(NODE, "deactivate")
        ros.until(lambda: camera.get_subscription_count() == 0)
        answers.clear()
        assert ros.transition(NODE, "cleanup")
        assert state() == "unconfigured"
        ros.until(lambda: ros.node.count_publishers(f"/{NODE}/instances") == 0)
    assert not ros.transition(NODE, "activate")
    ros.stop(child)
    assert child.returncode == 0


def test_killed_node_comes_back(ros):
    bench = Bench(ros)
    bench.send(image("rgb8", scene()))
    bench.child.kill()
    bench.child.communicate()
    ros.start("threshold_node.py", model="threshold", autostart=True)
    before = len(bench.instances)

    def answered() -> bool:
        bench.camera.publish(image("rgb8", scene()))
        return len(bench.instances) > before

    ros.until(answered)


def test_a_camera_that_dies_and_returns(ros):
    bench = Bench(ros)
    bench.send(image("rgb8", scene()))
    ros.node.destroy_publisher(bench.camera)
    ros.until(lambda: bench.status()["message"] == "no image for a second")
    bench.camera = ros.node.create_publisher(Image, "/image", qos_profile_sensor_data)
    bench.prime()


def test_a_wrong_parameter_ends_the_start_with_a_sentence(ros):
    child = ros.start("threshold_node.py", score_thresholds__part=1.5)
    printed = child.communicate(timeout=20)[0]
    assert child.returncode == 2
    assert "parameter score_thresholds.part is wrong" in printed.splitlines()[-1]
    assert "Traceback" not in printed


def test_a_missing_model_is_said_in_diagnostics_and_can_be_tried_again(ros):
    child = ros.start("hassod_ros.nodes.perception_node", model="/nowhere/model.onnx")
    diagnostics = ros.collect(DiagnosticArray, "/diagnostics")
    assert not ros.transition(NODE, "configure")
    ros.until(lambda: diagnostics and diagnostics[-1].status[0].level == b"\2")
    assert "/nowhere/model.onnx" in diagnostics[-1].status[0].message
    assert not ros.transition(NODE, "configure")
    printed = ros.stop(child)
    assert "/nowhere/model.onnx does not exist" in printed
