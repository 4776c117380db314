"""Merging across contours beside a slow reference that is written from the description."""

from __future__ import annotations

import numpy as np
import pytest

from hassod_ros.discovery.contours import merge_order, whole_partition


def reference_order(labels: np.ndarray, strength: np.ndarray) -> list[list[int]]:
    """All contours are measured again after each merge."""
    labels, merges = labels.copy(), []
    while len(np.unique(labels)) > 1:
        steps: dict[tuple[int, int], list[float]] = {}
        for a, b, s, t in (
            (labels[:, :-1], labels[:, 1:], strength[:, :-1], strength[:, 1:]),
            (labels[:-1], labels[1:], strength[:-1], strength[1:]),
        ):
            for i, j, step in zip(a.ravel(), b.ravel(), np.maximum(s, t).ravel(), strict=True):
                if i != j:
                    steps.setdefault((min(i, j), max(i, j)), []).append(step)
        area = np.bincount(labels.ravel())
        weight = {(i, j): np.mean(s) * min(area[i], area[j]) ** 0.25 for (i, j), s in steps.items()}
        i, j = min(weight, key=weight.__getitem__)
        labels[labels == j] = i
        merges.append([int(i), int(j)])
    return merges


@pytest.mark.parametrize("seed", range(5))
def test_the_weakest_contour_goes_first(seed):
    random = np.random.default_rng(seed)
    coarse = random.integers(0, 9, (6, 7))
    labels = whole_partition(1 + np.kron(coarse, np.ones((3, 2), int)).astype(np.int32))
    strength = random.uniform(1, 50, labels.shape).astype(np.float32)
    assert merge_order(labels, strength).tolist() == reference_order(labels, strength)


def test_a_striped_thing_comes_together_before_its_ground():
    labels = np.zeros((20, 30), np.int32)
    strength = np.full(labels.shape, 1, np.float32)
    labels[5:15, 5:25] = 1 + np.arange(20) // 5  # four stripes
    strength[4:16, 4:26] = 60
    strength[6:14, 6:24] = 20
    joined = merge_order(labels, strength)[:3]
    assert set(joined.ravel().tolist()) == {1, 2, 3, 4}


def test_one_region_has_nothing_to_merge_with():
    assert merge_order(np.zeros((3, 4), np.int32), np.ones((3, 4), np.float32)).shape == (0, 2)


def test_each_piece_of_the_rest_becomes_a_region():
    labels = np.array([[0, 2, 0], [0, 2, 2], [3, 3, 0]], np.int32)
    assert whole_partition(labels).tolist() == [[2, 0, 3], [2, 0, 0], [1, 1, 4]]
    assert whole_partition(1 + labels).tolist() == [[0, 1, 0], [0, 1, 1], [2, 2, 0]]
