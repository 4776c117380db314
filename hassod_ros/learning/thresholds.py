"""Thresholds of the teacher's scores that follow the size of things (SOHES, section 3.3).

Small things get low scores: one fixed threshold would delete them from what the student learns. That the thresholds
depend on the size is the paper's; the formula is ours, the paper's is not public.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn

LIMITS = (32.0**2, 96.0**2)  # px of the network's input: COCO's small, medium and large
_NAMES = ("small", "medium", "large")
_MOMENTUM = 0.95  # of a threshold at each picture that has a thing of its size


class SizeThresholds(nn.Module):
    """For small, medium and large things a running median of the teacher's scores, within bounds.

    Args:
        start: Threshold of all sizes before anything is seen.
        bounds: Lowest and highest threshold.

    """

    values: Tensor

    def __init__(self, start: float, bounds: tuple[float, float]) -> None:
        super().__init__()
        self._bounds = bounds
        self.register_buffer("values", torch.full((len(_NAMES),), float(np.clip(start, *bounds)), dtype=torch.float64))

    @property
    def lowest(self) -> float:
        """What no threshold falls below."""
        return self._bounds[0]

    def observe(self, areas: np.ndarray, scores: np.ndarray) -> None:
        """Move the thresholds towards the medians of one picture's N detections.

        Args:
            areas: (N,) in pixels of the network's input.
            scores: (N,) those above `lowest`.

        """
        kinds = np.digitize(areas, LIMITS)
        for kind in np.unique(kinds).tolist():
            seen = float(np.clip(np.median(scores[kinds == kind]), *self._bounds))
            self.values[kind] = _MOMENTUM * self.values[kind] + (1 - _MOMENTUM) * seen

    def of(self, areas: np.ndarray) -> np.ndarray:
        """(N,) threshold of each of N things, by their areas."""
        thresholds: np.ndarray = self.values.numpy()[np.digitize(areas, LIMITS)]
        return thresholds

    def figures(self) -> dict[str, float]:
        """The thresholds, for the log."""
        return {f"threshold_{name}": value for name, value in zip(_NAMES, self.values.tolist(), strict=True)}
