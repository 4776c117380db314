import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from benchmarks.rendered_scenes import Solid, look_at, random_scene, render, structured_light
from hassod_ros.geometry.objects import Flag, ObjectOptions, locate
from hassod_ros.instances import Instances, Level

EYE = (0.45, -0.5, 0.65)
BOX = Solid((0.12, 0.07, 0.09), (0.05, 0.02, 0.0), 0.4)
CAN = Solid((0.07, 0.07, 0.1), (-0.15, -0.05, 0.0), 0.0, True)
TWO = render([BOX, CAN], look_at(EYE))


def errors(scene, objects, k, i):
    """Size (3,) m, distance of the centres m, and angle in degrees between the boxes' axes, of object k and solid i."""
    solid, truth = scene.solids[i], scene.truth(i)
    turn = objects.rotations[k].T @ truth[:3, :3]
    up = np.degrees(np.arccos(np.clip(turn[2, 2], -1, 1)))
    swapped = abs(turn[0, 1]) > abs(turn[0, 0])
    size = np.array(solid.size)[[1, 0, 2] if swapped else [0, 1, 2]]
    yaw = 0.0 if solid.round else np.degrees(np.arccos(np.clip(abs(turn[0, int(swapped)]), 0, 1)))
    distance = np.linalg.norm(objects.centers[k] - truth[:3, 3])
    return np.abs(objects.sizes[k] - size), distance, max(up, yaw)


def all_errors(seeds, noise=None):
    sizes, distances, angles = [], [], []
    for seed in seeds:
        scene = random_scene(np.random.default_rng(seed))
        depth = scene.depth if noise is None else structured_light(scene.depth, noise)
        objects = locate(scene.instances(), depth, scene.rays).objects
        visible = scene.visible()
        for k in np.flatnonzero((objects.flags & (Flag.CUT_OFF | Flag.OCCLUDED)) == 0):
            size, distance, angle = errors(scene, objects, k, visible[objects.index[k]])
            sizes.append(size)
            distances.append(distance)
            angles.append(angle)
    assert len(sizes) > 20
    return np.median(np.concatenate(sizes)), np.median(distances), np.median(angles)


def test_size_and_pose_without_noise():
    size, distance, angle = all_errors(range(8))
    assert size <= 0.002
    assert distance <= 0.002
    assert angle <= 1.0


def test_size_and_pose_with_a_depth_camera_s_noise():
    size, distance, _ = all_errors(range(8), np.random.default_rng(0))
    assert size <= 0.005
    assert distance <= 0.005


def test_x_is_the_longer_side_and_rotations_are_right_handed():
    scene = random_scene(np.random.default_rng(1))
    objects = locate(scene.instances(), scene.depth, scene.rays).objects
    assert (objects.sizes[:, 0] >= objects.sizes[:, 1]).all()
    np.testing.assert_allclose(np.linalg.det(objects.rotations), 1, atol=1e-6)
    np.testing.assert_allclose(
        objects.rotations.transpose(0, 2, 1) @ objects.rotations, np.tile(np.eye(3), (len(objects), 1, 1)), atol=1e-6
    )


@given(st.floats(0, 2 * np.pi), st.floats(0.45, 0.8), st.floats(-0.3, 0.3))
@settings(max_examples=10, deadline=None, derandomize=True)
def test_moving_the_camera_moves_all_results_with_it(azimuth, height, roll):
    """In the world's frame the answer is the same from everywhere."""
    scene = render([BOX, CAN], look_at((0.6 * np.cos(azimuth), 0.6 * np.sin(azimuth), height), roll=roll))
    objects = locate(scene.instances(), scene.depth, scene.rays).objects
    for k, i in enumerate(objects.index):
        if objects.flags[k] & Flag.OCCLUDED:
            continue
        size, distance, angle = errors(scene, objects, k, i)
        assert size.max() < 0.006  # of 250 places the worst is 5.0 mm, the median 1.2
        assert distance < 0.004
        assert angle < 3


@given(st.floats(0.6, 1.6))
@settings(max_examples=8, deadline=None, derandomize=True)
def test_a_scaled_world_scales_every_length(scale):
    scene = render([BOX, CAN], look_at(EYE))
    one = locate(scene.instances(), scene.depth, scene.rays).objects
    two = locate(scene.instances(), scene.depth * np.float32(scale), scene.rays).objects
    np.testing.assert_allclose(two.sizes, one.sizes * scale, atol=0.003)
    np.testing.assert_allclose(two.centers, one.centers * scale, atol=0.003)


