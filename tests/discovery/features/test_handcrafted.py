import cv2
import numpy as np
import pytest

from hassod_ros.discovery.features import load_features
from hassod_ros.discovery.features.handcrafted import describe


def cosine(a: np.ndarray, b: np.ndarray) -> float:
    return float(a @ b / (np.linalg.norm(a) * np.linalg.norm(b)))


def block_means(features: np.ndarray, columns: slice) -> np.ndarray:
    return features[:, 2:-2, columns].sum(axis=(1, 2))


def halves(left: np.ndarray, right: np.ndarray) -> np.ndarray:
    return np.concatenate([left, right], axis=1)[None]


def flat(colour: tuple[int, int, int]) -> np.ndarray:
    return np.full((160, 80, 3), colour, np.uint8)


def stripes(axis: int) -> np.ndarray:
    wave = (np.arange(160) % 8 < 4) * 160 + 40
    picture = np.broadcast_to(wave[:, None] if axis == 0 else wave[None, :], (160, 160))
    return np.ascontiguousarray(np.repeat(picture[:, :80, None], 3, axis=2), np.uint8)


@pytest.mark.parametrize(
    "image",
    [halves(flat((200, 40, 40)), flat((40, 40, 200))), halves(stripes(0), stripes(1))],
    ids=["colour", "direction of a texture"],
)
def test_unlike_regions_fall_below_the_thresholds_and_like_ones_stay_above(image):
    features = load_features("handcrafted")(image)[0]
    left, upper, lower = (
        block_means(features, slice(0, 8)),
        features[:, 2:9, :8].sum(axis=(1, 2)),
        features[:, 10:18, :8].sum(axis=(1, 2)),
    )
    right = block_means(features, slice(12, 20))
    assert cosine(left, right) < 0.1
    assert cosine(upper, lower) > 0.4


def test_equal_images_give_equal_features_alone_and_in_a_batch():
    images = np.random.default_rng(0).integers(0, 256, (2, 64, 48, 3), dtype=np.uint8)
    features = load_features("handcrafted")
    both = features(images)
    assert both.shape == (2, features.dim, 8, 6)
    assert both.dtype == np.float32
    np.testing.assert_array_equal(both[1:], load_features("handcrafted")(images[1:]))


def test_one_colour_and_one_patch_are_finite():
    for size in (8, 64):
        assert np.isfinite(load_features("handcrafted")(np.full((1, size, size, 3), 7, np.uint8))).all()


def test_turning_the_picture_turns_the_doubled_angle():
    picture = cv2.GaussianBlur(np.random.default_rng(1).integers(0, 256, (64, 64, 3), dtype=np.uint8), (5, 5), 0)
    upright, turned = describe(picture), describe(np.ascontiguousarray(np.rot90(picture)))
    back = np.rot90(turned, -1)
    for scale in range(3):
        energy, along, across = 3 + 3 * scale, 4 + 3 * scale, 5 + 3 * scale
        np.testing.assert_allclose(back[..., energy], upright[..., energy], atol=2e-3)
        np.testing.assert_allclose(back[..., along], -upright[..., along], atol=2e-3)
        np.testing.assert_allclose(back[..., across], -upright[..., across], atol=2e-3)


def test_fingerprint_is_that_of_the_settings():
    assert load_features("handcrafted").weights_sha256 == load_features("handcrafted").weights_sha256
    assert len(load_features("handcrafted").weights_sha256) == 64
