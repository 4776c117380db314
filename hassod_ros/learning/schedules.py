"""Learning rate and the two weights of the adaptive targets over a run (HASSOD, section 3.3 and appendix J)."""

import math
from typing import Literal

_BEGIN = 0.001  # of the curve, where a warm-up begins


def learning_rate_factor(
    iteration: int, iterations: int, *, warmup: int, shape: Literal["constant", "cosine"]
) -> float:
    """Factor on the base learning rate at `iteration` (0-based).

    A constant, or a cosine from 1 at the run's start to 0 at its end. Over the first `warmup` iterations the factor
    rises on a straight line instead, from a thousandth to what the curve is at the end of the warm-up: Detectron2's
    rule, which the released runs were made with.

    Example:
        >>> [learning_rate_factor(t, 100, warmup=0, shape="cosine") for t in (0, 50)]
        [1.0, 0.5]

    """

    def curve(at: int) -> float:
        return 1.0 if shape == "constant" else 0.5 * (1 + math.cos(math.pi * at / iterations))

    if iteration >= warmup:
        return curve(iteration)
    share = iteration / warmup
    return _BEGIN * curve(0) * (1 - share) + curve(min(warmup, iterations)) * share


def branch_weights(
    iteration: int,
    iterations: int,
    *,
    label: tuple[float, float] = (1.0, 0.0),
    teacher: tuple[float, float] = (2.0, 3.0),
) -> tuple[float, float]:
    """Weights of the label-to-student and of the teacher-to-student loss at `iteration`.

    Both go from their first to their second value along half a cosine.

    Example:
        >>> [branch_weights(t, 2000) for t in (0, 1000, 2000)]
        [(1.0, 2.0), (0.5, 2.5), (0.0, 3.0)]

    """
    left = 0.5 * (1 + math.cos(math.pi * iteration / iterations))  # 1 -> 0

    def between(ends: tuple[float, float]) -> float:
        return ends[1] + (ends[0] - ends[1]) * left

    return between(label), between(teacher)
