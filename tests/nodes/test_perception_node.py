import pytest

pytest.importorskip("hassod_msgs.msg", reason="ROS 2 or hassod_msgs is missing: source scripts/env.sh")

import importlib.util
import threading
import time
from collections import Counter
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import onnx
from diagnostic_msgs.msg import DiagnosticArray
from lifecycle_msgs.msg import State, Transition
from lifecycle_msgs.srv import ChangeState, GetState
from rcl_interfaces.msg import SetParametersResult
from rcl_interfaces.srv import SetParameters
from rclpy.parameter import Parameter
from rclpy.qos import DurabilityPolicy, QoSProfile, ReliabilityPolicy, qos_profile_sensor_data
from rosgraph_msgs.msg import Clock
from sensor_msgs.msg import CompressedImage, Image
from std_msgs.msg import Float64
from std_srvs.srv import SetBool

from hassod_msgs.msg import Instance, InstanceArray
from hassod_msgs.srv import ReloadModel, Segment
from hassod_ros.errors import InputError
from hassod_ros.files import sha256
from hassod_ros.nodes.perception_node import PerceptionNode
from hassod_ros.runtime.model_info import read_model_info

NODE = "perception_node"
PERCENTS = ("p50", "p95")
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


def jpeg(second: int = 7) -> CompressedImage:
    data = cv2.imencode(".jpg", scene()[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, 98])[1].tobytes()
    message = CompressedImage(format="jpeg", data=data)
    message.header.stamp.sec = second
    return message


def label_map(message: Image) -> np.ndarray:
    assert (message.encoding, message.step) == ("16UC1", 2 * message.width)
    return np.frombuffer(message.data, "<u2").reshape(message.height, message.width)


class Bench:
    """Subscribers and a camera around a running threshold node, connected and seen working."""

    def __init__(self, ros, model="threshold", qos=qos_profile_sensor_data, **parameters):
        self.ros = ros
        self.child = ros.start("threshold_node.py", model=model, autostart=True, diagnostics_period=0.2, **parameters)
        self.instances = ros.collect(InstanceArray, f"/{NODE}/instances", 50)
        self.diagnostics = ros.collect(DiagnosticArray, "/diagnostics", 50)
        kind, topic = (CompressedImage, "/image/compressed") if "image_transport" in parameters else (Image, "/image")
        self.camera = ros.node.create_publisher(kind, topic, qos)
        self.baseline = {}
        self.prime()

    def prime(self) -> None:
        """Send images until the first answer: both sides have found each other then."""
        before, end = len(self.instances), time.monotonic() + 60
        while len(self.instances) == before:
            assert time.monotonic() < end, "the node never answered"
            self.ros.until(self.camera.get_subscription_count)
            self.camera.publish(image("rgb8", scene()) if self.camera.msg_type is Image else jpeg())
            for _ in range(20):
                self.ros.executor.spin_once(timeout_sec=0.01)

    def send(self, message: Image) -> InstanceArray:
        """Publish once and wait for the answer; one to an image of `prime` may still be under way."""
        before = len(self.instances)
        self.camera.publish(message)
        self.ros.until(lambda: len(self.instances) > before and self.instances[-1].header == message.header)
        return self.instances[-1]

    def send_and_see_labels(self, message: Image) -> InstanceArray:
        """Publish an image with a stamp of its own; wait for its instances and its three label images."""
        self.camera.publish(message)
        outputs = (self.instances, *self.labels)
        self.ros.until(lambda: all(kind and kind[-1].header.stamp == message.header.stamp for kind in outputs))
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
        end = time.monotonic() + 60
        while (now := self.counts()) != before or 2 * now["received"] != sum(now.values()):
            assert time.monotonic() < end, f"these counts do not add up: {now}"
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
    assert printed.count("an image cannot be used") == 1
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
    bench = Bench(ros, model="threshold:0.3", input_reliability="reliable", qos=20)
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


