"""LabelMe's JSON files, one beside each image."""

from __future__ import annotations

import base64
import json
import logging
import os
from collections import Counter, defaultdict
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from hassod_ros.coco import read_json
from hassod_ros.errors import InputError
from hassod_ros.files import write_text
from hassod_ros.formats.labels import LEVELS, Entry, Labels, corners_of, outline_of, place_of, polygon_entry
from hassod_ros.images import read_image, read_size

_VERSION = "5.5.0"  # of the format that is written
_HEAD = 4096  # bytes: `shapes` is the third key
_CIRCLE = np.linspace(0, 2 * np.pi, 64, endpoint=False)

logger = logging.getLogger(__name__)


def read_labelme(source: Path, images: Path | None) -> Labels:
    """The JSON files of a folder and below, or one of them.

    Polygons, rectangles, circles and masks count; shapes of one label and one group are one thing. Points and lines
    have no area: they are counted and left out.

    Args:
        source: Folder or file.
        images: Folder that file names are made relative to (default: the folder of the files).

    Raises:
        InputError: A file that is none of LabelMe, or a shape without an area.

    """
    files = [file for file in sorted(source.rglob("*.json")) if is_labelme(file)] if source.is_dir() else [source]
    root = images or (source if source.is_dir() else source.parent)
    rows: list[dict[str, Any]] = []
    entries: dict[Any, list[dict[str, Any]]] = {}
    passed: Counter[str] = Counter()
    numbers: dict[str, int] = {}
    count = 0
    for image_id, file in enumerate(files, start=1):
        content = read_json(file)
        if not isinstance(content, dict) or not isinstance(content.get("shapes"), list):
            raise InputError(f"{file} is no file of LabelMe (it has no shapes); give the folder that holds them")
        picture = Path(os.path.normpath(file.parent / str(content.get("imagePath") or f"{file.stem}.jpg")))
        if not picture.is_file() and (root / picture.name).is_file():
            picture = root / picture.name  # labelled on another machine
        size = _size(content) or read_size(picture)
        rows.append({"id": image_id, "file_name": os.path.relpath(picture, root), "height": size[0], "width": size[1]})
        entries[image_id] = []
        ours: dict[Any, int] = {}
        for shapes in _things(content, file, passed):
            count += 1
            polygons = [points for shape in shapes if (points := _points(shape, file)) is not None]
            masks = [shape for shape in shapes if shape.get("shape_type") == "mask"]
            label = str(shapes[0].get("label", ""))
            name = f"{file}: the shape {label!r}"
            entry = polygon_entry(polygons, size, name) if polygons else _mask(masks, size, name)
            numbers.setdefault(label, len(numbers) + 1)
            entry |= {"id": count, "image_id": image_id, "category_id": numbers[label], "iscrowd": 0, "class": label}
            if label in LEVELS:
                entry["level"] = LEVELS[label]
            ours[shapes[0].get("id")] = count
            entry["parent_id"] = shapes[0].get("parent_id") or 0
            entries[image_id].append(entry)
        for entry in entries[image_id]:  # numbers that we wrote; LabelMe keeps them
            entry["parent_id"] = ours.get(entry["parent_id"], 0)
    if passed:
        listed = ", ".join(f"{number} {kind}" for kind, number in passed.most_common())
        logger.warning("%s: left out shapes without an area: %s", source, listed)
    return Labels(root, list(numbers), rows, lambda image_id: entries[image_id])


def write_labelme(labels: Labels, out: Path) -> int:
    """Write a JSON file for each image, with a polygon for each thing; LabelMe finds the image by `imagePath`.

    Returns:
        How many things were written.

    """
    count = 0
    for image, entries in labels:
        place = place_of(image)
        file = out / place.with_suffix(".json")
        there = labels.image_file(place) or out / place
        shapes = [_shape(entry, image) for entry in entries if not entry.get("iscrowd", 0)]
        content = {
            "version": _VERSION,
            "flags": {},
            "shapes": shapes,
            "imagePath": os.path.relpath(there.resolve(), file.parent.resolve()),
            "imageData": None,
            "imageHeight": image["height"],
            "imageWidth": image["width"],
        }
        write_text(file, json.dumps(content, indent=2) + "\n")
        count += len(shapes)
    return count


