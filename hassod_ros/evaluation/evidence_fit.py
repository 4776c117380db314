"""Fit the constants of `runtime.evidence` to a model's masks on annotated pictures.

A logistic model a question: what the picture shows of a mask (`find_cues`) in, log-odds out. Which masks are things and
which are scene, annotations say at once; whose parent a mask may be follows from what hangs on what. Where to decide is
chosen afterwards: few things may be lost to the scene, and wholes and parts shall be told with equal care.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from pycocotools import mask as rle
from sklearn.linear_model import LogisticRegression
from tqdm import tqdm

from hassod_ros.coco import UNKNOWN
from hassod_ros.evaluation.annotations import AnnotatedSet, Segments
from hassod_ros.evaluation.composition import FOUND, stated_levels
from hassod_ros.images import read_image
from hassod_ros.instances import Level, ancestors_of
from hassod_ros.masks import paste_filled, pixel_regions, run_lengths
from hassod_ros.runtime.backends import open_backend
from hassod_ros.runtime.evidence import CUES, Evidence
from hassod_ros.runtime.postprocess import PostprocessOptions, find_maps, maps_cues, select_rows
from hassod_ros.runtime.preprocess import letterbox

_ON_STUFF = 0.5  # share of a mask that has to lie on stuff
_INSIDE = 0.5  # share of an annotation that has to lie in another one to belong there
_FEWEST = 50  # examples of either kind that a model is fitted to
_DECIMALS = 3
_LOST = 0.05  # share of the things that may be taken for scene
_WIDEST = 10  # log-odds by which the limit for parents is moved at most


@dataclass(frozen=True)
class Examples:
    """What annotated pictures say about a model's masks.

    Attributes:
        cues: (N, C) float32, of the masks of all pictures.
        thing: (N,) int8, 1 where a mask agrees with an annotated thing or part, 0 where not, -1 where nobody knows.
        scene: (N,) int8, likewise, where most of it is stuff.
        pairs: (P, 2) int64, a mask and one that covers it.
        related: (P,) bool, whether the second one is what the first one belongs to.
        whole: (P,) bool, whether the first one is a whole, so that nothing is.
        weights: (P,) float64; those of one mask are the same, and those of a set have a sum of 1.
        alone: (2,) int64, parts and wholes that no mask covers.

    """

    cues: np.ndarray
    thing: np.ndarray
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
        fill = (round(info.mean[0]), round(info.mean[1]), round(info.mean[2]))
        found = []
        for picture in tqdm(annotated.pictures, desc="look", unit="image", dynamic_ncols=True):
            placed = letterbox(read_image(Path(images) / picture.file_name), pixels[0], fill=fill)
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
    return replace(joined, weights=joined.weights / max(joined.weights.sum(), 1))


def _judge(cues: np.ndarray, masks: list[dict], truth: Segments, cover: float, *, things: bool) -> Examples:
    """The examples of one picture."""
    unknown = np.full(len(masks), -1, np.int8)
    if not len(truth) or not masks:
        none = np.zeros(0, bool)
        return Examples(
            cues, unknown, unknown, np.zeros((0, 2), np.int64), none, none, np.zeros(0), np.zeros(2, np.int64)
        )
    others = np.flatnonzero(~truth.scene & ~truth.crowd)
    annotations = truth.select(others)
    assert annotations.masks is not None  # the set has masks
    empty = np.zeros((len(masks), 0))
    ious = rle.iou(masks, annotations.masks, [0] * len(others)) if len(others) else empty
    thing, scene = unknown.copy(), unknown.copy()
    if things:
        best = ious.max(axis=1, initial=0)
        covered = _covered(masks, truth, truth.crowd)
        thing[:] = best >= FOUND
        thing[(best < FOUND) & (covered > _ON_STUFF)] = -1  # one of a crowd
        if truth.scene.any():
            scene[:] = (_covered(masks, truth, truth.scene) > _ON_STUFF) & (best < FOUND)
    return Examples(cues, thing, scene, *_pairs(masks, annotations, ious, cover))


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
    lies_in = np.asarray(rle.iou(masks, masks, [1] * len(masks)))  # (N, N) share of the row that lies in the column
    areas = rle.area(masks).astype(np.float64)
    inside = np.asarray(rle.iou(truth.masks, truth.masks, [1] * len(truth))) if len(truth) else np.zeros((0, 0))
    levels = stated_levels(truth, inside)
    belongs = ancestors_of(truth.parents) | ((inside >= _INSIDE) & (truth.areas[None] > truth.areas[:, None]))
    belongs &= (levels != Level.WHOLE)[:, None]
    speakers = ious.argmax(axis=0) if len(truth) else np.zeros(0, np.intp)
    asked = np.flatnonzero((ious[speakers, np.arange(len(truth))] >= FOUND) & (levels != UNKNOWN))
    children = speakers[asked]
    covering = (lies_in[children] >= cover) & (areas > areas[children, None])  # (A, N)
    hangs = belongs[asked].astype(np.float32) @ (ious >= FOUND).T.astype(np.float32) > 0  # (A, N)
    child, parent = np.nonzero(covering)
    whole = (levels == Level.WHOLE)[asked]
    return (
        np.stack([children[child], parent], axis=1),
        hangs[child, parent],
        whole[child],
        1 / np.count_nonzero(covering, axis=1)[child],
        np.bincount(whole[~covering.any(axis=1)], minlength=2),
    )


def fit(sets: Sequence[Examples], start: Evidence, *, strength: float = 1.0) -> tuple[Evidence, dict[str, str]]:
    """The constants that explain the examples best; each set counts the same among pairs.

    Args:
        sets: Examples of one or several sets.
        start: What is not learned is taken from it.
        strength: Inverse of the ridge, on cues of unit deviation.

    Returns:
        The constants, and for each model what it was fitted to, or why it was not.

    """
    all_examples, said = Examples.join(list(sets)), {}
    cues, large = all_examples.cues, np.exp(all_examples.cues[:, CUES.index("area")]) > start.scene_area
    constants: dict[str, Any] = {}
    for name, labels, asked in (
        ("thing", all_examples.thing, all_examples.thing >= 0),
        ("scene", all_examples.scene, (all_examples.scene >= 0) & large),
    ):
        found = _logistic(cues[asked], labels[asked] > 0, None, strength)
        said[name] = _said(labels[asked] > 0, fitted=found is not None)
        if found is not None:
            if name == "scene":
                things = cues[(all_examples.thing > 0) & large]
                found[-1] -= max(0.0, np.quantile(things @ found[:-1] + found[-1], 1 - _LOST))
            constants[name] = _rounded(found)
    found = _logistic(_both(all_examples), all_examples.related, all_examples.weights, strength)
    said["parent"] = said["child"] = _said(all_examples.related, fitted=found is not None)
    if found is not None:
        found[-1] += _middle(sets, lambda each: _both(each) @ found[:-1] + found[-1])
        constants["parent"] = _rounded([*found[: len(CUES)], found[-1]])
        constants["child"] = _rounded([*found[len(CUES) : -1], 0.0])
    return replace(start, **constants), said


def _both(examples: Examples) -> np.ndarray:
    """(P, 2 C) cues of what covers and of what is covered."""
    return np.concatenate([examples.cues[examples.pairs[:, 1]], examples.cues[examples.pairs[:, 0]]], axis=1)


def _middle(sets: Sequence[Examples], odds_of: Callable[[Examples], np.ndarray]) -> float:
    """What to add to the log-odds of pairs so that as many wholes are told as parts, sets counted alike.

    A whole is told when none of what covers it may be its parent, a part when one may.
    """
    limits = np.linspace(-_WIDEST, _WIDEST, 20 * _WIDEST + 1)
    told: dict[bool, list[np.ndarray]] = {True: [], False: []}
    for examples in sets:
        best = np.full(len(examples.cues), -np.inf)
        np.maximum.at(best, examples.pairs[:, 0], odds_of(examples))
        for is_whole in told:
            of_kind = best[np.unique(examples.pairs[examples.whole == is_whole, 0])]
            count = len(of_kind) + int(examples.alone[int(is_whole)])
            if count:
                hanging = np.count_nonzero(of_kind[:, None] > limits, axis=0) / count
                told[is_whole].append(1 - hanging if is_whole else hanging)
    if not told[True] or not told[False]:
        return 0.0
    worse = np.minimum(np.mean(told[True], axis=0), np.mean(told[False], axis=0))
    return -float(limits[np.argmax(worse)])


def _logistic(values: np.ndarray, labels: np.ndarray, weights: np.ndarray | None, strength: float) -> np.ndarray | None:
    """Weights and bias (C + 1,), or None where examples are too few."""
    if min(np.count_nonzero(labels), np.count_nonzero(~labels)) < _FEWEST:
        return None
    mean, deviation = values.mean(axis=0), np.maximum(values.std(axis=0), 1e-6)
    if weights is not None:
        weights = weights * len(weights) / weights.sum()
    model = LogisticRegression(C=strength, max_iter=1000).fit((values - mean) / deviation, labels, weights)
    slopes = model.coef_[0] / deviation
    return np.append(slopes, model.intercept_[0] - slopes @ mean)


def _rounded(values: np.ndarray | Sequence[float]) -> tuple[float, ...]:
    return tuple(round(float(value), _DECIMALS) for value in values)


def _said(labels: np.ndarray, *, fitted: bool) -> str:
    counts = f"{np.count_nonzero(labels)} examples and {np.count_nonzero(~labels)} of the contrary"
    return f"fitted to {counts}" if fitted else f"kept: {counts} are too few, {_FEWEST} of each are needed"
