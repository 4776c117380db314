"""COCO-format files as arrays: what is true and what was predicted, masks kept in run-length form."""

from __future__ import annotations

import os
from collections import ChainMap
from collections.abc import Iterable, Mapping, MutableMapping, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any, cast

import numpy as np
from pycocotools import mask as rle
from tqdm import tqdm

from hassod_ros.coco import areas_of, box_of, check_images, composition, is_list, label_files, stream, to_rle
from hassod_ros.errors import InputError
from hassod_ros.formats.convert import form_of, read_labels
from hassod_ros.store import Groups, Store

_SHOWN_AFTER = 2  # seconds: what is done sooner shows no progress bar


@dataclass(frozen=True, eq=False)
class Segments:
    """N annotations or predictions of one image.

    Attributes:
        boxes: (N, 4) float64, x y width height in pixels.
        areas: (N,) float64, as stated by the file (COCO's `area`), else counted; predictions are always counted.
        masks: N compressed RLE dicts of pycocotools, or None where the file holds boxes only.
        scores: (N,) float64 in descending order; 1 for annotations.
        levels: (N,) int8 values of `Level`, or UNKNOWN.
        parents: (N,) int64, index of the segment that this one is a part of, or -1; no cycles.
        crowd: (N,) bool, regions that count neither as hit nor as miss.
        annotators: (N,) int64, who drew it; 0 where the file names nobody.
        scene: (N,) bool, background or support: `scene` of predictions, stuff (`isthing` 0) of panoptic annotations.

    """

    boxes: np.ndarray
    areas: np.ndarray
    masks: list[dict[str, Any]] | None
    scores: np.ndarray
    levels: np.ndarray
    parents: np.ndarray
    crowd: np.ndarray
    annotators: np.ndarray
    scene: np.ndarray

    def __len__(self) -> int:
        return len(self.boxes)

    def select(self, index: np.ndarray) -> Segments:
        """The segments of an index array, in that order; parents left out become -1."""
        place = np.full(len(self) + 1, -1, np.int64)
        place[index] = np.arange(len(index))
        return Segments(
            boxes=self.boxes[index],
            areas=self.areas[index],
            masks=None if self.masks is None else [self.masks[i] for i in index],
            scores=self.scores[index],
            levels=self.levels[index],
            parents=place[self.parents[index]],
            crowd=self.crowd[index],
            annotators=self.annotators[index],
            scene=self.scene[index],
        )


@dataclass(frozen=True, eq=False)
class Picture:
    """One image of a set and what is true in it.

    Attributes:
        image_id: Its id in the file.
        file_name: Its name in the file.
        size: (H, W) in pixels.
        source: What is true in it, or where that is read from when it is asked for.

    """

    image_id: int
    file_name: str
    size: tuple[int, int]
    source: Segments | Mapping[int, Segments]

    @property
    def truth(self) -> Segments:
        """The annotations; of a large set they are read from disk each time."""
        return self.source if isinstance(self.source, Segments) else self.source[self.image_id]


@dataclass(frozen=True, eq=False)
class AnnotatedSet:
    """A COCO-format set of annotated images."""

    pictures: list[Picture]
    has_masks: bool


