"""COCO annotations: the one reader and writer of their masks, levels, parents and scene.

Every form of mask is read (compressed and plain run lengths, polygons); masks are written as compressed run lengths.
Beside COCO's own keys an annotation may have `level` (0 whole, 1 part, 2 subpart; `hier_level` in HASSOD's files),
`parent_id` (an annotation id, 0 = none), `scene` and `score`; or `part` and `whole_id`, as sets of parts have them.
"""

from __future__ import annotations

import gzip
import itertools
import json
import math
import os
import zlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from hassod_ros.errors import InputError
from hassod_ros.instances import Instances, Level
from hassod_ros.masks import run_lengths

_SLACK = 2.0  # pixels that a box may be outside its image: tools round differently
UNKNOWN = -1  # level of an annotation that states none


def read_json(path: str | os.PathLike) -> Any:
    """Content of a `.json` or `.json.gz` file.

    Raises:
        InputError: It cannot be read or is not JSON.

    """
    try:
        data = Path(path).read_bytes()
        return json.loads(gzip.decompress(data) if data[:2] == b"\x1f\x8b" else data)
    except OSError as error:
        raise InputError(f"{path} cannot be read ({error.strerror or error}); check the path") from error
    except (ValueError, EOFError, zlib.error) as error:
        raise InputError(f"{path} is not valid JSON ({error}); write it again") from error


def is_list(path: str | os.PathLike) -> bool:
    """Whether a `.json` or `.json.gz` file holds a list, such as COCO results, and not an object.

    Raises:
        InputError: It cannot be read.

    """
    with _opened(path) as file:
        return bool(file.read(1000).lstrip()[:1] == b"[")


def stream(path: str | os.PathLike, key: str = "") -> Iterator[Any]:
    """The members of a list in a `.json` or `.json.gz` file, one at a time: memory does not grow with the file.

    Args:
        path: The file.
        key: Name of the list at the top of the file, such as "annotations"; "" for a file that is one list.

    Raises:
        InputError: It cannot be read or is not JSON.

    """
    import ijson  # for large sets only

    count = 0
    with _opened(path) as file:
        try:
            for item in ijson.items(file, f"{key}.item" if key else "item", use_float=True):
                count += 1
                yield item
            return
        except ijson.JSONError as error:
            raise InputError(f"{path} is not valid JSON ({' '.join(str(error).split())}); write it again") from error
        except UnicodeDecodeError:
            pass  # it cannot decode the escapes of a file name that is not UTF-8, which Python's own reader can
    content = read_json(path)
    yield from itertools.islice(content[key] if key else content, count, None)


@contextmanager
def _opened(path: str | os.PathLike) -> Iterator[Any]:
    try:
        with open(path, "rb") as raw:
            zipped = raw.read(2) == b"\x1f\x8b"
            raw.seek(0)
            with gzip.open(raw) if zipped else nullcontext(raw) as file:
                yield file
    except OSError as error:
        raise InputError(f"{path} cannot be read ({error.strerror or error}); check the path") from error
    except (EOFError, zlib.error) as error:
        raise InputError(f"{path} is not valid JSON ({error}); write it again") from error


def to_rle(segmentation: Any, size: tuple[int, int]) -> dict[str, Any]:
    """Compressed run lengths (`size`, and `counts` as bytes) of any of COCO's forms of a mask.

    Args:
        segmentation: Polygons, or a dict of `size` and `counts`.
        size: (H, W) of the image in pixels.

    Raises:
        ValueError: It is none of the forms, or of another size; the message goes on after "annotation 7".

    """
    from pycocotools import mask as rle  # to read: a robot writes only

    if not segmentation:
        raise ValueError("has no mask")
    height, width = int(size[0]), int(size[1])
    try:
        if isinstance(segmentation, list):
            for polygon in segmentation:
                _require_polygon(polygon)
            code = rle.merge(rle.frPyObjects(segmentation, height, width))
        else:
            given = tuple(int(side) for side in segmentation["size"])
            if given != (height, width):
                raise _FaultError(f"has a mask of {given} in an image of {(height, width)}")
            counts = segmentation["counts"]
            if isinstance(counts, list):
                _require_runs(counts, height * width)  # pycocotools reads beyond the mask, or for ever
                return dict(rle.frPyObjects({"size": [height, width], "counts": counts}, height, width))
            code = {"counts": counts.encode("ascii") if isinstance(counts, str) else bytes(counts)}
    except _FaultError:
        raise
    except Exception as error:  # pycocotools raises anything for what it does not know
        raise ValueError(f"has an unreadable mask ({type(error).__name__}: {error})") from error
    return {"size": [height, width], "counts": code["counts"]}


