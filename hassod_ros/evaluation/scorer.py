"""Figures of a detector while it is trained."""

from __future__ import annotations

import os

from torch import nn

from hassod_ros.detection.base import Detector
from hassod_ros.evaluation.annotations import load_annotations, parse_predictions
from hassod_ros.evaluation.evaluate import evaluate
from hassod_ros.evaluation.predict import finder, predict
from hassod_ros.learning.config import Recipe

_SHORT_SIDE = 800  # the paper's, where training pictures are as large
_FIGURES = ("AR@100", "AR@1000", "AP")


def while_training(recipe: Recipe) -> Scorer | None:
    """What scores the student every `run.evaluate_every` iterations, or None where that is 0."""
    run, data = recipe.run, recipe.data
    if not run.evaluate_every:
        return None
    short_side = min(_SHORT_SIDE, max(data.short_sides))
    return Scorer(run.evaluate_annotations, run.evaluate_images, short_side=short_side, max_side=data.max_side)


class Scorer:
    """AR and AP of a detector on a set of its own, for `learning.loop.fit`.

    Args:
        annotations: COCO JSON.
        images: Folder of its pictures.
        short_side: Of the pictures as the detector sees them,
        max_side: and the limit of their longer side, in pixels.

    Raises:
        InputError: See `load_annotations`.

    """

    def __init__(
        self, annotations: str | os.PathLike, images: str | os.PathLike, *, short_side: int, max_side: int
    ) -> None:
        self._annotated = load_annotations(annotations)
        self._images, self._sides = images, (short_side, max_side)

    def __call__(self, detector: Detector) -> dict[str, float]:
        """The figures of masks where the set has them, else of boxes; the detector is left in its mode."""
        assert isinstance(detector, nn.Module)
        training = detector.training
        detector.eval()
        try:
            results = predict(finder(detector, *self._sides), self._annotated, self._images, label="evaluate")
            scores = evaluate(self._annotated, parse_predictions(results, self._annotated))
        finally:
            detector.train(training)
        found = scores.get("mask", scores["box"])
        return {name: found[name] for name in _FIGURES}
