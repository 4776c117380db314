import pytest

pytest.importorskip("hassod_msgs.msg", reason="ROS 2 or hassod_msgs is missing: source scripts/env.sh")

import importlib.util
from dataclasses import replace
from pathlib import Path

import numpy as np
import yaml
from diagnostic_msgs.msg import DiagnosticStatus
from sensor_msgs.msg import Image, PointCloud2
from std_msgs.msg import Header
from visualization_msgs.msg import Marker, MarkerArray

from benchmarks.rendered_scenes import CALIBRATION, look_at, render
from hassod_msgs.msg import Object3D
from hassod_msgs.srv import GetCloud, Select
from hassod_ros.geometry.cloud import POINT
from hassod_ros.geometry.objects import locate
from hassod_ros.instances import Instances
from hassod_ros.nodes.objects_3d_parameters import PARAMETERS
from hassod_ros.nodes.objects_messages import Located
from tests.nodes.objects_bench import BOX, CAN, EYE, NODE, SCENE, UNITS, Bench, camera_info, check, header, matrix

LAYOUT = Path(__file__).parents[2] / "config" / "rviz" / "manipulation.rviz"


def installed(name: str) -> bool:
    return importlib.util.find_spec(name) is not None


@pytest.fixture(scope="module")
def bench(module_ros):
    return Bench(module_ros)


def test_boxes_supports_and_levels_arrive(bench):
    answer = bench.send()
    check(answer)
    assert answer.header.frame_id == answer.camera_frame == "color"
    table, box, can = answer.objects
    assert (table.is_support, box.is_support, can.is_support) == (True, False, False)
    assert [(each.level, each.parent_id) for each in answer.objects] == [(Object3D.WHOLE, 0)] * 3
    (support,) = [support for support in answer.supports if support.id == table.id]
    up = SCENE.camera[:3, :3].T @ [0, 0, 1]
    normal = np.array([support.normal.x, support.normal.y, support.normal.z])
    assert normal @ up > 0.9999
    assert abs(support.distance + SCENE.camera[2, 3]) < 0.002
    assert box.coverage > 0.9
    assert box.points > 1000


def test_grasps_come_on_a_topic_of_their_own(bench):
    bench.watch_grasps()
    answer = bench.send()
    assert all(field != "grasps" for field in Object3D.get_fields_and_field_types())
    grasps = bench.grasps_of(answer)
    _, box, can = (each.id for each in answer.objects)
    assert {each.id for each in grasps} == {box, can}
    assert [each.id for each in grasps] == sorted(each.id for each in grasps)  # one object after the other
    for wanted, width in ((box, BOX.size[1]), (can, CAN.size[0])):
        own = [each for each in grasps if each.id == wanted]
        assert [each.score for each in own] == sorted((each.score for each in own), reverse=True)
        assert abs(own[0].width - width) < 0.01


def test_grasps_give_way_before_each_thing():
    instances, waits = SCENE.instances(table=True), []
    scene = locate(instances, SCENE.depth, SCENE.rays)
    options = {parameter.name: parameter.default for parameter in PARAMETERS}
    result = Located(Header(), Header(), np.eye(4), instances, scene, None, options, 0.0, lambda: waits.append(0))
    assert not waits
    assert set(result.grasps) == {0, 1, 2}
    assert len(waits) == 3
    assert all(result.grasps[i] for i in (1, 2))
    assert len(waits) == 3  # made once


@pytest.mark.parametrize("padding", [0, 6])
@pytest.mark.parametrize("big_endian", [False, True])
@pytest.mark.parametrize("encoding", UNITS)
def test_every_encoding_has_its_unit(bench, encoding, big_endian, padding):
    check(bench.send(encoding=encoding, big_endian=big_endian, padding=padding))


def test_a_wrong_unit_is_said_and_set_right(ros):
    bench = Bench(ros, depth_scale=0.0001)
    check(bench.send(unit=0.0001))
    bench.send(encoding="32FC1")  # metres, for which the scale is wrong
    assert "depth_scale" in ros.stop(bench.child)


def test_depth_of_half_the_size_is_scaled(bench):
    half = render([BOX, CAN], look_at(EYE), CALIBRATION.scaled((240, 320)))
    check(bench.send(depth=half.depth, lens=CALIBRATION.scaled((240, 320))), away=0.008)


def test_camera_info_of_another_size_is_scaled_and_of_another_shape_refused(bench):
    small = camera_info(header(0), CALIBRATION.scaled((240, 320)))
    check(bench.send(info=small))
    square = camera_info(header(0), replace(CALIBRATION, size=(480, 480)))
    assert "another shape" in bench.refusal(info=square)


def test_another_lens_from_the_same_place_is_mapped(bench):
    lens = replace(CALIBRATION, focal=(520.0, 525.0), center=(325.0, 236.0))
    other = render([BOX, CAN], look_at(EYE), lens)
    check(bench.send(depth=other.depth, lens=lens), away=0.007)
    assert bench.status()["registration"] == "same frame, other intrinsics"


