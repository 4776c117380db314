"""How well an exported model finds what is annotated."""

from __future__ import annotations

import dataclasses
import os
from pathlib import Path
from typing import Any

from hassod_ros.coco import to_coco
from hassod_ros.errors import InputError
from hassod_ros.evaluation.annotations import load_annotations, parse_predictions
from hassod_ros.evaluation.evaluate import evaluate
from hassod_ros.images import read_image
from hassod_ros.runtime.segmenter import Segmenter

DETECTIONS = 100


def average_recall(model: str | os.PathLike, annotations: str | os.PathLike, images: str | os.PathLike) -> float:
    """AR of masks at 100 detections, in [0, 1], of an ONNX file run by ONNX Runtime on the CPU.

    Raises:
        InputError: The annotations cannot be read, have no masks, or an image is missing.

    """
    annotated = load_annotations(annotations)
    if not annotated.has_masks:
        raise InputError(f"{annotations} holds no masks, average recall cannot be measured; give a set with masks")
    segmenter = Segmenter(model, "onnxruntime-cpu")
    segmenter.options = dataclasses.replace(
        segmenter.options, score_thresholds=(0.0, 0.0, 0.0), max_instances=DETECTIONS
    )
    entries: list[dict[str, Any]] = []
    for picture in annotated.pictures:
        instances = segmenter(read_image(Path(images) / picture.file_name))
        entries += to_coco(instances, picture.image_id, first_id=len(entries) + 1)
    scores = evaluate(annotated, parse_predictions(entries, annotated), max_detections=DETECTIONS)
    return float(scores["mask"][f"AR@{DETECTIONS}"])
