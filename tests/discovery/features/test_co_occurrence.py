import numpy as np
import scipy.linalg
from scipy.ndimage import gaussian_filter1d

from hassod_ros.discovery.features.co_occurrence import RADIUS, RIDGE, co_occurrence


def cosine(a: np.ndarray, b: np.ndarray) -> float:
    return float(a @ b / (np.linalg.norm(a) * np.linalg.norm(b)))


def test_equals_a_solver_of_generalised_eigenproblems():
    features = np.random.default_rng(0).standard_normal((14, 11, 6)).astype(np.float32)
    features[:7, :, :2] += 2
    centred = features.astype(np.float64) - features.mean(axis=(0, 1))
    around = centred
    for axis in (0, 1):  # OpenCV's window for floats ends four standard deviations out
        around = gaussian_filter1d(around, RADIUS, axis, mode="nearest", truncate=4)
    patches, around = centred.reshape(-1, 6), around.reshape(-1, 6)
    within, between = patches.T @ patches / 154, patches.T @ around / 154
    ridge = RIDGE * np.trace(within) / 6
    agreement, directions = scipy.linalg.eigh((between + between.T) / 2, within + ridge * np.eye(6))
    expected = patches @ (directions * np.maximum(agreement, 0))[:, -3:]
    found = co_occurrence(features, 3).reshape(-1, 3)
    np.testing.assert_allclose(found @ found.T, expected @ expected.T, atol=1e-3)  # whatever the signs


def test_unlike_materials_that_keep_meeting_belong_together():
    # Left: fine stripes of materials 0 and 1. Right: of 2 and 3. By likeness all four are equally unlike.
    height, width = 24, 32
    stripes = np.add.outer(np.arange(height), np.arange(width)) // 2 % 2
    material = stripes + 2 * (np.arange(width) >= width // 2)
    one_hot = np.eye(4, dtype=np.float32)[material]
    together = co_occurrence(one_hot, 3)

    def of(kind: int) -> np.ndarray:
        return together[material == kind].mean(0)

    assert cosine(of(0), of(1)) > 0.5
    assert cosine(of(2), of(3)) > 0.5
    assert cosine(of(0), of(2)) < -0.5
    assert cosine(of(1), of(3)) < -0.5


def test_equal_patches_give_zeros():
    assert not co_occurrence(np.full((5, 7, 8), 3, np.float32), 4).any()
    assert not co_occurrence(np.full((1, 1, 8), 3, np.float32), 4).any()
