import numpy as np
import pytest

from hassod_ros.discovery.random_walk import walked
from hassod_ros.discovery.regions import foreground_of, vectors_of


@pytest.mark.parametrize("grid", [(5, 7), (1, 6), (2, 1), (1, 1)])
def test_scores_are_those_of_a_walk_on_the_whole_matrix(grid):
    rng = np.random.default_rng(0)
    features = rng.normal(1, 1, (6, *grid)).astype(np.float32)
    scores = rng.normal(size=grid[0] * grid[1]).astype(np.float32)
    places = np.argwhere(np.ones(grid, bool))
    vectors = vectors_of(features)
    near = np.abs(places[:, None] - places).max(axis=2) <= 2
    likeness = np.where(near, np.exp((vectors @ vectors.T - 1) / 0.1), 0)
    chance = likeness / likeness.sum(axis=1, keepdims=True)
    wanted = scores.astype(np.float64)
    for _ in range(30):
        wanted = 0.05 * scores + 0.95 * chance @ wanted
    np.testing.assert_allclose(walked(scores, vectors, grid), wanted, atol=1e-5)


def test_noise_of_single_patches_goes_and_edges_between_unlike_ones_stay():
    rng = np.random.default_rng(1)
    mask = np.zeros((12, 12), bool)
    mask[3:9, 4:10] = True
    features = np.where(mask, np.eye(4)[1][:, None, None], np.eye(4)[0][:, None, None])
    features += rng.normal(0, 0.1, features.shape)
    given = mask + rng.normal(0, 0.6, mask.shape)
    vectors = vectors_of(features)
    found = walked(given.ravel(), vectors, mask.shape).reshape(mask.shape)
    assert found[mask].min() > found[~mask].max()
    assert given[mask].min() < given[~mask].max()
    np.testing.assert_array_equal(foreground_of(given.ravel(), vectors, mask.shape), mask)


def test_equal_scores_stay_and_features_of_length_0_are_no_fault():
    features = np.zeros((3, 4, 5), np.float32)
    features[:, 2:] = 1
    np.testing.assert_allclose(walked(np.full(20, 0.7), vectors_of(features), (4, 5)), 0.7, rtol=0, atol=1e-7)
