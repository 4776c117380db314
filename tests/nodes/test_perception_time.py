import pytest

pytest.importorskip("hassod_msgs.msg", reason="ROS 2 or hassod_msgs is missing: source scripts/env.sh")

import time
from collections import Counter

import numpy as np
from rosgraph_msgs.msg import Clock

from tests.nodes.bench import Bench, image, scene


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
    bench = Bench(ros, max_age=30.0, correct_clock=True, shift=-1000)
    bench.send(bench.now())
    bench.settle()
    bench.shift = -1100
    bench.camera.publish(bench.now())
    ros.until(lambda: bench.counts()["dropped.too_old"] == 1)
    printed = ros.stop(bench.child)
    assert printed.count("after their stamps: its clock differs") == 1


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
    assert "after their stamps" not in ros.stop(bench.child)


def test_a_camera_that_does_not_stamp_is_said_and_served_by_arrival(ros):
    bench = Bench(ros, max_age=5.0, tracking__memory=0.5)
    sent = image("rgb8", scene(), second=0)
    sent.header.stamp.nanosec = 0

    def ids() -> set[int]:
        before = len(bench.instances)
        bench.camera.publish(sent)
        ros.until(lambda: len(bench.instances) > before)
        return {found.id for found in bench.instances[-1].instances}

    first = ids()
    assert ids() == first
    ros.until(lambda: not ids() or "does not stamp its images" in bench.status()["message"])
    status = bench.status()
    assert status["level"] == b"\1"
    assert float(status["clock_offset_s"]) == 0
    assert float(status["age.p95_ms"]) < 5000
    newest = ids()
    end = time.monotonic() + 2
    ros.until(lambda: time.monotonic() > end)  # longer than anything is remembered
    assert not ids() & newest
    assert "come" not in ros.stop(bench.child).split("does not stamp")[0].split("[WARN]")[-1]


def test_images_that_are_late_by_the_same_time_are_old_all_the_same(ros):
    bench = Bench(ros, max_age=2.0)
    bench.settle()
    for _ in range(3):
        late = image("rgb8", scene())
        late.header.stamp.sec -= 3
        bench.camera.publish(late)
        before = bench.counts()["received"]
        ros.until(lambda before=before: bench.counts()["received"] > before or bench.counts()["dropped.too_old"])
    ros.until(lambda: bench.counts()["dropped.too_old"] + bench.counts()["dropped.superseded"] == 3)


def test_a_frame_that_comes_late_costs_no_id(ros):
    bench = Bench(ros)
    first = {found.level: found.id for found in bench.send(image("rgb8", scene(), second=1000)).instances}
    for milliseconds in (30, 60, 50, 90):
        sent = image("rgb8", scene(), second=1000)
        sent.header.stamp.nanosec += milliseconds * 1_000_000
        assert {found.level: found.id for found in bench.send(sent).instances} == first
