"""Do two backends see the same? Detections of real photographs, matched by box."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

import numpy as np

from hassod_ros.errors import InputError
from hassod_ros.runtime.backends.base import Backend
from hassod_ros.runtime.postprocess import RawDetections


@dataclass(frozen=True, kw_only=True)
class ParityLimits:
    """How far two backends may differ.

    Attributes:
        box: Pixels of the network's input, difference of a pair's coordinates.
        score: Difference of its scores.
        level: Difference of its level probabilities.
        mask: Mean difference over its mask's probabilities.
        features: Mean difference of the finest pyramid level over its mean magnitude, where both give it.
        ancestors: Difference of the probabilities that one of a pair is the other's ancestor, where both give them.
        unmatched: Share of detections without a partner within these limits. Not 0, because rounding can decide which
            of two regions of nearly equal score suppresses the other, and everything after that differs for it.

    """

    box: float = 0.5
    score: float = 1e-3
    level: float = 1e-3
    mask: float = 1e-3
    features: float = 1e-3
    ancestors: float = 1e-4
    unmatched: float = 0.05

    def __str__(self) -> str:
        return (
            f"limits: box {self.box} px, score {self.score}, level {self.level}, mask {self.mask}, "
            f"features {self.features}, ancestors {self.ancestors}, {self.unmatched:.0%} unmatched"
        )


@dataclass
class Parity:
    """What was compared so far: detections, how many have a partner, and the partners' largest differences."""

    images: int = 0
    detections: int = 0
    matched: int = 0
    differences: dict[str, float] = field(
        default_factory=lambda: dict.fromkeys(("box", "score", "level", "mask", "features", "ancestors"), 0.0)
    )

    def add(self, expected: RawDetections, found: RawDetections, limits: ParityLimits) -> None:
        """Compare all images of a batch."""
        if expected.features is not None and found.features is not None:
            change = np.abs(expected.features - found.features).mean() / np.abs(expected.features).mean()
            self.differences["features"] = max(self.differences["features"], float(change))
        for i in range(len(expected.boxes)):
            self.images += 1
            self._add_image(expected, found, i, limits)

    def _add_image(self, expected: RawDetections, found: RawDetections, i: int, limits: ParityLimits) -> None:
        n, m = int(expected.count[i]), int(found.count[i])
        self.detections += max(n, m)
        if not n or not m:
            return
        pairs = {  # (n, m)
            "box": np.abs(expected.boxes[i, :n, None] - found.boxes[i, None, :m]).max(axis=2),
            "score": np.abs(expected.scores[i, :n, None] - found.scores[i, None, :m]),
            "level": np.abs(expected.level_probabilities[i, :n, None] - found.level_probabilities[i, None, :m]).max(
                axis=2
            ),
        }
        allowed = np.logical_and.reduce([values <= getattr(limits, name) for name, values in pairs.items()])
        distance = np.where(allowed, pairs["box"], np.inf)
        partners: list[tuple[int, int]] = []
        for a in range(n):
            b = int(distance[a].argmin())
            mask = float(np.abs(expected.masks[i, a] - found.masks[i, b]).mean())
            if not np.isfinite(distance[a, b]) or not mask <= limits.mask:
                continue
            distance[:, b] = np.inf
            partners.append((a, b))
            for name, value in (*((name, float(values[a, b])) for name, values in pairs.items()), ("mask", mask)):
                self.differences[name] = max(self.differences[name], value)
        self.matched += len(partners)
        if expected.ancestors is not None and found.ancestors is not None and partners:
            left, right = np.array(partners).T
            change = np.abs(expected.ancestors[i][np.ix_(left, left)] - found.ancestors[i][np.ix_(right, right)])
            self.differences["ancestors"] = max(self.differences["ancestors"], float(change.max()))

    def __str__(self) -> str:
        values = ", ".join(f"{name} {value:.2g}" for name, value in self.differences.items())
        return (
            f"{self.matched} of {self.detections} detections matched on {self.images} images, "
            f"their largest differences: {values}"
        )

    def offence(self, limits: ParityLimits) -> str | None:
        """Why the two are not the same, or None."""
        if not self.detections:
            return "nothing was detected, so nothing was compared; give other photographs or a trained model"
        if self.detections - self.matched > limits.unmatched * self.detections:
            return f"only {self.matched} of {self.detections} detections are in both"
        if not self.differences["features"] <= limits.features:
            return f"the output `features` differs by {self.differences['features']:.2g} of its magnitude"
        if not self.differences["ancestors"] <= limits.ancestors:
            return f"the output `ancestors` differs by {self.differences['ancestors']:.2g}"
        return None


def compare(
    expected: Backend, found: Backend, batches: Iterable[np.ndarray], limits: ParityLimits | None = None
) -> Parity:
    """Run both backends on batches of the model's input.

    Raises:
        InputError: They do not find the same.

    """
    limits = limits or ParityLimits()
    parity = Parity()
    for images in batches:
        parity.add(expected.infer(images), found.infer(images), limits)
    offence = parity.offence(limits)
    if offence is not None:
        raise InputError(f"the exported model is not the trained one: {offence} ({parity}; {limits})")
    return parity
