"""Average recall and average precision, the COCO way, at any number of detections."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from hassod_ros.evaluation.matching import HIT, IGNORED, SIZES, THRESHOLDS

RECALL_POINTS = np.linspace(0.0, 1.0, 101)
DETECTIONS = (1, 10, 100, 1000)


@dataclass
class DetectionScores:
    """Sums over images from which recall and precision follow.

    Attributes:
        max_detections: Predictions of an image that count, best first; AP and the sizes' AR are computed at this many.
        positives: (A,) int64, annotations that count in each size range.
        hits: (A, T, max_detections) int64, hits at each rank within an image.

    """

    max_detections: int = field(default=1000, metadata={"setting": True})
    positives: np.ndarray = field(init=False)
    hits: np.ndarray = field(init=False)
    _fates: list[np.ndarray] = field(init=False, default_factory=list)
    _scores: list[np.ndarray] = field(init=False, default_factory=list)

    def __post_init__(self) -> None:
        self.positives = np.zeros(len(SIZES), np.int64)
        self.hits = np.zeros((len(SIZES), len(THRESHOLDS), self.max_detections), np.int64)

    def add(self, fates: np.ndarray, scores: np.ndarray, positives: np.ndarray) -> None:
        """Add one image: (A, T, D) fates and (D,) scores in descending order, (A,) annotations that count."""
        self.positives += positives
        self.hits[:, :, : len(scores)] += fates == HIT
        self._fates.append(fates)
        self._scores.append(scores)

    def recall_curve(self) -> np.ndarray:
        """(A, T, max_detections) float64: recall with the first 1, 2, ... predictions an image; NaN if none count."""
        with np.errstate(invalid="ignore"):
            return np.cumsum(self.hits, axis=2) / self.positives[:, None, None]

    def precision(self) -> np.ndarray:
        """(A, T) float64 average precision over 101 recall points; NaN without annotations."""
        result = np.full((len(SIZES), len(THRESHOLDS)), np.nan)
        if not self._fates:
            return result
        scores = np.concatenate(self._scores)
        order = np.argsort(-scores, kind="stable")
        fates = np.concatenate(self._fates, axis=2)
        for a, positives in enumerate(self.positives):
            for t in range(len(THRESHOLDS)):
                if positives:
                    result[a, t] = _average_precision(fates[a, t][order], int(positives))
        return result

    def summary(self) -> dict[str, float]:
        """The table row: AP (+50, 75, sizes), AR at 1, 10, 100, 1000 and sizes; AP and sizes at max_detections."""
        precision, recall = self.precision(), self.recall_curve()
        row = {"AP": precision[0].mean(), "AP50": precision[0, 0], "AP75": precision[0, 5]}
        row |= {f"AP_{size}": precision[a].mean() for a, size in enumerate(SIZES) if a}
        row |= {f"AR@{n}": recall[0, :, n - 1].mean() for n in DETECTIONS if n <= self.max_detections}
        row |= {f"AR_{size}": recall[a, :, -1].mean() for a, size in enumerate(SIZES) if a}
        return {name: float(value) for name, value in row.items()}


def _average_precision(fates: np.ndarray, positives: int) -> float:
    """Mean precision at the 101 recall points for one size range and threshold; fates in descending order of score."""
    hit = fates[fates != IGNORED] == HIT
    hits = np.cumsum(hit)
    recall = hits / positives
    precision = hits / (np.arange(1, len(hit) + 1) + np.spacing(1))
    envelope = np.maximum.accumulate(precision[::-1])[::-1]
    reached = np.searchsorted(recall, RECALL_POINTS, side="left")
    return float(np.append(envelope, 0.0)[reached].mean())
