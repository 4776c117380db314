"""The detector as inspection uses it: with its features, opened by name."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np

from hassod_ros.errors import InputError
from hassod_ros.files import sha256
from hassod_ros.inspection.view import Observe
from hassod_ros.instances import Instances
from hassod_ros.runtime.model_info import read_model_info
from hassod_ros.runtime.model_names import resolve_model
from hassod_ros.runtime.segmenter import Segmenter

NO_MODEL = "none"


class Eye(NamedTuple):
    """A detector.

    Attributes:
        observe: Of one picture.
        sha256: Of its file.
        name: Of its file.
        lacks: What inspection lacks with it, "" where nothing.
        close: Gives memory and device back.

    """

    observe: Observe
    sha256: str
    name: str
    lacks: str
    close: Callable[[], None]


def open_eye(model: str, backend: str = "auto", *, report: Callable[[str], None] = lambda line: None) -> Eye | None:
    """A detector from a file or by name, with its features where it has them; None for the name "none".

    Raises:
        InputError: It cannot be loaded.

    """
    if model == NO_MODEL:
        return None
    path = Path(resolve_model(model))
    if path.suffix != ".onnx":
        raise InputError(f"{path} is no exported detector; give an .onnx file, default, default-int8 or {NO_MODEL}")
    features = bool(read_model_info(path).feature_stride)
    lacks = "" if features else "the output features of the model; run add_features on it"
    if lacks:
        report(f"inspection lacks {lacks}")
    segmenter = Segmenter(path, backend, features=features)
    segmenter.warm_up()

    def observe(picture: np.ndarray) -> tuple[Instances, np.ndarray | None]:
        return segmenter.observe([picture])[0]

    return Eye(observe, sha256(path), path.name, lacks, segmenter.close)