def load_annotations(path: str | os.PathLike, root: str | os.PathLike | None = None) -> AnnotatedSet:
    """Read ground truth, classes ignored: COCO, LVIS or any set in COCO's format (`.json`, `.json.gz`), YOLO, LabelMe.

    The part/whole composition is read from `level` with `parent_id`, or from `part` with `whole_id`. Images marked
    `"annotated": false` are left out. The file is streamed, its masks stay on disk: SA-1B's fit as well.

    Args:
        path: COCO file; or YOLO's or LabelMe's files, see `formats.convert.read_labels`.
        root: Folder of the images, which YOLO's files may need.

    Raises:
        InputError: No such file, no COCO format, or an annotation that contradicts its image.

    """
    entries: Iterable[Mapping[str, Any]]
    if form_of(path) == "coco":
        images = [] if is_list(path) else list(stream(path, "images"))
        entries = stream(path, "annotations")
    else:
        labels = read_labels(path, root)
        images, entries = labels.images, chain.from_iterable(some for _, some in labels)
    if not images:
        raise InputError(f"{path} is not a COCO annotation file; it needs `images` and `annotations`")
    images = check_images(images, path, named=False)
    groups = _group(entries, {image["id"] for image in images}, path)
    has_masks = groups.masks or not groups.count
    images = [image for image in images if image.get("annotated", True)]
    sizes = {image["id"]: (image["height"], image["width"]) for image in images}
    store = Store(
        (
            image_id,
            to_segments(groups.of(image_id), size, with_masks=has_masks, stated_areas=True, source=str(path)),
        )
        for image_id, size in tqdm(sizes.items(), desc="annotations", unit="image", delay=_SHOWN_AFTER, leave=False)
    )
    pictures = [Picture(image["id"], _file_name(image), sizes[image["id"]], store) for image in images]
    return AnnotatedSet(pictures, has_masks)


def load_predictions(path: str | os.PathLike, annotated: AnnotatedSet) -> Mapping[int, Segments]:
    """Read predictions for the images of a set: a COCO results list, or a whole COCO file such as pseudo-labels.

    A results list refers to images by id. A whole file has its own images: they are found by `file_name`, or by the
    last part of it, and the rest of the file is left out. A folder of such files (`*.json`) is read as one. Files are
    streamed, masks stay on disk.

    Returns:
        Image id -> predictions, best first. Images without predictions are absent.

    Raises:
        InputError: No such file, wrong format, images that the set does not have, or damaged entries.

    """
    if Path(path).is_dir():
        parts = [load_predictions(file, annotated) for file in label_files(Path(path))]
        if sum(map(len, parts)) > len(set().union(*parts)):
            raise InputError(f"{path} has predictions for one image in two files; give every image once")
        return ChainMap(*map(_as_mutable, parts))
    if is_list(path):
        return parse_predictions(stream(path), annotated, source=str(path))
    content = {"images": list(stream(path, "images")), "annotations": stream(path, "annotations")}
    if not content["images"]:
        raise InputError(f"{path} is neither a COCO results list nor a COCO annotation file; write one of the two")
    return parse_predictions(content, annotated, source=str(path))


def parse_predictions(
    content: Mapping[str, Any] | Iterable[Mapping[str, Any]], annotated: AnnotatedSet, *, source: str = "the input"
) -> Mapping[int, Segments]:
    """What `load_predictions` does for content that comes from elsewhere; `source` names it in error messages.

    Args:
        content: A whole COCO file, or results one after the other, as `predict` makes them.
        annotated: The set.
        source: See above.

    """
    by_id = {picture.image_id: picture for picture in annotated.pictures}
    if isinstance(content, Mapping):
        check_images(content["images"], source, named=False, sized=False)
        pairs = _pair_images(content["images"], annotated.pictures, source)
        groups = _group(content["annotations"], {image["id"] for image in content["images"]}, source)
    else:
        pairs = {image_id: image_id for image_id in by_id}
        groups = _group(content, set(by_id), source)
    with_masks = groups.masks or not groups.count
    return Store(
        (target, to_segments(entries, by_id[target].size, with_masks=with_masks, source=source))
        for image_id, target in tqdm(pairs.items(), desc="predictions", unit="image", delay=_SHOWN_AFTER, leave=False)
        if (entries := groups.of(image_id))
    )