def test_the_table_is_a_support_and_what_stands_on_it_is_whole():
    scene = render([BOX, CAN], look_at(EYE))
    objects = locate(scene.instances(table=True), scene.depth, scene.rays).objects
    assert objects.is_support.tolist() == [True, False, False]
    assert objects.levels.tolist() == [Level.WHOLE] * 3
    assert objects.parents.tolist() == [-1, -1, -1]
    assert (objects.supports == objects.supports[0]).all()


def test_parts_stay_parts_when_the_table_is_taken_out():
    scene = render([BOX, CAN], look_at(EYE))
    lid = scene.ids == 4
    lid[np.flatnonzero(lid.any(1))[0] + 15 :] = False
    masks = np.array([np.isin(scene.ids, [1, 3, 4]), scene.ids == 3, scene.ids == 4, lid])
    instances = Instances.from_dense(
        masks, image_size=lid.shape, levels=np.array([0, 1, 1, 2]), parents=np.array([-1, 0, 0, 2])
    )
    objects = locate(instances, scene.depth, scene.rays).objects
    assert objects.levels.tolist() == [0, 0, 0, Level.PART]
    assert objects.parents.tolist() == [-1, -1, -1, 2]
    assert objects.rotations[3][:, 2] @ objects.rotations[2][:, 2] > 0.9999  # as upright as its whole
    assert objects.sizes[3][2] < 0.8 * objects.sizes[2][2]  # and no higher than it is


def test_the_top_of_a_box_is_no_support():
    scene = render([BOX], look_at((0.02, -0.1, 0.6)))
    instances = scene.instances()
    assert not locate(instances, scene.depth, scene.rays).objects.is_support.any()


def test_a_thing_on_a_box_makes_the_box_a_support():
    low = Solid((0.3, 0.25, 0.05), (0, 0, 0))
    scene = render([low, Solid((0.05, 0.05, 0.06), (0, 0, 0.05))], look_at((0.3, -0.4, 0.6)))
    objects = locate(scene.instances(), scene.depth, scene.rays).objects
    assert objects.is_support.tolist() == [True, False]
    size, distance, _ = errors(scene, objects, 1, 1)
    assert size.max() < 0.003
    assert distance < 0.003


def test_a_shelf_in_front_does_not_lend_its_height():
    """Things on the floor are as high as they are, although most of the image is the table."""
    on_floor = Solid((0.2, 0.15, 0.3), (0.0, 0.75, -0.7), 0.3)
    scene = render([CAN, on_floor], look_at((0.0, -0.6, 0.9), (0, 0.3, -0.2)), table=(0.9, 0.5))
    options = ObjectOptions(max_depth=3.0)
    objects = locate(scene.instances(), scene.depth, scene.rays, options).objects
    k = int(np.flatnonzero(objects.index == 1)[0])
    assert objects.supports[0] != objects.supports[k]
    assert abs(objects.sizes[k][2] - 0.3) < 0.01 or objects.flags[k] & Flag.OCCLUDED


def test_cut_off_occluded_and_hovering_things_say_so():
    behind = Solid((0.08, 0.08, 0.08), (-0.02, 0.13, 0.0))
    scene = render([BOX, behind], look_at((0.1, -0.7, 0.35)))
    objects = locate(scene.instances(), scene.depth, scene.rays).objects
    assert not objects.flags[0] & Flag.OCCLUDED
    assert objects.flags[1] & Flag.OCCLUDED

    scene = render([BOX], look_at(EYE, (0.42, 0.1, 0)))
    objects = locate(scene.instances(), scene.depth, scene.rays).objects
    assert objects.flags[0] & Flag.CUT_OFF

    scene = render([Solid((0.1, 0.06, 0.05), (0, 0, 0.25))], look_at(EYE))
    objects = locate(scene.instances(), scene.depth, scene.rays).objects
    assert objects.flags[0] & Flag.NO_SUPPORT
    assert objects.supports[0] == -1


def test_holes_lower_the_coverage():
    scene = render([BOX], look_at(EYE))
    rng = np.random.default_rng(0)
    inside = scene.ids == 3
    depth = np.where(inside & (rng.random(inside.shape) < 0.5), 0, scene.depth)
    located = locate(scene.instances(), depth, scene.rays, ObjectOptions(least_coverage=0.6))
    objects = located.objects
    assert 0.3 < objects.coverage[0] < 0.6
    assert objects.flags[0] & Flag.FEW_POINTS
    assert objects.counts[0] == len(located.pixels(0))


