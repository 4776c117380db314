import numpy as np
import pytest

from benchmarks.rendered_scenes import Solid, look_at, render
from hassod_ros.geometry.grasps import Gripper, find_grasps
from hassod_ros.geometry.objects import locate

EYE = (0.35, -0.45, 0.6)
BAR = Solid((0.16, 0.05, 0.06), (0.0, 0.0, 0.0), 0.5)


def scene_of(*solids, eye=EYE, **options):
    rendered = render(solids, look_at(eye))
    return rendered, locate(rendered.instances(**options), rendered.depth, rendered.rays)


def in_world(rendered, pose):
    return rendered.camera @ pose


def fingers(grasp, gripper, world):
    """(2, n, 3) points of both open fingers in the world, tips first."""
    steps = np.linspace(0, 1, 4)
    points = []
    for side in (-1, 1):
        gap = grasp.width / 2 + gripper.thickness * steps
        u, v, w = np.meshgrid((steps - 0.5) * gripper.width, side * gap, -gripper.length * steps, indexing="ij")
        local = np.stack([u.ravel(), v.ravel(), w.ravel(), np.ones(u.size)])
        points.append((world @ local)[:3].T)
    return np.array(points)


def inside(solid, points, margin=0.0):
    local = (np.linalg.inv(solid.pose) @ np.c_[points, np.ones(len(points))].T)[:3].T
    half = np.array(solid.size) / 2 + margin
    if solid.round:
        return (np.hypot(local[:, 0], local[:, 1]) < half[0]) & (np.abs(local[:, 2]) < half[2])
    return (np.abs(local) < half).all(1)


def test_a_bar_is_held_across_its_short_side_from_above():
    rendered, scene = scene_of(BAR)
    best = find_grasps(scene, 0)[0]
    pose = in_world(rendered, best.pose)
    np.testing.assert_allclose(np.linalg.det(pose[:3, :3]), 1, atol=1e-6)
    assert abs(best.width - 0.05) < 0.004
    across = [-np.sin(0.5), np.cos(0.5), 0]
    assert abs(pose[:3, 1] @ across) > np.cos(np.radians(5))
    assert np.hypot(*(pose[:2, 3] - BAR.position[:2])) < 0.04
    assert 0 < pose[2, 3] < 0.06


@pytest.mark.parametrize(
    "solid",
    [BAR, Solid((0.06, 0.06, 0.12), (0, 0, 0), 0, True), Solid((0.05, 0.05, 0.05), (0, 0, 0), 0.3)],
)
def test_fingers_touch_neither_table_nor_neighbours(solid):
    near = Solid((0.05, 0.08, 0.1), (0.1, 0.05, 0.0), 0.2)
    rendered, scene = scene_of(solid, near)
    gripper = Gripper()
    grasps = find_grasps(scene, 0, gripper)
    assert grasps
    for grasp in grasps:
        for finger in fingers(grasp, gripper, in_world(rendered, grasp.pose)):
            assert finger[:, 2].min() > -0.001
            assert not inside(near, finger, -0.003).any()
        assert 0 <= grasp.score <= 1
        assert gripper.margin <= grasp.clearance <= 0.05
        assert grasp.width < gripper.opening
    assert [g.score for g in grasps] == sorted((g.score for g in grasps), reverse=True)


def test_a_neighbour_takes_directions_away():
    alone = find_grasps(scene_of(BAR)[1], 0)
    wall = [Solid((0.2, 0.03, 0.1), (0.5 * s, 0.0, 0.0), 0.5) for s in ()]
    c, s = np.cos(0.5), np.sin(0.5)
    wall = [Solid((0.2, 0.03, 0.06), (-s * d, c * d, 0.0), 0.5) for d in (-0.048, 0.048)]
    between = find_grasps(scene_of(BAR, *wall, eye=(0.05, -0.1, 0.75))[1], 0)
    assert alone
    best = max((g.score for g in between), default=0.0)
    assert best < 0.6 * alone[0].score


def test_what_is_too_wide_or_unsupported_or_a_table_has_no_grasp():
    assert find_grasps(scene_of(Solid((0.2, 0.2, 0.1), (0, 0, 0), 0.3))[1], 0) == []
    assert find_grasps(scene_of(Solid((0.05, 0.05, 0.05), (0, 0, 0.3)))[1], 0) == []
    _, scene = scene_of(BAR, table=True)
    assert find_grasps(scene, 0) == []
    assert find_grasps(scene, 1)
    assert find_grasps(scene, 1, Gripper(opening=0.0)) == []


def test_a_flat_thing_is_held_just_above_the_table():
    rendered, scene = scene_of(Solid((0.12, 0.03, 0.015), (0, 0, 0), 0.2))
    grasps = find_grasps(scene, 0)
    assert grasps
    tip = in_world(rendered, grasps[0].pose)[2, 3]
    assert 0.003 < tip < 0.015


def test_a_handle_that_sticks_out_is_held_and_a_flush_part_is_not():
    body = Solid((0.14, 0.14, 0.12), (0, 0, 0), 0.0)
    handle = Solid((0.02, 0.06, 0.02), (0.0, -0.1, 0.05))
    rendered, _ = scene_of(body, handle, eye=(0.3, -0.6, 0.5))
    label = rendered.ids == 3
    rows = np.flatnonzero(label.any(1))
    label &= np.arange(480)[:, None] > rows[len(rows) // 2]
    label[:, : np.flatnonzero(label.any(0))[0] + 60] = False
    label[:, np.flatnonzero(label.any(0))[0] + 30 :] = False
    from hassod_ros.instances import Instances

    masks = np.array([np.isin(rendered.ids, [3, 4]), rendered.ids == 4, label])
    instances = Instances.from_dense(
        masks, image_size=label.shape, levels=np.array([0, 1, 1]), parents=np.array([-1, 0, 0])
    )
    scene = locate(instances, rendered.depth, rendered.rays)
    best = find_grasps(scene, 1)[0]
    assert best.width < 0.035
    assert find_grasps(scene, 2) == []
