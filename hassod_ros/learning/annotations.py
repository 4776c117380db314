"""COCO annotations of many images as flat arrays: checked once, then mapped from files by all processes."""

from __future__ import annotations

import hashlib
import json
import logging
import os
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from pycocotools import mask as rle
from tqdm import tqdm

from hassod_ros.coco import box_of, check_images, composition, label_files, stream, to_rle
from hassod_ros.errors import InputError
from hassod_ros.files import atomic_path, exclusive, sha256, write_json
from hassod_ros.images import image_root, list_images
from hassod_ros.instances import Level, kept_parents
from hassod_ros.learning.run_lengths import damaged, decode
from hassod_ros.store import Groups

_FAULTS_NAMED = 5
_FILES_PROBED = 100
_VERSION = 3  # of the packed arrays
_ABOUT = "about.json"
_ARRAYS = ("names", "name_ends", "sizes", "image_ends", "codes", "code_ends", "levels", "parents")
_FILLED = 0.75  # share of a detector's queries that labels may take in half of the pictures
_SHOWN_AFTER = 2  # seconds: what is done sooner shows no progress bar

logger = logging.getLogger(__name__)


@dataclass(frozen=True, eq=False)
class Annotations:
    """Masks, levels and parents of I images, A masks in all.

    The arrays are mapped from files: all processes of a machine share one copy in memory, and a worker takes none.

    Attributes:
        folder: Folder that the file names are relative to.
        names: (C,) uint8, bytes of all file names, one after the other.
        name_ends: (I,) int64, where each name ends in `names`.
        sizes: (I, 2) int32 H, W in pixels; 0, 0 for an image without annotations.
        image_ends: (I,) int64, where each image's masks end in the mask arrays.
        codes: (B,) uint8, bytes of all compressed RLEs, one after the other.
        code_ends: (A,) int64, where each code ends in `codes`.
        levels: (A,) uint8, values of `Level`.
        parents: (A,) int32, index within its image of the mask that this one is a part of, or -1.
        contents: SHA-256 of the label files; "" where there are none.

    """

    folder: Path
    names: np.ndarray
    name_ends: np.ndarray
    sizes: np.ndarray
    image_ends: np.ndarray
    codes: np.ndarray
    code_ends: np.ndarray
    levels: np.ndarray
    parents: np.ndarray
    contents: str

    def __len__(self) -> int:
        return len(self.name_ends)

    def path(self, index: int) -> Path:
        """The file of image `index`."""
        start, end = _span(self.name_ends, index)
        return self.folder / os.fsdecode(self.names[start:end].tobytes())

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
        codes = np.asarray(self.codes[start : int(self.code_ends[last - 1])])
        return decode(codes, np.asarray(self.code_ends[first:last]) - start, height, width, size)

    def mask_levels(self, index: int) -> np.ndarray:
        """(N,) uint8 levels of the masks of image `index`."""
        first, last = _span(self.image_ends, index)
        return self.levels[first:last]

    def mask_parents(self, index: int) -> np.ndarray:
        """(N,) int32 parents of the masks of image `index`, as indices within the image, or -1."""
        first, last = _span(self.image_ends, index)
        return self.parents[first:last]


def load_annotations(source: str | os.PathLike, images: str | os.PathLike, *, drop_faulty: bool = False) -> Annotations:
    """Read COCO JSON with `level` (or `hier_level`) and `parent_id`; images without a mask and crowds are left out.

    Masks may be compressed or plain RLE or polygons. A missing level counts as WHOLE. The first reading checks
    everything and leaves the arrays beside the file, in `labels.json.packed`; later ones, of any process, map them.

    Args:
        source: A JSON file, or a folder whose `*.json` files are the shards of one set. Ids need only be unique
            within a shard; memory does not grow with the files.
        images: Folder that `file_name` is relative to, or the list of images that the labels were made from.
        drop_faulty: Leave faulty annotations out and log them, where otherwise the first ones stop the run.

    Raises:
        InputError: Not COCO JSON, no image files, nothing to learn from, or a fault: an empty mask, a mask or box
            outside its image, a level other than 0, 1, 2, a parent that is missing or forms a cycle.

    """
    folder = image_root(images)
    if not Path(images).exists():
        raise InputError(f"the image folder {images} does not exist; set data.images to the folder of the photos")
    arrays, about = packed(_shards(Path(source)), drop_faulty)
    if faults := about["faults"]:
        logger.warning("left out %d faulty annotations: %s", len(faults), "; ".join(faults))
    annotations = Annotations(folder=folder, **arrays, contents=about["contents"])
    if not len(annotations):
        raise InputError(f"{source} holds no mask; check that it is the file that train/pseudo_label.py wrote")
    _require_files(annotations)
    return annotations


