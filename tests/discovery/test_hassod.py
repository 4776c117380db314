import re
from dataclasses import replace

import numpy as np
import pytest

from hassod_ros.discovery.features import load_features
from hassod_ros.discovery.filters import FilterConfig
from hassod_ros.discovery.hassod import (
    Hassod,
    HassodConfig,
    discover,
    discover_from_features,
    working_size,
)
from hassod_ros.errors import InputError
from hassod_ros.instances import Level


@pytest.fixture(scope="module")
def astronaut() -> np.ndarray:
    return pytest.importorskip("skimage.data").astronaut()[::2, ::2].copy()


@pytest.fixture(scope="module")
def handcrafted():
    return load_features("handcrafted")


@pytest.mark.parametrize("case", [0, 1, 2])
def test_equals_reference(shared, case):
    rle = pytest.importorskip("pycocotools.mask")
    reference = np.load(shared / f"reference/discovery_case_{case}.npz")
    image = reference["image"]
    found = discover_from_features(image, reference["features"])
    assert len(found) == len(reference["levels"])
    codes = [{"size": list(image.shape[:2]), "counts": counts.encode()} for counts in reference["mask_rle"]]
    expected = rle.decode(codes).transpose(2, 0, 1).reshape(len(codes), -1).astype(np.float64)
    ours = found.dense().reshape(len(found), -1).astype(np.float64)
    common = expected @ ours.T
    iou = common / (expected.sum(1)[:, None] + ours.sum(1) - common)
    # Thresholds give near-equal masks; each reference mask must find a partner of its own, level included.
    free = np.ones(len(found), bool)
    for row, level in zip(iou, reference["levels"], strict=True):
        partner = int(np.argmax(np.where(free & (found.levels == level), row, 0)))
        assert row[partner] >= 0.99
        assert free[partner]
        free[partner] = False


def test_finds_masks_in_a_photograph(astronaut, handcrafted):
    found = discover(astronaut, handcrafted, HassodConfig(size=240))
    assert found.image_size == astronaut.shape[:2]
    assert len(found) >= 3
    assert (found.scores >= 0.5).all()
    assert (found.areas >= 100).all()
    assert set(found.levels) <= set(Level)


def test_is_deterministic(astronaut, handcrafted):
    first, second = (discover(astronaut, handcrafted, HassodConfig(size=120)) for _ in range(2))
    np.testing.assert_array_equal(first.dense(), second.dense())
    np.testing.assert_array_equal(first.scores, second.scores)


def two_halves(height: int, width: int) -> tuple[np.ndarray, np.ndarray]:
    """A picture whose left half is red and whose right half is blue, and features that say the same."""
    image = np.zeros((height, width, 3), np.uint8)
    image[:, : width // 2, 0] = image[:, width // 2 :, 2] = 200
    features = np.zeros((2, 60, 60), np.float32)
    features[0, :, :30] = features[1, :, 30:] = 1
    return image, features


def test_regions_land_on_the_image():
    image, features = two_halves(90, 120)
    found = discover_from_features(image, features, HassodConfig(size=120, thresholds=(0.4,)))
    assert found.boxes.tolist() == [[0, 0, 60, 90], [60, 0, 120, 90]]
    assert found.levels.tolist() == [0, 0]


def test_duplicates_across_thresholds_stay_by_default():
    image, features = two_halves(90, 120)
    image = np.random.default_rng(0).integers(0, 256, image.shape, np.uint8)  # in a nearly blank one each is kept once
    config = HassodConfig(size=120, crf=None)
    assert len(discover_from_features(image, features, config)) == 6
    once = discover_from_features(image, features, replace(config, filters=FilterConfig(duplicate_iou=0.9)))
    assert once.boxes.tolist() == [[0, 0, 60, 90], [60, 0, 120, 90]]


def test_without_crf(shared):
    reference = np.load(shared / "reference/discovery_case_1.npz")
    coarse = discover_from_features(reference["image"], reference["features"], HassodConfig(crf=None))
    assert len(coarse) >= 30
    assert (coarse.scores >= 0.5).all()


def test_pydensecrf_finds_the_same():
    pytest.importorskip("pydensecrf")
    image, features = two_halves(60, 60)
    config = HassodConfig(size=60, thresholds=(0.4,))
    native = discover_from_features(image, features, config)
    oracle = discover_from_features(image, features, HassodConfig(size=60, thresholds=(0.4,), crf_method="pydensecrf"))
    np.testing.assert_array_equal(native.dense(), oracle.dense())
    np.testing.assert_allclose(native.scores, oracle.scores, atol=0.01)


def test_input_keeps_the_aspect_if_asked():
    image = np.zeros((100, 225, 3), np.uint8)
    assert Hassod(HassodConfig()).prepare(image, 8).shape == (480, 480, 3)
    assert Hassod(HassodConfig()).prepare(image, 14).shape == (476, 476, 3)
    assert Hassod(HassodConfig(keep_aspect=True)).prepare(image, 8).shape == (320, 720, 3)
    assert working_size((1, 10000), HassodConfig(keep_aspect=True, size=48), 8) == (8, 4800)


def test_keep_aspect_end_to_end(astronaut, handcrafted):
    strip = astronaut[:120]
    found = discover(strip, handcrafted, HassodConfig(keep_aspect=True, size=240))
    assert found.image_size == strip.shape[:2]
    assert len(found)


@pytest.mark.parametrize("size", [(1, 1), (1, 50), (7, 3)])
def test_tiny_images_hold_nothing(size, handcrafted):
    found = discover(np.full((*size, 3), 90, np.uint8), handcrafted, HassodConfig(size=64))
    assert len(found) == 0
    assert found.image_size == size


@pytest.mark.parametrize(
    "image",
    [
        np.zeros((20, 30), np.uint8),
        np.zeros((20, 30, 1), np.uint8),
        np.zeros((20, 30, 4), np.uint8),
        np.zeros((20, 30, 3), np.float32),
        np.zeros((20, 30, 3), np.uint16),
        np.zeros((0, 30, 3), np.uint8),
    ],
)
def test_rejects_what_is_no_rgb_image(image, handcrafted):
    for call in (
        lambda: discover(image, handcrafted),
        lambda: discover_from_features(image, np.ones((2, 4, 4), np.float32)),
    ):
        with pytest.raises(InputError, match=re.escape(str(image.shape)) + ".*read_image"):
            call()


def test_rejects_features_with_nan():
    features = np.ones((2, 4, 4), np.float32)
    features[0, 1, 2] = np.nan
    with pytest.raises(InputError, match="NaN or infinity"):
        discover_from_features(np.zeros((20, 30, 3), np.uint8), features)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"size": 0}, "input size"),
        ({"thresholds": (0.1, 0.4)}, "must descend"),
        ({"thresholds": (2.0,)}, "between -1 and 1"),
        ({"thresholds": ()}, "at least one"),
        ({"centring": 1.1}, "centring must lie in"),
        ({"cover": 0.0}, "cover"),
        ({"cover": 1.5}, "cover"),
    ],
)
def test_config_rejects(wrong, message):
    with pytest.raises(InputError, match=message):
        HassodConfig(**wrong)