def test_processing_time_is_published_for_each_frame(ros):
    bench = Bench(ros, model="threshold:0.05")
    times = ros.collect(Float64, f"/{NODE}/debug/processing_time_ms")
    ros.until(lambda: bench.send(image("rgb8", scene())) and times)
    before = len(times)
    for _ in range(3):
        bench.send(image("rgb8", scene()))
    ros.until(lambda: len(times) == before + 3)
    assert all(time.data >= 50 for time in times)


def test_detections_and_level_names_where_vision_msgs_is_installed(ros):
    vision_msgs = pytest.importorskip("vision_msgs.msg", reason="vision_msgs is not installed; PyPI does not have it")
    bench = Bench(ros)
    detections = ros.collect(vision_msgs.Detection2DArray, f"/{NODE}/detections")
    sent = image("rgb8", scene(), second=5)
    ros.until(lambda: bench.send(sent) and detections)
    found = detections[-1]
    assert found.header == sent.header
    assert all(detection.header == sent.header for detection in found.detections)
    by_level = {detection.results[0].hypothesis.class_id: detection for detection in found.detections}
    answer = {str(instance.level): instance for instance in bench.instances[-1].instances}
    for level, (y0, x0, y1, x1), color in zip("012", RECTANGLES, COLORS, strict=True):
        box = by_level[level].bbox
        assert (box.center.position.x, box.center.position.y) == ((x0 + x1) / 2, (y0 + y1) / 2)
        assert (box.size_x, box.size_y) == (x1 - x0, y1 - y0)
        assert by_level[level].results[0].hypothesis.score == pytest.approx(color[0] / 255)
        assert by_level[level].id == str(answer[level].id)

    latched = QoSProfile(depth=1, durability=DurabilityPolicy.TRANSIENT_LOCAL)
    infos = ros.collect(vision_msgs.LabelInfo, f"/{NODE}/label_info", latched)  # comes long after it was published
    ros.until(lambda: infos)
    assert [(known.class_id, known.class_name) for known in infos[-1].class_map] == [
        (0, "whole"),
        (1, "part"),
        (2, "subpart"),
    ]
    assert infos[-1].threshold == 0
    set_parameters(ros, score_thresholds__whole=0.5, score_thresholds__part=0.25, score_thresholds__subpart=0.75)
    ros.until(lambda: bench.send(sent) and infos[-1].threshold == 0.25)


def test_a_missing_vision_msgs_is_said_once(ros):
    if importlib.util.find_spec("vision_msgs"):
        pytest.skip("vision_msgs is installed")
    bench = Bench(ros)
    assert ros.stop(bench.child).count("vision_msgs is not installed") == 1


def test_qos_of_input_and_outputs_can_be_overridden(ros):
    overrides = {
        "qos_overrides./image.subscription.reliability": "reliable",
        f"qos_overrides./{NODE}/instances.publisher.durability": "transient_local",
    }
    bench = Bench(ros, qos=10, **overrides)
    (subscription,) = ros.node.get_subscriptions_info_by_topic("/image")
    assert subscription.qos_profile.reliability == ReliabilityPolicy.RELIABLE
    last = bench.send(image("rgb8", scene(), second=1234))
    latched = QoSProfile(depth=1, durability=DurabilityPolicy.TRANSIENT_LOCAL)
    late = ros.collect(InstanceArray, f"/{NODE}/instances", latched)
    ros.until(lambda: late)
    assert late[-1].header == last.header
    for label in ("deactivate", "cleanup", "configure", "activate"):  # the overrides hold for every life
        assert ros.transition(NODE, label)
    (subscription,) = ros.node.get_subscriptions_info_by_topic("/image")
    assert subscription.qos_profile.reliability == ReliabilityPolicy.RELIABLE