def to_segments(
    entries: Sequence[Mapping[str, Any]],
    size: tuple[int, int],
    *,
    with_masks: bool = True,
    stated_areas: bool = False,
    source: str = "the input",
) -> Segments:
    """Arrays of one image's COCO entries, ordered by descending score (equal scores keep their order).

    Args:
        entries: Annotations or results of one image.
        size: (H, W) of the image in pixels.
        with_masks: Read `segmentation`; otherwise boxes only.
        stated_areas: Trust `area` (ground truth) instead of counting pixels.
        source: Name used in error messages.

    Raises:
        InputError: A mask of another size, a score that is no number, a level outside 0-2, a parent that is missing
            or its own descendant.

    """
    masks: list[dict[str, Any]] | None = [] if with_masks else None
    stated = []
    boxes_needed = not with_masks or all("bbox" in entry for entry in entries)
    for entry in entries:
        try:
            if masks is not None:
                masks.append(to_rle(entry.get("segmentation"), size))
            if boxes_needed:
                stated.append(box_of(entry, size))
        except ValueError as error:  # noqa: PERF203
            name = f"an entry {entry.get('id', '')}".rstrip()
            raise InputError(
                f"{source}: {name} of image {entry.get('image_id')} {error}; write the file again"
            ) from error
    try:
        scores = np.array([entry.get("score", 1.0) for entry in entries], np.float64)
    except (TypeError, ValueError) as error:
        image = entries[0].get("image_id")
        raise InputError(f"{source}: image {image} has a score that is no number ({error}); predict again") from error
    boxes = np.array(stated, np.float64) if boxes_needed or not entries else rle.toBbox(masks)
    if not np.isfinite(scores).all():
        raise InputError(f"{source}: image {entries[0].get('image_id')} has a score that is no number; predict again")
    boxes = np.asarray(boxes, np.float64).reshape(-1, 4)
    areas = boxes[:, 2] * boxes[:, 3] if masks is None else areas_of(masks)
    if stated_areas:
        areas = np.array([entry.get("area", area) for entry, area in zip(entries, areas, strict=True)], np.float64)
    family = composition(entries)
    family.require(entries, source)
    segments = Segments(
        boxes=boxes,
        areas=areas,
        masks=masks,
        scores=scores,
        levels=family.levels,
        parents=family.parents,
        crowd=np.array([bool(entry.get("iscrowd", 0)) for entry in entries], bool),
        annotators=np.array([entry.get("annotator", 0) for entry in entries], np.int64),
        scene=np.array([bool(entry.get("scene", not entry.get("isthing", 1))) for entry in entries], bool),
    )
    return segments.select(np.argsort(-scores, kind="stable"))


def _file_name(image: Mapping[str, Any]) -> str:
    return str(image.get("file_name") or Path(image.get("coco_url", str(image["id"]))).name)  # LVIS has only the URL


def _group(entries: Iterable[Mapping[str, Any]], known: set[int], path: object) -> Groups:
    groups = Groups(entries)
    for image_id in groups:
        if image_id not in known:
            raise InputError(f"{path} refers to image {image_id}, which the set does not have; pair files")
    return groups


def _as_mutable(part: Mapping[int, Segments]) -> MutableMapping[int, Segments]:
    return cast(MutableMapping[int, Segments], part)  # ChainMap writes to the first one, which nobody asks it to


def _pair_images(images: Sequence[Mapping[str, Any]], pictures: Sequence[Picture], path: object) -> dict[int, int]:
    """Id in the predictions' file -> id in the set, by file name, else by its last part where that is unique."""
    targets = {picture.file_name: picture.image_id for picture in pictures}
    pairs = {image["id"]: targets[_file_name(image)] for image in images if _file_name(image) in targets}
    if not pairs:
        short = [Path(picture.file_name).name for picture in pictures]
        if len(set(short)) < len(short):
            raise InputError(f"{path} and the annotations name their images differently; give equal `file_name`s")
        targets = dict(zip(short, targets.values(), strict=True))
        names = {image["id"]: Path(_file_name(image)).name for image in images}
        pairs = {image_id: targets[name] for image_id, name in names.items() if name in targets}
    if not pairs:
        raise InputError(f"{path} has no image in common with the annotations; compare the `file_name`s")
    if len(set(pairs.values())) < len(pairs):
        raise InputError(f"{path} lists one image twice; give every image once")
    return pairs
