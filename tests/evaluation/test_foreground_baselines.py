import numpy as np
import pytest
from scipy.linalg import eigh

from hassod_ros.evaluation.foreground_baselines import BASELINES, plain_kmeans, tokencut


def features(seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """(8, 12, 14) features of a background and of an object inside it, and the object's mask."""
    rng = np.random.default_rng(seed)
    mask = np.zeros((12, 14), bool)
    mask[4:8, 5:10] = True
    values = np.where(mask, np.eye(8)[1][:, None, None], np.eye(8)[0][:, None, None])
    return (values + rng.normal(0, 0.08, values.shape)).astype(np.float32), mask


@pytest.mark.parametrize("name", ["border", "border_shared", "otsu", "tokencut"])
def test_an_object_inside_is_found(name):
    values, mask = features()
    np.testing.assert_array_equal(BASELINES[name](values) > 0, mask)
    assert BASELINES["whole"](values).min() == 1


def test_tokencut_is_the_cut_of_a_dense_solver():
    """Against SciPy's generalised eigenproblem (D - W) x = l D x on noise, where nothing is clear."""
    values = np.random.default_rng(3).normal(size=(6, 9, 7)).astype(np.float32)
    vectors = values.reshape(6, -1).T
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    weights = np.where(vectors @ vectors.T > 0.2, 1.0, 1e-5)
    degree = np.diag(weights.sum(1))
    _, solutions = eigh(degree - weights, degree, subset_by_index=[1, 1])
    second = solutions[:, 0]
    side = second > second.mean()
    seed = np.abs(second).argmax()
    if not side[seed]:
        side = ~side
    found = tokencut(values).ravel() > 0
    assert found[seed]
    assert side[found].all()  # a connected part of that side


def test_plain_kmeans_parts_what_differs():
    centres = plain_kmeans((features(seed)[0] for seed in range(4)), 2)
    assert centres.shape == (2, 8)
    assert sorted(centres[:, :2].argmax(axis=1).tolist()) == [0, 1]
