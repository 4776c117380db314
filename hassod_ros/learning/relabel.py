"""Self-training: new labels from a trained detector, with outlines that follow the image.

After CutLER (Wang et al., "Cut and Learn for Unsupervised Object Detection and Instance Segmentation", section 3.4):
what a detector finds with some certainty is better than what it learned from, more so what it finds again at another
scale or mirrored (`voting`). Its masks know outlines to a few pixels only, so they are made to follow the
colours (`outlines`).
"""

from __future__ import annotations

import multiprocessing
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict
from functools import cache
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from torch import Tensor
from torchvision.transforms.v2 import functional
from tqdm import tqdm

from hassod_ros.coco import to_coco
from hassod_ros.detection.base import Detector, InstanceOptions
from hassod_ros.detection.cascade.config import DetectorConfig
from hassod_ros.detection.cascade.model import CascadeMaskRCNN
from hassod_ros.detection.checkpoints import open_detector, read_config
from hassod_ros.detection.detections import Detections, place_masks
from hassod_ros.discovery.shards import Shards, Summary, check_target
from hassod_ros.errors import InputError
from hassod_ros.files import revision, sha256
from hassod_ros.hierarchy import coverage_forest
from hassod_ros.images import name_images, read_image
from hassod_ros.instances import Instances
from hassod_ros.learning.config import RelabelConfig
from hassod_ros.learning.voting import vote

SHARD = 32  # images: at most so much work is lost when a run is killed
_SEEN = 0.05  # score of what takes part in the vote


