"""Self-training: new labels from a trained detector, with outlines that follow the image.

After CutLER (Wang et al., "Cut and Learn for Unsupervised Object Detection and Instance Segmentation", section 3.4):
what a detector finds with some certainty is better than what it learned from. Its masks know outlines to a few pixels
only, so each is drawn along superpixels (Felzenszwalb and Huttenlocher, "Efficient Graph-Based Image Segmentation").
"""

from __future__ import annotations

import multiprocessing
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, replace
from functools import cache
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from skimage.segmentation import felzenszwalb
from torchvision.transforms import v2
from tqdm import tqdm

from hassod_ros.detection.cascade_mask_rcnn import CascadeMaskRCNN
from hassod_ros.detection.checkpoints import open_detector, read_config
from hassod_ros.detection.detections import Detections
from hassod_ros.discovery.shards import Shards, check_target
from hassod_ros.errors import InputError
from hassod_ros.files import revision, sha256
from hassod_ros.hierarchy import coverage_forest
from hassod_ros.images import name_images, read_image
from hassod_ros.instances import Instances
from hassod_ros.learning.config import RelabelConfig

SHARD = 32  # images: at most so much work is lost when a run is killed
_SIGMA, _SMALLEST = 0.8, 20  # of superpixels: blur and least area, in pixels


def relabel(
    images: Path,
    checkpoint: Path,
    out: Path,
    config: RelabelConfig | None = None,
    *,
    processes: int = 1,
    device: str = "auto",
) -> tuple[int, int, list[dict[str, str]]]:
    """Label every image with what a detector finds, or continue where a killed run stopped.

    Args:
        images: Folder of images, or text file with one path a line.
        checkpoint: Trained detector.
        out: COCO JSON file to write; `failures.json` comes beside it.
        config: Settings.
        processes: That work side by side, with one thread each.
        device: "auto": the GPU where there is one.

    Returns:
        Number of images, of labels, and what could not be read.

    Raises:
        InputError: No images, no such checkpoint, a file that exists already, or a run with other settings lies there.

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
    jobs = [(root, names[start : start + SHARD], start + 1, checkpoint, config, device) for start in starts]
    bar = tqdm(total=len(names), initial=len(names) - sum(len(job[1]) for job in jobs), unit="image")
    with bar, ProcessPoolExecutor(processes, multiprocessing.get_context("spawn")) as pool:
        for start, records in zip(starts, pool.map(_label_shard, jobs), strict=True):
            shards.write(start // SHARD, records)
            bar.update(len(records))
    info = {"description": "labels of a detector by hassod_ros", **provenance, "revision": shards.revision}
    counts = shards.merge(info)
    if not counts[0]:
        raise InputError(f"none of {len(names)} images could be labelled; the first: {counts[2][0]['error']}")
    return counts


def label(model: CascadeMaskRCNN, image: np.ndarray, config: RelabelConfig) -> Instances:
    """What a detector finds in an image, as labels.

    Args:
        model: In evaluation mode, with the limits and thresholds of `config`.
        image: (H, W, 3) uint8 RGB.
        config: Settings.

    """
    resize = v2.RandomShortestSize([config.short_side], max_size=config.max_side, antialias=True)
    pixels = resize(torch.from_numpy(image).permute(2, 0, 1))
    with torch.inference_mode():
        (found,) = model(pixels[None].float().to(next(model.parameters()).device))
    small = np.ascontiguousarray(pixels.permute(1, 2, 0).numpy())
    height, width = image.shape[:2]
    regions, masks, scores = [], [], []
    for mask, score in zip(draw_masks(found, small, (height, width), config), found.scores.tolist(), strict=True):
        x, y, w, h = cv2.boundingRect(mask)
        if min(w, h) >= config.min_side:
            regions.append((x, y, x + w, y + h))
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


def draw_masks(
    found: Detections, pixels: np.ndarray, size: tuple[int, int], config: RelabelConfig
) -> Sequence[np.ndarray]:
    """Masks of detections at image size, drawn along superpixels.

    Args:
        found: N detections.
        pixels: (h, w, 3) uint8, the image as the detector saw it.
        size: (H, W) of the image.
        config: Settings.

    Returns:
        N (H, W) uint8 0/1 arrays, maybe without a pixel.

    """
    height, width = pixels.shape[:2]
    regions = felzenszwalb(pixels, scale=config.superpixels, sigma=_SIGMA, min_size=_SMALLEST) if config.snap else None
    masks = []
    for (x0, y0, x1, y1), cells in zip(found.boxes.cpu().tolist(), found.mask_probabilities.cpu().numpy(), strict=True):
        left, top = int(x0), int(y0)
        right, bottom = min(int(np.ceil(x1)), width), min(int(np.ceil(y1)), height)
        whole = np.zeros((height, width), np.float32)
        if right > left and bottom > top and x1 > x0 and y1 > y0:
            along_x, along_y = cells.shape[1] / (x1 - x0), cells.shape[0] / (y1 - y0)
            # Centre of a pixel -> place in the map.
            matrix = np.array(
                [
                    [along_x, 0, (left + 0.5 - x0) * along_x - 0.5],
                    [0, along_y, (top + 0.5 - y0) * along_y - 0.5],
                ]
            )
            flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
            values = cv2.warpAffine(cells, matrix, (right - left, bottom - top), flags=flags)
            if regions is not None:
                region = regions[top:bottom, left:right].ravel()
                mean = np.bincount(region, values.ravel()) / np.maximum(np.bincount(region), 1)
                values = config.snap * mean[region].reshape(values.shape) + (1 - config.snap) * values
            whole[top:bottom, left:right] = values
        large = cv2.resize(whole, size[::-1], interpolation=cv2.INTER_LINEAR)
        masks.append((large > config.mask_threshold).view(np.uint8))
    return masks


def _label_shard(job: tuple[Path, list[str], int, Path, RelabelConfig, str]) -> list[dict[str, Any]]:
    root, names, first, checkpoint, config, device = job
    torch.set_num_threads(1)
    cv2.setNumThreads(1)
    model = _detector(checkpoint, config, device)
    records: list[dict[str, Any]] = []
    for image_id, name in enumerate(names, first):
        try:
            image = read_image(root / name)
        except InputError as error:
            records.append({"failure": {"file_name": name, "error": str(error)}})
            continue
        found = label(model, image, config)
        entry = {"id": image_id, "file_name": name, "height": image.shape[0], "width": image.shape[1]}
        records.append({"image": entry, "annotations": found.to_coco(image_id)})
    return records


@cache  # once a process
def _detector(checkpoint: Path, config: RelabelConfig, device: str) -> CascadeMaskRCNN:
    limits = {name: getattr(config, name) for name in ("score_threshold", "nms", "detections")}
    return open_detector(checkpoint, replace(read_config(checkpoint), **limits)).to(device)
