import json
from dataclasses import replace

import cv2
import numpy as np
import pytest

from hassod_ros.discovery import lightcluster
from hassod_ros.discovery.features import load_features
from hassod_ros.discovery.lightcluster import (
    Codebooks,
    LightCluster,
    LightClusterConfig,
    cluster,
    cluster_scores,
)
from hassod_ros.discovery.method import change, make_method, open_learner
from hassod_ros.discovery.patch_learner import pooled
from hassod_ros.discovery.regions import above_otsu, unlike_border, vectors_of, without_bridges
from hassod_ros.discovery.states import State, describe, load_state, save_state
from hassod_ros.errors import InputError
from hassod_ros.evaluation.foreground_baselines import shared_border_prior
from tests.discovery.toy_squares import Colours, scene

SMALL = {
    "size": 96,
    "crf": None,
    "dataset_clusters": 8,
    "categories": 2,
    "category_clusters": 6,
    "image_clusters": 3,
    "classes": 2,
    "filters.min_area": 20,
}


def method(**options) -> LightCluster:
    made = make_method("lightcluster", SMALL | options)
    assert isinstance(made, LightCluster)
    return made


@pytest.fixture(scope="module")
def learned() -> State:
    made = method()
    return made.fit((made.prepare(scene(seed)[0], 8) for seed in range(24)), Colours())


def iou(found: np.ndarray, truth: np.ndarray) -> float:
    return float((found & truth).sum() / (found | truth).sum())


@pytest.mark.parametrize("levels", [["image"], ["category"], ["dataset"], ["image", "category", "dataset"]])
def test_every_level_finds_objects_of_new_images_and_their_classes(learned, levels):
    made = method(levels=levels)
    classes = {}
    for seed in range(100, 106):
        image, mask = scene(seed)
        (found,) = made.partition([made.prepare(image, 8)], Colours(), learned)
        assert iou(made.foreground(image, found) >= 0.5, mask) > 0.85
        instances = made.masks(image, found)
        assert iou(instances.dense()[0], mask) > 0.85
        assert instances.levels.tolist() == [0]
        classes.setdefault(seed % 2, set()).add(int(found.clusters[0]))
    assert all(len(each) == 1 for each in classes.values())
    assert classes[0] != classes[1]  # the same number for the same kind of thing


def test_patches_unlike_the_border_are_found_where_clusters_mix_them_with_the_scene(learned):
    arrays = {**learned.arrays, "dataset_centres": np.ones((1, 4), np.float32) / 2, "dataset_scores": np.zeros(1)}
    image, mask = scene(100)
    made = method(levels=["dataset"])
    prepared = made.prepare(image, 8)
    (found,) = made.partition([prepared], Colours(), replace(learned, arrays=arrays))
    assert iou(made.foreground(image, found) >= 0.5, mask) > 0.85
    np.testing.assert_array_equal(found.foreground, shared_border_prior(Colours()(prepared[None])[0]))


def test_a_whole_of_two_colours_has_parts():
    pictures = []
    for seed in range(16):
        image, mask = scene(seed)
        y, x = np.argwhere(mask)[0]
        image[y : y + 16, x : x + 32] = (220, 220, 60)
        pictures.append(image)
    made = method(image_clusters=4)
    state = made.fit((made.prepare(image, 8) for image in pictures), Colours())
    (found,) = made.partition([made.prepare(pictures[0], 8)], Colours(), state)
    instances = made.masks(pictures[0], found)
    assert sorted(instances.levels.tolist()) == [0, 1, 1]
    assert instances.parents.tolist().count(0) == 2


def test_a_state_survives_its_file_and_belongs_to_its_features(learned, tmp_path):
    save_state(tmp_path / "state.npz", learned)
    made, state = open_learner("lightcluster", tmp_path / "state.npz", {"levels": ["image"]})
    assert made.config == change(method().config, {"levels": ["image"]})
    for name, values in learned.arrays.items():
        np.testing.assert_array_equal(state.arrays[name], values)
    with pytest.raises(
        InputError, match=r"made with colours \(4 channels, weights c\), these features are handcrafted"
    ):
        made.partition([made.prepare(scene(0)[0], 8)], load_features("handcrafted"), state)
    with pytest.raises(InputError, match="made with categories 2"):
        open_learner("lightcluster", tmp_path / "state.npz", {"categories": 3})
    with pytest.raises(InputError, match="hassod has no state"):
        open_learner("hassod", tmp_path / "state.npz")
    with pytest.raises(InputError, match="needs a state"):
        made.partition([made.prepare(scene(0)[0], 8)], Colours(), None)


