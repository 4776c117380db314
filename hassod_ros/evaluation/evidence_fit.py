"""Fit the constants of `runtime.evidence` to a model's masks on annotated pictures.

A logistic model a question: what the picture shows of a mask (`find_cues`) in, log-odds out. Which masks are things and
which are scene, annotations say at once; whose parent a mask may be follows from what hangs on what. Things count by
how well they agree, so that the best ones come first. Where to decide is chosen afterwards: few things may be lost to
the scene, and most parts shall hang on something.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from pycocotools import mask as rle
from sklearn.linear_model import LogisticRegression
from tqdm import tqdm

from hassod_ros.coco import UNKNOWN
from hassod_ros.evaluation.annotations import AnnotatedSet, Segments
from hassod_ros.evaluation.composition import FOUND, INSIDE, ON_STUFF, stated_levels
from hassod_ros.evaluation.matching import THRESHOLDS
from hassod_ros.images import read_image
from hassod_ros.instances import Level, ancestors_of
from hassod_ros.masks import paste_filled, pixel_regions, run_lengths
from hassod_ros.runtime.backends import open_backend
from hassod_ros.runtime.evidence import CUES, Evidence
from hassod_ros.runtime.postprocess import PostprocessOptions, find_maps, maps_cues, select_rows
from hassod_ros.runtime.preprocess import letterbox

QUESTIONS = ("thing", "scene", "parents")

_FEWEST = 50  # examples of either kind that a model is fitted to
_DECIMALS = 3
_LOST = 0.05  # share of the things that may be taken for scene
_WIDEST = 10  # log-odds by which the limit for parents is moved at most, in tenths


@dataclass(frozen=True)
class Examples:
    """What annotated pictures say about a model's masks.

    Attributes:
        cues: (N, C) float32, of the masks of all pictures.
        thing: (N,) int8, 1 where a mask agrees most of all with an annotated thing or part, 0 where it does not or
            another one does so better, -1 where nobody knows.
        quality: (N,) float32, share of COCO's ten IoU thresholds that it passes as such.
        scene: (N,) int8, likewise, where most of it is stuff.
        pairs: (P, 2) int64, a mask and one that covers it.
        related: (P,) bool, whether the second one is what the first one belongs to.
        whole: (P,) bool, whether the first one is a whole, so that nothing is.
        weights: (P,) float64, what each pair counts; 0 for a part none of whose ancestors was found.
        alone: (2,) int64, parts and wholes that no mask covers.

    """

    cues: np.ndarray
    thing: np.ndarray
    quality: np.ndarray
    scene: np.ndarray
    pairs: np.ndarray
    related: np.ndarray
    whole: np.ndarray
    weights: np.ndarray
    alone: np.ndarray

    @classmethod
    def join(cls, parts: Sequence[Examples]) -> Examples:
        """Those of several pictures or sets."""
        starts = np.cumsum([0, *(len(part.cues) for part in parts[:-1])])
        return cls(
            cues=np.concatenate([part.cues for part in parts]),
            thing=np.concatenate([part.thing for part in parts]),
            quality=np.concatenate([part.quality for part in parts]),
            scene=np.concatenate([part.scene for part in parts]),
            pairs=np.concatenate([part.pairs + start for part, start in zip(parts, starts, strict=True)]),
            related=np.concatenate([part.related for part in parts]),
            whole=np.concatenate([part.whole for part in parts]),
            weights=np.concatenate([part.weights for part in parts]),
            alone=np.sum([part.alone for part in parts], axis=0),
        )


def find_examples(
    model: str | os.PathLike, annotated: AnnotatedSet, images: str | os.PathLike, *, things: bool = True
) -> Examples:
    """Look at every picture of a set.

    Args:
        model: An exported detector.
        annotated: The set, with masks.
        images: Folder that its file names are relative to.
        things: The set annotates every thing; else only parents are learned from it.

    Raises:
        InputError: The model or a picture cannot be read.

    """
    backend = open_backend(model)
    try:
        info = backend.info
        options = replace(PostprocessOptions.recommended(info), score_thresholds=(0.0,) * 3, evidence=None)
        pixels = np.zeros((info.batch, *info.input_size, 3), np.uint8)
        found = []
        for picture in tqdm(annotated.pictures, desc="look", unit="image", dynamic_ncols=True):
            placed = letterbox(read_image(Path(images) / picture.file_name), pixels[0], fill=info.fill)
            raw = backend.infer(pixels)
            rows, _ = select_rows(raw, 0, options)
            visible, boxes, maps = find_maps(raw, 0, rows, placed, options, pixels[0])
            cues = maps_cues(raw, 0, rows[visible], maps, placed, options, pixels[0])
            filled, masks = paste_filled(maps, boxes, options.mask_threshold)
            size = [*placed.image_size]
            codes = run_lengths(pixel_regions(boxes[filled]), masks, placed.image_size)
            segments = [{"size": size, "counts": code} for code in codes]
            found.append(_judge(cues[filled], segments, picture.truth, options.parent_coverage, things=things))
    finally:
        backend.close()
    joined = Examples.join(found)
    kinds = [joined.weights * (joined.whole == is_whole) for is_whole in (True, False)]
    return replace(joined, weights=sum(kind / max(kind.sum(), 1) for kind in kinds))  # wholes count as much as parts


def _judge(cues: np.ndarray, masks: list[dict], truth: Segments, cover: float, *, things: bool) -> Examples:
    """The examples of one picture."""
    others = np.flatnonzero(~truth.scene & ~truth.crowd)
    annotations = truth.select(others)
    assert annotations.masks is not None  # the set has masks
    count = len(masks)
    ious = np.zeros((count, 0))
    if count and len(others):
        ious = np.asarray(rle.iou(masks, annotations.masks, [0] * len(others)))
    thing, scene = np.full((2, count), -1, np.int8)
    quality = np.zeros(count, np.float32)
    if things and count:
        agrees = ious.max(axis=1, initial=0) >= FOUND
        speakers = ious.argmax(axis=0)
        overlap = ious[speakers, np.arange(len(others))]
        np.maximum.at(quality, speakers, (overlap[:, None] >= THRESHOLDS).mean(axis=1).astype(np.float32))
        thing[:] = quality > 0
        thing[~agrees & (_covered(masks, truth, truth.crowd) > ON_STUFF)] = -1  # one of a crowd
        if truth.scene.any():
            scene[:] = (_covered(masks, truth, truth.scene) > ON_STUFF) & ~agrees
    return Examples(cues, thing, quality, scene, *_pairs(masks, annotations, ious, cover))


def _covered(masks: list[dict], truth: Segments, chosen: np.ndarray) -> np.ndarray:
    """(N,) share of each mask that lies on the chosen annotations, which do not overlap."""
    index = np.flatnonzero(chosen)
    if not len(index) or truth.masks is None:
        return np.zeros(len(masks))
    return np.asarray(rle.iou(masks, [truth.masks[i] for i in index], [1] * len(index))).sum(axis=1)


def _pairs(masks: list[dict], truth: Segments, ious: np.ndarray, cover: float) -> tuple[np.ndarray, ...]:
    """Pairs of a mask that speaks for an annotation and one that covers it, as far as annotations tell.

    Returns:
        `pairs`, `related`, `whole`, `weights` and `alone` of `Examples`.

    """
    assert truth.masks is not None  # the set has masks
    if not masks or not len(truth):
        return np.zeros((0, 2), np.int64), np.zeros(0, bool), np.zeros(0, bool), np.zeros(0), np.zeros(2, np.int64)
    lies_in = np.asarray(rle.iou(masks, masks, [1] * len(masks)))  # (N, N) share of the row that lies in the column
    areas = rle.area(masks).astype(np.float64)
    inside = np.asarray(rle.iou(truth.masks, truth.masks, [1] * len(truth)))
    levels = stated_levels(truth, inside)
    belongs = ancestors_of(truth.parents) | ((inside >= INSIDE) & (truth.areas[None] > truth.areas[:, None]))
    belongs &= (levels != Level.WHOLE)[:, None]
    speakers = ious.argmax(axis=0)
    asked = np.flatnonzero((ious[speakers, np.arange(len(truth))] >= FOUND) & (levels != UNKNOWN))
    children = speakers[asked]
    covering = (lies_in[children] >= cover) & (areas > areas[children, None])  # (A, N)
    hangs = belongs[asked].astype(np.float32) @ (ious >= FOUND).T.astype(np.float32) > 0  # (A, N)
    child, parent = np.nonzero(covering)
    whole = (levels == Level.WHOLE)[asked]
    told = whole | (covering & hangs).any(axis=1)
    return (
        np.stack([children[child], parent], axis=1),
        hangs[child, parent],
        whole[child],
        (told / np.maximum(np.count_nonzero(covering, axis=1), 1))[child],
        np.bincount(whole[~covering.any(axis=1)], minlength=2),
    )


def fit(
    sets: Sequence[Examples],
    start: Evidence,
    *,
    only: Collection[str] = QUESTIONS,
    parts_right: float = 0.85,
    strength: float = 1.0,
) -> tuple[Evidence, dict[str, str]]:
    """The constants that explain the examples best.

    Args:
        sets: Examples of one or several sets; each counts the same where parents are asked for.
        start: What is not learned is taken from it.
        only: Which of `QUESTIONS` to learn.
        parts_right: Share of the found parts that shall hang on something; the more, the fewer wholes stay wholes.
        strength: Inverse of the ridge, on cues of unit deviation.

    Returns:
        The constants, and for each question what they were fitted to, or why they were not.

    """
    examples = Examples.join(list(sets))
    labels = {
        "thing": examples.thing[examples.thing >= 0] > 0,
        "scene": examples.scene[_large_known(examples, start)] > 0,
        "parents": examples.related[examples.weights > 0],
    }
    constants, said = start, {}
    for question in (name for name in QUESTIONS if name in only):
        yes = int(np.count_nonzero(labels[question]))
        no = len(labels[question]) - yes
        said[question] = f"fitted to {yes} examples and {no} of the contrary"
        if min(yes, no) < _FEWEST:
            said[question] = f"kept: {yes} examples and {no} of the contrary are too few, {_FEWEST} of each are needed"
        elif question == "thing":
            constants = replace(constants, thing=_thing(examples, strength))
        elif question == "scene":
            constants = replace(constants, scene=_scene(examples, start, strength))
        else:
            parent, child = _parents(sets, examples, parts_right, strength)
            constants = replace(constants, parent=parent, child=child)
    return constants, said


def _thing(examples: Examples, strength: float) -> tuple[float, ...]:
    """In an order that follows `quality`; calibrated to `thing` afterwards."""
    known = examples.thing >= 0
    cues, quality = examples.cues[known], examples.quality[known]
    good, weights = np.repeat([True, False], len(cues)), np.concatenate([quality, 1 - quality])
    found = _logistic(np.concatenate([cues, cues]), good, weights, strength)
    odds = cues @ found[:-1] + found[-1]
    scale = LogisticRegression(C=np.inf).fit(odds[:, None], examples.thing[known])  # Platt, 1999
    found *= scale.coef_[0, 0]
    found[-1] += scale.intercept_[0]
    return _rounded(found)


def _scene(examples: Examples, start: Evidence, strength: float) -> tuple[float, ...]:
    known = _large_known(examples, start)
    found = _logistic(examples.cues[known], examples.scene[known] > 0, None, strength)
    things = examples.cues[known & (examples.quality > 0)]
    if len(things):
        found[-1] -= max(0.0, np.quantile(things @ found[:-1] + found[-1], 1 - _LOST))
    return _rounded(found)


def _large_known(examples: Examples, start: Evidence) -> np.ndarray:
    """(N,) bool, masks of which it is known whether they are scene, and that may be."""
    return (examples.scene >= 0) & (np.exp(examples.cues[:, CUES.index("area")]) > start.scene_area)


def _parents(
    sets: Sequence[Examples], examples: Examples, parts_right: float, strength: float
) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """The constants of `parent` and of `child`, whose sum decides."""
    counted = examples.weights > 0
    found = _logistic(_both(examples)[counted], examples.related[counted], examples.weights[counted], strength)
    found[-1] += _shift(sets, lambda each: _both(each) @ found[:-1] + found[-1], parts_right)
    return _rounded([*found[: len(CUES)], found[-1]]), _rounded([*found[len(CUES) : -1], 0.0])


def _both(examples: Examples) -> np.ndarray:
    """(P, 2 C) cues of what covers and of what is covered."""
    return np.concatenate([examples.cues[examples.pairs[:, 1]], examples.cues[examples.pairs[:, 0]]], axis=1)


def _shift(sets: Sequence[Examples], odds_of: Callable[[Examples], np.ndarray], parts_right: float) -> float:
    """What to add to the log-odds of pairs so that a share of the parts hangs on something, sets counted alike.

    A part is told when one of the masks that cover it may be its parent; every more that may is a whole less.
    """
    limits = np.linspace(-_WIDEST, _WIDEST, 20 * _WIDEST + 1)
    hanging = []
    for examples in sets:
        best = np.full(len(examples.cues), -np.inf)
        np.maximum.at(best, examples.pairs[:, 0], odds_of(examples))
        parts = best[np.unique(examples.pairs[~examples.whole, 0])]
        if count := len(parts) + int(examples.alone[0]):
            hanging.append(np.count_nonzero(parts[:, None] > limits, axis=0) / count)
    if not hanging:
        return 0.0
    enough = np.flatnonzero(np.mean(hanging, axis=0) >= parts_right)
    return -float(limits[enough[-1] if len(enough) else 0])


def _logistic(values: np.ndarray, labels: np.ndarray, weights: np.ndarray | None, strength: float) -> np.ndarray:
    """Weights and bias (C + 1,)."""
    mean, deviation = values.mean(axis=0), np.maximum(values.std(axis=0), 1e-6)
    if weights is not None:
        weights = weights * len(weights) / weights.sum()
    model = LogisticRegression(C=strength, max_iter=1000).fit((values - mean) / deviation, labels, weights)
    slopes = model.coef_[0] / deviation
    return np.append(slopes, model.intercept_[0] - slopes @ mean)


def _rounded(values: np.ndarray | Sequence[float]) -> tuple[float, ...]:
    return tuple(round(float(value), _DECIMALS) for value in values)