@pytest.mark.parametrize(
    ("name", "refused"),
    [(f"/{NODE}/overlay.publisher", "configure"), ("/image.subscription", "activate")],
)
def test_a_wrong_qos_override_is_said_and_survived(ros, name, refused):
    diagnostics = ros.collect(DiagnosticArray, "/diagnostics")
    ros.start("threshold_node.py", model="threshold", **{f"qos_overrides.{name}.reliability": "sometimes"})
    before = []
    for label in ("configure", "activate"):
        assert ros.transition(NODE, label) == (label != refused)
        if label == refused:
            break
        before.append(label)
    ros.until(lambda: diagnostics and "sometimes" in diagnostics[-1].status[0].message)
    assert diagnostics[-1].status[0].level == b"\2"
    state = ros.call(GetState, f"/{NODE}/get_state", GetState.Request()).current_state.label
    assert state == ("inactive" if before else "unconfigured")


def test_diagnostics_tell_everything_and_judge_it_by_limits(ros):
    bench = Bench(ros)
    bench.send(image("rgb8", scene()))
    ros.until(lambda: float(bench.status()["rate_out_hz"]) > 0 or not bench.send(image("rgb8", scene())))
    status = bench.status()
    for key in (
        *("model", "model_sha256", "precision", "backend", "loading", "progress"),
        *("received", "processed", "rate_in_hz", "rate_out_hz", "since_last_image_s", "clock_offset_s", "memory_mb"),
        *(f"{stage}.{p}_ms" for stage in ("wait", "convert", "segment", "publish", "total", "age") for p in PERCENTS),
    ):
        assert key in status
    assert 20 < float(status["memory_mb"]) < 20_000
    assert set_parameters(ros, diagnostics__silence__warn=0.0, diagnostics__silence__error=0.0)[0].successful
    ros.until(lambda: (bench.status()["level"], bench.status()["message"]) == (b"\0", "working"))
    set_parameters(ros, diagnostics__memory__warn=1.0)
    ros.until(lambda: bench.status()["level"] == b"\1")
    assert "(limit 1 MB)" in bench.status()["message"]
    set_parameters(ros, diagnostics__memory__error=2.0, diagnostics__latency__warn=1e-9)
    ros.until(lambda: bench.status()["level"] == b"\2")
    assert bench.status()["message"].startswith("results take ")
    assert "the process uses" in bench.status()["message"]
    set_parameters(ros, diagnostics__memory__error=0.0, diagnostics__memory__warn=0.0, diagnostics__latency__warn=0.0)

    def with_a_lost_image() -> bool:
        bench.camera.publish(broken("short data"))
        return "of the images are lost (limit 0.5)" in bench.status()["message"]

    ros.until(with_a_lost_image)


def test_diagnostics_come_while_the_first_model_loads(ros, tmp_path):
    model = f"load_with:{tmp_path}/go"
    ros.start("threshold_node.py", model=model, autostart=True, diagnostics_period=0.1)
    diagnostics = ros.collect(DiagnosticArray, "/diagnostics", 50)
    ros.until(lambda: diagnostics and diagnostics[-1].status[0].message == f"loading {model}")
    (tmp_path / "go").touch()
    ros.until(lambda: diagnostics[-1].status[0].message.startswith("no new image"))


def test_diagnostics_tell_how_far_an_engine_is_built(ros, monkeypatch):
    """TensorRT is not needed: whatever builds an engine reports lines to the node."""
    built = threading.Event()

    def build(model, backend, *, report):
        assert (model, backend) == ("model.onnx", "tensorrt")
        report("Building: 40 %")
        assert built.wait(60)
        raise InputError("no engine today")

    monkeypatch.setattr("hassod_ros.nodes.perception_node.open_segmenter", build)
    values = {"model": "model.onnx", "backend": "tensorrt", "diagnostics_period": 0.05}
    node = PerceptionNode(
        context=ros.context, parameter_overrides=[Parameter(name, value=value) for name, value in values.items()]
    )
    diagnostics = ros.collect(DiagnosticArray, "/diagnostics")
    configure = threading.Thread(target=node.trigger_configure)
    configure.start()
    ros.until(lambda: diagnostics and diagnostics[-1].status[0].message == "loading model.onnx: Building: 40 %")
    figures = {value.key: value.value for value in diagnostics[-1].status[0].values}
    assert (figures["loading"], figures["progress"]) == ("model.onnx", "Building: 40 %")
    built.set()
    configure.join()
    ros.until(lambda: diagnostics[-1].status[0].message == "cannot configure with model model.onnx: no engine today")
    node.destroy_node()