def test_damaged_and_foreign_states(learned, tmp_path):
    path = tmp_path / "state.npz"
    with pytest.raises(InputError, match="does not exist"):
        load_state(path, "lightcluster")
    path.write_bytes(b"no state")
    with pytest.raises(InputError, match="damaged or no state"):
        load_state(path, "lightcluster")
    np.savez(path, evil=np.array([object()], object))  # would be unpickled
    with pytest.raises(InputError, match="damaged or no state"):
        load_state(path, "lightcluster")
    save_state(path, State("heap", {}, {}, {}))
    with pytest.raises(InputError, match="a state of heap, not of lightcluster"):
        load_state(path, "lightcluster")
    save_state(path, State("lightcluster", {"colour": 1}, {}, {}))
    with pytest.raises(InputError, match="settings of another version"):
        open_learner("lightcluster", path)
    save_state(path, State("lightcluster", {}, {}, {"dataset_centres": np.array([np.nan])}))
    with pytest.raises(InputError, match="NaN or infinity in dataset_centres"):
        load_state(path, "lightcluster")
    with pytest.raises(InputError, match=r"ending \.npz"):
        save_state(tmp_path / "state.pkl", learned)


def test_memory_does_not_grow_with_the_images_and_the_draw_is_even():
    """Samples pass by: no more than `most_images` of them are held, and late ones stay as often as early ones."""
    made = LightCluster(change(LightClusterConfig(), SMALL | {"most_images": 16}))
    alive: set[int] = set()

    class Sample(np.ndarray):
        def __del__(self) -> None:
            alive.discard(id(self))

    rng = np.random.default_rng(0)
    most = 0

    def samples():
        nonlocal most
        for _ in range(200):
            sample = rng.normal(size=(4, 6, 6)).astype(np.float16).view(Sample)
            alive.add(id(sample))
            yield sample
            most = max(most, len(alive))

    state = made.learn(samples(), describe(Colours()))
    assert most <= 16 + 3
    assert state.arrays["dataset_centres"].shape == (8, 4)


def test_the_same_images_give_the_same_state(learned):
    made = method()
    again = made.fit((made.prepare(scene(seed)[0], 8) for seed in range(24)), Colours())
    for name, values in learned.arrays.items():
        np.testing.assert_array_equal(again.arrays[name], values)
    assert json.dumps(again.config) == json.dumps(learned.config)


def test_one_image_and_fewer_images_than_clusters():
    for count in (1, 3):
        made = method(categories=8, classes=16, dataset_clusters=300, category_clusters=200)
        state = made.fit((made.prepare(scene(seed)[0], 8) for seed in range(count)), Colours())
        image, mask = scene(0)
        (found,) = made.partition([made.prepare(image, 8)], Colours(), state)
        assert iou(made.foreground(image, found) >= 0.5, mask) > 0.5


def test_equal_and_empty_images_have_no_foreground():
    made = method()
    grey = np.full((96, 96, 3), 128, np.uint8)
    state = made.fit((made.prepare(grey, 8) for _ in range(5)), Colours())
    (found,) = made.partition([made.prepare(grey, 8)], Colours(), state)
    assert found.foreground.max() == 0
    assert len(made.masks(grey, found)) == 0
    with pytest.raises(InputError, match="no image to fit"):
        made.fit([], Colours())


def test_nan_features_are_named():
    class Broken(Colours):
        def __call__(self, images: np.ndarray) -> np.ndarray:
            return super().__call__(images) * np.nan

    made = method()
    with pytest.raises(InputError, match="hold NaN or infinity"):
        made.fit([made.prepare(scene(0)[0], 8)], Broken())
    with pytest.raises(InputError, match="hold NaN or infinity"):
        made.learn([np.full((4, 6, 6), np.nan, np.float16)], describe(Colours()))


def test_pooling_is_that_of_opencv():
    """Which pools at most four channels at once."""
    values = np.random.default_rng(0).normal(size=(4, 60, 23)).astype(np.float32)
    wanted = cv2.resize(np.ascontiguousarray(values.transpose(1, 2, 0)), (16, 16), interpolation=cv2.INTER_AREA)
    np.testing.assert_allclose(pooled(values), wanted.transpose(2, 0, 1), atol=2e-3)
    assert pooled(np.ones((300, 40, 12), np.float32)).shape == (300, 16, 12)


