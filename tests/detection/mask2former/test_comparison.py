"""Masks compared at every cell, beside the functions with which `transformers` compares them at points."""

import pytest
import torch
from scipy.optimize import linear_sum_assignment

from hassod_ros.detection.mask2former.comparison import cheapest, mask_losses


@pytest.fixture
def logits() -> torch.Tensor:
    return torch.randn(2, 9, 40, generator=torch.Generator().manual_seed(0)) * 4


@pytest.fixture
def objects() -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(1)
    return [(torch.rand(count, 40, generator=generator) > 0.6).float() for count in (3, 5)]


def test_the_assignment_is_the_librarys(logits, objects):
    from transformers.models.mask2former import modeling_mask2former as library

    scores = torch.rand(9, generator=torch.Generator().manual_seed(2))
    for each, wanted in zip(logits, objects, strict=True):
        cost = (
            5 * library.pair_wise_sigmoid_cross_entropy_loss(each, wanted)
            + 3 * library.pair_wise_dice_loss(each, wanted)
            - 2 * scores[:, None]
        )
        queries, chosen = cheapest(scores, each, wanted, class_weight=2.0, mask_weight=5.0, dice_weight=3.0)
        assert [queries.tolist(), chosen.tolist()] == [each.tolist() for each in linear_sum_assignment(cost)]


def test_the_losses_are_the_librarys(logits, objects):
    from transformers.models.mask2former import modeling_mask2former as library

    matched = [(torch.tensor([4, 0, 7]), torch.tensor([2, 0, 1])), (torch.arange(5), torch.arange(5))]
    found = torch.cat([logits[0, [4, 0, 7]], logits[1, :5]])
    wanted = torch.cat([objects[0][[2, 0, 1]], objects[1]])
    losses = mask_losses(list(logits), objects, matched)
    assert float(losses["loss_mask"]) == pytest.approx(float(library.sigmoid_cross_entropy_loss(found, wanted, 8)))
    assert float(losses["loss_dice"]) == pytest.approx(float(library.dice_loss(found, wanted, 8)))


def test_numbers_that_are_none_are_matched_last(objects):
    logits = torch.zeros(4, 40)
    logits[1] = float("nan")
    queries, _ = cheapest(torch.ones(4), logits, objects[0], class_weight=1.0, mask_weight=1.0, dice_weight=1.0)
    assert queries.tolist() == [0, 2, 3]


def test_points_are_drawn_only_where_cells_are_more(mask2former, nested, small_query_config):
    """60 x 90 pixels, padded, have 16 x 24 cells: at 384 points nothing is drawn."""
    import copy

    images = torch.rand(1, 3, 60, 90, generator=torch.Generator().manual_seed(1)) * 255
    seen = {}
    for points in (383, 384):
        model = copy.deepcopy(mask2former)
        model.config = small_query_config.changed(points=points)
        with torch.no_grad():
            seen[points] = [
                {name: float(value) for name, value in model.losses(images, [(60, 90)], [nested]).items()} for _ in "ab"
            ]
    assert seen[384][0] == seen[384][1]
    assert seen[383][0]["loss_mask"] != seen[383][1]["loss_mask"]
    assert seen[383][0]["loss_mask"] == pytest.approx(seen[384][0]["loss_mask"], rel=0.2)