def set_parameters(ros, **changes) -> list[SetParametersResult]:
    parameters = [Parameter(name.replace("__", "."), value=value).to_parameter_msg() for name, value in changes.items()]
    request = SetParameters.Request(parameters=parameters)
    return ros.call(SetParameters, f"/{NODE}/set_parameters", request).results


def test_parameters_change_while_running_and_wrong_values_are_refused_with_a_reason(ros):
    bench = Bench(ros)
    sent = image("rgb8", scene())

    def levels() -> list[int]:
        return sorted(found.level for found in bench.send(sent).instances)

    assert levels() == [0, 1, 2]
    assert set_parameters(ros, score_thresholds__part=0.5)[0].successful
    assert levels() == [0, 2]
    answer = bench.send(sent)
    assert {found.parent_id for found in answer.instances} == {0, max(f.id for f in answer.instances if f.level == 0)}
    assert set_parameters(ros, levels=["whole", "part"], score_thresholds__part=0.0)[0].successful
    assert levels() == [0, 1]
    for name, value, reason in [
        ("levels", ["whole", "object"], "levels cannot hold 'object'; use whole, part, subpart"),
        ("levels", ["part", "part"], "levels names a value twice"),
        ("max_instances", 0, "max_instances out of range"),
        ("score_thresholds.whole", float("nan"), "score_thresholds.whole"),
        ("max_instances", "many", "type"),
        ("model", "other", "read-only"),
    ]:
        (result,) = set_parameters(ros, **{name.replace(".", "__"): value})
        assert not result.successful
        assert reason in result.reason
    assert levels() == [0, 1]
    assert set_parameters(ros, max_instances=1)[0].successful
    assert levels() == [0]


def test_enable_segment_and_reload(ros):
    bench = Bench(ros)
    bench.settle()
    answer = ros.call(SetBool, f"/{NODE}/enable", SetBool.Request(data=False))
    assert (answer.success, answer.message) == (True, "disabled: images are dropped")
    bench.camera.publish(image("rgb8", scene()))
    ros.until(lambda: bench.counts()["dropped.disabled"] == 1)

    answer = ros.call(Segment, f"/{NODE}/segment", Segment.Request(image=image("bgr8", scene()[..., ::-1], second=5)))
    assert (answer.success, answer.message, answer.result.header.stamp.sec) == (True, "3 instances", 5)
    assert len(answer.result.instances) == 3
    answer = ros.call(Segment, f"/{NODE}/segment", Segment.Request(image=broken("depth image")))
    assert not answer.success
    assert "is a depth image" in answer.message

    ros.call(SetBool, f"/{NODE}/enable", SetBool.Request(data=True))
    assert bench.send(image("rgb8", scene())).model_name == "threshold"
    for path, reason in (
        ("threshold:fast", "kept threshold, because threshold:fast cannot be used: could not convert"),
        ("broken", "kept threshold, because broken cannot be used: white"),
    ):
        answer = ros.call(ReloadModel, f"/{NODE}/reload_model", ReloadModel.Request(path=path))
        assert not answer.success
        assert answer.message.startswith(reason)
        assert bench.send(image("rgb8", scene())).model_name == "threshold"


