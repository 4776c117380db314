import itertools

import numpy as np
import pytest
import torch
from torchmetrics.classification import MulticlassJaccardIndex

from hassod_ros.errors import InputError
from hassod_ros.evaluation.retrieval import Described, class_of_regions, retrieve
from hassod_ros.evaluation.segmentation import (
    VOID,
    confusion,
    majority,
    matched,
    mean_iou,
    score_classes,
    score_clusters,
)


def test_a_case_by_hand():
    truth = np.array([[0, 0, 1, 1], [0, 0, 1, VOID]])
    found = np.array([[2, 2, 0, 0], [2, 0, 0, 1]])  # cluster 2 is class 0, cluster 0 is class 1, with one pixel wrong
    table = confusion(found, truth, 3, 2)
    assert table.tolist() == [[1, 3], [0, 0], [3, 0]]
    assert matched(table).tolist() == [1, -1, 0]
    assert majority(table).tolist() == [1, -1, 0]
    scores = mean_iou(table, matched(table))
    assert scores == {"mIoU": pytest.approx((3 / 4 + 3 / 4) / 2), "accuracy": pytest.approx(6 / 7)}


def test_one_to_one_is_the_best_of_all_assignments_and_majority_may_repeat_a_class():
    rng = np.random.default_rng(3)
    table = rng.integers(0, 100, (4, 4))
    best = max(sum(table[i, p[i]] for i in range(4)) for p in itertools.permutations(range(4)))
    assert table[np.arange(4), matched(table)].sum() == best
    table = np.array([[9, 1], [8, 2]])
    assert majority(table).tolist() == [0, 0]
    assert sorted(matched(table).tolist()) == [0, 1]


def test_mean_iou_is_that_of_torchmetrics():
    rng = np.random.default_rng(1)
    truth = rng.integers(0, 5, (60, 80))
    found = np.where(rng.random(truth.shape) < 0.6, truth, rng.integers(0, 5, truth.shape))
    truth[rng.random(truth.shape) < 0.1] = VOID
    ours = mean_iou(confusion(found, truth, 5, 5), np.arange(5))["mIoU"]
    theirs = MulticlassJaccardIndex(5, ignore_index=VOID)(torch.from_numpy(found), torch.from_numpy(truth))
    assert ours == pytest.approx(float(theirs), abs=1e-6)


def test_clusters_left_over_are_wrong_and_absent_classes_do_not_count():
    table = np.array([[5, 0, 0], [0, 4, 0], [3, 0, 0]])  # class 2 does not occur
    assert mean_iou(table, matched(table))["accuracy"] == pytest.approx(9 / 12)
    assert mean_iou(table, np.array([0, 1, -1]))["mIoU"] == pytest.approx((5 / 8 + 1) / 2)


def test_both_columns_and_their_spread():
    tables = [np.array([[8, 2], [1, 9]]), np.array([[3, 7], [6, 4]])]
    scores = score_clusters(tables)
    assert scores["mIoU"] == mean_iou(sum(tables), matched(sum(tables)))["mIoU"]
    assert scores["mIoU std"] > 0.02  # one image speaks for it, one against
    same = [np.array([[8, 2], [1, 9]])] * 3
    assert score_clusters(same)["mIoU std"] == pytest.approx(0, abs=1e-12)
    assert score_classes(same)["mIoU"] == pytest.approx(mean_iou(same[0], np.arange(2))["mIoU"])


def test_wrong_maps_are_named():
    with pytest.raises(InputError, match="does not fit a label map"):
        confusion(np.zeros((2, 2), int), np.zeros((2, 3), int), 1, 1)
    with pytest.raises(InputError, match="class 7 is beyond the 3"):
        confusion(np.zeros((1, 1), int), np.full((1, 1), 7), 1, 3)
    with pytest.raises(InputError, match="not one pixel has a class"):
        mean_iou(np.zeros((2, 2), int), np.array([0, 1]))
    with pytest.raises(InputError, match="no image to score"):
        score_clusters([])


def described(*embeddings: tuple[float, float]) -> Described:
    """Regions side by side, two pixels each, and two pixels of nothing."""
    row = np.repeat(np.array([*range(len(embeddings)), -1], np.int32), 2)
    return Described(row[None], np.array(embeddings, np.float32).reshape(-1, 2))


def test_regions_take_the_class_of_their_neighbour_in_the_bank():
    bank, truth = described((1, 0), (0, 1)), np.array([[3, 3, 5, VOID, 0, 0]])
    assert class_of_regions(bank, truth, 6).tolist() == [3, 5]
    query = described((0.1, 0.9), (2, 0.1), (0, 0.5))
    wanted = np.array([[5, 5, 3, 3, 5, 5, 0, 0]])
    (table,) = retrieve([query], [wanted], 6, [bank], [truth])
    assert mean_iou(table, np.arange(6)) == {"mIoU": 1.0, "accuracy": 1.0}


def test_an_image_does_not_retrieve_itself():
    first, second = described((1, 0)), described((0.9, 0.1))
    truths = [np.array([[1, 1, 0, 0]]), np.array([[2, 2, 0, 0]])]
    tables = retrieve([first, second], truths, 3)
    assert [table[1:, 1:].tolist() for table in tables] == [[[0, 0], [2, 0]], [[0, 2], [0, 0]]]
    assert retrieve([first, described()], [*truths[:1], np.array([[0, 0]])], 3)[1][0, 0] == 2  # nothing found
    with pytest.raises(InputError, match="no region of a known class"):
        retrieve([first], [np.full((1, 4), VOID)], 3)
