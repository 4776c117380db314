"""Runs where moveit_msgs and vision_msgs are installed, which PyPI does not have."""

import pytest

pytest.importorskip("hassod_msgs.msg", reason="ROS 2 or hassod_msgs is missing: source scripts/env.sh")
pytest.importorskip("moveit_msgs.msg", reason="moveit_msgs is not installed; PyPI does not have it")
pytest.importorskip("vision_msgs.msg", reason="vision_msgs is not installed; PyPI does not have it")

import numpy as np
from moveit_msgs.msg import CollisionObject, PlanningScene
from shape_msgs.msg import SolidPrimitive
from vision_msgs.msg import Detection3DArray

from hassod_ros.instances import Instances
from tests.nodes.objects_bench import NODE, SCENE, Bench, check, matrix


@pytest.fixture(scope="module")
def bench(module_ros):
    bench = Bench(module_ros, planning_scene__ttl=1.0)
    bench.scenes = module_ros.collect(PlanningScene, f"/{NODE}/planning_scene", 50)
    bench.detections = module_ros.collect(Detection3DArray, f"/{NODE}/detections", 50)
    module_ros.until(lambda: module_ros.node.count_publishers(f"/{NODE}/planning_scene"))
    module_ros.until(lambda: bench.send() and bench.scenes and bench.detections)
    return bench


def of(answer, diffs) -> PlanningScene | None:
    """The diff that was made of the same image."""
    fits = [diff for diff in diffs if any(solid.header == answer.header for solid in diff.world.collision_objects)]
    return fits[-1] if fits else None


def test_the_scene_is_a_diff_of_named_boxes(bench):
    answer = bench.send()
    check(answer)
    diff = bench.ros.until(lambda: of(answer, bench.scenes))
    assert diff.is_diff
    assert diff.robot_state.is_diff
    solids = {solid.id: solid for solid in diff.world.collision_objects}
    assert set(solids) == {f"hassod_{each.id}" for each in answer.objects}
    for each in answer.objects:
        solid = solids[f"hassod_{each.id}"]
        assert solid.operation == CollisionObject.ADD
        assert solid.header == answer.header
        (shape,), (pose,) = solid.primitives, solid.primitive_poses
        assert shape.type == SolidPrimitive.BOX
        np.testing.assert_allclose(shape.dimensions, [each.size.x, each.size.y, each.size.z])
        np.testing.assert_allclose(matrix(pose), matrix(each.pose))


def test_what_has_gone_leaves_the_scene_and_no_sooner(bench):
    answer = bench.send()
    names = {f"hassod_{each.id}" for each in answer.objects}
    start = len(bench.scenes)
    bench.send(instances=Instances.empty(SCENE.ids.shape))

    def removed() -> set[str]:
        return {
            solid.id
            for diff in bench.scenes[start:]
            for solid in diff.world.collision_objects
            if solid.operation == CollisionObject.REMOVE
        }

    assert not removed()
    bench.ros.until(lambda: removed() == names)
    assert all(diff.is_diff for diff in bench.scenes)


def test_detections_hold_the_boxes(bench):
    answer = bench.send()
    message = bench.ros.until(lambda: [each for each in bench.detections if each.header == answer.header])[0]
    assert [each.id for each in message.detections] == [str(each.id) for each in answer.objects]
    for each, found in zip(answer.objects, message.detections, strict=True):
        assert (found.bbox.center, found.bbox.size) == (each.pose, each.size)
        assert found.results[0].hypothesis.class_id == str(each.level)
        assert min(found.bbox.size.x, found.bbox.size.y, found.bbox.size.z) > 0
