import numpy as np
import pytest
import torch
from torchvision.ops import box_iou

from hassod_ros.errors import InputError
from hassod_ros.evaluation.corloc import box_of_map, corloc, overlaps


def test_the_box_is_that_of_the_largest_part():
    found = np.zeros((10, 20))
    found[1:3, 1:3] = 1
    found[4:9, 8:15] = 0.5
    found[0, 19] = 0.4
    assert box_of_map(found).tolist() == [8, 4, 15, 9]
    assert box_of_map(found, 0.9).tolist() == [1, 1, 3, 3]
    assert box_of_map(np.zeros((10, 20))).tolist() == [0, 0, 20, 10]


def test_overlaps_are_those_of_torchvision():
    rng = np.random.default_rng(0)
    low = rng.uniform(0, 50, (30, 2))
    boxes = np.concatenate([low, low + rng.uniform(1, 50, (30, 2))], axis=1)
    wanted = box_iou(torch.from_numpy(boxes[:1]), torch.from_numpy(boxes[1:]))[0].numpy()
    np.testing.assert_allclose(overlaps(boxes[0], boxes[1:]), wanted)


def test_a_hit_is_half_of_any_box_and_images_without_boxes_do_not_count():
    box = np.array([0.0, 0, 10, 10])
    truth = [
        np.array([[50.0, 50, 60, 60], [0, 0, 10, 20]]),  # the second by exactly 0.5
        np.array([[0.0, 0, 10, 21]]),  # a little less
        np.zeros((0, 4)),
    ]
    scores = corloc([box] * 3, truth)
    assert (scores["CorLoc"], scores["images"]) == (0.5, 2)
    assert scores["mean IoU"] == pytest.approx((0.5 + 10 / 21) / 2)
    assert scores["standard error"] == pytest.approx((0.25 / 2) ** 0.5)
    with pytest.raises(InputError, match="not one image"):
        corloc([box], [np.zeros((0, 4))])
