import pytest

pytest.importorskip("hassod_msgs.msg", reason="ROS 2 or hassod_msgs is missing: source scripts/env.sh")

import threading

from diagnostic_msgs.msg import DiagnosticArray
from rclpy.parameter import Parameter

from hassod_ros.errors import InputError
from hassod_ros.nodes.perception_node import PerceptionNode
from tests.nodes.bench import (
    NODE,
    Bench,
    broken,
    image,
    scene,
    set_parameters,
)

PERCENTS = ("p50", "p95")


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
    ros.until(lambda: diagnostics[-1].status[0].message == "waiting: nobody subscribes to the results")


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
    ros.until(lambda: diagnostics[-1].status[0].message == "cannot configure: no engine today")
    node.destroy_node()


def test_a_missing_model_is_said_in_diagnostics_and_can_be_tried_again(ros):
    child = ros.start("hassod_ros.nodes.perception_node", model="/nowhere/model.onnx")
    diagnostics = ros.collect(DiagnosticArray, "/diagnostics")
    assert not ros.transition(NODE, "configure")
    ros.until(lambda: diagnostics and diagnostics[-1].status[0].level == b"\2")
    assert "/nowhere/model.onnx" in diagnostics[-1].status[0].message
    assert not ros.transition(NODE, "configure")
    printed = ros.stop(child)
    assert "/nowhere/model.onnx does not exist" in printed