def test_parameters_change_under_load(ros):
    """Every result is made with the values before or after a change, and none is lost."""
    bench = Bench(ros, input_reliability="reliable", qos=20)
    bench.settle()
    bench.instances.clear()
    client = ros.node.create_client(SetParameters, f"/{NODE}/set_parameters")
    ros.until(client.service_is_ready)
    sent, expected = 0, {(0, 1, 2), (0, 2), (0, 1)}
    for round_ in range(8):
        levels = Parameter("levels", value=["whole", "part"] if round_ % 2 else ["whole", "part", "subpart"])
        score = Parameter("score_thresholds.part", value=0.0 if round_ % 2 else 0.5)
        wrong = Parameter("max_instances", value=-1)
        request = SetParameters.Request(parameters=[each.to_parameter_msg() for each in (levels, score, wrong)])
        future = client.call_async(request)
        while not future.done():
            bench.send(image("rgb8", scene()))
            sent += 1
        assert [result.successful for result in future.result().results] == [True, True, False]
    seen = {tuple(sorted(found.level for found in answer.instances)) for answer in bench.instances}
    assert seen <= expected
    assert len(seen) > 1
    ros.until(lambda: bench.counts()["received"] == sent)
    assert bench.counts() == Counter({"received": sent, "processed": sent})


def test_reload_under_load_loses_no_frame(ros):
    bench = Bench(ros, input_reliability="reliable", qos=20)
    bench.settle()
    client = ros.node.create_client(ReloadModel, f"/{NODE}/reload_model")
    ros.until(client.service_is_ready)
    answers, names = bench.instances, []
    for number, path in enumerate(("slow_to_load:0.5", "threshold", "slow_to_load:0.5")):
        future = client.call_async(ReloadModel.Request(path=path))
        while not future.done():
            sent = len(answers)
            bench.send(image("rgb8", scene(), second=100 + number))
            assert len(answers) == sent + 1
            names.append(answers[-1].model_name)
        assert future.result().success
    names.append(bench.send(image("rgb8", scene())).model_name)
    assert {"threshold", "slow_to_load:0.5"} == set(names)
    assert names[-1] == "slow_to_load:0.5"
    ros.until(lambda: bench.counts()["received"] == len(names))
    assert bench.counts() == Counter({"received": len(names), "processed": len(names)})


