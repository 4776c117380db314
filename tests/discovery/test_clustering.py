import re
from itertools import pairwise

import numpy as np
import pytest

from hassod_ros.discovery.clustering import centred, merge_regions
from hassod_ros.errors import InputError


def plain_merge(features: np.ndarray, thresholds: list[float]) -> np.ndarray:
    """The published algorithm word for word: a dict of pairs, scanned for each merge; O(n^2)."""
    channels, h, w = features.shape
    sums = list(features.reshape(channels, -1).T.astype(np.float64))
    pixels = [[i] for i in range(h * w)]

    def similarity(i: int, j: int) -> float:
        product = (sums[i] @ sums[i]) * (sums[j] @ sums[j])
        return float(sums[i] @ sums[j] / np.sqrt(product)) if product > 0 else 0.0

    pairs = {}
    for i in range(h * w):
        if (i + 1) % w:
            pairs[i, i + 1] = similarity(i, i + 1)
        if i + w < h * w:
            pairs[i, i + w] = similarity(i, i + w)
    maps = []
    alive = set(range(h * w))
    for threshold in thresholds:
        while pairs:
            best = max(pairs, key=pairs.__getitem__)
            if pairs[best] < threshold:
                break
            new = len(sums)
            sums.append(sums[best[0]] + sums[best[1]])
            pixels.append(pixels[best[0]] + pixels[best[1]])
            alive = alive - set(best) | {new}
            touched = [pair for pair in pairs if set(pair) & set(best)]
            for pair in touched:
                del pairs[pair]
            for pair in touched:
                for k in set(pair) - set(best):
                    pairs[k, new] = similarity(k, new)
        labels = np.empty(h * w, np.int32)
        for number, region in enumerate(sorted(alive, key=lambda region: min(pixels[region]))):
            labels[pixels[region]] = number
        maps.append(labels.reshape(h, w))
    return np.stack(maps)


@pytest.mark.parametrize("case", [0, 1, 2])
def test_equals_reference(shared, case):
    reference = np.load(shared / f"reference/discovery_case_{case}.npz")
    labels = merge_regions(reference["features"], [0.4, 0.2, 0.1])
    np.testing.assert_array_equal(labels, reference["label_maps"])


@pytest.mark.parametrize("seed", range(12))
def test_equals_plain_version_on_random_maps(seed):
    rng = np.random.default_rng(seed)
    shape = (int(rng.integers(2, 9)), int(rng.integers(1, 16)), int(rng.integers(1, 16)))
    features = rng.normal(rng.uniform(0, 1), 1, shape).astype(np.float32)
    thresholds = [0.9, 0.5, 0.1, -0.3, -0.8, -1.0]
    np.testing.assert_array_equal(merge_regions(features, thresholds), plain_merge(features, thresholds))


@pytest.mark.parametrize("seed", range(12))
def test_equals_plain_version_on_ties(seed):
    # Small whole numbers: sums and products are exact and most similarities occur many times. Zero vectors too.
    rng = np.random.default_rng(100 + seed)
    shape = (int(rng.integers(1, 4)), int(rng.integers(2, 14)), int(rng.integers(2, 14)))
    features = rng.integers(0 if seed % 2 else -1, 2, shape).astype(np.float32)
    thresholds = [1.0, 0.7, 0.3, 0.0, -0.5]
    np.testing.assert_array_equal(merge_regions(features, thresholds), plain_merge(features, thresholds))


def test_first_inserted_pair_wins_a_tie():
    # Both neighbours of the middle are equally similar to it; the left pair was inserted first.
    row = np.array([[1, 1, 0], [0, 1, 1]], np.float32)[:, None]
    assert merge_regions(row, [0.7]).tolist() == [[[0, 0, 1]]]


def test_partitions_are_nested_connected_and_numbered_in_raster_order():
    features = np.random.default_rng(0).normal(0.5, 1, (8, 24, 20)).astype(np.float32)
    maps = merge_regions(features, [0.6, 0.3, 0.1])
    assert maps.dtype == np.int32
    assert [labels.max() for labels in maps] == sorted((labels.max() for labels in maps), reverse=True)
    for finer, coarser in pairwise(maps):
        assert all(len(np.unique(coarser[finer == region])) == 1 for region in range(finer.max() + 1))
    for labels in maps:
        regions, first = np.unique(labels, return_index=True)
        assert regions.tolist() == list(range(len(regions)))
        assert (np.diff(first) > 0).all()


def test_merges_at_exactly_the_threshold():
    pair = np.array([[[3, 4]], [[4, 3]]], np.float32)  # cosine 24 / 25
    assert merge_regions(pair, [24 / 25]).tolist() == [[[0, 0]]]
    assert merge_regions(pair, [np.nextafter(24 / 25, 1)]).tolist() == [[[0, 1]]]


@pytest.mark.parametrize("shape", [(3, 1, 1), (3, 1, 7), (3, 7, 1), (3, 5, 6)])
def test_alike_patches_become_one_region(shape):
    assert not merge_regions(np.full(shape, 0.1, np.float32), [0.4, 0.2]).any()


def test_features_stay_as_they_were():
    features = np.random.default_rng(1).normal(size=(4, 6, 6)).astype(np.float32)
    before = features.copy()
    merge_regions(features, [0.1])
    np.testing.assert_array_equal(features, before)


def test_any_memory_layout():
    features = np.random.default_rng(2).normal(size=(6, 7, 4)).astype(np.float64)
    expected = merge_regions(features.transpose(2, 0, 1).astype(np.float32).copy(), [0.3])
    np.testing.assert_array_equal(merge_regions(features.transpose(2, 0, 1), [0.3]), expected)


@pytest.mark.parametrize(
    ("thresholds", "message"),
    [
        ([], "at least one"),
        ([0.1, 0.2], "must descend"),
        ([0.2, 0.2], "must descend"),
        ([1.2, 0.2], "between -1 and 1"),
        ([0.2, -1.1], "between -1 and 1"),
        ([0.4, float("nan")], "between -1 and 1"),
    ],
)
def test_rejects_thresholds(thresholds, message):
    with pytest.raises(InputError, match=message):
        merge_regions(np.ones((2, 3, 3), np.float32), thresholds)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_rejects_features_that_are_not_finite(bad):
    features = np.ones((2, 3, 3), np.float32)
    features[1, 2, 0] = bad
    with pytest.raises(InputError, match="NaN or infinity"):
        merge_regions(features, [0.4])


@pytest.mark.parametrize("shape", [(3, 3), (0, 3, 3), (2, 0, 3), (1, 2, 3, 3)])
def test_rejects_shapes(shape):
    with pytest.raises(InputError, match=re.escape(str(shape))):
        merge_regions(np.ones(shape, np.float32), [0.4])


def test_what_all_patches_share_is_taken_out():
    random = np.random.default_rng(0)
    features = random.normal(scale=0.1, size=(4, 6, 8)).astype(np.float32)
    features[0, :, :4] += 1
    features[1, :, 4:] += 1
    halves = merge_regions(features, [0.3])[0]
    shared = features + 5
    assert merge_regions(shared, [0.3]).max() == 0  # all are alike
    np.testing.assert_array_equal(merge_regions(centred(shared, 0.98), [0.3])[0], halves)
    np.testing.assert_allclose(centred(shared, 0.9), shared - 0.9 * shared.mean((1, 2))[:, None, None], rtol=1e-5)
    assert centred(shared, 0.0) is shared
