"""Labels of frames that nobody has labelled: what the running model finds in several views, voted with discovery.

The model looks at the whole picture and at four overlapping tiles of it, where small things are larger, each also in
the mirror. The views vote (Radosavovic et al., "Data Distillation: Towards Omni-Supervised Learning"): a mask's score
is the sum of its scores over the number of views that could have seen it. Discovery, which knows no domain, is one view
more of new pictures; pictures of the old domain are labelled by the model alone, so that training does not forget.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from pycocotools import mask as rle

from hassod_ros.coco import from_coco, to_coco
from hassod_ros.discovery.shards import Shards, Summary
from hassod_ros.errors import InputError
from hassod_ros.files import revision, sha256
from hassod_ros.hierarchy import coverage_forest
from hassod_ros.images import name_images, read_image
from hassod_ros.instances import Instances
from hassod_ros.masks import run_lengths
from hassod_ros.runtime.segmenter import Segmenter

SHARD = 16  # images: at most so much work is lost when a run is killed
_SEEN = 0.05  # score from which a detection takes part in the vote
_DISCOVERED = 0.1  # score of what discovery shows: alone it becomes no label, beside the model it counts
_LABEL = 0.04  # least mean score of a label
_MOST = 100  # labels of a picture
_SAME = 0.6  # IoU from which two masks are of one thing
_TILE = 0.6  # of a picture's sides
_CUT = 2  # px: what comes so near to the inner side of a tile is cut off there
_PROGRESS = 10.0  # s between two lines
_Annotations = list[dict[str, Any]]


def label(
    images: Path,
    model: Path,
    discovered: Path | None,
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
        discovered: COCO file of discovery's labels of the new images; None: the model labels alone.
        out: COCO JSON file to write.
        new: Folder in `images` that `discovered` is of; what lies beside it is of the old domain.
        alone: New images have the labels of discovery alone.
        say: Gets progress.

    Raises:
        InputError: The model or a file cannot be used, or not one image labelled.

    """
    root, names = name_images(images)
    found = _by_name(discovered, new) if discovered else {}
    segmenter = Segmenter(model)
    segmenter.options = replace(segmenter.options, score_thresholds=(_SEEN,) * 3)  # unsure ones may be sure together
    provenance = {
        "method": "discovery" if alone else "vote",
        "model_sha256": sha256(model),
        "discovered_sha256": sha256(discovered) if discovered else "",
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


def label_one(image: np.ndarray, segment: Callable[[np.ndarray], Instances], discovered: Instances | None) -> Instances:
    """Labels of (H, W, 3) uint8 RGB.

    Args:
        image: The picture.
        segment: The running model, told to find unsure things too.
        discovered: What discovery found in it.

    """
    views = look(image, segment)
    if discovered is not None and len(discovered):
        scores = np.full(len(discovered), _DISCOVERED, np.float32)
        boxes, masks, size = discovered.regions, discovered.masks, discovered.image_size
        window = (0, 0, size[1], size[0])
        views.append(View(window, Instances(image_size=size, boxes=boxes, masks=masks, scores=scores)))
    return vote(views)


class View(NamedTuple):
    """What one look shows.

    Attributes:
        window: (4,) int, x0 y0 x1 y1 of what it looked at.
        found: Masks of the whole picture.

    """

    window: tuple[int, int, int, int]
    found: Instances


def look(image: np.ndarray, segment: Callable[[np.ndarray], Instances]) -> list[View]:
    """The whole of (H, W, 3) uint8 RGB and four tiles of it, plain and mirrored; what a tile cuts is left out."""
    height, width = image.shape[:2]
    tall, wide = (max(1, round(_TILE * side)) for side in (height, width))
    corners = [(x, y) for y in (0, height - tall) for x in (0, width - wide)]
    views = []
    for x0, y0, x1, y1 in [(0, 0, width, height), *((x, y, x + wide, y + tall) for x, y in corners)]:
        tile = image[y0:y1, x0:x1]
        for found in (segment(np.ascontiguousarray(tile)), _mirrored(segment(np.ascontiguousarray(tile[:, ::-1])))):
            low, high = found.regions[:, :2] + (x0, y0), found.regions[:, 2:] + (x0, y0)
            cut = ((low < (x0 + _CUT, y0 + _CUT)) & (low > _CUT)).any(axis=1)
            cut |= ((high > (x1 - _CUT, y1 - _CUT)) & (high < (width - _CUT, height - _CUT))).any(axis=1)
            found = found.select(~cut & ~found.scene)
            boxes = found.regions + np.array([x0, y0, x0, y0])
            placed = Instances(image_size=(height, width), boxes=boxes, masks=found.masks, scores=found.scores)
            views.append(View((x0, y0, x1, y1), placed))
    return views


def vote(views: Sequence[View]) -> Instances:
    """One list of masks from several views of a picture, by descending score.

    The best mask gathers what is the same in other views, the best of each, and so on with what is left. Its score is
    the sum of theirs over the number of views that could have seen it; of more than two masks the one that agrees most
    with the others stands for all.
    """
    size = views[0].found.image_size
    regions = np.concatenate([view.found.regions for view in views])
    masks = [mask for view in views for mask in view.found.masks]
    scores = np.concatenate([view.found.scores for view in views]).astype(float)
    view_of = np.repeat(np.arange(len(views)), [len(view.found) for view in views])
    windows = np.array([view.window for view in views])
    codes = [{"size": size, "counts": counts} for counts in run_lengths(regions, masks, size)]
    overlaps = rle.iou(codes, codes, [0] * len(codes)) if codes else np.zeros((0, 0))
    order = np.argsort(-scores, kind="stable")
    free = np.ones(len(masks), bool)
    chosen, means = [], []
    for best in order:
        if not free[best]:
            continue
        group = order[free[order] & (overlaps[best, order] >= _SAME)]
        free[group] = False
        voters = group[np.unique(view_of[group], return_index=True)[1]]
        inside = (regions[best, :2] >= windows[:, :2]).all(axis=1) & (regions[best, 2:] <= windows[:, 2:]).all(axis=1)
        means.append(scores[voters].sum() / max(np.count_nonzero(inside), len(voters)))
        agreement = overlaps[np.ix_(voters, voters)].sum(axis=1)
        chosen.append(voters[agreement.argmax()] if len(voters) > 2 else best)
    kept = [i for i in np.argsort(-np.array(means), kind="stable")[:_MOST] if means[i] >= _LABEL]
    boxes = regions[[chosen[i] for i in kept]].reshape(-1, 4)
    labels = [masks[chosen[i]] for i in kept]
    parents, levels = coverage_forest(boxes, labels)
    return Instances(
        image_size=size,
        boxes=boxes,
        masks=labels,
        scores=np.array([means[i] for i in kept], np.float32),
        levels=levels,
        parents=parents,
    )


def _mirrored(found: Instances) -> Instances:
    width = found.image_size[1]
    boxes = found.regions.astype(np.float32)
    boxes[:, [0, 2]] = width - boxes[:, [2, 0]]
    masks = [np.ascontiguousarray(mask[:, ::-1]) for mask in found.masks]
    return Instances(image_size=found.image_size, boxes=boxes, masks=masks, scores=found.scores, scene=found.scene)


def _record(
    segmenter: Segmenter, root: Path, name: str, image_id: int, annotations: _Annotations | None, alone: bool
) -> dict[str, Any]:
    try:
        image = read_image(root / name)
    except InputError as error:
        return {"failure": {"file_name": name, "error": str(error)}}
    found = from_coco(annotations, image.shape[:2]) if annotations is not None else None
    labels = found if alone and found is not None else label_one(image, segmenter, found)
    entry = {"id": image_id, "file_name": name, "height": image.shape[0], "width": image.shape[1]}
    return {"image": entry, "annotations": to_coco(labels, image_id)}


def _by_name(discovered: Path, new: str) -> dict[str, _Annotations]:
    """Annotations of each image of a COCO file."""
    content = json.loads(discovered.read_text(encoding="utf-8"))
    by_id: dict[int, _Annotations] = {image["id"]: [] for image in content["images"]}
    for annotation in content["annotations"]:
        by_id[annotation["image_id"]].append(annotation)
    return {f"{new}/{image['file_name']}": by_id[image["id"]] for image in content["images"]}
