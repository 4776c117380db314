"""COCO annotations of many images as flat arrays: small, checked once, shared between worker processes."""

from __future__ import annotations

import json
import logging
import os
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from pycocotools import mask as rle

from hassod_ros.coco import composition, to_rle
from hassod_ros.errors import InputError
from hassod_ros.images import list_images
from hassod_ros.instances import Level
from hassod_ros.learning.run_lengths import damaged, decode

_FAULTS_NAMED = 5
_FILES_PROBED = 100

logger = logging.getLogger(__name__)


@dataclass(frozen=True, eq=False)
class Annotations:
    """Masks and levels of I images, A masks in all.

    Nothing here is a Python list: a forked worker reads the parent's pages without copying them, because no reference
    count changes.

    Attributes:
        folder: Folder that the file names are relative to.
        names: UTF-8 bytes of all file names, one after the other.
        name_ends: (I,) int64, where each name ends in `names`.
        sizes: (I, 2) int32 H, W in pixels; 0, 0 for an image without annotations.
        image_ends: (I,) int64, where each image's masks end in the mask arrays.
        codes: Bytes of all compressed RLEs, one after the other.
        code_ends: (A,) int64, where each code ends in `codes`.
        levels: (A,) uint8, values of `Level`.

    """

    folder: Path
    names: bytes
    name_ends: np.ndarray
    sizes: np.ndarray
    image_ends: np.ndarray
    codes: bytes
    code_ends: np.ndarray
    levels: np.ndarray

    def __len__(self) -> int:
        return len(self.name_ends)

    def path(self, index: int) -> Path:
        """The file of image `index`."""
        start, end = _span(self.name_ends, index)
        return self.folder / self.names[start:end].decode()

    def count(self, index: int) -> int:
        """How many masks image `index` has."""
        start, end = _span(self.image_ends, index)
        return end - start

    def masks(self, index: int, size: tuple[int, int] | None = None) -> np.ndarray:
        """(N, h, w) uint8 masks of 0 and 1 of image `index`, resized to `size` where it is given.

        Raises: ValueError: A mask is damaged.
        """
        height, width = self.sizes[index].tolist()
        size = size or (height, width)
        first, last = _span(self.image_ends, index)
        if first == last:
            return np.zeros((0, *size), np.uint8)
        start, _ = _span(self.code_ends, first)
        codes = np.frombuffer(self.codes, np.uint8, offset=start)
        return decode(codes, self.code_ends[first:last] - start, height, width, size)

    def mask_levels(self, index: int) -> np.ndarray:
        """(N,) uint8 levels of the masks of image `index`."""
        first, last = _span(self.image_ends, index)
        return self.levels[first:last]


def load_annotations(source: str | os.PathLike, images: str | os.PathLike, *, drop_faulty: bool = False) -> Annotations:
    """Read COCO JSON with `level` (or `hier_level`) and `parent_id`; images without a mask and crowds are left out.

    Masks may be compressed or plain RLE or polygons. A missing level counts as WHOLE.

    Args:
        source: A JSON file, or a folder whose `*.json` files are the shards of one set. Ids need only be unique
            within a shard; one shard at a time is held in memory.
        images: Folder that `file_name` is relative to.
        drop_faulty: Leave faulty annotations out and log them, where otherwise the first ones stop the run.

    Raises:
        InputError: Not COCO JSON, no image files, nothing to learn from, or a fault: an empty mask, a mask or box
            outside its image, a level other than 0, 1, 2, a parent that is missing or forms a cycle.

    """
    folder, packer = Path(images), _Packer()
    if not folder.is_dir():
        raise InputError(f"the image folder {folder} does not exist; set data.images to the folder of the photos")
    for shard in _shards(Path(source)):
        packer.add(shard, drop_faulty)
    if packer.faults:
        logger.warning("left out %d faulty annotations: %s", len(packer.faults), "; ".join(packer.faults))
    annotations = packer.annotations(folder)
    if not len(annotations):
        raise InputError(f"{source} holds no mask; check that it is the file that train/pseudo_label.py wrote")
    _require_files(annotations)
    return annotations


def describe(annotations: Annotations) -> str:
    """One line about a set: pictures, masks, and how many masks each level has; a warning where all are of one."""
    counts = np.bincount(annotations.levels, minlength=len(Level)).tolist()
    shares = ", ".join(
        f"{count:,} {level.name.lower()}s ({count / max(sum(counts), 1):.0%})"
        for level, count in zip(Level, counts, strict=True)
    )
    text = f"{len(annotations):,} pictures with {sum(counts):,} masks: {shares}"
    if max(counts) == sum(counts) and sum(counts):
        text += (
            f"\nwarning: all masks are {Level(int(np.argmax(counts))).name.lower()}s, so the level head has nothing to "
            "learn; labels tell their level under `level` or `hier_level`, or set model.level_head to false"
        )
    return text


def unlabelled(images: str | os.PathLike) -> Annotations:
    """The images of a folder (or list file, see `list_images`) without any mask: for the teacher alone."""
    packer = _Packer()
    for path in list_images(images):
        packer.add_image(str(path.resolve()), 0, 0, [], [])
    return packer.annotations(Path("/"))