@pytest.mark.parametrize("value", [0.0, 0.7])
def test_an_image_without_shape_gives_no_crash(value):
    """No depth at all; depth of one value, as a camera's cap gives."""
    scene = render([BOX, CAN], look_at(EYE))
    objects = locate(scene.instances(table=True), np.full_like(scene.depth, value), scene.rays).objects
    assert len(objects) == (3 if value else 0)
    assert np.isfinite(objects.sizes).all()
    assert (objects.sizes > 0).all()


def test_no_instance_and_far_things_give_nothing():
    scene = render([BOX], look_at(EYE))
    assert len(locate(Instances.empty(scene.ids.shape), scene.depth, scene.rays).objects) == 0
    assert len(locate(scene.instances(), scene.depth, scene.rays, ObjectOptions(max_depth=0.3)).objects) == 0


def test_masks_of_another_image_are_refused():
    scene = render([BOX], look_at(EYE))
    with pytest.raises(ValueError, match="masks are of"):
        locate(Instances.empty((10, 10)), scene.depth, scene.rays)


def test_pixels_of_the_background_in_a_mask_do_not_count():
    """A mask that is three pixels too wide, as a detector draws it."""
    import cv2

    scene = render([BOX], look_at(EYE))
    wide = cv2.dilate((scene.ids == 3).astype(np.uint8), np.ones((7, 7), np.uint8)).astype(bool)
    objects = locate(Instances.from_dense(wide[None], image_size=wide.shape), scene.depth, scene.rays).objects
    size, distance, _ = errors(scene, objects, 0, 0)
    assert size.max() < 0.012
    assert distance < 0.008


@given(
    st.lists(st.tuples(st.integers(0, 636), st.integers(0, 476), st.integers(1, 40), st.integers(1, 40)), max_size=8)
)
@settings(max_examples=15, deadline=None, derandomize=True)
def test_masks_of_any_size_anywhere_give_finite_boxes(rectangles):
    scene = TWO
    masks = np.zeros((len(rectangles), 480, 640), bool)
    for mask, (x, y, w, h) in zip(masks, rectangles, strict=True):
        mask[y : y + h, x : x + w] = True
    objects = locate(Instances.from_dense(masks, image_size=(480, 640)), scene.depth, scene.rays).objects
    for values in (objects.centers, objects.sizes, objects.rotations, objects.normals, objects.centroids):
        assert np.isfinite(values).all()
    assert (objects.sizes > 0).all()
    assert (objects.parents < len(objects)).all()


def with_mask(mask):
    """The box, the can and one more mask around them that the detector took for their whole."""
    masks = np.array([mask, TWO.ids == 3, TWO.ids == 4])
    return Instances.from_dense(masks, image_size=mask.shape, levels=np.array([0, 1, 1]), parents=np.array([-1, 0, 0]))


def test_a_mask_around_two_things_is_no_whole_of_them():
    objects = locate(with_mask(np.isin(TWO.ids, [3, 4])), TWO.depth, TWO.rays).objects
    assert objects.flags[0] & Flag.MIXED
    assert objects.parents.tolist() == [-1, -1, -1]
    assert objects.levels.tolist() == [Level.WHOLE] * 3


def test_a_mask_of_a_thing_and_much_of_the_table_is_no_whole_of_it():
    rows, columns = np.nonzero(TWO.ids == 3)
    mask = np.zeros(TWO.ids.shape, bool)
    mask[rows.min() - 30 : rows.max() + 30, columns.min() - 40 : columns.max() + 40] = True
    mask &= TWO.ids != 4
    masks = np.array([mask, TWO.ids == 3])
    instances = Instances.from_dense(masks, image_size=mask.shape, levels=np.array([0, 1]), parents=np.array([-1, 0]))
    objects = locate(instances, TWO.depth, TWO.rays).objects
    assert objects.is_support[0] or objects.flags[0] & Flag.MIXED
    assert objects.parents[1] == -1
    assert objects.levels[1] == Level.WHOLE


def test_a_thing_in_two_halves_stays_one():
    """Its parts touch: they are no two things."""
    half = TWO.ids == 3
    half[:, : np.nonzero(half)[1].mean().astype(int)] = False
    masks = np.array([TWO.ids == 3, half, (TWO.ids == 3) & ~half, TWO.ids == 4])
    instances = Instances.from_dense(
        masks, image_size=half.shape, levels=np.array([0, 1, 1, 0]), parents=np.array([-1, 0, 0, -1])
    )
    objects = locate(instances, TWO.depth, TWO.rays).objects
    assert not objects.flags[0] & Flag.MIXED
    assert objects.parents.tolist() == [-1, 0, 0, -1]