def test_scores_by_hand():
    labels = np.array([0, 0, 1, 1, 1])
    assert cluster_scores(labels, np.array([1.0, 0, -1, -2, 0]), 3).tolist() == [0.5, -1, 0]
    vectors = np.array([[1, 0], [1, 0], [0, 1], [0.6, 0.8]], np.float32)
    border = np.array([True, True, False, False])
    cosines = np.array([1, 1, 0, 0.6])
    wanted = (cosines.mean() - cosines) / cosines.std()
    np.testing.assert_allclose(unlike_border(vectors, border), wanted, rtol=1e-5)
    assert not unlike_border(np.ones((4, 2), np.float32), border).any()


def test_a_level_that_explains_nothing_has_no_say(learned):
    image, category, dataset = learned.arrays["level_weights"]
    assert min(image, category, dataset) > 0.8  # grass and square are told at every level
    # Where each image has its own colours, clusters of the set say nothing about a patch's place.
    rng = np.random.default_rng(0)
    made = method(categories=1, dataset_clusters=2, category_clusters=2)
    state = made.learn((_alone(rng) for _ in range(40)), describe(Colours()))
    image, category, dataset = state.arrays["level_weights"]
    assert image > 0.8
    assert max(category, dataset) < 0.4


def test_levels_that_agree_count_once(learned, monkeypatch):
    made, image = method(), scene(100)[0]
    codebooks = Codebooks.of(learned)
    features = Colours()(made.prepare(image, 8)[None])[0]
    vectors, grid = vectors_of(features), features.shape[1:]
    (one,) = lightcluster._clusterings(
        vectors, np.linspace(-1, 1, len(vectors)), codebooks, replace(made.config, levels=("image",))
    ).values()

    def scores(*levels: str) -> np.ndarray:
        monkeypatch.setattr(lightcluster, "_clusterings", lambda *_: dict.fromkeys(levels, one))
        return lightcluster._foreground(vectors, grid, agreeing, made.config)[0]

    agreeing = replace(codebooks, level_weights=np.zeros(3, np.float32))  # no level has a patch of its own to add
    np.testing.assert_allclose(scores("image", "category", "dataset"), scores("image"), rtol=1e-5)
    assert np.ptp(scores("image")) > 0


def _alone(rng: np.random.Generator) -> np.ndarray:
    """(4, 12, 12) float16 of a square in the direction opposite to its background's, which is any."""
    direction = rng.normal(size=4)
    sample = np.tile(direction[:, None, None], (1, 12, 12))
    sample[:, 4:9, 4:9] *= -1
    return (sample + rng.normal(0, 0.05, sample.shape)).astype(np.float16)


def test_otsu_and_clusters_of_few_vectors():
    assert above_otsu(np.array([0.1, 0.1, 0.2, 0.9, 0.8])).tolist() == [False, False, False, True, True]
    assert not above_otsu(np.full(4, 0.3)).any()
    assert len(cluster(np.ones((50, 3), np.float32), 4, 0)) == 1


def test_thin_bridges_are_cut_and_thin_things_stay():
    drawn = [
        "####.....",
        "####..##.",
        "########.",
        "####..##.",
        "......##.",
        ".........",
        "#........",
        "##.......",
    ]
    given = np.array([[each == "#" for each in row] for row in drawn])
    wanted = given.copy()
    wanted[:5, 4:] = False  # the arm is two patches wide: it belongs to a piece that is thicker elsewhere
    assert (without_bridges(given) == wanted).all()
    two = np.zeros((9, 12), bool)
    two[1:8, :4] = two[1:8, 8:] = two[4] = True
    apart = two.copy()
    apart[:, 4:8] = False
    apart[4, :4] = apart[4, 8:] = True
    assert (without_bridges(two) == apart).all()
    assert not without_bridges(np.zeros((4, 4), bool)).any()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"levels": ["image", "planet"]}, "levels are some of image, category, dataset"),
        ({"levels": []}, "got none"),
        ({"image_clusters": 1}, "image_clusters must be at least 2"),
        ({"classes": 0}, "classes must be at least 1"),
        ({"min_region": 1.0}, "min_region is a share"),
        ({"size": 0}, "at least 1 pixel"),
    ],
)
def test_wrong_settings(options, message):
    with pytest.raises(InputError, match=message):
        make_method("lightcluster", options)
