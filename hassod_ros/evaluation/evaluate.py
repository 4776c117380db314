"""All figures of one set of predictions in one pass over the images."""

from __future__ import annotations

import math
import multiprocessing
from collections import ChainMap
from collections.abc import Iterator, Mapping
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field, fields, is_dataclass
from typing import Any

import numpy as np
from tqdm import tqdm

from hassod_ros.evaluation.annotations import AnnotatedSet, Segments, to_segments
from hassod_ros.evaluation.calibration import Calibration
from hassod_ros.evaluation.composition import LevelScores, ParentScores, StuffShare
from hassod_ros.evaluation.covering import Covering
from hassod_ros.evaluation.detection_scores import DetectionScores
from hassod_ros.evaluation.matching import HIT, SIZES, THRESHOLDS, containment, fates, match, overlaps

PICTURE_DETECTIONS = 100  # predictions that count for the ranking of pictures
_PORTION = 16  # pictures that a process scores before it hands on what it has
_COUNTS = ("images", "images_without_predictions", "annotations", "predictions")


@dataclass
class _Sums:
    """What is gathered for masks or for boxes."""

    detection: DetectionScores
    levels: LevelScores = field(default_factory=LevelScores)
    parents: ParentScores = field(default_factory=ParentScores)
    stuff: StuffShare = field(default_factory=StuffShare)
    calibration: Calibration = field(default_factory=Calibration)
    covering: Covering = field(default_factory=Covering)


@dataclass
class _Part:
    """What some of the pictures contribute."""

    sums: dict[str, _Sums]
    pictures: list[dict[str, Any]] = field(default_factory=list)
    counts: dict[str, int] = field(default_factory=lambda: dict.fromkeys(_COUNTS, 0))


@dataclass(frozen=True, eq=False)
class _Task:
    """What is scored against what; the same for every process."""

    annotated: AnnotatedSet
    predictions: Mapping[int, Segments]
    kinds: tuple[str, ...]
    max_detections: int
    min_area: float
    with_scene: bool
    tells_stuff: bool


def evaluate(
    annotated: AnnotatedSet,
    predictions: Mapping[int, Segments],
    *,
    max_detections: int = 1000,
    min_area: float = 0.0,
    with_scene: bool = False,
    processes: int = 1,
) -> dict[str, Any]:
    """Score predictions against annotations, class-agnostically, picture by picture.

    Masks are scored where both sides have them, boxes always. Where annotations name their annotator, each annotator's
    drawing is a task of its own, solved by the same predictions. Figures that do not exist (AP of a size that the set
    lacks) are NaN.

    Args:
        annotated: The set.
        predictions: Image id -> predictions, best first; a missing image has none, other images are left out.
        max_detections: Predictions of an image that count (the paper: 1000).
        min_area: Annotations below this area in pixels are ignored, like crowd regions.
        with_scene: Count what is marked as scene too, which nodes publish only on wish.
        processes: That share the pictures.

    Returns:
        `counts`; for `mask` and `box` the rows of DetectionScores, Covering, Calibration, LevelScores, StuffShare and
        ParentScores and the curves `recall_by_iou` and `recall_by_detections`; `pictures`: per image AR at 100
        detections.

    """
    maps = predictions.maps if isinstance(predictions, ChainMap) else [predictions]
    first = [next(iter(part.values())) for part in maps if len(part)]
    with_masks = annotated.has_masks and all(predicted.masks is not None for predicted in first)
    kinds = ("mask", "box") if with_masks else ("box",)
    tells_stuff = any(picture.truth.scene.any() for picture in annotated.pictures)
    task = _Task(annotated, predictions, kinds, max_detections, min_area, with_scene, tells_stuff)
    total, count = _empty_part(task), len(annotated.pictures)
    starts = range(0, count, _PORTION)
    with tqdm(total=count, desc="score", unit="image", delay=2, leave=False) as bar:
        for start, part in zip(starts, _parts(task, starts, processes), strict=True):
            _merge(total, part)
            bar.update(min(_PORTION, count - start))
    counts: dict[str, Any] = dict(total.counts)
    counts["predictions_per_image"] = counts["predictions"] / max(counts["images"], 1)
    scores = {kind: _summary(parts) for kind, parts in total.sums.items()}
    return {"counts": counts, **scores, "pictures": total.pictures}


def _parts(task: _Task, starts: range, processes: int) -> Iterator[_Part]:
    """The parts of all portions in order."""
    if processes == 1:
        yield from (_score(task, start) for start in starts)
        return
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(processes, context, initializer=_take, initargs=(task,)) as pool:
        yield from pool.map(_score_here, starts)


_here: list[_Task] = []  # of a process that works for another one


def _take(task: _Task) -> None:
    _here[:] = [task]


def _score_here(start: int) -> _Part:
    return _score(_here[0], start)


def _empty_part(task: _Task) -> _Part:
    return _Part({kind: _Sums(DetectionScores(task.max_detections)) for kind in task.kinds})


def _score(task: _Task, start: int) -> _Part:
    """Score one portion of the pictures."""
    part, nothing = _empty_part(task), to_segments([], (1, 1), with_masks=True)
    for picture in task.annotated.pictures[start : start + _PORTION]:
        predicted, annotations = task.predictions.get(picture.image_id, nothing), picture.truth
        if not task.with_scene:
            predicted = predicted.select(np.flatnonzero(~predicted.scene))
        part.counts["images"] += 1
        part.counts["images_without_predictions"] += not len(predicted)
        part.counts["predictions"] += len(predicted)
        if len(predicted) > task.max_detections:
            predicted = predicted.select(np.arange(task.max_detections))
        drawings = np.unique(annotations.annotators) if len(annotations) else np.zeros(1, np.int64)
        recalls = []
        for annotator in drawings:
            truth = annotations.select(np.flatnonzero(annotations.annotators == annotator))
            part.counts["annotations"] += int(np.count_nonzero(~truth.crowd))
            values = [
                _add(sums, kind, picture.image_id, predicted, truth, task.min_area) for kind, sums in part.sums.items()
            ]
            recalls.append(values[0])
        if task.tells_stuff:
            stuff = annotations.select(np.flatnonzero(annotations.scene))
            for kind, sums in part.sums.items():
                sums.stuff.add(containment(predicted, stuff, kind).sum(axis=1))
        if not all(math.isnan(value) for value in recalls):
            recall = float(np.nanmean(recalls))
            part.pictures.append({"image_id": picture.image_id, "file_name": picture.file_name, "AR@100": recall})
    return part


def _merge(total: Any, part: Any) -> Any:
    """Take the sums of `part` into `total`: numbers and arrays add up, lists grow."""
    if is_dataclass(total):
        for each in fields(total):
            if not each.metadata.get("setting"):
                setattr(total, each.name, _merge(getattr(total, each.name), getattr(part, each.name)))
    elif isinstance(total, dict):
        for key, value in part.items():
            total[key] = _merge(total[key], value) if key in total else value
    else:
        total += part
    return total


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
