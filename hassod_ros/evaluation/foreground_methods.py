"""Methods of the foreground tasks by name: an image in, its foreground, regions and classes out."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from hassod_ros.discovery.features import load_features
from hassod_ros.discovery.features.base import Features
from hassod_ros.discovery.hassod import HassodConfig, resize, working_size
from hassod_ros.discovery.method import LEARNERS, open_learner
from hassod_ros.discovery.regions import Regions, class_map, foreground_map, means_of, region_map, vectors_of
from hassod_ros.discovery.states import describe
from hassod_ros.errors import InputError
from hassod_ros.evaluation.foreground_baselines import BASELINES
from hassod_ros.evaluation.retrieval import Described
from hassod_ros.images import read_image

NAMES = (*LEARNERS, *BASELINES)


@dataclass(frozen=True, eq=False)
class Found:
    """What a method says about an image.

    Attributes:
        foreground: (H, W) float32 in [0, 1].
        described: Its regions and their embeddings.
        classes: (H, W) int32, 0 = background, from 1 clusters that mean the same in all images; None where the method
            knows none.

    """

    foreground: np.ndarray
    described: Described
    classes: np.ndarray | None


Finder = Callable[[np.ndarray], Found]


def open_method(
    name: str, features: Features, state: str | os.PathLike | None = None, options: Mapping[str, Any] | None = None
) -> tuple[Finder, int]:
    """A method of the foreground tasks, and the number of its classes with background (0: it knows none).

    Args:
        name: One of `NAMES`.
        features: That it looks at.
        state: Of a method that learns.
        options: Of a method that learns, see `method.change`; for the others `size`, `keep_aspect` and `crf`.

    Raises:
        InputError: An unknown name or option, or no fitting state.

    """
    if name in LEARNERS:
        if state is None:
            raise InputError(f"{name} needs what it has learned; give its file with --state")
        learner, learned = open_learner(name, state, options)
        learned.require(describe(features))

        def learnt(image: np.ndarray) -> Found:
            (found,) = learner.partition([learner.prepare(image, features.patch_size)], features, learned)
            return _found(image, found, learner.foreground(image, found))

        return learnt, 1 + learner.classes(learned)
    if name not in BASELINES:
        raise InputError(f"there is no method {name!r} of the foreground; choose one of {', '.join(NAMES)}")
    if state is not None:
        raise InputError(f"{name} learns nothing; leave {state} out")
    try:
        working = replace(HassodConfig(), **dict(options or {}))
    except TypeError as error:
        raise InputError(f"{name} has only the options size, keep_aspect and crf ({error})") from error
    baseline = BASELINES[name]

    def plain(image: np.ndarray) -> Found:
        values = features(resize(image, working_size(image.shape[:2], working, features.patch_size))[None])[0]
        map_ = baseline(values)
        labels = np.where(map_ >= 0.5, 0, -1).astype(np.int32)
        embeddings = means_of(vectors_of(values), labels.ravel(), 1)
        regions = Regions(map_, labels, np.zeros_like(labels), embeddings, np.zeros(1, np.int32))
        found = _found(image, regions, foreground_map(image, regions, working))
        return replace(found, classes=None)

    return plain, 0


def load(features: str, weights: str | None = None, device: str | None = None) -> Features:
    """See `load_features`; in fp32, so that figures do not depend on the processor."""
    return load_features(features, weights, device, "fp32")


def read_maps(folder: Path, name: str, size: tuple[int, int]) -> np.ndarray:
    """(H, W) float32 in [0, 1] of a picture's foreground map that was written before.

    Raises:
        InputError: There is none, or it has another shape.

    """
    for suffix in (".png", ".jpg", ".bmp"):
        if (path := folder / f"{name}{suffix}").is_file():
            grey = cv2.cvtColor(read_image(path), cv2.COLOR_RGB2GRAY)
            if grey.shape != size:
                sizes = f"{grey.shape[1]}x{grey.shape[0]}, its picture {size[1]}x{size[0]}"
                raise InputError(f"{path} is {sizes}; write it at full size")
            return grey.astype(np.float32) / 255
    raise InputError(f"{folder} has no map {name}.png; write one for each picture")


def _found(image: np.ndarray, regions: Regions, foreground: np.ndarray) -> Found:
    described = Described(region_map(image, regions, foreground), regions.embeddings)
    return Found(foreground, described, class_map(image, regions, foreground))
