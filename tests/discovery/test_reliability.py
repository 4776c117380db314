import numpy as np
import pytest
from scipy.stats import f_oneway

from hassod_ros.discovery.reliability import explained


def test_hard_groups_explain_what_an_analysis_of_variance_says():
    rng = np.random.default_rng(0)
    labels = np.arange(60) % 4
    own = labels + rng.normal(size=60)
    ratio = f_oneway(*(own[labels == k] for k in range(4))).statistic * 3 / 56  # F, with its degrees of freedom
    assert explained(own, np.eye(4)[labels]) == pytest.approx(ratio / (1 + ratio), rel=1e-9)


def test_soft_groups_and_known_means_by_hand():
    own = np.array([1.0, 3, -3, -1])
    two = np.array([[1, 0], [1, 0], [0, 1], [0, 1]])
    assert explained(own, two) == pytest.approx(0.8)
    assert explained(own, 0.5 * two + 0.25) == pytest.approx(0.8 / 16)  # means 1 and -1, of which a patch has half more
    assert explained(own, two, known=np.array([0.0, 0.0]), patches=2) == pytest.approx(0.2)  # means 1 and -1
    assert explained(own, np.eye(4)) == 1


def test_groups_without_patches_and_scores_that_are_all_equal_explain_nothing():
    assert explained(np.array([1.0, -1, 0]), np.array([[1, 0], [1, 0], [1, 0]])) == 0
    assert explained(np.zeros(3), np.eye(3)) == 0
