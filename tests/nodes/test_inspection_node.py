"""A running inspection node: taught, triggered, asked, and given another model."""

import cv2
import numpy as np
import pytest
from diagnostic_msgs.msg import DiagnosticArray
from rcl_interfaces.srv import SetParameters
from rclpy.lifecycle import TransitionCallbackReturn
from rclpy.parameter import Parameter
from sensor_msgs.msg import Image
from std_msgs.msg import Empty

from hassod_msgs.msg import Finding, Verdict
from hassod_msgs.srv import Inspect, LearnReference, LoadReference, ReloadModel
from hassod_ros.nodes.inspection_node import InspectionNode
from tests.inspection.parts import part, taken
from tests.nodes.bench import image

NODE = "/inspection_node"


@pytest.fixture(scope="module")
def cell(module_ros, tmp_path_factory):
    """The node, taught five pictures from a folder."""
    folder = tmp_path_factory.mktemp("cell")
    (folder / "good").mkdir()
    for seed in range(5):
        cv2.imwrite(str(folder / "good" / f"{seed}.png"), taken(part(), seed)[..., ::-1])
    ros = module_ros
    ros.start(
        "hassod_ros.nodes.inspection_node",
        autostart=True,
        model="none",
        reference_dir=folder / "references",
        log_dir=folder / "log",
        trigger_timeout=5.0,
        input_reliability="reliable",
        diagnostics_period=0.1,
    )
    ros.folder = folder
    ros.verdicts = ros.collect(Verdict, f"{NODE}/verdict")
    ros.heat = ros.collect(Image, f"{NODE}/heatmap")
    ros.diagnostics = ros.collect(DiagnosticArray, "/diagnostics")
    ros.images = ros.node.create_publisher(Image, "image", 10)
    ros.triggers = ros.node.create_publisher(Empty, "trigger", 10)
    answer = ros.call(
        LearnReference, f"{NODE}/learn_reference", LearnReference.Request(name="plate", folder=str(folder / "good"))
    )
    assert answer.success, answer.message
    assert answer.version == 1
    ros.until(lambda: ros.images.get_subscription_count() and ros.triggers.get_subscription_count())
    return ros


def values(ros):
    """What the newest diagnostics say of the cell."""
    status = [s for array in ros.diagnostics[-3:] for s in array.status if "inspection" in s.name]
    return {pair.key: pair.value for pair in status[-1].values} if status else {}


def judge(ros, picture, triggers=1):
    """The verdict on a picture that comes after triggers."""
    ros.verdicts.clear()
    for _ in range(triggers):
        ros.triggers.publish(Empty())
    # An image that is sent at once may overtake a trigger: they are different topics.
    ros.until(lambda: float(values(ros).get("triggers_waiting", 0)) == triggers)
    message = image("rgb8", picture)

    def come():
        ros.images.publish(message)
        for _ in range(10):
            ros.executor.spin_once(timeout_sec=0.02)
        return ros.verdicts

    ros.until(come)
    return ros.verdicts[-1], message


def test_a_good_part_and_a_bad_one(cell):
    verdict, _ = judge(cell, taken(part(), 30))
    assert verdict.result == Verdict.OK, verdict.sentence
    assert verdict.findings == []
    verdict, message = judge(cell, part(red=None))
    assert verdict.result == Verdict.NG
    assert verdict.header == message.header
    assert (verdict.reference_name, verdict.reference_version) == ("plate", 1)
    assert len(verdict.reference_sha256) == 64
    finding = verdict.findings[0]
    assert finding.measured > finding.limit
    assert finding.kind in (Finding.DEFECT, Finding.MISSING)
    roi = finding.roi
    assert roi.x_offset < 80 < roi.x_offset + roi.width
    assert roi.y_offset < 70 < roi.y_offset + roi.height
    cell.until(lambda: cell.heat)
    assert cell.heat[-1].encoding == "32FC1"


def test_a_trigger_without_an_image_is_undecided(cell):
    cell.verdicts.clear()
    cell.triggers.publish(Empty())
    cell.until(lambda: cell.verdicts)
    assert cell.verdicts[0].result == Verdict.UNDECIDED
    assert "No image came" in cell.verdicts[0].sentence


def test_two_triggers_before_one_image_are_one_part(cell):
    judge(cell, taken(part(), 31), triggers=2)
    for _ in range(60):
        cell.executor.spin_once(timeout_sec=0.02)
    assert len(cell.verdicts) == 1


def test_an_image_that_cannot_be_read_is_undecided(cell):
    message = image("rgb8", part())
    message.encoding = "nonsense"
    cell.verdicts.clear()
    cell.triggers.publish(Empty())

    def come():
        cell.images.publish(message)
        for _ in range(10):
            cell.executor.spin_once(timeout_sec=0.02)
        return cell.verdicts

    cell.until(come)
    assert cell.verdicts[0].result == Verdict.UNDECIDED