@pytest.mark.parametrize(
    ("model", "coefficients"),
    [("plumb_bob", (-0.15, 0.05, 0.001, -0.001, 0.0)), ("equidistant", (0.02, -0.01, 0.0, 0.0))],
)
def test_distorted_images_are_measured_along_their_true_rays(bench, model, coefficients):
    lens = replace(CALIBRATION, distortion=coefficients, model=model)
    scene = render([BOX, CAN], look_at(EYE), lens)
    check(bench.send(scene, camera=lens), scene, away=0.006)


def test_stamps_may_differ_by_max_skew_and_no_more(bench):
    check(bench.send(skew=15_000_000))
    bench.ros.until(lambda: bench.status()["skew_ms"] == "15.00")
    assert "no depth" not in bench.refusal("dropped.no_depth", skew=45_000_000)


def test_a_node_whose_depth_never_comes_is_not_well(bench):
    statuses = []
    bench.ros.until(
        lambda: (
            bench.publish(depth=False)
            and statuses.append(bench.status()) is None
            and "of the images are lost" in statuses[-1]["message"]
        )
    )
    assert statuses[-1]["level"] == DiagnosticStatus.ERROR


def test_depth_that_comes_later_is_waited_for(bench):
    head = bench.publish(depth=False)
    from tests.nodes.objects_bench import depth_image

    bench.depth.publish(depth_image(SCENE.depth, header(bench.time, "color")))
    bench.ros.until(lambda: bench.objects[-1].header.stamp == head.stamp)
    check(bench.objects[-1])


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"k": [np.nan] * 9}, "NaN"),
        ({"k": [0.0] * 9}, "not calibrated"),
        ({"distortion_model": "division", "d": [0.1]}, "division"),
        ({"width": 0, "height": 0}, "width and height"),
    ],
    ids=["nan", "zero", "model", "size"],
)
def test_intrinsics_that_make_no_camera_are_refused_and_the_node_goes_on(bench, change, words):
    info = camera_info(header(0, "color"))
    for name, value in change.items():
        setattr(info, name, value)
    assert words in bench.refusal(info=info)
    assert bench.status()["level"] == DiagnosticStatus.ERROR
    check(bench.send())
    assert bench.status()["level"] != DiagnosticStatus.ERROR


def test_instances_of_another_camera_are_refused(bench):
    assert "different cameras" in bench.refusal(info=camera_info(header(0, "wrist")))


def test_instances_of_another_image_size_are_refused(bench):
    square = Instances.from_dense(np.ones((1, 200, 200), bool), image_size=(200, 200))
    assert "another shape" in bench.refusal(instances=square)


def test_depth_of_another_frame_is_refused_with_a_remedy(bench):
    message = bench.refusal(depth_frame="elsewhere")
    assert "registration to assume" in message
    assert "'elsewhere'" in message
    assert ("tf2_msgs is not installed" in message) != installed("tf2_msgs")


@pytest.mark.parametrize("value", [0.0, 0.8])
def test_depth_without_shape_places_nothing_wrongly(bench, value):
    answer = bench.send(depth=np.full_like(SCENE.depth, value))
    assert len(answer.objects) == (3 if value else 0)
    assert all(each.size.x > 0 and np.isfinite(each.size.x) for each in answer.objects)


def test_no_instances_give_an_empty_array(bench):
    assert bench.send(instances=Instances.empty((480, 640))).objects == []


def test_a_moving_camera_is_measured_anew_each_time(bench):
    for angle in (0.3, 1.2, 2.5):
        scene = render([BOX, CAN], look_at((0.6 * np.cos(angle), 0.6 * np.sin(angle), 0.6)))
        check(bench.send(scene), scene)


def test_the_cloud_is_organised_coloured_and_labelled(bench):
    clouds = bench.ros.collect(PointCloud2, f"/{NODE}/cloud", 5)
    colors = np.zeros((480, 640, 3), np.uint8)
    colors[..., 0] = 200
    bench.ros.until(lambda: bench.ros.node.count_subscribers(f"/{NODE}/cloud"))
    answer = bench.send(colors=colors)
    bench.ros.until(lambda: bench.send(colors=colors) and clouds and np.frombuffer(clouds[-1].data, POINT)["rgb"].any())
    cloud = clouds[-1]
    assert (cloud.height, cloud.width, cloud.point_step, cloud.header.frame_id) == (480, 640, 20, "color")
    points = np.frombuffer(cloud.data, POINT).reshape(480, 640)
    np.testing.assert_allclose(points["z"], SCENE.depth, atol=6e-4)
    assert set(np.unique(points["rgb"])) == {200 << 16}
    box = answer.objects[1].id
    labelled = points["label"] == box
    assert (SCENE.ids[labelled] == 3).mean() > 0.99
    assert labelled.sum() > 0.9 * (SCENE.ids == 3).sum()


