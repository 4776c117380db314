"""Do two backends see the same? Detections of real photographs, matched by box."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

import numpy as np

from hassod_ros.errors import InputError
from hassod_ros.runtime.backends import Backend
from hassod_ros.runtime.postprocess import RawDetections


@dataclass(frozen=True, kw_only=True)
class ParityLimits:
    """How far two backends may differ.

    Attributes:
        box: Pixels of the network's input, largest difference of a matched pair's coordinates.
        score: Largest difference of its scores.
        level: Largest difference of its level probabilities.
        mask: Largest mean difference over its mask's probabilities.
        unmatched: Share of detections without a partner. Rounding can decide which of two boxes of equal score
            suppresses the other, hence not 0.

    """

    box: float = 0.5
    score: float = 1e-3
    level: float = 1e-3
    mask: float = 1e-3
    unmatched: float = 0.01

    def __str__(self) -> str:
        return (
            f"limits: box {self.box} px, score {self.score}, level {self.level}, mask {self.mask}, "
            f"{self.unmatched:.1%} unmatched"
        )


@dataclass
class Parity:
    """Largest differences of matched pairs so far, and how many detections had a partner."""

    images: int = 0
    detections: int = 0
    matched: int = 0
    differences: dict[str, float] = field(default_factory=lambda: dict.fromkeys(("box", "score", "level", "mask"), 0.0))

    def add(self, expected: RawDetections, found: RawDetections, limits: ParityLimits) -> None:
        """Compare all images of a batch."""
        for i in range(len(expected.boxes)):
            self.images += 1
            self._add_image(expected, found, i, limits)

    def _add_image(self, expected: RawDetections, found: RawDetections, i: int, limits: ParityLimits) -> None:
        n, m = int(expected.count[i]), int(found.count[i])
        self.detections += max(n, m)
        if not n or not m:
            return
        # The pair of a detection is the nearest box not yet taken; a box that is too far away is not its pair.
        distance = np.abs(expected.boxes[i, :n, None] - found.boxes[i, None, :m]).max(axis=2)
        # Two detections of one place are told apart by their scores.
        distance += np.abs(expected.scores[i, :n, None] - found.scores[i, None, :m])
        for a in range(n):
            b = int(distance[a].argmin())
            if distance[a, b] > limits.box + 1:
                continue
            distance[:, b] = np.inf
            self.matched += 1
            for name, left, right in (
                ("box", expected.boxes[i, a], found.boxes[i, b]),
                ("score", expected.scores[i, a], found.scores[i, b]),
                ("level", expected.level_probabilities[i, a], found.level_probabilities[i, b]),
            ):
                self.differences[name] = max(self.differences[name], float(np.abs(left - right).max()))
            mask = float(np.abs(expected.masks[i, a] - found.masks[i, b]).mean())
            self.differences["mask"] = max(self.differences["mask"], mask)

    def __str__(self) -> str:
        values = ", ".join(f"{name} {value:.2g}" for name, value in self.differences.items())
        return f"{self.matched} of {self.detections} detections matched on {self.images} images, differences: {values}"

    def offence(self, limits: ParityLimits) -> str | None:
        """The first limit that does not hold, in words, or None."""
        if not self.detections:
            return "nothing was detected, so nothing was compared; give other photographs or a trained model"
        for name, value in self.differences.items():
            if not value <= getattr(limits, name):
                return f"{name} differs by {value:.3g}, at most {getattr(limits, name)} is allowed"
        if self.detections - self.matched > limits.unmatched * self.detections:
            return f"only {self.matched} of {self.detections} detections are in both"
        return None


def compare(
    expected: Backend, found: Backend, batches: Iterable[np.ndarray], limits: ParityLimits | None = None
) -> Parity:
    """Run both backends on batches of the model's input.

    Raises:
        InputError: A limit does not hold; the message says which.

    """
    limits = limits or ParityLimits()
    parity = Parity()
    for images in batches:
        parity.add(expected.infer(images), found.infer(images), limits)
    offence = parity.offence(limits)
    if offence is not None:
        raise InputError(f"the exported model is not the trained one: {offence} ({parity}; {limits})")
    return parity