def test_the_service_judges_any_image(cell):
    answer = cell.call(Inspect, f"{NODE}/inspect", Inspect.Request(image=image("rgb8", part(blue=None))))
    assert answer.success
    assert answer.verdict.result == Verdict.NG
    assert not cell.call(Inspect, f"{NODE}/inspect", Inspect.Request()).success


def test_wrong_requests_leave_the_reference(cell):
    ask = lambda **request: cell.call(LearnReference, f"{NODE}/learn_reference", LearnReference.Request(**request))  # noqa: E731
    for request, words in (
        ({"name": "plate", "count": 2}, "too few"),
        ({"name": "../up", "count": 3}, "cannot be a reference's name"),
        ({"name": "plate", "folder": "/nowhere"}, "does not exist"),
        ({"name": "unknown", "count": 1, "append": True}, "there is no reference unknown in"),
    ):
        answer = ask(**request)
        assert not answer.success
        assert words in answer.message
    assert judge(cell, taken(part(), 32))[0].reference_version == 1


def test_a_value_of_a_wrong_form_is_refused_and_parts_go_on_being_judged(cell):
    for name, value, words in (
        ("roi", "1 2 3", 'write "x y width height"'),
        ("roi", "0 0 8 8", "at least 16 pixels each way"),
        ("ignore", ["1,2 3"], "'1,2 3' is no polygon"),
        ("ignore", ["1,2 3,4"], "fewer than 3 corners"),
    ):
        request = SetParameters.Request(parameters=[Parameter(name, value=value).to_parameter_msg()])
        (result,) = cell.call(SetParameters, f"{NODE}/set_parameters", request).results
        assert not result.successful
        assert words in result.reason
    assert judge(cell, taken(part(), 32))[0].result == Verdict.OK


@pytest.mark.parametrize(
    ("reference", "failure"),
    [
        ("~/references/plate/000001.npz", ""),
        ("/tmp", "cannot configure: the reference /tmp is no .npz file; give one, or the name of a taught reference"),
        ("~/none.npz", "none.npz does not exist"),
    ],
)
def test_the_reference_to_begin_with_is_a_file_or_a_name(cell, tmp_path, monkeypatch, reference, failure):
    monkeypatch.setenv("HOME", str(cell.folder))
    given = {"reference": reference, "model": "none", "reference_dir": str(tmp_path)}
    overrides = [Parameter(name, value=value) for name, value in given.items()]
    node = InspectionNode(context=cell.context, parameter_overrides=overrides, namespace="/other")
    try:
        assert (node.trigger_configure() == TransitionCallbackReturn.SUCCESS) == (not failure)
        assert failure in node.failure
    finally:
        node.destroy_node()


def test_a_version_more_and_back(cell):
    (cell.folder / "more").mkdir()
    cv2.imwrite(str(cell.folder / "more" / "5.png"), taken(part(), 40)[..., ::-1])
    request = LearnReference.Request(name="plate", folder=str(cell.folder / "more"), append=True)
    assert cell.call(LearnReference, f"{NODE}/learn_reference", request).version == 2
    assert cell.call(LoadReference, f"{NODE}/load_reference", LoadReference.Request(version=-1)).version == 1
    assert not cell.call(LoadReference, f"{NODE}/load_reference", LoadReference.Request(name="other")).success


def test_another_model_learns_the_reference_anew(cell):
    assert not cell.call(ReloadModel, f"{NODE}/reload_model", ReloadModel.Request(path="/no.onnx")).success
    assert judge(cell, taken(part(), 34))[0].result == Verdict.OK
    answer = cell.call(ReloadModel, f"{NODE}/reload_model", ReloadModel.Request(path="default-int8"), 120)
    assert answer.success, answer.message
    verdict, _ = judge(cell, taken(part(), 34))
    assert verdict.result == Verdict.OK, verdict.sentence
    assert verdict.reference_version == 3


def test_the_diagnostics_count(cell):
    cell.until(lambda: values(cell).get("reference_version") == "3")
    found = values(cell)
    assert int(found["ok"]) >= 3
    assert int(found["ng"]) >= 1
    assert found["model"] == "default-int8.onnx"
    assert "total.p95_ms" in found
    lines = [line for file in (cell.folder / "log").glob("*.jsonl") for line in file.read_text().splitlines()]
    assert len(lines) >= 5
    assert list((cell.folder / "log").glob("*.jpg"))
    assert "camera moved" not in cell.diagnostics[-1].status[0].message
    assert np.isfinite(float(found["drift_px"]))
