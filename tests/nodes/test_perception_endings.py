import pytest

pytest.importorskip("hassod_msgs.msg", reason="ROS 2 or hassod_msgs is missing: source scripts/env.sh")

import sys
import threading
import time

from diagnostic_msgs.msg import DiagnosticArray
from lifecycle_msgs.srv import GetState
from rclpy.lifecycle import TransitionCallbackReturn

from hassod_msgs.msg import InstanceArray
from hassod_msgs.srv import ReloadModel
from hassod_ros.nodes import frames
from hassod_ros.nodes.perception_node import PerceptionNode
from hassod_ros.runtime import model_slot
from tests.nodes.bench import NODE, Bench, image, plain, scene, set_parameters
from tests.nodes.threshold_node import Threshold


def test_a_model_that_hangs_is_an_error_and_does_not_hold_up_the_end(ros):
    bench = Bench(ros, diagnostics__silence__warn=0.0, diagnostics__silence__error=0.0)
    set_parameters(ros, diagnostics__no_result__warn=0.2, diagnostics__no_result__error=0.4)

    def stuck() -> bool:
        bench.camera.publish(plain(254))  # the first one hangs, each other is superseded, which is no sign of life
        status = bench.status()
        return status["level"] == b"\2" and status["message"].startswith("no result for ")

    ros.until(stuck)
    assert bench.counts()["dropped.superseded"]
    assert "ended without it" in ros.stop(bench.child)
    assert bench.child.returncode == 0


class Waits(Threshold):
    """Answers its first picture, which is the self-test, and the others once it is told to."""

    def __init__(self) -> None:
        super().__init__()
        self.go_on, self.asked, self.closed = threading.Event(), 0, False

    def __call__(self, image, **order):
        self.asked += 1
        assert self.asked == 1 or self.go_on.wait(120)
        return super().__call__(image, **order)

    def close(self):
        self.closed = True


def test_deactivation_does_not_wait_for_ever_and_the_node_can_be_used_again(ros, monkeypatch):
    monkeypatch.setattr(frames, "END_LIMIT", 0.3)
    monkeypatch.setattr(model_slot, "_CLOSE_LIMIT", 0.1)
    models = []
    node = PerceptionNode(lambda _: models.append(Waits()) or models[-1], context=ros.context)
    try:
        ros.collect(InstanceArray, f"/{NODE}/instances")
        assert node.trigger_configure() == node.trigger_activate() == TransitionCallbackReturn.SUCCESS
        (camera,) = node._cameras
        ros.until(camera.outputs.wanted)
        node._frames.receive(camera, image("rgb8", scene()))
        ros.until(lambda: models[0].asked == 2)
        assert node.trigger_deactivate() == TransitionCallbackReturn.ERROR
        (status,) = node.statuses()
        assert status.level == b"\2"
        assert "cannot deactivate: the model has not come back from an image" in status.message
        assert not models[0].closed  # it is still at work
        models[0].go_on.set()
        ros.until(lambda: models[0].closed)
        assert node.trigger_configure() == node.trigger_activate() == TransitionCallbackReturn.SUCCESS
        assert node.trigger_deactivate() == TransitionCallbackReturn.SUCCESS
    finally:
        node.destroy_node()
    assert models[1].closed


def test_a_reload_that_hangs_does_not_hold_up_the_end(ros, tmp_path):
    bench = Bench(ros)
    client = ros.node.create_client(ReloadModel, f"/{NODE}/reload_model")
    ros.until(client.service_is_ready)
    client.call_async(ReloadModel.Request(path=f"load_with:{tmp_path}/never"))
    ros.until(lambda: bench.status()["loading"])
    bench.send(image("rgb8", scene()))
    begun = time.monotonic()
    ros.stop(bench.child)
    assert bench.child.returncode == 0
    assert time.monotonic() - begun < 30  # it would take for ever


def test_the_state_is_answered_while_a_model_loads_and_the_end_is_not_held_up(ros, tmp_path):
    child = ros.start("threshold_node.py", model=f"load_with:{tmp_path}/never", autostart=True, diagnostics_period=0.1)
    diagnostics = ros.collect(DiagnosticArray, "/diagnostics", 50)
    ros.until(lambda: diagnostics and diagnostics[-1].status[0].message.startswith("loading"))
    state = ros.call(GetState, f"/{NODE}/get_state", GetState.Request()).current_state.label
    assert state == "configuring"
    printed = ros.stop(child)
    assert child.returncode == 0
    assert "Traceback" not in printed


LOADS_ON = """
import sys, time
import rclpy
from hassod_ros.nodes import run
from hassod_ros.nodes.perception_node import PerceptionNode

def load(model):
    print("loading", flush=True)
    while rclpy.ok():
        time.sleep(0.01)
    time.sleep(0.5)
    print("loaded", flush=True)

run.LEAVE_LIMIT = 60.0
sys.exit(run.run(lambda: PerceptionNode(load), [*sys.argv, "--ros-args", "-p", "autostart:=true"]))
"""


def test_a_node_that_is_ended_while_it_loads_waits_for_the_loading_thread(ros):
    """Where the interpreter ends around a thread that is deep in ONNX Runtime, the process aborts."""
    child = ros.run([sys.executable, "-c", LOADS_ON])
    while "loading" not in child.stdout.readline():
        assert child.poll() is None
    printed = ros.stop(child)
    assert child.returncode == 0
    assert printed == "loaded\n"
