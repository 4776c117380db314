import pytest

pytest.importorskip("hassod_msgs.msg", reason="ROS 2 or hassod_msgs is missing: source scripts/env.sh")

import importlib.util
import os
import time
from pathlib import Path

import numpy as np
from diagnostic_msgs.msg import DiagnosticArray
from lifecycle_msgs.srv import GetState
from rclpy.qos import DurabilityPolicy, QoSProfile, ReliabilityPolicy, qos_profile_sensor_data
from sensor_msgs.msg import Image
from std_msgs.msg import Float64

from hassod_msgs.msg import InstanceArray
from tests.nodes.bench import (
    COLORS,
    NODE,
    RECTANGLES,
    Bench,
    image,
    label_map,
    plain,
    scene,
    set_parameters,
    stamp,
)


def state_of(ros) -> str:
    return ros.call(GetState, f"/{NODE}/get_state", GetState.Request()).current_state.label


def test_outputs_are_made_only_while_somebody_subscribes(ros):
    ros.start("threshold_node.py", model="threshold", autostart=True)
    camera = ros.node.create_publisher(Image, "/image", qos_profile_sensor_data)
    diagnostics = ros.collect(DiagnosticArray, "/diagnostics")
    ros.until(lambda: state_of(ros) == "active")
    patience = [time.monotonic() + 10]

    def connected() -> bool:
        """The node lets go of an unwatched camera after two seconds, which may pass before it and the camera meet."""
        if not camera.get_subscription_count() and time.monotonic() > patience[0]:
            patience[0] = time.monotonic() + 5
            assert ros.transition(NODE, "deactivate")
            assert ros.transition(NODE, "activate")
        return camera.get_subscription_count() > 0

    def figures() -> dict[str, str]:
        camera.publish(image("rgb8", scene()))
        return {value.key: value.value for value in diagnostics[-1].status[0].values} if diagnostics else {}

    ros.until(lambda: connected() and int(figures().get("dropped.unwatched", 0)) >= 3)
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


def test_no_thread_that_takes_the_lock_of_the_interpreter_has_a_lower_priority(ros):
    bench = Bench(ros)
    labels = ros.collect(Image, f"/{NODE}/labels/part")
    ros.until(lambda: bench.send_now() and labels)
    tasks = Path(f"/proc/{bench.child.pid}/task")
    nice = {task.name: int((task / "stat").read_text().rpartition(")")[2].split()[16]) for task in tasks.iterdir()}
    assert len(nice) > 3
    assert set(nice.values()) == {os.getpriority(os.PRIO_PROCESS, 0)}


def test_pictures_come_though_the_next_frame_never_ends(ros):
    bench = Bench(ros, model="threshold:0.5")
    labels = ros.collect(Image, f"/{NODE}/labels/part")
    ros.until(lambda: bench.send_now() and labels)
    sent = bench.now()
    bench.camera.publish(sent)
    time.sleep(0.2)  # it is taken, and takes half a second
    bench.camera.publish(plain(254))  # hangs, and is taken before the picture of the one before can be made
    ros.until(lambda: labels[-1].header == sent.header)


def test_qos_of_input_and_outputs_can_be_overridden(ros):
    overrides = {
        "qos_overrides./image.subscription.reliability": "reliable",
        f"qos_overrides./{NODE}/instances.publisher.durability": "transient_local",
    }
    bench = Bench(ros, qos=10, **overrides)
    (subscription,) = ros.until(lambda: ros.node.get_subscriptions_info_by_topic("/image"))
    assert subscription.qos_profile.reliability == ReliabilityPolicy.RELIABLE
    last = bench.send(image("rgb8", scene(), second=1234))
    latched = QoSProfile(depth=1, durability=DurabilityPolicy.TRANSIENT_LOCAL)
    late = ros.collect(InstanceArray, f"/{NODE}/instances", latched)
    ros.until(lambda: late)
    assert late[-1].header == last.header
    for label in ("deactivate", "cleanup", "configure", "activate"):  # the overrides hold for every life
        assert ros.transition(NODE, label)
    (subscription,) = ros.until(lambda: ros.node.get_subscriptions_info_by_topic("/image"))
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
    assert state_of(ros) == ("inactive" if before else "unconfigured")


def test_overlay_shows_the_instances_over_the_image(ros):
    bench = Bench(ros, overlay__opacity=0.0, overlay__outline=0)
    overlays = ros.collect(Image, f"/{NODE}/overlay")
    sent = image("bgr8", scene()[..., ::-1])
    ros.until(lambda: bench.send(sent) and overlays)
    assert (overlays[-1].encoding, overlays[-1].header) == ("rgb8", sent.header)
    np.testing.assert_array_equal(np.frombuffer(overlays[-1].data, np.uint8).reshape(scene().shape), scene())


def test_what_robots_act_on_does_not_wait_for_the_overlay(ros):
    bench = Bench(ros, overlay__max_rate=0.001)
    overlays = ros.collect(Image, f"/{NODE}/overlay")
    labels = ros.collect(Image, f"/{NODE}/labels/whole")
    ros.until(lambda: bench.send(image("rgb8", scene())) and overlays and labels)
    drawn, before = len(overlays), bench.counts()["processed"]
    for _ in range(5):
        bench.send_now()
    ros.until(lambda: bench.counts()["processed"] >= before + 5)
    assert len(overlays) == drawn  # the next one is due in a quarter of an hour
    assert set_parameters(ros, overlay__max_rate=0.0)[0].successful
    ros.until(lambda: bench.send_now() and len(overlays) > drawn)


def test_the_latency_counts_from_the_stamp(ros):
    bench = Bench(ros)
    latencies = ros.collect(Float64, f"/{NODE}/debug/pipeline_latency_ms")
    ros.until(lambda: bench.send_now() and latencies)
    late = image("rgb8", scene())
    late.header.stamp.sec -= 5
    bench.send(late)
    ros.until(lambda: 5000 <= latencies[-1].data < 100_000)


def test_ids_that_fold_into_one_label_have_pixels_of_their_own(ros):
    bench = Bench(ros, model="leaping", tracking__memory=60.0)
    bench.labels = [ros.collect(Image, f"/{NODE}/labels/{level}", 50) for level in ("whole", "part", "subpart")]
    pixels = scene()
    y0, x0, y1, x1 = RECTANGLES[1]
    pixels[y0:y1, x0:x1] = COLORS[0]
    pixels[74:86, 100:116], pixels[78:82, 104:112] = COLORS[1:]  # other things than before, in the same whole
    ros.until(lambda: bench.send_now() and all(bench.labels))
    sent = image("rgb8", pixels)
    sent.header.stamp = stamp()
    bench.send_and_see_labels(sent)
    whole, part, subpart = sorted(bench.instances[-1].instances, key=lambda found: found.level)
    assert (whole.id, part.id, subpart.id) == (1, 65_536, 65_537)
    labels = [label_map(kind[-1]) for kind in bench.labels]
    assert labels[0][10, 14] == whole.label != labels[1][75, 101] == part.label
    assert len({whole.label, part.label, subpart.label}) == 3
