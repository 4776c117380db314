import pytest

pytest.importorskip("hassod_msgs.msg", reason="ROS 2 or hassod_msgs is missing: source scripts/env.sh")

from collections import Counter
from dataclasses import replace
from pathlib import Path

import onnx
from diagnostic_msgs.msg import DiagnosticArray
from sensor_msgs.msg import Image
from std_srvs.srv import SetBool

from hassod_msgs.msg import InstanceArray
from hassod_msgs.srv import ReloadModel, Segment
from hassod_ros.files import sha256
from hassod_ros.runtime.model_info import read_model_info
from hassod_ros.runtime.told_model import ToldModel
from tests.nodes.bench import NODE, Bench, bright, broken, image, jpeg, scene, set_parameters


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


def test_an_exported_model_is_run_and_exchanged_for_another_file(ros, model_file):
    ros.start("hassod_ros.nodes.perception_node", model=model_file, autostart=True)
    answers = ros.collect(InstanceArray, f"/{NODE}/instances")
    diagnostics = ros.collect(DiagnosticArray, "/diagnostics")
    camera = ros.node.create_publisher(Image, "/image", 10)

    def answered(name: str) -> bool:
        camera.publish(image("rgb8", bright()))
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


def test_the_model_that_was_told_is_remembered(ros, model_file):
    bench = Bench(ros)

    def reload(path: str) -> ReloadModel.Response:
        return ros.call(ReloadModel, f"/{NODE}/reload_model", ReloadModel.Request(path=path))

    def running() -> str:
        return bench.send(image("rgb8", scene())).model_name

    refused = reload("")
    assert (refused.success, running()) == (False, "threshold")
    assert "it is empty; give the path of a model" in refused.message
    assert reload("threshold:0.01").success
    for label in ("deactivate", "cleanup", "configure", "activate"):
        assert ros.transition(NODE, label)
    bench.prime()
    assert running() == bench.status()["told_model"] == "threshold:0.01"
    printed = ros.stop(bench.child)
    assert "taking threshold:0.01, which ~/reload_model was told, instead of threshold" in printed

    bench.child = ros.start("threshold_node.py", model="threshold", autostart=True, diagnostics_period=0.2)
    bench.prime()
    assert running() == "threshold:0.01"
    assert reload("threshold").success  # what the parameter says
    ros.stop(bench.child)
    bench.child = ros.start("threshold_node.py", model="threshold", autostart=True, diagnostics_period=0.2)
    bench.prime()
    assert (running(), bench.status()["told_model"]) == ("threshold", "")


def test_a_told_model_that_is_gone_is_said_and_the_parameters_is_taken(ros):
    told = ToldModel(f"/{NODE}")
    told.tell("threshold:fast", "threshold")
    bench = Bench(ros)
    assert bench.send(image("rgb8", scene())).model_name == "threshold"
    told.path.write_text("{")
    for label in ("deactivate", "cleanup", "configure"):
        assert ros.transition(NODE, label)
    printed = ros.stop(bench.child)
    assert "taking threshold, not what ~/reload_model was told: could not convert" in printed
    assert f"taking threshold, not what ~/reload_model was told: {told.path}" in printed


def test_a_compressed_image_is_segmented_on_request(ros):
    Bench(ros)
    answer = ros.call(Segment, f"/{NODE}/segment", Segment.Request(compressed=jpeg(9)))
    assert (answer.success, answer.message) == (True, "3 instances")
    assert answer.result.header.stamp.sec == 9
    answer = ros.call(Segment, f"/{NODE}/segment", Segment.Request())
    assert not answer.success
    assert "empty" in answer.message