def packed(shards: Sequence[Path], drop_faulty: bool = False) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    """The arrays of `Annotations`, mapped from files that the first reading leaves, and what it noted beside them.

    Notes are `faults`, what was left out, and `contents`, the SHA-256 of the shards' own.

    Raises:
        InputError: See `load_annotations`.

    """
    about = {"version": _VERSION, "drop_faulty": drop_faulty, "files": [_stamp(shard) for shard in shards]}
    target = _packed_folder(shards[0])
    with exclusive(target):
        record = target / _ABOUT
        found = json.loads(record.read_text(encoding="utf-8")) if record.exists() else {}
        if {key: found.get(key) for key in about} != about:
            packer = _Packer()
            for shard in shards:
                packer.add(shard, drop_faulty)
            contents = hashlib.sha256("".join(map(sha256, shards)).encode()).hexdigest()
            found = {**about, "faults": packer.faults, "contents": contents}
            record.unlink(missing_ok=True)
            for name, values in packer.arrays().items():
                with atomic_path(target / f"{name}.npy") as temporary, open(temporary, "wb") as file:
                    np.save(file, values)
            write_json(record, found)  # last: it says that the arrays are whole
        arrays = {name: np.load(target / f"{name}.npy", mmap_mode="r") for name in _ARRAYS}
    return arrays, found


def _stamp(shard: Path) -> list[Any]:
    try:
        status = shard.stat()
    except FileNotFoundError as error:
        raise InputError(f"{shard} does not exist; set data.annotations to a COCO JSON file or a folder") from error
    return [shard.name, status.st_size, status.st_mtime_ns]


def _packed_folder(shard: Path) -> Path:
    """Beside the labels, or, where that cannot be written, in the folder for temporary files."""
    folder = shard.with_name(f"{shard.name}.packed")
    if os.access(shard.parent, os.W_OK):
        return folder
    name = hashlib.sha256(str(shard.resolve()).encode()).hexdigest()[:16]
    return Path(tempfile.gettempdir()) / f"hassod_ros_{os.getuid()}" / name


def describe(annotations: Annotations, queries: int | None = None) -> str:
    """One line about a set: pictures, masks, and how many masks each level has; warnings where it teaches badly.

    Args:
        annotations: The set.
        queries: How many things a detector with queries finds in a picture at most.

    """
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
    usual = int(np.median(np.diff(annotations.image_ends, prepend=0))) if len(annotations) else 0
    if queries is not None and usual > _FILLED * queries:
        text += (
            f"\nwarning: half of the pictures have {usual} masks or more for {queries} queries, so hardly any query "
            "learns that there is nothing, and scores will mean nothing; label with pseudo_label --set most=..., or "
            "set mask2former.queries higher"
        )
    return text


