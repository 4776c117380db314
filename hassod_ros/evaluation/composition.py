"""Do predictions know wholes from parts, and things from stuff.

Recall by level, agreement of levels, the share of stuff among the best predictions, parts nested in the right whole.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from hassod_ros.coco import UNKNOWN
from hassod_ros.evaluation.annotations import Segments
from hassod_ros.evaluation.matching import THRESHOLDS, match
from hassod_ros.instances import Level, ancestors_of

FOUND = 0.5  # IoU from which on an annotation counts as found
INSIDE = 0.5  # share of an annotation that has to lie in another one to belong there
ON_STUFF = 0.5  # share of a prediction that has to lie on stuff to be counted as such
RANKS = (10, 20)  # best predictions of an image among which stuff is counted


def stated_levels(truth: Segments, containment: np.ndarray) -> np.ndarray:
    """(G,) int8 levels of annotations; where a set states none, what lies in no other annotated thing is a whole.

    Args:
        truth: G annotations.
        containment: (G, G), the share of each that lies in each.

    """
    if (truth.levels != UNKNOWN).any():
        return truth.levels
    thing = ~truth.crowd & ~truth.scene
    others = (containment >= INSIDE) & thing[None] & ~np.eye(len(truth), dtype=bool)
    return np.where(thing & ~others.any(axis=1), Level.WHOLE, UNKNOWN).astype(np.int8)


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
        accuracy: (2, 2) int64, found wholes and found parts (or subparts): how many, and how many are called so. An
            annotation is found when a prediction overlaps it with IoU >= 0.5; the one that overlaps it most speaks for
            it, whoever else it speaks for.

    """

    predictions: np.ndarray = field(default_factory=lambda: np.zeros(3, np.int64))
    alone_hits: np.ndarray = field(default_factory=lambda: np.zeros((3, len(THRESHOLDS)), np.int64))
    positives: int = 0
    truth_positives: np.ndarray = field(default_factory=lambda: np.zeros(3, np.int64))
    truth_hits: np.ndarray = field(default_factory=lambda: np.zeros((3, len(THRESHOLDS)), np.int64))
    confusion: np.ndarray = field(default_factory=lambda: np.zeros((3, 3), np.int64))
    accuracy: np.ndarray = field(default_factory=lambda: np.zeros((2, 2), np.int64))

    def add(
        self,
        predicted: Segments,
        truth: Segments,
        ious: np.ndarray,
        assigned: np.ndarray,
        ignored: np.ndarray,
        containment: np.ndarray,
    ) -> None:
        """Add one image.

        Args:
            predicted: D predictions.
            truth: G annotations.
            ious: (D, G) overlaps.
            assigned: (T, D) annotation that each prediction got, or -1, over all sizes.
            ignored: (G,) bool, annotations that do not count.
            containment: (G, G), the share of each annotation that lies in each.

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
        if len(predicted):
            self._judge(predicted, stated_levels(truth, containment), ious, ignored | truth.crowd)

    def _judge(self, predicted: Segments, stated: np.ndarray, ious: np.ndarray, ignored: np.ndarray) -> None:
        speaker = ious.argmax(axis=0)
        given = predicted.levels[speaker]
        found = ~ignored & (ious[speaker, np.arange(len(speaker))] >= FOUND) & (stated != UNKNOWN) & (given != UNKNOWN)
        for kind, is_whole in enumerate((True, False)):
            of_kind = found & ((stated == Level.WHOLE) == is_whole)
            right = (given[of_kind] == Level.WHOLE) == is_whole
            self.accuracy[kind] += len(right), np.count_nonzero(right)

    def summary(self) -> dict[str, dict]:
        """What the levels are worth.

        By predicted level: count, AR of that level alone. By stated level: count, AR, share with the level right.
        `accuracy`: of found wholes the share called WHOLE, of found parts the share called PART or SUBPART, their mean.
        """
        with np.errstate(invalid="ignore", divide="ignore"):
            alone = self.alone_hits.mean(axis=1) / self.positives
            recall = self.truth_hits.mean(axis=1) / self.truth_positives
            right = np.diag(self.confusion) / self.confusion.sum(axis=1)
            accuracy = self.accuracy[:, 1] / self.accuracy[:, 0]
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
            "accuracy": {
                "whole": float(accuracy[0]),
                "part": float(accuracy[1]),
                "mean": float(accuracy.mean()),
            },
        }


@dataclass
class StuffShare:
    """How much of what ranks best is stuff, such as wall, floor or sky (COCO panoptic, `isthing` 0).

    Attributes:
        counted: (R,) int64, predictions among the best 10 and 20 of images whose set tells things from stuff.
        stuff: (R,) int64, those of them that lie on stuff by more than half.

    """

    counted: np.ndarray = field(default_factory=lambda: np.zeros(len(RANKS), np.int64))
    stuff: np.ndarray = field(default_factory=lambda: np.zeros(len(RANKS), np.int64))

    def add(self, on_stuff: np.ndarray) -> None:
        """Add one image: (D,) share of each prediction that lies on stuff, best first."""
        for i, rank in enumerate(RANKS):
            self.counted[i] += len(on_stuff[:rank])
            self.stuff[i] += np.count_nonzero(on_stuff[:rank] > ON_STUFF)

    def summary(self) -> dict[str, float]:
        """Share of stuff among the best 10 and 20; NaN where no set tells things from stuff."""
        return {
            f"stuff@{rank}": _share(int(stuff), int(counted))
            for rank, stuff, counted in zip(RANKS, self.stuff, self.counted, strict=True)
        }


@dataclass
class ParentScores:
    """Sums over images about the parents of predictions.

    An annotation is found when a prediction overlaps it with IoU >= 0.5; the one that overlaps it most speaks for it.
    It hangs on another annotation when one of that prediction's ancestors overlaps the other with IoU >= 0.5. A stated
    part is nested right when it hangs on its stated whole. What hangs on anything else does so rightly when that
    stands above it in the annotations, or at least half of it lies in there: nobody states every part.

    `pair_precision`, `pair_recall` and `pair_F1` are stricter: they ask of two found annotations whether the one
    prediction that speaks for the first stands below the one that speaks for the second, as every stated pair of a
    descendant and an ancestor does and no other. The annotations themselves have 1.
    """

    parts: int = 0
    found: int = 0
    both_found: int = 0
    nested: int = 0
    hanging: int = 0
    hanging_right: int = 0
    pairs: int = 0
    paired: int = 0
    paired_right: int = 0

    def add(self, predicted: Segments, truth: Segments, ious: np.ndarray, containment: np.ndarray) -> None:
        """Add one image with its (D, G) overlaps and the (G, G) share of each annotation that lies in each."""
        stated = np.flatnonzero(~truth.crowd)
        is_part = truth.parents[stated] >= 0
        self.parts += int(np.count_nonzero(is_part))
        related = ancestors_of(truth.parents)
        self.pairs += int(np.count_nonzero(related[np.ix_(stated, stated)]))
        if not len(stated) or not len(predicted):
            return
        speaker = ious[:, stated].argmax(axis=0)
        found = ious[speaker, stated] >= FOUND
        stated, speaker, is_part = stated[found], speaker[found], is_part[found]
        wholes = truth.parents[stated]
        # (F, G): an ancestor of what speaks for it overlaps the other.
        above = ancestors_of(predicted.parents)[speaker]
        hangs = above.astype(np.float32) @ (ious >= FOUND).astype(np.float32) > 0
        self.found += int(np.count_nonzero(is_part))
        self.both_found += int(np.count_nonzero(is_part & (ious[:, wholes] >= FOUND).any(axis=0)))
        self.nested += int(np.count_nonzero(is_part & hangs[np.arange(len(stated)), wholes]))
        others = hangs[:, stated] & ~np.eye(len(stated), dtype=bool)
        paired = above[:, speaker]
        self.paired += int(np.count_nonzero(paired))
        self.paired_right += int(np.count_nonzero(paired & related[np.ix_(stated, stated)]))
        belongs = related | (containment >= INSIDE)
        self.hanging += int(np.count_nonzero(others))
        self.hanging_right += int(np.count_nonzero(others & belongs[np.ix_(stated, stated)]))

    def summary(self) -> dict[str, float | int]:
        """Shares of parts nested right: among found ones, where the whole was found too, of all; and the precision."""
        return {
            "parts": self.parts,
            "found": self.found,
            "whole_found_too": self.both_found,
            "nested_right": self.nested,
            "accuracy": _share(self.nested, self.found),
            "accuracy_where_whole_found": _share(self.nested, self.both_found),
            "of_all_parts": _share(self.nested, self.parts),
            "hanging": self.hanging,
            "precision": _share(self.hanging_right, self.hanging),
            "pairs": self.pairs,
            "pair_precision": _share(self.paired_right, self.paired),
            "pair_recall": _share(self.paired_right, self.pairs),
            "pair_F1": _share(2 * self.paired_right, self.paired + self.pairs),
        }


def _counted(assigned: np.ndarray, ignored: np.ndarray) -> np.ndarray:
    return (assigned >= 0) & ~ignored[np.maximum(assigned, 0)]


def _share(part: int, whole: int) -> float:
    return part / whole if whole else float("nan")
