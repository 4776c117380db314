import pytest

pytest.importorskip("hassod_msgs.msg", reason="ROS 2 or hassod_msgs is missing: source scripts/env.sh")

from collections import Counter

import cv2
import numpy as np
from diagnostic_msgs.msg import DiagnosticArray
from rclpy.qos import qos_profile_sensor_data
from sensor_msgs.msg import CompressedImage, Image

from hassod_msgs.msg import InstanceArray
from tests.nodes.bench import HEIGHT, NODE, WIDTH, Bench, broken, image, jpeg, plain, scene


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
    assert printed.count("an image cannot be used") == len(names) - 1  # "zero size" and "too wide" are one cause
    assert printed.count("an image cannot be used: the image holds 36854 bytes") == 1
    assert "Traceback" not in printed


def test_a_failing_model_is_an_error_in_diagnostics_until_the_next_good_frame(ros):
    bench = Bench(ros)
    bench.camera.publish(plain(255))
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
    cameras["front"].publish(plain(255))
    told = "segmentation of camera front failed: white"
    ros.until(lambda: diagnostics[-1].status[0].message == told)
    before = len(answers["wrist"])

    def answered_by_wrist() -> bool:
        cameras["wrist"].publish(image("rgb8", scene()))
        return len(answers["wrist"]) > before + 3

    ros.until(answered_by_wrist)
    diagnostics.clear()
    ros.until(lambda: diagnostics)
    assert diagnostics[-1].status[0].message == told  # until its own next image
    assert diagnostics[-1].status[1].level != b"\2"


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


def test_damaged_compressed_images_are_drops_and_nothing_else(ros):
    bench = Bench(ros, image_transport="compressed")
    bench.settle()
    whole = jpeg().data.tobytes()
    frame = whole.index(b"\xff\xc0")  # the header that says how large the image is
    damaged = []
    for place, value in ((frame + 5, 0xFF), (frame + 6, 0x00), (frame + 7, 0xFF), (frame + 9, 0x02), (30, 0x00)):
        data = bytearray(whole)
        data[place] = value
        damaged.append(bytes(data))
    for number, data in enumerate((*damaged, whole[: len(whole) // 2], b"", b"\xff\xd8\xff", bytes(1000)), 1):
        message = jpeg()
        message.data = data
        bench.camera.publish(message)
        ros.until(lambda number=number: bench.counts()["received"] == number)
    bench.instances.clear()
    assert len(bench.send(jpeg()).instances) == 3
    counts = bench.counts()
    assert counts["received"] == counts["processed"] + counts["dropped.malformed"] + counts["dropped.superseded"]
    assert counts["dropped.malformed"] >= 6
    assert bench.status()["last_malformed"]


def test_images_for_which_nobody_listens_are_not_even_received(ros):
    ros.start("threshold_node.py", model="threshold", autostart=True, diagnostics_period=0.2)
    camera = ros.node.create_publisher(Image, "/image", qos_profile_sensor_data)
    diagnostics = ros.collect(DiagnosticArray, "/diagnostics")
    listener = ros.node.create_subscription(InstanceArray, f"/{NODE}/instances", lambda message: None, 10)
    ros.until(camera.get_subscription_count)
    ros.node.destroy_subscription(listener)
    ros.until(lambda: camera.get_subscription_count() == 0)
    ros.until(lambda: diagnostics[-1].status[0].message == "waiting: nobody subscribes to the results")
    answers = ros.collect(InstanceArray, f"/{NODE}/instances")
    ros.until(lambda: camera.publish(image("rgb8", scene())) or answers)
    assert len(answers[-1].instances) == 3
