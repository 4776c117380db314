"""Do predictions know wholes from parts: recall by level, agreement of levels, parts nested in the right whole."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from hassod_ros.evaluation.annotations import UNKNOWN, Segments
from hassod_ros.evaluation.matching import THRESHOLDS, match
from hassod_ros.instances import Level

FOUND = 0.5  # IoU from which on an annotation counts as found


@dataclass
class LevelScores:
    """Sums over images about the level of predictions.

    Attributes:
        predictions: (3,) int64, predictions of each level, once for every annotator of an image.
        alone_hits: (3, T) int64, annotations found with the predictions of one level alone.
        positives: annotations that count.
        truth_positives: (3,) int64, annotations of each stated level.
        truth_hits: (3, T) int64, those found by predictions of any level.
        confusion: (3, 3) int64, stated level of annotations found at IoU 0.5 against the level of what found them.

    """

    predictions: np.ndarray = field(default_factory=lambda: np.zeros(3, np.int64))
    alone_hits: np.ndarray = field(default_factory=lambda: np.zeros((3, len(THRESHOLDS)), np.int64))
    positives: int = 0
    truth_positives: np.ndarray = field(default_factory=lambda: np.zeros(3, np.int64))
    truth_hits: np.ndarray = field(default_factory=lambda: np.zeros((3, len(THRESHOLDS)), np.int64))
    confusion: np.ndarray = field(default_factory=lambda: np.zeros((3, 3), np.int64))

    def add(
        self, predicted: Segments, truth: Segments, ious: np.ndarray, assigned: np.ndarray, ignored: np.ndarray
    ) -> None:
        """Add one image.

        Args:
            predicted: D predictions.
            truth: G annotations.
            ious: (D, G) overlaps.
            assigned: (T, D) annotation that each prediction got, or -1, over all sizes.
            ignored: (G,) bool, annotations that do not count.

        """
        self.positives += int(np.count_nonzero(~ignored))
        for level in Level:
            of_level = predicted.levels == level
            self.predictions[level] += np.count_nonzero(of_level)
            self.truth_positives[level] += np.count_nonzero(~ignored & (truth.levels == level))
            if of_level.any() and len(truth):
                alone = match(ious[of_level], ignored[None], truth.crowd, THRESHOLDS)[0]
                self.alone_hits[level] += _counted(alone, ignored).sum(axis=1)
        if not len(truth):
            return
        hit = _counted(assigned, ignored)
        for level in Level:
            self.truth_hits[level] += (hit & (truth.levels == level)[np.maximum(assigned, 0)]).sum(axis=1)
        at_half = np.flatnonzero(hit[0])
        stated, given = truth.levels[assigned[0, at_half]], predicted.levels[at_half]
        known = (stated != UNKNOWN) & (given != UNKNOWN)
        np.add.at(self.confusion, (stated[known], given[known]), 1)

    def summary(self) -> dict[str, dict]:
        """By predicted level: count, AR of that level alone. By stated level: count, AR, share with the level right."""
        with np.errstate(invalid="ignore", divide="ignore"):
            alone = self.alone_hits.mean(axis=1) / self.positives
            recall = self.truth_hits.mean(axis=1) / self.truth_positives
            right = np.diag(self.confusion) / self.confusion.sum(axis=1)
        names = [level.name.lower() for level in Level]
        return {
            "predicted": {
                name: {"predictions": int(self.predictions[i]), "AR_alone": float(alone[i])}
                for i, name in enumerate(names)
            },
            "annotated": {
                name: {
                    "annotations": int(self.truth_positives[i]),
                    "AR": float(recall[i]),
                    "level_right": float(right[i]),
                }
                for i, name in enumerate(names)
                if self.truth_positives[i]
            },
        }


@dataclass
class ParentScores:
    """Sums over images about the parents of predictions.

    A stated part is found when a prediction overlaps it with IoU >= 0.5; the one that overlaps it most speaks for it.
    The part is nested right when one of that prediction's ancestors overlaps the stated whole with IoU >= 0.5.
    """

    parts: int = 0
    found: int = 0
    both_found: int = 0
    nested: int = 0

    def add(self, predicted: Segments, truth: Segments, ious: np.ndarray) -> None:
        """Add one image with its (D, G) overlaps."""
        parts = np.flatnonzero((truth.parents >= 0) & ~truth.crowd)
        self.parts += len(parts)
        if not len(parts) or not len(predicted):
            return
        speaker = ious[:, parts].argmax(axis=0)
        found = ious[speaker, parts] >= FOUND
        parts, speaker = parts[found], speaker[found]
        wholes = truth.parents[parts]
        self.found += len(parts)
        self.both_found += int(np.count_nonzero((ious[:, wholes] >= FOUND).any(axis=0)))
        nested = np.zeros(len(parts), bool)
        ancestor = predicted.parents[speaker]
        while (ancestor >= 0).any():
            nested |= (ancestor >= 0) & (ious[ancestor, wholes] >= FOUND)
            ancestor = np.where(ancestor >= 0, predicted.parents[ancestor], -1)
        self.nested += int(np.count_nonzero(nested))

    def summary(self) -> dict[str, float | int]:
        """Part-in-whole accuracy among found parts, among those whose whole was found too, and among all parts."""
        return {
            "parts": self.parts,
            "found": self.found,
            "whole_found_too": self.both_found,
            "nested_right": self.nested,
            "accuracy": _share(self.nested, self.found),
            "accuracy_where_whole_found": _share(self.nested, self.both_found),
            "of_all_parts": _share(self.nested, self.parts),
        }


def _counted(assigned: np.ndarray, ignored: np.ndarray) -> np.ndarray:
    return (assigned >= 0) & ~ignored[np.maximum(assigned, 0)]


def _share(part: int, whole: int) -> float:
    return part / whole if whole else float("nan")