class _Packer:
    """Collects images and masks into the arrays of `Annotations`."""

    def __init__(self) -> None:
        self.faults: list[str] = []
        self._names, self._codes = bytearray(), bytearray()
        self._name_ends: list[int] = []
        self._image_ends: list[int] = []
        self._sizes: list[tuple[int, int]] = []
        self._code_ends: list[np.ndarray] = []
        self._levels: list[np.ndarray] = []
        self._count = 0

    def add(self, shard: Path, drop_faulty: bool) -> None:
        """Pack one JSON file; its faults stop the run or go to `faults`."""
        images, annotations = _read(shard)
        by_image: dict[Any, list[Mapping[str, Any]]] = defaultdict(list)
        for annotation in annotations:
            by_image[annotation.get("image_id")].append(annotation)
        known = {image["id"] for image in images}
        if strangers := [image_id for image_id in by_image if image_id not in known]:
            raise InputError(f"{shard} has annotations for image {strangers[0]}, which is not among its images")

        faults: list[str] = []
        for image in images:
            size = image["height"], image["width"]
            codes, levels = [], []
            wanted = [annotation for annotation in by_image.get(image["id"], []) if not annotation.get("iscrowd", 0)]
            family = composition(wanted, ordered=True)
            for i, annotation in enumerate(wanted):
                code, fault = _code(annotation, size)
                if fault := fault or family.faults.get(i, ""):
                    faults.append(f"annotation {annotation.get('id')} of {image['file_name']} {fault}")
                else:
                    codes.append(code)
                    levels.append(max(int(family.levels[i]), Level.WHOLE))
            broken = damaged(
                np.frombuffer(b"".join(codes), np.uint8),
                np.cumsum([len(code) for code in codes], dtype=np.int64),
                *size,
            )
            faults += [f"a mask of {image['file_name']} is damaged (its runs do not add up)"] * int(broken.sum())
            kept = np.flatnonzero(~broken).tolist()
            if kept:
                self.add_image(image["file_name"], *size, [codes[i] for i in kept], [levels[i] for i in kept])
        if faults and not drop_faulty:
            named = "; ".join(faults[:_FAULTS_NAMED])
            raise InputError(
                f"{shard} has {len(faults)} faulty annotations: {named}; make the labels again or set data.drop_faulty"
            )
        self.faults += faults

    def add_image(self, name: str, height: int, width: int, codes: Sequence[bytes], levels: Sequence[int]) -> None:
        self._names += name.encode()
        self._name_ends.append(len(self._names))
        self._sizes.append((height, width))
        self._code_ends.append(len(self._codes) + np.cumsum([len(code) for code in codes], dtype=np.int64))
        self._codes += b"".join(codes)
        self._levels.append(np.array(levels, np.uint8))
        self._count += len(codes)
        self._image_ends.append(self._count)

    def annotations(self, folder: Path) -> Annotations:
        return Annotations(
            folder=folder,
            names=bytes(self._names),
            name_ends=np.array(self._name_ends, np.int64),
            sizes=np.array(self._sizes, np.int32).reshape(-1, 2),
            image_ends=np.array(self._image_ends, np.int64),
            codes=bytes(self._codes),
            code_ends=np.concatenate(self._code_ends) if self._code_ends else np.zeros(0, np.int64),
            levels=np.concatenate(self._levels) if self._levels else np.zeros(0, np.uint8),
        )


def _span(ends: np.ndarray, index: int) -> tuple[int, int]:
    return (int(ends[index - 1]) if index else 0), int(ends[index])


def _shards(source: Path) -> list[Path]:
    if not source.is_dir():
        return [source]
    shards = sorted(source.glob("*.json"))
    if not shards:
        raise InputError(f"{source} holds no .json file; give the folder that train/pseudo_label.py wrote into")
    return shards


def _read(shard: Path) -> tuple[list[Mapping[str, Any]], list[Mapping[str, Any]]]:
    try:
        content = json.loads(shard.read_bytes())
        images, annotations = content["images"], content["annotations"]
        for image in images:
            if not (image["height"] > 0 and image["width"] > 0 and image["file_name"] and "id" in image):
                raise InputError(f"{shard}: image {image['id']} has no size or file name; write the file again")
    except FileNotFoundError as error:
        raise InputError(f"{shard} does not exist; set data.annotations to a COCO JSON file or a folder") from error
    except (ValueError, KeyError, TypeError) as error:
        if isinstance(error, InputError):
            raise
        raise InputError(f"{shard} is not COCO JSON ({type(error).__name__}: {error}); make it again") from error
    return images, annotations


def _code(annotation: Mapping[str, Any], size: tuple[int, int]) -> tuple[bytes, str]:
    """Compressed RLE of an annotation, or what is wrong with it."""
    try:
        code = to_rle(annotation.get("segmentation"), size)
        x, y, width, height = annotation.get("bbox", (0, 0, 0, 0))
    except (TypeError, ValueError) as error:
        return b"", str(error) if str(error).startswith("has ") else f"has an unreadable box ({error})"
    if not (x >= -1 and y >= -1 and x + width <= size[1] + 1 and y + height <= size[0] + 1):
        return b"", "has a box outside its image"
    return code["counts"], "" if rle.area(code) else "has an empty mask"


def _require_files(annotations: Annotations) -> None:
    """Probe evenly spaced files: a wrong folder is found at once, without asking a network disk 240,000 times."""
    probes: Iterable[int] = np.unique(np.linspace(0, len(annotations) - 1, _FILES_PROBED).astype(int)).tolist()
    missing = [path for path in map(annotations.path, probes) if not path.is_file()]
    if missing:
        raise InputError(
            f"{annotations.folder} lacks {len(missing)} of {len(list(probes))} files looked for, such as "
            f"{missing[0].name}; set data.images to the folder that the labels were made from"
        )
