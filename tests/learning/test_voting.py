import torch

from hassod_ros.detection.detections import Detections
from hassod_ros.learning.voting import vote


def view(*rows, cell=1.0):
    """Detections of (x0, y0, x1, y1, score), by descending score."""
    values = torch.tensor(rows).reshape(-1, 5)
    return Detections(
        boxes=values[:, :4],
        scores=values[:, 4],
        level_probabilities=torch.zeros(len(values), 3),
        mask_probabilities=torch.full((len(values), 2, 2), cell),
        size=(100, 100),
    )


def test_what_both_looks_see_comes_before_what_one_is_surer_of():
    merged = vote([view((0, 0, 40, 40, 0.8)), view((60, 60, 90, 90, 0.9), (0, 0, 40, 44, 0.4))], iou=0.6)
    torch.testing.assert_close(merged.scores, torch.tensor([0.6, 0.45]))
    weights = torch.tensor([0.8, 0.4 * 40 / 44])  # score times IoU with the best of the group
    y1 = (weights @ torch.tensor([40.0, 44.0]) / weights.sum()).item()
    torch.testing.assert_close(merged.boxes, torch.tensor([[0, 0, 40, y1], [60, 60, 90, 90]]))
    assert merged.size == (100, 100)


def test_masks_are_averaged_by_the_same_weights():
    merged = vote([view((0, 0, 40, 40, 0.75)), view((0, 0, 40, 40, 0.25), cell=0.0)], iou=0.6)
    torch.testing.assert_close(merged.mask_probabilities, torch.full((1, 2, 2), 0.75))


def test_a_look_has_one_vote_for_a_thing():
    twice = view((0, 0, 40, 40, 0.8), (0, 0, 40, 42, 0.7))
    merged = vote([twice, view((60, 60, 90, 90, 0.2))], iou=0.6)
    torch.testing.assert_close(merged.scores, torch.tensor([0.4, 0.1]))
    torch.testing.assert_close(merged.boxes[0], torch.tensor([0.0, 0, 40, 40]))


def test_one_look_stays_as_it_is():
    only = view((0, 0, 40, 40, 0.8), (60, 60, 90, 90, 0.2))
    merged = vote([only], iou=0.6)
    torch.testing.assert_close(merged.boxes, only.boxes)
    torch.testing.assert_close(merged.scores, only.scores)


def test_nothing_and_boxes_without_area():
    assert len(vote([view(), view()], iou=0.6)) == 0
    merged = vote([view((5, 5, 5, 9, 0.5)), view()], iou=0.6)
    assert merged.boxes.tolist() == [[5, 5, 5, 9]]
    assert merged.scores.tolist() == [0.25]
