import math

import pytest
import torch
from torchvision.ops import box_iou

from hassod_ros.detection.boxes import (
    box_limits,
    clip_boxes,
    decode_boxes,
    encode_boxes,
    has_area,
    pairwise_iou,
    to_rois,
)


def random_boxes(count: int) -> torch.Tensor:
    corner = torch.rand(count, 2) * 100
    return torch.cat([corner, corner + 1 + torch.rand(count, 2) * 100], dim=1)


def test_encode_by_hand():
    box, target = torch.tensor([[0.0, 0.0, 10.0, 20.0]]), torch.tensor([[10.0, 0.0, 30.0, 20.0]])
    deltas = encode_boxes(box, target, (10, 10, 5, 5))
    torch.testing.assert_close(deltas, torch.tensor([[15.0, 0.0, 5 * math.log(2), 0.0]]))


@pytest.mark.parametrize("weights", [(1, 1, 1, 1), (30, 30, 15, 15)])
def test_decode_inverts_encode(weights):
    torch.manual_seed(0)
    boxes, targets = random_boxes(50), random_boxes(50)
    decoded = decode_boxes(boxes, encode_boxes(boxes, targets, weights), weights)
    torch.testing.assert_close(decoded, targets, rtol=1e-4, atol=1e-3)


def test_growth_is_limited():
    decoded = decode_boxes(torch.tensor([[-8.0, -8.0, 8.0, 8.0]]), torch.tensor([[0.0, 0.0, 100.0, 0.0]]), (1, 1, 1, 1))
    torch.testing.assert_close(decoded, torch.tensor([[-500.0, -8.0, 500.0, 8.0]]))


def test_half_precision_deltas_are_decoded_in_float32():
    boxes = random_boxes(4)
    assert decode_boxes(boxes, torch.zeros(4, 4, dtype=torch.bfloat16), (10, 10, 5, 5)).dtype == torch.float32


def test_clip_keeps_each_image_apart():
    limits = box_limits([(10, 20), (30, 5)], torch.zeros(0))
    boxes = torch.tensor([[-1.0, -2.0, 50.0, 60.0]] * 2)
    assert clip_boxes(boxes, limits).tolist() == [[0, 0, 20, 10], [0, 0, 5, 30]]


def test_has_area():
    boxes = torch.tensor([[0.0, 0, 1, 1], [0, 0, 0, 1], [0, 1, 1, 1], [2, 0, 1, 1]])
    assert has_area(boxes).tolist() == [True, False, False, False]


def test_rois_name_their_image():
    rois = to_rois([torch.zeros(0, 4), torch.ones(2, 4), torch.full((1, 4), 2.0)])
    assert rois.tolist() == [[1, 1, 1, 1, 1], [1, 1, 1, 1, 1], [2, 2, 2, 2, 2]]


@pytest.mark.parametrize(("first", "second"), [(7, 5000), (3, 1), (0, 5), (5, 0)])
def test_iou_is_that_of_torchvision(first, second):
    torch.manual_seed(1)
    ours, theirs = random_boxes(first), random_boxes(second)
    assert torch.equal(pairwise_iou(ours, theirs), box_iou(ours, theirs))
