import numpy as np
import pytest

from benchmarks.rendered_scenes import Solid, look_at, render
from hassod_ros.discovery.features.geometry import GeometryFeatures, with_depth
from hassod_ros.discovery.features.handcrafted import HandcraftedFeatures
from hassod_ros.errors import InputError

SCENE = render([Solid((0.2, 0.15, 0.1), (0, 0, 0), 0.3)], look_at((0.1, -0.5, 0.6)))
PATCH = 8


def cosines(features, first, second):
    """Mean cosine between the patches of two masks."""
    vectors = features[0].reshape(features.shape[1], -1).T
    vectors = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    chosen = [mask[PATCH // 2 :: PATCH, PATCH // 2 :: PATCH].ravel() for mask in (first, second)]
    return (vectors[chosen[0]] @ vectors[chosen[1]].T).mean()


def test_a_thing_is_told_from_a_table_of_the_same_colour():
    image = np.full((1, 480, 640, 3), 128, np.uint8)
    features = GeometryFeatures(SCENE.depth, SCENE.rays, PATCH)(image)
    assert (features.shape, features.dtype) == ((1, GeometryFeatures.dim, 60, 80), np.float32)
    normal = SCENE.camera[:3, :3].T @ [0, 0, 1]
    top = (SCENE.ids == 3) & (
        np.abs(
            SCENE.depth * (SCENE.rays.x * normal[0] + SCENE.rays.y * normal[1] + normal[2]) + SCENE.camera[2, 3] - 0.1
        )
        < 0.002
    )
    table = SCENE.ids == 1
    assert cosines(features, top, top) > cosines(features, top, table) + 0.3


def test_it_joins_other_features_at_any_size():
    joined = with_depth(HandcraftedFeatures(), SCENE.depth, SCENE.rays)
    patch = joined.patch_size
    image = np.random.default_rng(0).integers(0, 255, (1, 20 * patch, 27 * patch, 3), np.uint8)
    features = joined(image)
    assert features.shape == (1, HandcraftedFeatures().dim + GeometryFeatures.dim, 20, 27)
    assert np.isfinite(features).all()
    assert joined.name == "handcrafted+geometry"


def test_holes_are_filled_from_beside():
    depth = SCENE.depth.copy()
    depth[100:200, 100:300] = 0
    features = GeometryFeatures(depth, SCENE.rays, PATCH)(np.zeros((1, 480, 640, 3), np.uint8))
    assert np.isfinite(features).all()


def test_what_has_no_depth_or_is_of_several_pictures_is_refused():
    with pytest.raises(InputError, match="no valid pixel"):
        GeometryFeatures(np.zeros_like(SCENE.depth), SCENE.rays, PATCH)
    with pytest.raises(InputError, match="one picture"):
        GeometryFeatures(SCENE.depth, SCENE.rays, PATCH)(np.zeros((2, 80, 80, 3), np.uint8))