def unlabelled(images: str | os.PathLike) -> Annotations:
    """The images of a folder (or list file, see `list_images`) without any mask: for the teacher alone."""
    packer = _Packer()
    for path in list_images(images):
        packer.add_image(str(path.resolve()), 0, 0)
    return Annotations(folder=Path("/"), contents="", **packer.arrays())


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
        self._parents: list[np.ndarray] = []
        self._count = 0

    def add(self, shard: Path, drop_faulty: bool) -> None:
        """Pack one JSON file; its faults stop the run or go to `faults`."""
        images = _images(shard)
        groups = Groups(stream(shard, "annotations"))
        known = {image["id"] for image in images}
        if strangers := [image_id for image_id in groups if image_id not in known]:
            raise InputError(f"{shard} has annotations for image {strangers[0]}, which is not among its images")
        faults: list[str] = []
        for image in tqdm(images, desc=f"checking {shard.name}", unit="image", delay=_SHOWN_AFTER, leave=False):
            self._add(image, groups.of(image["id"]), faults)
        if faults and not drop_faulty:
            named = "; ".join(faults[:_FAULTS_NAMED])
            raise InputError(
                f"{shard} has {len(faults)} faulty annotations: {named}; make the labels again or set data.drop_faulty"
            )
        self.faults += faults

    def _add(self, image: Mapping[str, Any], entries: Sequence[Mapping[str, Any]], faults: list[str]) -> None:
        size = image["height"], image["width"]
        wanted = [entry for entry in entries if not entry.get("iscrowd", 0)]
        family = composition(wanted, ordered=True)
        places, codes = [], []
        for i, annotation in enumerate(wanted):
            code, fault = _code(annotation, size)
            if fault := fault or family.faults.get(i, ""):
                faults.append(f"annotation {annotation.get('id')} of {image['file_name']} {fault}")
            else:
                places.append(i)
                codes.append(code)
        ends = np.cumsum([len(code) for code in codes], dtype=np.int64)
        broken = damaged(np.frombuffer(b"".join(codes), np.uint8), ends, *size)
        faults += [f"a mask of {image['file_name']} is damaged (its runs do not add up)"] * int(broken.sum())
        kept = np.flatnonzero(~broken)
        if len(kept):
            index = np.array(places)[kept]
            levels = np.maximum(family.levels[index], Level.WHOLE)
            parents = kept_parents(family.parents, index)
            self.add_image(image["file_name"], *size, [codes[i] for i in kept.tolist()], levels, parents)

    def add_image(
        self,
        name: str,
        height: int,
        width: int,
        codes: Sequence[bytes] = (),
        levels: Sequence[int] | np.ndarray = (),
        parents: Sequence[int] | np.ndarray = (),
    ) -> None:
        self._names += os.fsencode(name)  # names need not be UTF-8
        self._name_ends.append(len(self._names))
        self._sizes.append((height, width))
        self._code_ends.append(len(self._codes) + np.cumsum([len(code) for code in codes], dtype=np.int64))
        self._codes += b"".join(codes)
        self._levels.append(np.array(levels, np.uint8))
        self._parents.append(np.array(parents, np.int32))
        self._count += len(codes)
        self._image_ends.append(self._count)

    def arrays(self) -> dict[str, np.ndarray]:
        def joined(parts: list[np.ndarray], kind: type) -> np.ndarray:
            return np.concatenate(parts) if parts else np.zeros(0, kind)

        return {
            "names": np.frombuffer(bytes(self._names), np.uint8),
            "name_ends": np.array(self._name_ends, np.int64),
            "sizes": np.array(self._sizes, np.int32).reshape(-1, 2),
            "image_ends": np.array(self._image_ends, np.int64),
            "codes": np.frombuffer(self._codes, np.uint8),
            "code_ends": joined(self._code_ends, np.int64),
            "levels": joined(self._levels, np.uint8),
            "parents": joined(self._parents, np.int32),
        }


def _span(ends: np.ndarray, index: int) -> tuple[int, int]:
    return (int(ends[index - 1]) if index else 0), int(ends[index])


def _shards(source: Path) -> list[Path]:
    if not source.is_dir():
        return [source]
    return label_files(source)


def _images(shard: Path) -> list[dict[str, Any]]:
    images: list[Any] = [
        {key: image.get(key) for key in ("id", "file_name", "height", "width")} if isinstance(image, Mapping) else image
        for image in stream(shard, "images")
    ]
    if not images:
        raise InputError(f"{shard} is not COCO JSON (it lists no images); make it again")
    return check_images(images, shard)


def _code(annotation: Mapping[str, Any], size: tuple[int, int]) -> tuple[bytes, str]:
    """Compressed RLE of an annotation, or what is wrong with it."""
    try:
        code = to_rle(annotation.get("segmentation"), size)
        x, y, width, height = box_of(annotation, size) if "bbox" in annotation else (0, 0, 0, 0)
    except ValueError as error:
        return b"", str(error)
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
