"""Do scores mean what they say: a score of 0.7 should be right seven times out of ten."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from hassod_ros.evaluation.matching import HIT, IGNORED

BINS = 15


@dataclass
class Calibration:
    """Predictions by score, in BINS bins of equal width over [0, 1] (expected calibration error of Guo et al., 2017).

    Right is a prediction that got an annotation at IoU 0.5 under COCO's assignment; ignored ones are left out. Where a
    set does not label every object, all scores look too high: compare models, not absolute values.

    Attributes:
        counts: (BINS,) int64, predictions.
        right: (BINS,) int64, those that are right.
        score_sums: (BINS,) float64, sum of scores.

    """

    counts: np.ndarray = field(default_factory=lambda: np.zeros(BINS, np.int64))
    right: np.ndarray = field(default_factory=lambda: np.zeros(BINS, np.int64))
    score_sums: np.ndarray = field(default_factory=lambda: np.zeros(BINS))

    def add(self, scores: np.ndarray, fates: np.ndarray) -> None:
        """Add one image: (D,) scores and (D,) fates at IoU 0.5."""
        counted = fates != IGNORED
        scores, hit = np.clip(scores[counted], 0.0, 1.0), fates[counted] == HIT
        place = np.minimum((scores * BINS).astype(np.int64), BINS - 1)
        self.counts += np.bincount(place, minlength=BINS)
        self.right += np.bincount(place[hit], minlength=BINS)
        self.score_sums += np.bincount(place, weights=scores, minlength=BINS)

    def summary(self) -> dict:
        """Expected calibration error; reliability curve: mean score, share right and count of each bin in use."""
        used = np.flatnonzero(self.counts)
        score = self.score_sums[used] / self.counts[used]
        precision = self.right[used] / self.counts[used]
        weights = self.counts[used] / max(self.counts.sum(), 1)
        return {
            "ECE": float((weights * np.abs(score - precision)).sum()) if len(used) else float("nan"),
            "curve": {
                "score": score.tolist(),
                "precision": precision.tolist(),
                "predictions": self.counts[used].tolist(),
            },
        }
