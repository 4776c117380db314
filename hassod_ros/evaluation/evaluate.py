"""All figures of one set of predictions in one pass over the images."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from hassod_ros.evaluation.annotations import AnnotatedSet, Segments, to_segments
from hassod_ros.evaluation.calibration import Calibration
from hassod_ros.evaluation.composition import LevelScores, ParentScores, StuffShare
from hassod_ros.evaluation.covering import Covering
from hassod_ros.evaluation.detection_scores import DetectionScores
from hassod_ros.evaluation.matching import HIT, SIZES, THRESHOLDS, containment, fates, match, overlaps

PICTURE_DETECTIONS = 100  # predictions that count for the ranking of pictures


@dataclass
class _Sums:
    """What is gathered for masks or for boxes."""

    detection: DetectionScores
    levels: LevelScores = field(default_factory=LevelScores)
    parents: ParentScores = field(default_factory=ParentScores)
    stuff: StuffShare = field(default_factory=StuffShare)
    calibration: Calibration = field(default_factory=Calibration)
    covering: Covering = field(default_factory=Covering)


def evaluate(
    annotated: AnnotatedSet,
    predictions: Mapping[int, Segments],
    *,
    max_detections: int = 1000,
    min_area: float = 0.0,
    with_scene: bool = False,
) -> dict[str, Any]:
    """Score predictions against annotations, class-agnostically.

    Masks are scored where both sides have them, boxes always. Where annotations name their annotator, each annotator's
    drawing is a task of its own, solved by the same predictions. Figures that do not exist (AP of a size that the set
    lacks) are NaN.

    Args:
        annotated: The set.
        predictions: Image id -> predictions, best first; a missing image has none, other images are left out.
        max_detections: Predictions of an image that count (the paper: 1000).
        min_area: Annotations below this area in pixels are ignored, like crowd regions.
        with_scene: Count what is marked as scene too, which nodes publish only on wish.

    Returns:
        `counts`; for `mask` and `box` the rows of DetectionScores, Covering, Calibration, LevelScores, StuffShare and
        ParentScores and the curves `recall_by_iou` and `recall_by_detections`; `pictures`: per image AR at 100
        detections.

    """
    empty = to_segments([], (1, 1), with_masks=True)
    with_masks = annotated.has_masks and all(predicted.masks is not None for predicted in predictions.values())
    tells_stuff = any(picture.truth.scene.any() for picture in annotated.pictures)
    sums = {kind: _Sums(DetectionScores(max_detections)) for kind in ("mask", "box") if kind == "box" or with_masks}
    pictures, given = [], []
    truths = 0
    for picture in annotated.pictures:
        predicted = predictions.get(picture.image_id, empty)
        if not with_scene:
            predicted = predicted.select(np.flatnonzero(~predicted.scene))
        given.append(len(predicted))
        if len(predicted) > max_detections:
            predicted = predicted.select(np.arange(max_detections))
        drawings = np.unique(picture.truth.annotators) if len(picture.truth) else np.zeros(1, np.int64)
        recalls = []
        for annotator in drawings:
            truth = picture.truth.select(np.flatnonzero(picture.truth.annotators == annotator))
            truths += int(np.count_nonzero(~truth.crowd))
            values = [_add(sums[kind], kind, picture.image_id, predicted, truth, min_area) for kind in sums]
            recalls.append(values[0])
        if tells_stuff:
            stuff = picture.truth.select(np.flatnonzero(picture.truth.scene))
            for kind in sums:
                sums[kind].stuff.add(containment(predicted, stuff, kind).sum(axis=1))
        if not all(math.isnan(value) for value in recalls):
            recall = float(np.nanmean(recalls))
            pictures.append({"image_id": picture.image_id, "file_name": picture.file_name, "AR@100": recall})
    counts: dict[str, Any] = {
        "images": len(given),
        "images_without_predictions": given.count(0),
        "annotations": truths,
        "predictions": sum(given),
    }
    counts["predictions_per_image"] = counts["predictions"] / max(counts["images"], 1)
    return {"counts": counts, **{kind: _summary(parts) for kind, parts in sums.items()}, "pictures": pictures}


def _add(sums: _Sums, kind: str, image_id: int, predicted: Segments, truth: Segments, min_area: float) -> float:
    """Add one drawing; gives its AR at 100 detections, NaN where nothing counts."""
    ious = overlaps(predicted, truth, kind)
    limits = np.array([(max(low, min_area), high) for low, high in SIZES.values()])
    outside = (truth.areas < limits[:, :1]) | (truth.areas > limits[:, 1:])
    ignored = outside | truth.crowd  # (A, G)
    assigned = match(ious, ignored, truth.crowd, THRESHOLDS)
    areas = predicted.areas if kind == "mask" else predicted.boxes[:, 2] * predicted.boxes[:, 3]
    fate = fates(assigned, ignored, areas, limits)
    positives = np.count_nonzero(~ignored, axis=1)
    sums.detection.add(fate, predicted.scores, positives)
    sums.calibration.add(predicted.scores, fate[0, 0])
    sums.covering.add(image_id, ious, truth.areas, counted=~ignored[0], crowd=truth.crowd)
    inside = containment(truth, truth, kind)
    sums.levels.add(predicted, truth, ious, assigned[0], ignored[0], inside)
    sums.parents.add(predicted, truth, ious, inside)
    hits = np.count_nonzero(fate[0, :, :PICTURE_DETECTIONS] == HIT)
    return hits / (len(THRESHOLDS) * positives[0]) if positives[0] else math.nan


def _summary(sums: _Sums) -> dict[str, Any]:
    recall = sums.detection.recall_curve()[0]  # (T, max_detections)
    ranks = np.unique(np.geomspace(1, recall.shape[1], 40).round().astype(np.int64))
    return {
        **sums.detection.summary(),
        **sums.covering.summary(),
        "recall_by_iou": {"iou": THRESHOLDS.tolist(), "recall": recall[:, -1].tolist()},
        "recall_by_detections": {"detections": ranks.tolist(), "recall": recall.mean(axis=0)[ranks - 1].tolist()},
        "calibration": sums.calibration.summary(),
        "levels": sums.levels.summary(),
        **sums.stuff.summary(),
        "parents": sums.parents.summary(),
    }
