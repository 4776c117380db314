import dataclasses

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from hassod_ros.detection.base import InstanceOptions
from hassod_ros.detection.mask2former.found import Found
from hassod_ros.errors import InputError
from hassod_ros.masks import place_maps


def nested(related: list[tuple[int, int]], count: int = 4, cover: float = 0.5) -> Found:
    """Squares in squares, the largest first; `related` are (descendant, ancestor)."""
    masks = torch.zeros(count, 16, 16)
    for i in range(count):
        masks[i, : 16 - 4 * i, : 16 - 4 * i] = 1
    ancestors = torch.full((count, count), 0.1)
    for row, column in related:
        ancestors[row, column] = 0.9
    return Found(torch.linspace(0.9, 0.6, count), masks, ancestors, (64, 64), cover=cover)


@pytest.mark.parametrize(
    ("related", "parents", "levels"),
    [
        ([], [-1, -1, -1, -1], [0, 0, 0, 0]),
        ([(1, 0), (2, 0), (2, 1), (3, 0)], [-1, 0, 1, 0], [0, 1, 2, 1]),  # the smallest of the predicted ancestors
        ([(1, 0), (2, 1), (3, 2)], [-1, 0, 1, 2], [0, 1, 2, 2]),  # deeper than three: a subpart's subpart
        ([(0, 1), (1, 0), (2, 3), (3, 2)], [-1, 0, -1, 2], [0, 1, 0, 1]),  # cycles are broken by area
        ([(0, 0), (0, 3), (1, 2)], [-1, -1, -1, -1], [0, 0, 0, 0]),  # nobody is inside a smaller one
    ],
)
def test_the_parent_is_the_smallest_predicted_ancestor(related, parents, levels):
    found = nested(related).to_instances((64, 64))
    assert found.parents.tolist() == parents
    assert found.levels.tolist() == levels


@pytest.mark.parametrize(("cover", "parent"), [(0.5, -1), (0.0, 1)])
def test_coverage_may_overrule_the_head(cover, parent):
    masks = torch.zeros(2, 16, 16)
    masks[0, :8, :4] = 1
    masks[1, :8, 3:] = 1  # a quarter of the first
    found = Found(torch.tensor([0.9, 0.8]), masks, torch.tensor([[0.0, 0.9], [0.0, 0.0]]), (64, 64), cover=cover)
    assert found.to_instances((64, 64)).parents.tolist() == [parent, -1]


def test_what_hardly_counts_as_a_thing_is_no_ancestor_of_what_does():
    """The second square is unsure: it hangs on the first, and the third, which says it hangs on it, does not."""
    found = dataclasses.replace(nested([(1, 0), (2, 1), (3, 1)]), scores=torch.tensor([0.9, 0.3, 0.7, 0.5]))
    assert found.to_instances((64, 64)).parents.tolist() == [-1, 0, -1, 1]


def test_whatever_the_head_says_the_instances_are_valid():
    random = torch.Generator().manual_seed(0)
    for _ in range(20):
        masks = F.interpolate(torch.rand(12, 1, 3, 4, generator=random), (15, 22), mode="bilinear")[:, 0]
        ancestors = torch.rand(12, 12, generator=random)
        found = Found(torch.rand(12, generator=random), masks, ancestors, (59, 87), cover=0.0)
        instances = found.to_instances((118, 174))  # checks itself
        assert len(instances) > 5


def test_masks_are_interpolated_as_torch_does_it():
    torch.manual_seed(0)
    maps = F.interpolate(torch.rand(5, 1, 4, 5), (20, 25), mode="bilinear")[:, 0].numpy()
    wanted = F.interpolate(torch.from_numpy(maps)[:, None], (80, 100), mode="bilinear")[:, 0].numpy() > 0.5
    regions, masks, rows = place_maps(maps, (80, 100), (80, 100), 4, 0.5)
    assert rows.tolist() == [0, 1, 2, 3, 4]
    drawn = np.zeros((5, 80, 100), bool)
    for target, (x0, y0, x1, y1), mask in zip(drawn, regions.tolist(), masks, strict=True):
        target[y0:y1, x0:x1] = mask
    assert np.count_nonzero(drawn != wanted) <= 0.001 * wanted.sum()  # fixed point coordinates


def test_masks_fit_images_of_another_size():
    masks = torch.zeros(1, 15, 20)
    masks[0, 5:10, 8:12] = 1
    found = Found(torch.tensor([0.9]), masks, torch.zeros(1, 1), (60, 80)).to_instances((120, 240))
    assert found.boxes.tolist() == [pytest.approx([96, 40, 144, 80], abs=3)]


def test_nothing_found_is_nothing():
    found = Found(torch.zeros(0), torch.zeros(0, 16, 16), torch.zeros(0, 0), (64, 64))
    assert len(found.to_instances((64, 64))) == 0
    blank = Found(torch.tensor([0.9]), torch.zeros(1, 16, 16), torch.zeros(1, 1), (64, 64))
    assert len(blank.to_instances((64, 64))) == 0


def test_scores_decide_who_counts():
    assert nested([(3, 1)]).to_instances(
        (64, 64), InstanceOptions(score_threshold=0.75)
    ).scores.tolist() == pytest.approx([0.9, 0.8])


def test_outlines_do_not_follow_colours():
    with pytest.raises(InputError, match="set color_weight to 0"):
        nested([]).to_instances((64, 64), InstanceOptions(color_weight=1.0))
