import pytest

pytest.importorskip("hassod_msgs.msg", reason="ROS 2 or hassod_msgs is missing: source scripts/env.sh")

import time

from diagnostic_msgs.msg import DiagnosticArray
from lifecycle_msgs.srv import GetState

from hassod_msgs.srv import ReloadModel
from tests.nodes.bench import NODE, Bench, image, plain, scene, set_parameters


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