def test_compressed_images_in_and_out(ros):
    bench = Bench(ros, image_transport="compressed")
    overlays = ros.collect(CompressedImage, f"/{NODE}/overlay/compressed")
    ros.until(lambda: bench.send(jpeg(9)) and overlays)
    answer = bench.instances[-1]
    assert sorted(found.level for found in answer.instances) == [0, 1, 2]
    assert overlays[-1].header == answer.header
    picture = cv2.imdecode(np.frombuffer(overlays[-1].data, np.uint8), cv2.IMREAD_COLOR)
    assert picture.shape == (HEIGHT, WIDTH, 3)
    damaged = jpeg()
    del damaged.data[len(damaged.data) // 2 :]
    before = bench.counts()["dropped.malformed"]
    bench.camera.publish(damaged)
    ros.until(lambda: bench.counts()["dropped.malformed"] == before + 1)


def test_overlay_shows_the_instances_over_the_image(ros):
    bench = Bench(ros, overlay__opacity=0.0, overlay__outline=0)
    overlays = ros.collect(Image, f"/{NODE}/overlay")
    sent = image("bgr8", scene()[..., ::-1])
    ros.until(lambda: bench.send(sent) and overlays)
    assert (overlays[-1].encoding, overlays[-1].header) == ("rgb8", sent.header)
    np.testing.assert_array_equal(np.frombuffer(overlays[-1].data, np.uint8).reshape(scene().shape), scene())


def test_two_cameras_have_outputs_and_counts_of_their_own(ros):
    ros.start("threshold_node.py", model="threshold", autostart=True, cameras="[front, wrist]", diagnostics_period=0.2)
    answers = {name: ros.collect(InstanceArray, f"/{NODE}/{name}/instances") for name in ("front", "wrist")}
    cameras = {name: ros.node.create_publisher(Image, f"/{name}/image", 10) for name in answers}
    diagnostics = ros.collect(DiagnosticArray, "/diagnostics")

    def answered() -> bool:
        for second, name in enumerate(cameras):
            cameras[name].publish(image("rgb8", scene(), second=second))
            ros.executor.spin_once(timeout_sec=0.05)
        return all(len(received) > 5 for received in answers.values())

    ros.until(answered)
    for second, name in enumerate(answers):
        assert {answer.header.stamp.sec for answer in answers[name]} == {second}
    names = [f"/{NODE}: front", f"/{NODE}: wrist"]
    ros.until(lambda: diagnostics and [status.name for status in diagnostics[-1].status] == names)


def test_ids_stay_with_what_moves(ros):
    bench = Bench(ros)
    first = {found.level: found.id for found in bench.send(image("rgb8", scene(), second=1000)).instances}
    assert len(first) == 3
    for step in range(1, 6):
        sent = image("rgb8", np.roll(scene(), step, axis=1), second=1000)
        sent.header.stamp.nanosec += 30_000_000 * step
        assert {found.level: found.id for found in bench.send(sent).instances} == first
    sent.header.stamp.sec += 10
    forgotten = {found.level: found.id for found in bench.send(sent).instances}
    assert min(forgotten.values()) > max(first.values())


def test_old_images_are_dropped_also_when_the_clocks_differ(ros):
    bench = Bench(ros, max_age=30.0)
    bench.send(image("rgb8", scene(), second=1000))
    bench.settle()
    bench.camera.publish(image("rgb8", scene(), second=900))
    ros.until(lambda: bench.counts()["dropped.too_old"] == 1)
    printed = ros.stop(bench.child)
    assert printed.count("the clock of camera 'optical' differs") == 1


def test_a_simulation_that_is_set_back_costs_no_image(ros):
    clock = ros.node.create_publisher(Clock, "/clock", 10)

    def tell(second: int) -> None:
        message = Clock()
        message.clock.sec, message.clock.nanosec = second, 200_000_000
        clock.publish(message)

    bench = Bench(ros, use_sim_time=True, max_age=30.0)  # its first images come before the simulation began
    ros.until(clock.get_subscription_count)

    def told(second: int) -> bool:
        tell(second)
        return bench.diagnostics[-1].header.stamp.sec == second

    ros.until(lambda: told(1000))
    first = bench.send(image("rgb8", scene(), second=1000))
    bench.settle()
    ros.until(lambda: told(5))
    bench.send(image("rgb8", scene(), second=1000))  # was under way when the clock was set back
    again = bench.send(image("rgb8", scene(), second=5))
    assert min(found.id for found in again.instances) > max(found.id for found in first.instances)
    assert bench.send(image("rgb8", scene(), second=6)).instances[0].id in {found.id for found in again.instances}
    assert bench.counts() == Counter({"received": 3, "processed": 3})
    assert "clock of camera" not in ros.stop(bench.child)


def test_an_exported_model_is_run_and_exchanged_for_another_file(ros, model_file):
    ros.start("hassod_ros.nodes.perception_node", model=model_file, autostart=True)
    answers = ros.collect(InstanceArray, f"/{NODE}/instances")
    diagnostics = ros.collect(DiagnosticArray, "/diagnostics")
    camera = ros.node.create_publisher(Image, "/image", 10)

    def answered(name: str) -> bool:
        camera.publish(image("rgb8", np.full((HEIGHT, WIDTH, 3), 250, np.uint8)))
        return bool(answers) and answers[-1].model_name == name

    def reload(path: Path) -> ReloadModel.Response:
        return ros.call(ReloadModel, f"/{NODE}/reload_model", ReloadModel.Request(path=str(path)))

    ros.until(lambda: answered("detector.onnx"))
    assert answers[-1].model_sha256 == sha256(model_file)
    status = {value.key: value.value for value in ros.until(lambda: diagnostics and diagnostics[-1].status[0]).values}
    assert (status["model"], status["precision"]) == ("detector.onnx", "fp32")
    assert status["backend"].startswith("onnxruntime ")
    assert [found.level for found in answers[-1].instances] == [0, 1, 2, 0]
    other = model_file.with_name("other.onnx")
    other.write_bytes(model_file.read_bytes()[:-100])
    refused = reload(other)
    assert not refused.success
    assert refused.message.startswith(f"kept detector.onnx, because {other} cannot be used")
    graph, info = onnx.load(model_file), read_model_info(model_file)
    onnx.helper.set_model_props(graph, replace(info, score_thresholds=(0.65, 0.65, 0.65)).to_metadata())
    onnx.save(graph, other)
    assert reload(other).success
    ros.until(lambda: answered("other.onnx"))
    assert [found.level for found in answers[-1].instances] == [0, 1, 2]
    assert set_parameters(ros, score_thresholds__whole=0.55)[0].successful  # in place of the model's own
    ros.until(lambda: answered("other.onnx") and [found.level for found in answers[-1].instances] == [0, 1, 2, 0])


def test_the_coverage_of_a_parent_can_be_asked_for(ros, model_file):
    model = onnx.load(model_file)
    (boxes,) = (value for value in model.graph.initializer if value.name == "boxes_1")
    values = onnx.numpy_helper.to_array(boxes).copy()
    values[:, 1] = [34, 8, 54, 24]  # half of the part lies in the whole
    boxes.CopyFrom(onnx.numpy_helper.from_array(values, boxes.name))
    onnx.save(model, model_file)
    ros.start("hassod_ros.nodes.perception_node", model=model_file, autostart=True)
    answers = ros.collect(InstanceArray, f"/{NODE}/instances")
    camera = ros.node.create_publisher(Image, "/image", 10)

    def on_the_whole() -> bool | None:
        camera.publish(image("rgb8", np.full((HEIGHT, WIDTH, 3), 250, np.uint8)))
        if not answers:
            return None
        whole, part = answers[-1].instances[:2]
        return part.parent_id == whole.id

    ros.until(lambda: on_the_whole() is False)  # the model asks for 0.75
    assert set_parameters(ros, cover=0.4)[0].successful
    ros.until(lambda: on_the_whole() is True)
    assert set_parameters(ros, cover=0.0)[0].successful
    ros.until(lambda: on_the_whole() is False)


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


def test_a_manager_that_speaks_as_that_of_nav2_does(ros):
    """Transitions by number alone, each followed by a look at the state; no bond."""
    ros.start("threshold_node.py", model="threshold")

    def change(transition: int, state: int) -> None:
        request = ChangeState.Request(transition=Transition(id=transition))
        assert ros.call(ChangeState, f"/{NODE}/change_state", request).success
        assert ros.call(GetState, f"/{NODE}/get_state", GetState.Request()).current_state.id == state

    startup = (
        (Transition.TRANSITION_CONFIGURE, State.PRIMARY_STATE_INACTIVE),
        (Transition.TRANSITION_ACTIVATE, State.PRIMARY_STATE_ACTIVE),
    )
    reset = (
        (Transition.TRANSITION_DEACTIVATE, State.PRIMARY_STATE_INACTIVE),
        (Transition.TRANSITION_CLEANUP, State.PRIMARY_STATE_UNCONFIGURED),
    )
    shutdown = ((Transition.TRANSITION_UNCONFIGURED_SHUTDOWN, State.PRIMARY_STATE_FINALIZED),)
    for transition, state in (*startup, *reset, *startup, *reset, *shutdown):
        change(transition, state)


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


def test_a_camera_that_dies_and_returns(ros, tmp_path):
    bench = Bench(ros)
    cv2.imwrite(str(tmp_path / "scene.png"), scene()[..., ::-1])
    for _ in range(2):
        player = ros.start("hassod_ros.nodes.camera_player", source=tmp_path, rate=20.0)
        ros.until(lambda: bench.status()["message"] == "working")
        bench.instances.clear()
        ros.until(lambda: bench.instances)
        player.kill()
        player.communicate()
        ros.until(lambda: bench.status()["message"].startswith("no new image for"))


def test_a_wrong_parameter_ends_the_start_with_a_sentence(ros):
    child = ros.start("threshold_node.py", score_thresholds__part=1.5)
    printed = child.communicate(timeout=60)[0]
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
