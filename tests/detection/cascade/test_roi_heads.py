import dataclasses

import pytest
import torch
from torchvision.ops import box_iou, roi_align

from hassod_ros.detection.boxes import to_rois
from hassod_ros.detection.cascade.roi_heads import assign_levels, pool_features

PYRAMID_SHAPES = [(2, 16, 32, 48), (2, 16, 16, 24), (2, 16, 8, 12), (2, 16, 4, 6), (2, 16, 2, 3)]


def pyramid():
    torch.manual_seed(0)
    return [torch.randn(shape) for shape in PYRAMID_SHAPES]


@pytest.mark.parametrize(
    ("side", "level"), [(0, 0), (1, 0), (111, 0), (113, 1), (223, 1), (225, 2), (449, 3), (3000, 3)]
)
def test_level_follows_the_size(side, level):
    assert assign_levels(torch.tensor([[5.0, 5.0, 5.0 + side, 5.0 + side]])).tolist() == [level]


def test_a_smaller_canonical_box_moves_boxes_to_coarser_maps():
    boxes = torch.tensor([[0.0, 0, side, side] for side in (55, 57, 111, 113, 225)])
    assert assign_levels(boxes, 112.0).tolist() == [0, 1, 1, 2, 3]


@pytest.mark.parametrize("samples", [0, 1])
@pytest.mark.parametrize("canonical", [224.0, 80.0])
def test_pooling_takes_each_box_from_its_level(canonical, samples):
    maps = pyramid()
    boxes = torch.tensor([[3.0, 4, 30, 50], [0, 0, 150, 120], [10, 0, 190, 127]])
    rois = torch.cat([torch.tensor([[1.0], [0.0], [1.0]]), boxes], dim=1)
    pooled = pool_features(maps, rois, 7, canonical, samples)
    for i, level in enumerate(assign_levels(boxes, canonical).tolist()):
        expected = roi_align(maps[level], rois[i : i + 1], 7, 0.25 / 2**level, samples, aligned=True)
        torch.testing.assert_close(pooled[i : i + 1], expected)


def test_pooling_nothing():
    assert pool_features(pyramid(), torch.zeros(0, 5), 7).shape == (0, 16, 7, 7)


def test_gradient_of_the_pyramid_is_the_stages_mean(small_config, build):
    heads = build(small_config).roi_heads
    maps = [level.requires_grad_() for level in pyramid()]
    rois = torch.tensor([[0.0, 10, 10, 60, 60]])
    (plain,) = torch.autograd.grad(
        heads.box_predictor[1](heads.box_head[1](pool_features(maps, rois, 7))).class_logits.sum(), maps[0]
    )
    (scaled,) = torch.autograd.grad(heads.box_stage(1, maps, rois).class_logits.sum(), maps[0])
    torch.testing.assert_close(scaled, plain / 3)


def test_detections_are_ordered_distinct_and_inside(small_config, build):
    heads = build(small_config).roi_heads
    proposals = [torch.rand(40, 2).repeat(1, 2) * 100 + torch.tensor([0, 0, 40, 30]), torch.rand(0, 4)]
    with torch.inference_mode():
        first, second = heads.detect(pyramid(), proposals, [(120, 180), (100, 90)])
    assert 0 < len(first) <= small_config.detections
    assert len(second) == 0
    assert second.mask_probabilities.shape == (0, 28, 28)
    assert (first.scores.diff() <= 0).all()
    assert (first.boxes[:, 0::2] <= 180).all()
    assert (first.boxes[:, 1::2] <= 120).all()
    assert (first.boxes >= 0).all()
    assert box_iou(first.boxes, first.boxes).fill_diagonal_(0).max() <= small_config.nms
    torch.testing.assert_close(first.level_probabilities.sum(1), torch.ones(len(first)))


def test_scores_are_the_stages_mean(small_config, build):
    config = dataclasses.replace(small_config, nms=1.0, detections=100)
    heads = build(config).roi_heads
    proposals = [torch.tensor([[10.0, 10, 60, 60], [50, 20, 150, 90]])]
    maps = [level[:1] for level in pyramid()]
    with torch.inference_mode():
        outputs, boxes = heads.run_stages(maps, to_rois(proposals), [(128, 192)])
        (found,) = heads.detect(maps, proposals, [(128, 192)])
    scores = sum(output.class_logits.softmax(1)[:, 0] for output in outputs) / 3
    levels = sum(output.level_logits.softmax(1) for output in outputs) / 3
    order = scores.argsort(descending=True)
    torch.testing.assert_close(found.scores, scores[order])
    torch.testing.assert_close(found.level_probabilities, levels[order])
    torch.testing.assert_close(found.boxes, boxes[order])


def test_score_threshold_is_strict(small_config, build):
    config = dataclasses.replace(small_config, score_threshold=1.0)
    with torch.inference_mode():
        found = build(config).roi_heads.detect(pyramid(), [torch.ones(1, 4) * 9, torch.ones(1, 4)], [(99, 99)] * 2)
    assert [len(each) for each in found] == [0, 0]
