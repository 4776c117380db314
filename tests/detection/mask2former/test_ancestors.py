import math

import pytest
import torch

from hassod_ros.detection.mask2former.ancestors import AncestorHead, ancestor_loss


def test_the_head_is_a_product_of_two_linear_maps():
    torch.manual_seed(0)
    head, queries = AncestorHead(8), torch.randn(2, 5, 8)
    logits = head(queries)
    for i, j in ((0, 1), (4, 2), (3, 3)):
        expected = (head.descendant.weight @ queries[1, i]) @ (head.ancestor.weight @ queries[1, j])
        assert float(logits[1, i, j].detach()) == pytest.approx(float(expected.detach()), rel=1e-4)


def test_the_loss_counts_rare_pairs_as_much_as_all_others():
    logits = [torch.tensor([[9.0, 1.0, -2.0], [0.5, 9.0, 0.0], [0.25, -1.0, 9.0]]), torch.tensor([[5.0]])]
    truth = [torch.tensor([[0, 1, 0], [0, 0, 0], [0, 0, 0]]).bool(), torch.zeros(1, 1).bool()]

    def cross_entropy(value: float, wanted: int) -> float:
        return math.log(1 + math.exp(-value if wanted else value))

    others = [-2.0, 0.5, 0.0, 0.25, -1.0]
    for limit, weight in ((20.0, 5.0), (2.0, 2.0)):  # five unrelated pairs for the one
        expected = (weight * cross_entropy(1.0, 1) + sum(cross_entropy(each, 0) for each in others)) / 6
        assert float(ancestor_loss(logits, truth, limit)) == pytest.approx(expected, rel=1e-5)


def test_no_pair_is_no_loss():
    assert float(ancestor_loss([torch.zeros(0, 0), torch.ones(1, 1)], [torch.zeros(0, 0), torch.ones(1, 1)], 20)) == 0
