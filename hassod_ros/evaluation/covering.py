"""How well the best prediction covers each annotation, without one-to-one matching."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from hassod_ros.evaluation.detection_scores import DETECTIONS


@dataclass
class Covering:
    """Best overlaps, averaged over annotations, and segmentation covering, averaged over images.

    Covering of one drawing is the mean of its segments' best IoU, weighted by area (Arbelaez et al., "Contour Detection
    and Hierarchical Image Segmentation", PAMI 2011, section 2.3). An image's value is the mean over its annotators.
    With one annotated object an image, the best IoU is the region measure J of DAVIS for the best proposal.

    Attributes:
        best: For each number of detections the best IoU of every annotation so far.
        covered: Image id -> covering of each annotator.

    """

    best: dict[int, list[np.ndarray]] = field(default_factory=lambda: {n: [] for n in DETECTIONS})
    covered: dict[int, list[float]] = field(default_factory=dict)

    def add(
        self, image_id: int, ious: np.ndarray, areas: np.ndarray, *, counted: np.ndarray, crowd: np.ndarray
    ) -> None:
        """Add one annotator's drawing: (D, G) overlaps, best score first, and (G,) areas of its segments.

        The best IoUs are of the segments that are `counted`, (G,) bool; the covering leaves out `crowd` alone.
        """
        for n, sums in self.best.items():
            sums.append(ious[:n, counted].max(axis=0, initial=0.0))
        weights = np.where(crowd, 0.0, areas)
        if weights.any():
            best = ious.max(axis=0, initial=0.0)
            self.covered.setdefault(image_id, []).append(float(np.average(best, weights=weights)))

    def summary(self) -> dict[str, float]:
        """Mean best IoU with the first 1, 10, 100, 1000 predictions, and the covering with all of them."""
        row = {
            f"best_iou@{n}": float(np.concatenate(sums).mean()) if any(map(len, sums)) else float("nan")
            for n, sums in self.best.items()
        }
        by_image = [float(np.mean(values)) for values in self.covered.values()]
        return row | {"covering": float(np.mean(by_image)) if by_image else float("nan")}