def box_of(entry: Mapping[str, Any], size: tuple[int, int]) -> tuple[float, float, float, float]:
    """The `bbox` x, y, width, height of an entry; what lies a pixel or two outside the image is cut off.

    Raises:
        ValueError: It is missing, or is not four finite numbers; the message goes on after "annotation 7".

    """
    box = entry.get("bbox")
    if not isinstance(box, list | tuple) or len(box) != 4 or not all(map(_is_number, box)):
        raise ValueError(f"has the box {box!r}, which is not x, y, width, height")
    x, y, width, height = map(float, box)
    right, bottom = x + width, y + height
    x, right = _pull_in(x, size[1]), _pull_in(right, size[1])
    y, bottom = _pull_in(y, size[0]), _pull_in(bottom, size[0])
    return x, y, right - x, bottom - y


def check_images(images: Any, source: object, *, named: bool = True, sized: bool = True) -> list[dict[str, Any]]:
    """The `images` of a COCO file with whole numbers for their sizes.

    Args:
        images: The list.
        source: The file, for error messages.
        named: Whether each must have a `file_name`.
        sized: Whether each must have `height` and `width`.

    Raises:
        InputError: It is no list of objects, two images have one id, or an image has no id, size or name.

    """
    if not isinstance(images, list) or not all(isinstance(image, Mapping) for image in images):
        raise InputError(f"{source} is not a COCO annotation file; its `images` must be a list of objects")
    checked: dict[Any, dict[str, Any]] = {}
    for image in images:
        image_id = image.get("id")
        name = image.get("file_name")
        if isinstance(image_id, bool) or not isinstance(image_id, int | str):
            raise InputError(f"{source}: the image {name} has the id {image_id!r}; give it a whole number")
        if image_id in checked:
            other = checked[image_id].get("file_name")
            raise InputError(f"{source} has two images of the id {image_id} ({other}, {name}); number them anew")
        if named and not (isinstance(name, str) and name):
            raise InputError(f"{source}: image {image_id} has no file name; write the file again")
        if not sized:
            checked[image_id] = dict(image)
            continue
        sides = [image.get(key) for key in ("height", "width")]
        if not all(_is_number(side) and side >= 1 and side == int(side) for side in sides):
            raise InputError(
                f"{source}: image {image_id} ({name}) has the size {sides[0]!r} x {sides[1]!r} (height, width); "
                "give whole pixels"
            )
        checked[image_id] = {**image, "height": int(sides[0]), "width": int(sides[1])}
    return list(checked.values())


def label_files(folder: Path) -> list[Path]:
    """The COCO files of a folder, without the lists of failures that pseudo_label leaves beside its labels.

    Raises:
        InputError: There is none.

    """
    files = [file for file in sorted(folder.glob("*.json")) if not file.name.endswith(("failures.json",))]
    if not files:
        raise InputError(f"{folder} holds no .json file of labels; give the folder that they were written to")
    return files


def areas_of(codes: Sequence[dict[str, Any]]) -> np.ndarray:
    """(N,) float64 pixel counts, in portions: pycocotools 2.0.11 fails on 256 masks and more with NumPy 2."""
    from pycocotools import mask as rle

    portions = [rle.area(list(codes[start : start + 255])) for start in range(0, len(codes), 255)]
    return np.concatenate(portions).astype(np.float64) if portions else np.zeros(0)


@dataclass(frozen=True, eq=False)
class Composition:
    """What one image's N annotations say about each other.

    Attributes:
        levels: (N,) int8, values of `Level`, or UNKNOWN.
        parents: (N,) int64, index of the annotation that this one is a part of, or -1; no cycles.
        scene: (N,) bool.
        faults: What is wrong, by index; such an annotation has no parent here, and an impossible level is UNKNOWN.

    """

    levels: np.ndarray
    parents: np.ndarray
    scene: np.ndarray
    faults: dict[int, str]

    def require(self, entries: Sequence[Mapping[str, Any]], source: object) -> None:
        """Raise an InputError that names the first fault, if there is one."""
        for i, fault in self.faults.items():
            raise InputError(f"{source}: annotation {entries[i].get('id')} {fault}; write the file again")


def composition(entries: Sequence[Mapping[str, Any]], *, ordered: bool = False) -> Composition:
    """Levels, parents and scene of one image's annotations.

    Args:
        entries: COCO annotations or results.
        ordered: Also ask that a parent's level stands above its child's (or both are subparts), as in labels.

    """
    parts = any("part" in entry for entry in entries)
    faults: dict[int, str] = {}
    levels = np.full(len(entries), UNKNOWN, np.int8)
    for i, entry in enumerate(entries):
        default = (Level.PART if entry.get("part") else Level.WHOLE) if parts else UNKNOWN
        level = entry.get("level", entry.get("hier_level", default))
        if level in (UNKNOWN, *Level):
            levels[i] = level
        else:
            faults[i] = f"has level {level}, which is not 0 (whole), 1 (part) or 2 (subpart)"
    index = {entry["id"]: i for i, entry in enumerate(entries) if "id" in entry}
    parents = np.full(len(entries), -1, np.int64)
    for i, entry in enumerate(entries):
        parent = entry.get("parent_id") or entry.get("whole_id")
        if not parent:
            continue
        if parent in index:
            parents[i] = index[parent]
        else:
            faults.setdefault(i, f"has parent {parent}, which is not in the same image")
    for i in _on_cycles(parents).tolist():
        faults.setdefault(i, "is its own ancestor (cyclic parent_id)")
        parents[i] = -1
    if ordered:
        above = np.where(parents >= 0, levels[parents], UNKNOWN)
        wrong = (levels != UNKNOWN) & (above != UNKNOWN) & (above >= levels) & (levels < Level.SUBPART)
        for i in np.flatnonzero(wrong).tolist():
            faults.setdefault(
                i, f"has level {levels[i]}, its parent level {above[i]}; a parent stands higher (smaller)"
            )
            parents[i] = -1
    scene = np.array([bool(entry.get("scene", False)) for entry in entries], bool)
    return Composition(levels, parents, scene, faults)