def test_services_hand_out_points_and_mask_of_one_object(bench):
    masks = bench.ros.collect(Image, f"/{NODE}/selected_mask", 5)
    answer = bench.send()
    wanted = answer.objects[2]
    got = bench.ros.call(GetCloud, f"/{NODE}/get_cloud", GetCloud.Request(id=wanted.id))
    assert got.success, got.message
    points = np.frombuffer(got.cloud.data, POINT)
    assert len(points) == wanted.points
    local = (np.linalg.inv(matrix(wanted.pose)) @ [points["x"], points["y"], points["z"], np.ones(len(points))])[:3]
    assert (np.abs(local).max(1) < np.array([wanted.size.x, wanted.size.y, wanted.size.z]) / 2 + 0.003).all()

    chosen = bench.ros.call(Select, f"/{NODE}/select", Select.Request(id=wanted.id))
    assert chosen.success
    mask = np.frombuffer(chosen.mask.data, np.uint8).reshape(480, 640)
    assert np.array_equal(mask == 255, SCENE.ids == 4)
    bench.ros.until(lambda: masks)
    assert masks[-1].data == chosen.mask.data

    for kind, name in ((GetCloud, "get_cloud"), (Select, "select")):
        refused = bench.ros.call(kind, f"/{NODE}/{name}", kind.Request(id=4711))
        assert not refused.success
        assert "there is no object 4711" in refused.message


def test_markers_of_what_has_gone_are_deleted(bench):
    markers = bench.ros.collect(MarkerArray, f"/{NODE}/markers", 5)
    bench.ros.until(lambda: bench.send() and markers)
    ids = {marker.id for marker in markers[-1].markers if marker.ns == "boxes"}
    assert len(ids) == 3
    bench.send(instances=Instances.empty((480, 640)))
    bench.ros.until(lambda: all(marker.action == Marker.DELETE for marker in markers[-1].markers))
    assert {marker.id for marker in markers[-1].markers if marker.ns == "boxes"} == ids


def test_levels_and_scores_are_chosen_while_running(ros):
    from rcl_interfaces.srv import SetParameters
    from rclpy.parameter import Parameter

    bench = Bench(ros)
    changes = [Parameter("levels", value=["part"]).to_parameter_msg()]
    results = ros.call(SetParameters, f"/{NODE}/set_parameters", SetParameters.Request(parameters=changes)).results
    assert all(result.successful for result in results)
    assert [each.is_support for each in bench.send().objects] == [True]
    wrong = [
        Parameter("max_depth", value=-1.0).to_parameter_msg(),
        Parameter("registration", value="x").to_parameter_msg(),
    ]
    results = ros.call(SetParameters, f"/{NODE}/set_parameters", SetParameters.Request(parameters=wrong)).results
    assert not any(result.successful for result in results)


def test_every_transition_works_twice_and_nothing_is_done_unwatched(ros):
    bench = Bench(ros)
    for _ in range(2):
        for label in ("deactivate", "cleanup", "configure", "activate"):
            assert ros.transition(NODE, label), label
    ros.until(lambda: bench.instances.get_subscription_count())
    ros.until(lambda: bench.publish() and len(bench.objects) > 2)
    check(bench.send())
    for subscription in list(ros.node.subscriptions):
        if "objects" in subscription.topic_name and "3d_node/objects" in subscription.topic_name:
            ros.node.destroy_subscription(subscription)
    before = int(bench.status().get("dropped.unwatched", 0))
    ros.until(lambda: bench.publish() and int(bench.status().get("dropped.unwatched", 0)) > before)
    # The services work without a subscriber all the same.
    assert ros.call(GetCloud, f"/{NODE}/get_cloud", GetCloud.Request(id=2)).success


def test_a_burst_is_answered_in_the_order_of_its_images(bench):
    bench.send()
    before = len(bench.objects)
    stamps = [bench.publish().stamp for _ in range(3)]
    bench.ros.until(lambda: len(bench.objects) >= before + 3)
    assert [each.header.stamp for each in bench.objects[before:]] == stamps


def test_the_layout_for_rviz_shows_topics_of_the_node_by_their_types(bench):
    shown = {"PointCloud2": "sensor_msgs/msg/PointCloud2", "MarkerArray": "visualization_msgs/msg/MarkerArray"}
    displays = yaml.safe_load(LAYOUT.read_text(encoding="utf-8"))["Visualization Manager"]["Displays"]
    wanted = {
        each["Topic"]["Value"]: shown[kind] for each in displays if (kind := each["Class"].partition("/")[2]) in shown
    }
    assert set(wanted) == {f"/{NODE}/cloud", f"/{NODE}/markers"}
    ros = bench.ros
    ros.until(lambda: ros.node.count_publishers(f"/{NODE}/cloud") and ros.node.count_publishers(f"/{NODE}/markers"))
    published = {name: kinds for name, kinds in ros.node.get_topic_names_and_types() if name in wanted}
    assert published == {name: [kind] for name, kind in wanted.items()}
    (image,) = [each for each in displays if each["Class"].endswith("/Image")]
    assert image["Topic"]["Value"] == "/image"  # led to the camera's by manipulation.launch.py
    namespaces = next(each for each in displays if each["Class"].endswith("MarkerArray"))["Namespaces"]
    assert set(namespaces) == {"boxes", "names", "grasps"}
