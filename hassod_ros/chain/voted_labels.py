"""Labels of frames that nobody has labelled: what the running model, its mirror image and discovery agree on.

The running model knows wholes and parts but not the new domain; discovery knows no domain at all. A mask counts where
two of three views show it: the model, the model in the mirror, discovery. Pictures of the old domain are labelled by
the model and its mirror image alone, so that training does not forget what it knew.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from hassod_ros.coco import from_coco, to_coco
from hassod_ros.deploy.gate import overlaps, small_masks, small_shape
from hassod_ros.discovery.shards import Shards, Summary
from hassod_ros.errors import InputError
from hassod_ros.files import revision, sha256
from hassod_ros.hierarchy import coverage_forest
from hassod_ros.images import name_images, read_image
from hassod_ros.instances import Instances
from hassod_ros.runtime.segmenter import Segmenter

SHARD = 16  # images: at most so much work is lost when a run is killed
_SEEN = 0.2  # score from which a detection takes part in the vote
_SAME = 0.5  # IoU from which two masks are the same
_PROGRESS = 10.0  # s between two lines
_Annotations = list[dict[str, Any]]


def label(
    images: Path,
    model: Path,
    discovered: Path,
    out: Path,
    *,
    new: str,
    alone: bool = False,
    say: Callable[[str], object] = print,
) -> Summary:
    """Label every image, or continue where a killed run stopped.

    Args:
        images: Folder of images.
        model: ONNX file of the running model.
        discovered: COCO file of discovery's labels of the new images.
        out: COCO JSON file to write.
        new: Folder in `images` that `discovered` is of; what lies beside it is of the old domain.
        alone: New images have the labels of discovery alone.
        say: Gets progress.

    Raises:
        InputError: The model or a file cannot be used, or not one image labelled.

    """
    root, names = name_images(images)
    found = _by_name(discovered, new)
    segmenter = Segmenter(model)
    segmenter.options = replace(segmenter.options, score_thresholds=(_SEEN,) * 3)
    provenance = {
        "method": "discovery" if alone else "vote",
        "model_sha256": sha256(model),
        "discovered_sha256": sha256(discovered),
    }
    shards = Shards(out, provenance | {"images": names}, revision())
    done, start = shards.done, time.monotonic()
    last, labelled = start, 0
    for first in range(0, len(names), SHARD):
        if first // SHARD in done:
            continue
        records: list[dict[str, Any]] = []
        for image_id, name in enumerate(names[first : first + SHARD], first + 1):
            records.append(_record(segmenter, root, name, image_id, found.get(name), alone))
            labelled += 1
            if (now := time.monotonic()) - last > _PROGRESS:
                last = now
                left = (now - start) / labelled * (len(names) - image_id)
                say(f"{image_id} of {len(names)} images labelled, {left:.0f} s left")
        shards.write(first // SHARD, records)
    segmenter.close()
    info = {"description": "labels of a model and discovery by hassod_ros", **provenance, "revision": shards.revision}
    return shards.merge(info)


def vote(image: np.ndarray, segment: Callable[[np.ndarray], Instances], discovered: Instances | None) -> Instances:
    """What two of three views show of (H, W, 3) uint8 RGB; masks are those of the first view that has them."""
    shape = small_shape(image.shape[:2])
    views = [segment(image), _mirrored(segment(np.ascontiguousarray(image[:, ::-1])))]
    views += [discovered] if discovered is not None else []
    small = [small_masks(view, shape) for view in views]
    regions, masks, scores = [], [], []
    for i, view in enumerate(views):
        # (views, N): which others have it too.
        matched = np.stack([_found(small[i], other) & (i != j) for j, other in enumerate(small)])
        for k in np.flatnonzero(matched.any(axis=0) & ~matched[:i].any(axis=0)):  # an earlier view has given its own
            regions.append(view.regions[k])
            masks.append(view.masks[k])
            scores.append((1 + matched[:, k].sum()) / len(views))
    boxes = np.array(regions, np.int64).reshape(-1, 4)
    parents, levels = coverage_forest(boxes, masks)
    return Instances(
        image_size=views[0].image_size,
        boxes=boxes,
        masks=masks,
        scores=np.array(scores, np.float32),
        levels=levels,
        parents=parents,
    )


def _found(masks: np.ndarray, others: np.ndarray) -> np.ndarray:
    """(N,) bool: which masks are among the others."""
    if not len(masks) or not len(others):
        return np.zeros(len(masks), bool)
    return overlaps(masks, others).max(axis=1) >= _SAME


def _mirrored(found: Instances) -> Instances:
    width = found.image_size[1]
    boxes = found.regions.astype(np.float32)
    boxes[:, [0, 2]] = width - boxes[:, [2, 0]]
    masks = [np.ascontiguousarray(mask[:, ::-1]) for mask in found.masks]
    return Instances(image_size=found.image_size, boxes=boxes, masks=masks, scores=found.scores)


def _record(
    segmenter: Segmenter, root: Path, name: str, image_id: int, annotations: _Annotations | None, alone: bool
) -> dict[str, Any]:
    try:
        image = read_image(root / name)
    except InputError as error:
        return {"failure": {"file_name": name, "error": str(error)}}
    found = from_coco(annotations, image.shape[:2]) if annotations is not None else None
    labels = found if alone and found is not None else vote(image, segmenter, found)
    entry = {"id": image_id, "file_name": name, "height": image.shape[0], "width": image.shape[1]}
    return {"image": entry, "annotations": to_coco(labels, image_id)}


def _by_name(discovered: Path, new: str) -> dict[str, _Annotations]:
    """Annotations of each image of a COCO file."""
    content = json.loads(discovered.read_text(encoding="utf-8"))
    by_id: dict[int, _Annotations] = {image["id"]: [] for image in content["images"]}
    for annotation in content["annotations"]:
        by_id[annotation["image_id"]].append(annotation)
    return {f"{new}/{image['file_name']}": by_id[image["id"]] for image in content["images"]}
