import pytest

pytest.importorskip("hassod_msgs.msg", reason="ROS 2 or hassod_msgs is missing: source scripts/env.sh")

from collections import Counter
from dataclasses import replace

import onnx
from diagnostic_msgs.msg import DiagnosticArray
from rcl_interfaces.srv import GetParameters, SetParameters
from rclpy.parameter import Parameter
from sensor_msgs.msg import Image

from hassod_msgs.msg import InstanceArray
from hassod_ros.runtime.model_info import read_model_info
from tests.nodes.bench import NODE, Bench, bright, image, scene, set_parameters


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
    assert set_parameters(ros, levels=["whole", "part"], score_thresholds__part=-1.0)[0].successful
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
        score = Parameter("score_thresholds.part", value=-1.0 if round_ % 2 else 0.5)
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
        camera.publish(image("rgb8", bright()))
        if not answers:
            return None
        whole, part = answers[-1].instances[:2]
        return part.parent_id == whole.id

    ros.until(lambda: on_the_whole() is False)  # the model asks for 0.75
    assert set_parameters(ros, parent_coverage=0.4)[0].successful
    ros.until(lambda: on_the_whole() is True)
    assert set_parameters(ros, parent_coverage=0.0)[0].successful
    ros.until(lambda: on_the_whole() is False)


def test_a_wrong_parameter_ends_the_start_with_a_sentence(ros):
    child = ros.start("threshold_node.py", score_thresholds__part=1.5)
    printed = child.communicate(timeout=60)[0]
    assert child.returncode == 2
    assert "parameter score_thresholds.part is wrong" in printed.splitlines()[-1]
    assert "Traceback" not in printed


def test_the_old_name_of_a_parameter_is_read_with_a_warning(ros):
    child = ros.start("threshold_node.py", model="threshold", cover=0.4)
    request = GetParameters.Request(names=["parent_coverage"])
    assert ros.call(GetParameters, f"/{NODE}/get_parameters", request).values[0].double_value == 0.4
    printed = ros.stop(child)
    assert printed.count("the parameter cover is called parent_coverage now") == 1
    assert "there is no parameter" not in printed


def test_a_threshold_of_nothing_can_be_asked_for(ros, model_file):
    graph, info = onnx.load(model_file), read_model_info(model_file)
    onnx.helper.set_model_props(graph, replace(info, score_thresholds=(0.95, 0.95, 0.95)).to_metadata())
    onnx.save(graph, model_file)
    ros.start("hassod_ros.nodes.perception_node", model=model_file, autostart=True, device="cpu", threads=1)
    answers = ros.collect(InstanceArray, f"/{NODE}/instances")
    camera = ros.node.create_publisher(Image, "/image", 10)

    def found() -> int | None:
        camera.publish(image("rgb8", bright()))
        return len(answers[-1].instances) if answers else None

    ros.until(lambda: found() == 0)
    assert set_parameters(ros, score_thresholds__whole=0.0)[0].successful
    ros.until(lambda: found() == 2)


def test_a_device_that_is_not_there_is_said_in_diagnostics(ros, model_file):
    diagnostics = ros.collect(DiagnosticArray, "/diagnostics")
    ros.start("hassod_ros.nodes.perception_node", model=model_file, device="cuda:7", dla_core=0)
    assert not ros.transition(NODE, "configure")
    told = "cannot configure: the backend onnxruntime has no option dla_core; it has cache, device, features, threads"
    ros.until(lambda: diagnostics and diagnostics[-1].status[0].message == told)