def relabel(
    images: Path,
    checkpoint: Path,
    out: Path,
    config: RelabelConfig | None = None,
    *,
    processes: int = 1,
    device: str = "auto",
) -> Summary:
    """Label every image with what a detector finds, or continue where a killed run stopped.

    Args:
        images: Folder of images, or text file with one path a line.
        checkpoint: Trained detector.
        out: COCO JSON file to write; the list of failures comes beside it, see `failures_of`.
        config: Settings.
        processes: That work side by side, with one thread each.
        device: "auto": all GPUs in turn where there are some; "cuda:1": that one.

    Raises:
        InputError: No images, not one that can be read, no such checkpoint, a file that exists already, or a run with
            other settings lies there.

    """
    config = config or RelabelConfig()
    if processes < 1:
        raise InputError(f"processes must be at least 1, got {processes}")
    root, names = name_images(images)
    read_config(checkpoint)  # a faulty file shows before the work begins
    check_target(out)
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    provenance = {"method": "relabel", "config": asdict(config), "weights_sha256": sha256(checkpoint)}
    shards = Shards(out, provenance | {"images": names}, revision())
    done = shards.done
    starts = [start for start in range(0, len(names), SHARD) if start // SHARD not in done]
    jobs = [(root, names[start : start + SHARD], start + 1, checkpoint, config) for start in starts]
    bar = tqdm(total=len(names), initial=len(names) - sum(len(job[1]) for job in jobs), unit="image")
    context = multiprocessing.get_context("spawn")
    devices = [f"cuda:{i}" for i in range(torch.cuda.device_count())] if device == "cuda" else [device]
    begin = (context.Value("i"), devices)
    with bar, ProcessPoolExecutor(processes, context, initializer=_begin, initargs=begin) as pool:
        for start, records in zip(starts, pool.map(_label_shard, jobs), strict=True):
            shards.write(start // SHARD, records)
            bar.update(len(records))
    info = {"description": "labels of a detector by hassod_ros", **provenance, "revision": shards.revision}
    return shards.merge(info)


def label(model: Detector, image: np.ndarray, config: RelabelConfig) -> Instances:
    """What a detector finds in an image, as labels.

    A cascade looks at a view of each of the sides and votes. A detector of another kind, whose masks lie in no boxes,
    looks at the largest one; its outlines do not follow the colours.

    Args:
        model: In evaluation mode.
        image: (H, W, 3) uint8 RGB.
        config: Settings.

    """
    if not isinstance(model, CascadeMaskRCNN):
        return _label_alone(model, image, config)
    height, width = image.shape[:2]
    pixels = torch.from_numpy(image).permute(2, 0, 1)
    sizes = [[max(1, round(side * length / max(height, width))) for length in (height, width)] for side in config.sides]
    views = [functional.resize(pixels, size, antialias=True) for size in sizes]
    largest = views[int(np.argmax(config.sides))]
    found_in = [_detect(model, view, largest.shape[1:], mirror=bool(n % 2)) for n, view in enumerate(views)]
    found = vote(found_in, config.nms)
    found = found.select(found.scores > config.score_threshold).select(slice(config.detections))
    rows, places, drawn = place_masks(
        found,
        (height, width),
        mask_threshold=config.mask_threshold,
        image=image,
        color_weight=config.color_weight,
    )
    corners, likely = np.floor(places[:, :2]).astype(np.int64).tolist(), found.scores[rows].tolist()
    regions, masks, scores = [], [], []
    for mask, corner, score in zip(drawn, corners, likely, strict=True):
        x, y, w, h = cv2.boundingRect(mask)
        if min(w, h) >= config.min_side:
            left, top = corner[0] + x, corner[1] + y
            regions.append((left, top, left + w, top + h))
            masks.append(np.ascontiguousarray(mask[y : y + h, x : x + w]))
            scores.append(score)
    boxes = np.array(regions, np.int64).reshape(-1, 4)
    parents, levels = coverage_forest(boxes, masks, cover=config.cover)
    return Instances(
        image_size=(height, width),
        boxes=boxes,
        masks=masks,
        scores=np.clip(scores, 0, 1),
        levels=levels,
        parents=parents,
    )


@torch.inference_mode()
def _label_alone(model: Detector, image: np.ndarray, config: RelabelConfig) -> Instances:
    """The detector's own finds in the largest view."""
    height, width = image.shape[:2]
    size = [max(1, round(max(config.sides) * length / max(height, width))) for length in (height, width)]
    view = functional.resize(torch.from_numpy(image).permute(2, 0, 1), size, antialias=True)
    (found,) = model(view[None].float().to(next(model.parameters()).device))
    options = InstanceOptions(
        score_threshold=config.score_threshold, mask_threshold=config.mask_threshold, cover=config.cover
    )
    labels = found.to_instances((height, width), options)
    sides = labels.regions[:, 2:] - labels.regions[:, :2]
    return labels.select(
        np.flatnonzero(sides.min(axis=1, initial=height + width) >= config.min_side)[: config.detections]
    )


@torch.inference_mode()
def _detect(model: CascadeMaskRCNN, view: Tensor, size: Sequence[int], *, mirror: bool) -> Detections:
    """What the model finds in (3, h, w) uint8, in pixels of an image of `size`."""
    inputs = view.flip(-1) if mirror else view
    (found,) = model(inputs[None].float().to(next(model.parameters()).device))
    boxes, masks = found.boxes, found.mask_probabilities
    height, width = view.shape[1:]
    if mirror:
        boxes = torch.stack([width - boxes[:, 2], boxes[:, 1], width - boxes[:, 0], boxes[:, 3]], dim=1)
        masks = masks.flip(-1)
    scale = boxes.new_tensor([size[1] / width, size[0] / height] * 2)
    # On to the CPU: voting asks for one detection after the other, and a GPU would be waited for each time.
    return Detections(
        boxes=(boxes * scale).cpu(),
        scores=found.scores.cpu(),
        level_probabilities=found.level_probabilities.cpu(),
        mask_probabilities=masks.cpu(),
        size=(size[0], size[1]),
    )


_device = ["cpu"]  # of a process that works for another one


def _begin(started: Any, devices: Sequence[str]) -> None:
    """Of every process once: they take the devices in turn."""
    with started.get_lock():
        _device[:] = [devices[started.value % len(devices)]]
        started.value += 1
    torch.set_num_threads(1)
    cv2.setNumThreads(1)


def _label_shard(job: tuple[Path, list[str], int, Path, RelabelConfig]) -> list[dict[str, Any]]:
    root, names, first, checkpoint, config = job
    model = _detector(checkpoint, config, _device[0])
    records: list[dict[str, Any]] = []
    for image_id, name in enumerate(names, first):
        try:
            image = read_image(root / name)
        except InputError as error:
            records.append({"failure": {"file_name": name, "error": str(error)}})
            continue
        found = label(model, image, config)
        entry = {"id": image_id, "file_name": name, "height": image.shape[0], "width": image.shape[1]}
        records.append({"image": entry, "annotations": to_coco(found, image_id)})
    return records


@cache  # once a process
def _detector(checkpoint: Path, config: RelabelConfig, device: str) -> Detector:
    network = read_config(checkpoint)
    network = network.changed(score_threshold=_SEEN, detections=2 * config.detections)
    if isinstance(network, DetectorConfig):
        network = network.changed(nms=config.nms)
    return open_detector(checkpoint, network).to(device)
