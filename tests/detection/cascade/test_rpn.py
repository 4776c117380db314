import dataclasses

import pytest
import torch
from torchvision.ops import box_iou

from hassod_ros.detection.cascade.rpn import AnchorPredictions, Rpn, propose


def predictions(boxes, logits, counts):
    """Anchors that are left where they are."""
    anchors = torch.tensor(boxes, dtype=torch.float32)
    return AnchorPredictions(anchors, torch.tensor([logits]), torch.zeros(1, len(boxes), 4), counts)


LIMITS = {"pre_nms": 10, "post_nms": 10, "nms": 0.5}


def test_suppression_stays_within_a_level():
    box = [0, 0, 10, 10]
    found = predictions([box, box, box], [1.0, 2.0, 3.0], (2, 1))
    (proposals,) = propose(found, [(20, 20)], **LIMITS)
    assert proposals.logits.tolist() == [3.0, 2.0]


def test_boxes_are_clipped_and_those_outside_dropped():
    found = predictions([[-5, -5, 10, 10], [30, 0, 40, 10], [15, 15, 40, 40]], [1.0, 2.0, 0.5], (3,))
    (proposals,) = propose(found, [(20, 25)], **LIMITS)
    assert proposals.boxes.tolist() == [[0, 0, 10, 10], [15, 15, 25, 20]]


def test_limits_hold_per_level_and_in_all():
    boxes = [[20 * i, 0, 20 * i + 10, 10] for i in range(6)]
    found = predictions(boxes, [6.0, 5, 4, 3, 2, 1], (3, 3))
    (proposals,) = propose(found, [(50, 200)], pre_nms=2, post_nms=3, nms=0.5)
    assert proposals.logits.tolist() == [6, 5, 3]


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_what_is_not_finite_is_left_out(value):
    found = predictions([[0, 0, 10, 10], [20, 0, 30, 10]], [value, 1.0], (2,))
    (proposals,) = propose(found, [(50, 50)], **LIMITS)
    assert proposals.boxes.tolist() == [[20, 0, 30, 10]]


def test_module_orders_predictions_like_anchors(small_config):
    torch.manual_seed(0)
    rpn = Rpn(small_config)
    torch.nn.init.normal_(rpn.rpn_head.objectness_logits.weight)
    pyramid = [torch.randn(2, 16, 64 // stride, 96 // stride) for stride in (4, 8, 16, 32)]
    pyramid.append(pyramid[-1][:, :, ::2, ::2])
    found = rpn(pyramid)
    assert found.anchors.shape == (sum(found.counts), 4)
    assert found.logits.shape == (2, sum(found.counts))
    assert found.deltas.shape == (2, sum(found.counts), 4)
    logits, deltas = rpn.rpn_head(pyramid[1])
    row, column, anchor = 3, 5, 2
    index = found.counts[0] + (row * 12 + column) * 3 + anchor
    torch.testing.assert_close(found.logits[1, index], logits[1, anchor, row, column])
    torch.testing.assert_close(found.deltas[1, index], deltas[1, 4 * anchor : 4 * anchor + 4, row, column])
    centre = (found.anchors[index, :2] + found.anchors[index, 2:]) / 2
    torch.testing.assert_close(centre, torch.tensor([column * 8.0, row * 8.0]))


def test_training_and_test_limits_differ(small_config):
    config = dataclasses.replace(small_config, rpn_post_nms=(7, 5))
    torch.manual_seed(0)
    rpn = Rpn(config)
    pyramid = [torch.randn(1, 16, 128 // stride, 128 // stride) for stride in (4, 8, 16, 32, 64)]
    found = rpn(pyramid)
    assert len(rpn.train().propose(found, [(128, 128)])[0].boxes) == 7
    proposals = rpn.eval().propose(found, [(128, 128)])[0]
    assert len(proposals.boxes) == 5
    assert not proposals.boxes.requires_grad
    assert (box_iou(proposals.boxes, proposals.boxes) > 0).diagonal().all()
