"""Run a model or a method over a set and write down what it finds, as COCO results."""

from __future__ import annotations

import dataclasses
import json
import os
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from hassod_ros.coco import to_coco
from hassod_ros.errors import InputError
from hassod_ros.evaluation.annotations import AnnotatedSet
from hassod_ros.files import atomic_path
from hassod_ros.images import read_image, read_size
from hassod_ros.instances import Instances
from hassod_ros.runtime.segmenter import Segmenter

_FAULTS_NAMED = 5
Finder = Callable[[np.ndarray], Instances]  # (H, W, 3) uint8 RGB -> what is in it


def predict(
    find: Finder, annotated: AnnotatedSet, images: str | os.PathLike, *, label: str = ""
) -> Iterator[dict[str, Any]]:
    """Apply `find` to every image of a set, and hand on what it finds image by image.

    All images are seen to be there and of the right size before the first one is worked on.

    Args:
        find: (H, W, 3) uint8 RGB -> Instances of that image.
        annotated: The set.
        images: Folder that the set's file names are relative to.
        label: Text before the progress bar.

    Returns:
        COCO results with `id`, `level`, `parent_id` and `score`, which `load_predictions` reads once written.

    Raises:
        InputError: An image is missing, damaged, of another size than its annotations say, or cannot be segmented.

    """
    check_pictures(annotated, images)
    return _predict(find, annotated, Path(images), label)


def _predict(find: Finder, annotated: AnnotatedSet, folder: Path, label: str) -> Iterator[dict[str, Any]]:
    first = 1
    for picture in tqdm(annotated.pictures, desc=label or "predict", unit="image", dynamic_ncols=True):
        path = folder / picture.file_name
        image = read_image(path)
        try:
            instances = find(image)
        except Exception as error:  # a network may raise anything for a picture of an odd shape
            size = f"{image.shape[1]}x{image.shape[0]}"
            raise InputError(f"{path} ({size}) cannot be segmented ({error}); leave it out of the set") from error
        yield from to_coco(instances, picture.image_id, first_id=first)
        first += len(instances)


def check_pictures(annotated: AnnotatedSet, images: str | os.PathLike) -> None:
    """Read the headers of all pictures of a set.

    Raises:
        InputError: Some are missing, are no pictures, or are of another size than their annotations.

    """
    faults = []
    for picture in annotated.pictures:
        path = Path(images) / picture.file_name
        try:
            size = read_size(path)
        except InputError as error:
            faults.append(str(error))
            continue
        if size != picture.size:
            faults.append(f"{path} is {size} (height, width), its annotations are for {picture.size}")
    if faults:
        more = f"; and {len(faults) - _FAULTS_NAMED} more" if len(faults) > _FAULTS_NAMED else ""
        raise InputError(
            f"{len(faults)} of {len(annotated.pictures)} pictures are faulty: {'; '.join(faults[:_FAULTS_NAMED])}{more}"
        )


def written(results: Iterable[dict[str, Any]], path: str | os.PathLike) -> Iterator[dict[str, Any]]:
    """Hand on results and write them to a JSON file on the way.

    The file appears once all have come, or holds those that came before an error or a stop.

    Raises:
        InputError: The file cannot be written.

    """
    count, stop = 0, None
    with atomic_path(path) as temporary, open(temporary, "w", encoding="utf-8") as file:
        file.write("[")
        try:
            for result in results:
                file.write(",\n" * bool(count) + json.dumps(result, separators=(",", ":")))
                count += 1
                yield result
        except BaseException as error:  # Ctrl-C as well
            if not count or isinstance(error, OSError):  # nothing to keep, or nowhere
                raise
            stop = error
        file.write("]\n")
    if stop is not None:
        raise stop


def open_exported(path: str | os.PathLike) -> Finder:
    """An exported model (`.onnx`) without a threshold on the score: recall is measured over the whole ranking.

    Raises:
        InputError: The file is no exported model, or cannot be loaded.

    """
    if Path(path).suffix.lower() != ".onnx":
        raise InputError(f"{path} is no exported model (.onnx); give a trained detector with --checkpoint")
    segmenter = Segmenter(path)
    segmenter.options = dataclasses.replace(segmenter.options, score_thresholds=(0.0, 0.0, 0.0))
    return segmenter


def open_checkpoint(
    path: str | os.PathLike,
    *,
    published: bool = False,
    network: str = "student",
    short_side: int = 800,
    max_side: int = 1333,
    max_detections: int = 1000,
    nms: float | None = None,
    mask_threshold: float | None = None,
    color_weight: float = 0.0,
) -> Finder:
    """A trained detector without a threshold on the score, on the GPU where there is one.

    Args:
        path: Checkpoint of ours or of Detectron2.
        published: The file is HASSOD's own, which does not say what it holds; take the paper's detector.
        network: "student" or "teacher", where the file holds both.
        short_side: Images are resized to this shorter side in pixels (the paper: 800),
        max_side: but the longer side becomes no longer than this.
        max_detections: Most detections of an image (the paper: 1000).
        nms: Instead of the detector's own, see `DetectorConfig`.
        mask_threshold: Likewise.
        color_weight: How far outlines follow the colours of the image, as `to_onnx` would write into the file.

    Raises:
        InputError: The checkpoint cannot be loaded, or the weight is negative.

    """
    if not color_weight >= 0:
        raise InputError(f"color_weight must not be negative, it is {color_weight}")
    import torch  # exported models and files of predictions do without

    from hassod_ros.detection.cascade.config import DetectorConfig
    from hassod_ros.detection.checkpoints import open_detector, read_config

    config: Any = DetectorConfig() if published else read_config(path)
    config = config.changed(detections=max_detections, score_threshold=0.0, nms=nms, mask_threshold=mask_threshold)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    model = open_detector(path, config, network=network).to(device)
    return finder(model, short_side, max_side, color_weight=color_weight)


def finder(model: Any, short_side: int, max_side: int, *, color_weight: float = 0.0) -> Finder:
    """A detector in evaluation mode as something to be scored; the other arguments are those of `open_checkpoint`."""
    import torch
    from torchvision.transforms.v2 import functional

    from hassod_ros.detection.base import InstanceOptions
    from hassod_ros.detection.input_size import input_size

    device = next(model.parameters()).device
    options = InstanceOptions(mask_threshold=model.config.mask_threshold, color_weight=color_weight)

    @torch.inference_mode()
    def find(image: np.ndarray) -> Instances:
        size = input_size((image.shape[0], image.shape[1]), short_side, max_side)
        pixels = functional.resize(torch.from_numpy(image).permute(2, 0, 1).to(device), list(size))
        return model(pixels[None].float())[0].to_instances(image.shape[:2], options, image)

    return find
