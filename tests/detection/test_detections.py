import numpy as np
import pytest
import torch

from hassod_ros.detection.base import InstanceOptions
from hassod_ros.detection.detections import Detections
from hassod_ros.instances import Level


def detections(boxes, levels, scores=None, masks=None, size=(50, 100)) -> Detections:
    n = len(boxes)
    probabilities = torch.zeros(n, 0) if levels is None else torch.eye(3)[torch.tensor(levels, dtype=torch.int64)]
    return Detections(
        torch.tensor(boxes, dtype=torch.float32).reshape(-1, 4),
        torch.linspace(0.9, 0.5, n) if scores is None else torch.tensor(scores),
        probabilities,
        torch.ones(n, 28, 28) if masks is None else masks,
        size,
    )


def test_boxes_and_masks_grow_with_the_image():
    instances = detections([[10, 5, 60, 45]], [1]).to_instances((100, 300))
    assert instances.image_size == (100, 300)
    assert instances.boxes.tolist() == [[30, 10, 180, 90]]
    assert instances.masks[0].shape == (80, 150)
    assert instances.masks[0][1:-1, 3:-3].all()
    assert instances.levels.tolist() == [Level.PART]


def test_parents_cover_their_parts_and_stand_higher():
    boxes = [[0, 0, 80, 40], [10, 10, 30, 30], [50, 10, 70, 30], [12, 12, 20, 20]]
    instances = detections(boxes, [0, 1, 0, 2]).to_instances((50, 100))
    assert instances.parents.tolist() == [-1, 0, -1, 1]


def test_of_several_covering_masks_the_smallest_is_the_parent():
    boxes = [[0, 0, 60, 10], [0, 0, 44, 10], [35, 0, 77, 10], [36, 0, 43, 10]]
    instances = detections(boxes, None).to_instances((50, 100))
    assert instances.parents.tolist() == [-1, 0, -1, 2]
    assert instances.levels.tolist() == [0, 1, 0, 1]


def test_without_level_heads_levels_come_from_coverage():
    boxes = [[0, 0, 80, 40], [10, 10, 30, 30], [12, 12, 20, 20]]
    instances = detections(boxes, None).to_instances((50, 100))
    assert instances.levels.tolist() == [0, 1, 2]
    assert instances.parents.tolist() == [-1, 0, 1]


def test_what_has_no_pixel_or_too_low_a_score_is_left_out():
    masks = torch.ones(4, 28, 28)
    masks[1] = 0.2
    boxes = [[0, 0, 10, 10], [20, 0, 30, 10], [40, 0, 40, 10], [50, 0, 60, 10]]
    instances = detections(boxes, [0] * 4, scores=[0.9, 0.8, 0.7, 0.3], masks=masks).to_instances(
        (50, 100), InstanceOptions(score_threshold=0.3)
    )
    assert instances.boxes.tolist() == [[0, 0, 10, 10]]
    np.testing.assert_allclose(instances.scores, [0.9])


def test_nothing_found():
    instances = detections([], [], scores=[]).to_instances((60, 70))
    assert len(instances) == 0
    assert instances.image_size == (60, 70)


def test_outlines_follow_the_colours_of_the_image():
    y, x = np.mgrid[:100, :200] + 0.5
    truth = np.hypot(y - 50, x - 70) < 28
    image = np.where(truth[..., None], [200, 60, 40], [50, 90, 120]).astype(np.uint8)
    y, x = (np.mgrid[:28, :28] + 0.5) / 14 - 1
    rough = 1 / (1 + np.exp(4 * (np.hypot(y, x) - 0.6)))
    found = detections([[15, 5, 55, 45]], [0], masks=torch.from_numpy(rough.astype(np.float32))[None])

    def iou(weight):
        (mask,) = found.to_instances((100, 200), InstanceOptions(color_weight=weight), image).masks
        inside = truth[10:90, 30:110]
        return (mask & inside).sum() / (mask | inside).sum()

    assert iou(0.0) < 0.8
    assert iou(3.0) > 0.88
    with pytest.raises(ValueError, match="color_weight needs the image"):
        found.to_instances((100, 200), InstanceOptions(color_weight=3.0))
