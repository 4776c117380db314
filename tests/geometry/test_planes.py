import numpy as np
import pytest

from benchmarks.rendered_scenes import Solid, look_at, random_scene, render, structured_light
from hassod_ros.geometry.planes import make_grid


def true_plane(scene, height):
    """Normal and distance of a level plane of the world in the camera's frame."""
    normal = scene.camera[:3, :3].T @ [0, 0, 1.0]
    return normal, height - scene.camera[2, 3]


@pytest.mark.parametrize("noise", [False, True])
def test_table_and_floor_are_both_found(noise):
    scene = render([Solid((0.1, 0.08, 0.12), (0.1, 0, 0))], look_at((0.6, -0.5, 0.7)), table=(0.7, 0.5))
    depth = structured_light(scene.depth, np.random.default_rng(0)) if noise else scene.depth
    grid = make_grid(depth, scene.rays)
    for height in (0.0, -0.7):
        normal, distance = true_plane(scene, height)
        angles = [np.degrees(np.arccos(np.clip(plane.normal @ normal, -1, 1))) for plane in grid.planes]
        offsets = [abs(plane.distance - distance) for plane in grid.planes]
        fits = [
            a < (0.5 if noise else 0.05) and d < (0.004 if noise else 5e-4)
            for a, d in zip(angles, offsets, strict=True)
        ]
        assert any(fits), (height, angles, offsets)


@pytest.mark.parametrize("seed", range(6))
def test_labels_are_the_table_where_the_table_is(seed):
    scene = random_scene(np.random.default_rng(seed))
    grid = make_grid(scene.depth, scene.rays)
    table = scene.ids[2::4, 2::4] == 1
    normal, distance = true_plane(scene, 0.0)
    (index,) = [
        i for i, p in enumerate(grid.planes) if p.normal @ normal > 0.9999 and abs(p.distance - distance) < 1e-3
    ]
    assert (grid.labels[table] == index).mean() > 0.99
    assert (grid.labels[~table] == index).mean() < 0.06  # the lowest millimetres of things
    assert [plane.cells for plane in grid.planes] == sorted((plane.cells for plane in grid.planes), reverse=True)


def test_normals_point_to_the_camera():
    grid = make_grid(*(lambda scene: (scene.depth, scene.rays))(random_scene(np.random.default_rng(3))))
    assert grid.planes
    for plane in grid.planes:
        assert plane.distance < 0
        assert plane.heights(np.zeros(3)) > 0


def test_without_depth_there_is_no_plane():
    scene = random_scene(np.random.default_rng(0))
    assert make_grid(np.zeros_like(scene.depth), scene.rays).planes == ()


def test_noise_alone_is_no_plane():
    rng = np.random.default_rng(0)
    scene = random_scene(rng)
    depth = rng.uniform(0.5, 1.5, scene.depth.shape).astype(np.float32)
    assert make_grid(depth, scene.rays).planes == ()


def test_the_same_depth_gives_the_same_planes():
    scene = random_scene(np.random.default_rng(5))
    first, second = make_grid(scene.depth, scene.rays), make_grid(scene.depth, scene.rays)
    assert np.array_equal(first.labels, second.labels)
    assert all(np.array_equal(a.normal, b.normal) for a, b in zip(first.planes, second.planes, strict=True))
