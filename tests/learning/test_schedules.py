import math

import pytest

from hassod_ros.learning.schedules import branch_weights, learning_rate_factor


@pytest.mark.parametrize(("iteration", "expected"), [(0, (1, 2)), (1000, (0.5, 2.5)), (2000, (0, 3))])
def test_branch_weights_follow_half_a_cosine(iteration, expected):
    assert branch_weights(iteration, 2000) == pytest.approx(expected, abs=1e-12)


def test_equal_ends_give_constant_weights():
    assert {branch_weights(t, 10, label=(1, 1), teacher=(2, 2)) for t in range(11)} == {(1, 2)}


@pytest.mark.parametrize(
    ("iteration", "shape", "expected"),
    [
        (0, "constant", 0.001),
        (5, "constant", 0.5005),
        (10, "constant", 1.0),
        (99, "constant", 1.0),
        (0, "cosine", 0.001),
        (5, "cosine", 0.5 * 0.001 + 0.5 * 0.5 * (1 + math.cos(math.pi * 0.1))),
        (50, "cosine", 0.5),
        (100, "cosine", 0.0),
    ],
)
def test_learning_rate(iteration, shape, expected):
    factor = learning_rate_factor(iteration, 100, warmup=10, shape=shape)
    assert factor == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize(
    ("iteration", "expected"),
    [(0, 0.001), (250, 0.12575), (500, 0.2505), (999, 0.499501), (1000, 0.5), (1500, 0.146447)],
)
def test_warm_up_of_mean_teacher_goes_straight_to_the_cosine_as_released(iteration, expected):
    """Values of Detectron2's WarmupParamScheduler over a cosine for 2,000 iterations, 1,000 of them warm-up."""
    assert learning_rate_factor(iteration, 2000, warmup=1000, shape="cosine") == pytest.approx(expected, abs=1e-6)
