"""Masks that are scene by a learner's foreground: dropped or marked."""

import numpy as np
import pytest

from hassod_ros.discovery.filters import FilterConfig
from hassod_ros.discovery.hassod import Hassod, HassodConfig, discover
from hassod_ros.discovery.lightcluster import LightCluster, LightClusterConfig
from hassod_ros.discovery.scene import SceneConfig, WithoutScene, scenes
from hassod_ros.errors import InputError
from hassod_ros.instances import Instances, Level
from tests.discovery.toy_squares import Colours

CONFIG = HassodConfig(size=96, thresholds=(0.9,), crf=None, filters=FilterConfig(max_corners=4))


def scene(seed: int) -> tuple[np.ndarray, np.ndarray]:
    """A red or blue square on grass beside lighter grass, and its mask."""
    rng = np.random.default_rng(seed)
    image = np.full((96, 96, 3), (60, 160, 70), np.uint8)
    image[:, 64:] = (100, 200, 110)
    mask = np.zeros((96, 96), bool)
    y, x = 8 * rng.integers(2, 6), 8 * rng.integers(1, 4)
    mask[y : y + 32, x : x + 32] = True
    image[mask] = (210, 40, 40) if seed % 2 == 0 else (40, 40, 210)
    return np.clip(image + rng.normal(0, 4, image.shape), 0, 255).astype(np.uint8), mask


def found(fate: str, image: np.ndarray) -> Instances:
    learner = LightCluster(LightClusterConfig(size=96, crf=None, dataset_clusters=4, categories=2, classes=2))
    method = WithoutScene(Hassod(CONFIG), learner, SceneConfig(fate=fate))
    features = Colours()
    state = method.fit((learner.prepare(scene(seed)[0], 8) for seed in range(8)), features)
    (partition,) = method.partition([method.prepare(image, 8)], features, state)
    return method.masks(image, partition)


def test_grass_is_dropped_and_the_square_stays_a_whole():
    image, square = scene(20)
    assert sorted(discover(image, Colours(), CONFIG).parents.tolist()) == [-1, -1, 0]  # the square as a part of grass
    (mask,) = found("drop", image).dense()
    assert (mask & square).sum() / (mask | square).sum() > 0.9


def test_grass_is_marked_and_nobodys_parent():
    image, square = scene(21)
    instances = found("mark", image)
    covers = [(mask & square).sum() / mask.sum() > 0.5 for mask in instances.dense()]
    assert instances.scene.tolist() == [not inside for inside in covers]
    assert sorted(covers) == [False, False, True]
    assert instances.parents.tolist() == [-1, -1, -1]
    assert instances.levels[covers].tolist() == [Level.WHOLE]


def test_the_mean_over_the_mask_decides_and_small_masks_are_never_scene():
    masks = np.zeros((3, 20, 20), bool)
    masks[0, :10], masks[1, 10:], masks[2, 15:17, :2] = True, True, True
    instances = Instances.from_dense(masks, image_size=(20, 20))
    foreground = np.zeros((20, 20), np.float32)
    foreground[:6] = 1  # 0.6 of the first mask
    assert scenes(instances, foreground, SceneConfig()).tolist() == [False, True, False]
    assert scenes(instances, foreground, SceneConfig(foreground=0.7)).tolist() == [True, True, False]
    assert scenes(instances, foreground, SceneConfig(area=0.0)).tolist() == [False, True, True]
    with pytest.raises(ValueError, match=r"foreground of \(4, 4\)"):
        scenes(instances, foreground[:4, :4], SceneConfig())


@pytest.mark.parametrize("options", [{"fate": "burn"}, {"foreground": 2.0}, {"area": -0.1}])
def test_wrong_settings(options):
    with pytest.raises(InputError):
        SceneConfig(**options)