def is_labelme(file: Path) -> bool:
    """Whether a JSON file is one of LabelMe's, by its first bytes."""
    with open(file, "rb") as opened:
        head = opened.read(_HEAD)
    return b'"shapes"' in head and b'"images"' not in head


def _size(content: Mapping[str, Any]) -> tuple[int, int] | None:
    """(H, W) where a file says it."""
    height, width = content.get("imageHeight"), content.get("imageWidth")
    return (height, width) if isinstance(height, int) and isinstance(width, int) and min(height, width) > 0 else None


def _things(content: Mapping[str, Any], file: Path, passed: Counter[str]) -> list[list[Mapping[str, Any]]]:
    """Shapes with an area; those of one label and group together."""
    groups: dict[Any, list[Mapping[str, Any]]] = defaultdict(list)
    for number, shape in enumerate(content.get("shapes") or []):
        if not isinstance(shape, Mapping):
            raise InputError(f"{file}: shape {number} is no object; label the image again")
        kind = shape.get("shape_type") or "polygon"
        if kind not in ("polygon", "rectangle", "circle", "mask", "oriented_rectangle"):
            passed[kind] += 1
            continue
        group = shape.get("group_id")
        groups[number if group is None else (shape.get("label"), kind == "mask", group)].append(shape)
    return list(groups.values())


def _points(shape: Mapping[str, Any], file: Path) -> np.ndarray | None:
    """The polygon of a shape, None of a mask."""
    kind = shape.get("shape_type") or "polygon"
    if kind == "mask":
        return None
    try:
        points = np.array(shape["points"], np.float64).reshape(-1, 2)
    except (KeyError, TypeError, ValueError) as error:
        raise InputError(f"{file}: the shape {shape.get('label')!r} has no points; label the image again") from error
    if kind == "rectangle" and len(points) == 2:
        (x0, y0), (x1, y1) = points
        return np.array([[x0, y0], [x1, y0], [x1, y1], [x0, y1]])
    if kind == "circle" and len(points) == 2:
        radius = float(np.linalg.norm(points[1] - points[0]))
        return np.asarray(points[0] + radius * np.stack([np.cos(_CIRCLE), np.sin(_CIRCLE)], axis=1))
    return points


def _mask(shapes: list[Mapping[str, Any]], size: tuple[int, int], name: str) -> dict[str, Any]:
    """Run lengths of shapes that hold a PNG of their rectangle."""
    from pycocotools import mask as rle

    whole = np.zeros(size, np.uint8, order="F")
    for shape in shapes:
        try:
            crop = read_image(base64.b64decode(shape["mask"]))[..., 0] > 0
            x, y = np.floor(np.array(shape["points"], np.float64).reshape(-1, 2)[0]).astype(int).tolist()
        except (KeyError, TypeError, ValueError, IndexError, InputError) as error:
            raise InputError(f"{name} has a mask that cannot be read ({error}); label the image again") from error
        place = whole[max(y, 0) : y + crop.shape[0], max(x, 0) : x + crop.shape[1]]
        if x < 0 or y < 0 or place.shape != crop.shape:
            raise InputError(f"{name} leaves its image of {size[1]}x{size[0]} pixels; draw it again")
        place |= crop.astype(np.uint8)
    if not whole.any():
        raise InputError(f"{name} has an empty mask; draw it again")
    code = rle.encode(whole)
    counts = code["counts"].decode("ascii")
    return {
        "segmentation": {"size": list(size), "counts": counts},
        "bbox": [float(value) for value in rle.toBbox(code)],
        "area": float(rle.area(code)),
    }


def _shape(entry: Entry, image: Mapping[str, Any]) -> dict[str, Any]:
    outline = outline_of(entry, image)
    kind = "polygon"
    if outline is None:
        kind, outline = "rectangle", np.array(corners_of(entry, image)).reshape(2, 2)
    shape = {
        "label": entry["class"],
        "points": outline.round(3).tolist(),
        "group_id": None,
        "description": "",
        "shape_type": kind,
        "flags": {},
        "mask": None,
    }
    if "parent_id" in entry:
        shape |= {"id": entry["id"], "parent_id": entry["parent_id"]}
    return shape
