import numpy as np
import pytest

from hassod_ros.evaluation.baselines import felzenszwalb_merging, felzenszwalb_proposals, slic_merging, whole_image
from hassod_ros.hierarchy import coverage_forest


@pytest.fixture
def picture():
    """A red square with a yellow corner on blue, slightly noisy."""
    image = np.zeros((96, 128, 3), np.uint8)
    image[:] = (40, 60, 160)
    image[20:70, 30:90] = (200, 40, 40)
    image[20:45, 30:60] = (220, 200, 40)
    noise = np.random.default_rng(0).integers(0, 10, image.shape)
    return (image + noise).astype(np.uint8)


def best_iou(instances, target):
    masks = instances.dense()
    return ((masks & target).sum((1, 2)) / (masks | target).sum((1, 2))).max()


def test_whole_image():
    found = whole_image(np.zeros((5, 7, 3), np.uint8))
    assert found.boxes.tolist() == [[0, 0, 7, 5]]
    assert found.areas.tolist() == [35]


@pytest.mark.parametrize("method", [felzenszwalb_proposals, felzenszwalb_merging, slic_merging])
def test_objects_are_found_and_ranked(picture, method):
    found = method(picture)
    corner = np.zeros((96, 128), bool)
    corner[20:45, 30:60] = True
    assert best_iou(found, corner) > 0.85
    assert (np.diff(found.scores) < 0).all()
    masks = found.dense().reshape(len(found), -1).astype(np.float64)
    common = masks @ masks.T
    ious = common / (masks.sum(1)[:, None] + masks.sum(1)[None] - common)
    assert (ious[np.triu_indices(len(found), 1)] <= 0.9).all()
    assert np.array_equal(coverage_forest(found.regions, found.masks)[0], found.parents)
    assert len(method(picture, limit=3)) == 3


def test_the_merge_tree_holds_wholes_made_of_parts(picture):
    found = slic_merging(picture)
    square = np.zeros((96, 128), bool)
    square[20:70, 30:90] = True
    assert best_iou(found, square) > 0.85
    assert best_iou(found, np.ones((96, 128), bool)) == 1.0