def _on_cycles(parents: np.ndarray) -> np.ndarray:
    """Indices whose line of ancestors (N,) does not end."""
    ancestor = parents.copy()
    for _ in range(len(parents)):
        if (ancestor < 0).all():
            break
        ancestor = np.where(ancestor >= 0, parents[ancestor], -1)
    return np.flatnonzero(ancestor >= 0)


def to_coco(instances: Instances, image_id: int, first_id: int = 1) -> list[dict[str, Any]]:
    """COCO annotations, one per instance, with `level`, `parent_id` (an annotation id, 0 = none), `score` and `scene`.

    Args:
        instances: Of one image.
        image_id: Id of the image in the COCO file.
        first_id: Annotation ids run on from here; at least 1.

    Returns:
        Annotations with compressed RLE (`counts` as str), `bbox` [x, y, width, height] and category 1.

    """
    codes = run_lengths(instances.regions, instances.masks, instances.image_size)
    columns = (instances.boxes, instances.areas, instances.levels, instances.parents, instances.scores, instances.scene)
    return [
        {
            "id": first_id + i,
            "image_id": image_id,
            "category_id": 1,
            "segmentation": {"size": list(instances.image_size), "counts": code.decode("ascii")},
            "bbox": [left, top, right - left, bottom - top],
            "area": area,
            "iscrowd": 0,
            "level": level,
            "parent_id": first_id + parent if parent >= 0 else 0,
            "score": round(score, 6),
            "scene": scene,
        }
        for i, (code, (left, top, right, bottom), area, level, parent, score, scene) in enumerate(
            zip(codes, *(column.tolist() for column in columns), strict=True)
        )
    ]


def from_coco(annotations: Sequence[Mapping[str, Any]], image_size: tuple[int, int]) -> Instances:
    """Instances of one image's COCO annotations; boxes are the masks' extents.

    Missing `level`, `parent_id`, `score` and `scene` take the defaults of `Instances`.

    Raises:
        ValueError: A mask that is empty, unreadable or of another size, a parent that is not among `annotations`, or a
            level or parent that breaks an invariant.

    """
    from pycocotools import mask as rle

    boxes, crops = np.zeros((len(annotations), 4), np.float32), []
    for i, annotation in enumerate(annotations):
        try:
            code = to_rle(annotation.get("segmentation"), image_size)
        except ValueError as error:
            raise ValueError(f"annotation {annotation.get('id')} {error}") from error
        x, y, width, height = (int(value) for value in rle.toBbox(code))
        if not width or not height:
            raise ValueError(f"annotation {annotation.get('id')} has an empty mask")
        boxes[i] = x, y, x + width, y + height
        crops.append(np.ascontiguousarray(rle.decode(code)[y : y + height, x : x + width]))
    family = composition(annotations)
    for i, fault in family.faults.items():
        raise ValueError(f"annotation {annotations[i].get('id')} {fault}")
    return Instances(
        image_size=image_size,
        boxes=boxes,
        masks=crops,
        scores=np.array([annotation.get("score", 1.0) for annotation in annotations], np.float32),
        levels=np.where(family.levels == UNKNOWN, Level.WHOLE, family.levels),
        parents=family.parents,
        scene=family.scene,
    )


def _require_polygon(polygon: Any) -> None:
    if not isinstance(polygon, list | tuple) or not all(map(_is_number, polygon)):
        raise _FaultError("has an unreadable mask: a polygon is no list of numbers")
    if len(polygon) % 2:
        raise _FaultError(f"has a polygon of {len(polygon)} numbers, which are no pairs of x and y")
    if len(polygon) < 6:
        raise _FaultError(f"has a polygon of {len(polygon) // 2} points; an area has at least 3")


def _require_runs(counts: list[Any], pixels: int) -> None:
    if not all(isinstance(run, int) and run >= 0 for run in counts):
        raise _FaultError("has run lengths that are not whole numbers from 0 on")
    if sum(counts) != pixels:
        raise _FaultError(f"has run lengths that add up to {sum(counts)}, its image has {pixels} pixels")


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _pull_in(place: float, side: int) -> float:
    """A coordinate inside the image where it was at most `_SLACK` outside."""
    return min(max(place, 0.0), float(side)) if -_SLACK <= place <= side + _SLACK else place


class _FaultError(ValueError):
    """What is wrong with a mask, in our words."""
