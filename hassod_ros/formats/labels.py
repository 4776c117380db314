"""Annotated images between two formats: COCO's entries, image by image."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np

from hassod_ros.coco import box_of, to_rle
from hassod_ros.errors import InputError
from hassod_ros.instances import Level

LEVELS = {level.name.lower(): int(level) for level in Level}
_SLACK = 2.0  # pixels that a point may lie outside its image: tools round differently

Entry = Mapping[str, Any]


@dataclass(frozen=True)
class Labels:
    """A set of annotated images.

    Attributes:
        root: Folder that the file names are relative to, where it is known.
        classes: Names of the classes that occur, or may: whole, part and subpart where entries tell their level.
        images: COCO's: `id`, `file_name`, `height`, `width` in pixels.
        entries: COCO annotations of the image with an id.

    """

    root: Path | None
    classes: list[str]
    images: list[dict[str, Any]]
    entries: Callable[[Any], Sequence[Entry]]

    def __iter__(self) -> Iterator[tuple[dict[str, Any], Sequence[Entry]]]:
        for image in self.images:
            yield image, self.entries(image["id"])

    def image_file(self, place: PurePosixPath) -> Path | None:
        """Where an image is, or None where no folder is known.

        Raises:
            InputError: It is not there.

        """
        if self.root is None:
            return None
        if not (file := self.root / place).is_file():
            raise InputError(f"{file} does not exist; give --images the folder that file names are relative to")
        return file


def level_of(entry: Entry) -> int | None:
    """The level that an entry states."""
    level = entry.get("level", entry.get("hier_level"))
    return int(level) if level in tuple(Level) else None


def class_of(entry: Entry, names: Mapping[Any, str]) -> str:
    """Name of an entry's level, else of its category.

    Args:
        entry: COCO annotation.
        names: Of the categories, by id.

    """
    level = level_of(entry)
    return Level(level).name.lower() if level is not None else names.get(entry.get("category_id"), "object")


def polygon_entry(polygons: Sequence[np.ndarray], size: tuple[int, int], name: str) -> dict[str, Any]:
    """`segmentation`, `bbox` and `area` of polygons.

    Args:
        polygons: Of one thing, (P, 2) x y in pixels each.
        size: (H, W) of the image.
        name: What it is, for error messages.

    Raises:
        InputError: A polygon of less than three points, or one that leaves the image by more than two pixels.

    """
    from pycocotools import mask as rle

    height, width = size
    for polygon in polygons:
        if len(polygon) < 3:
            raise InputError(f"{name} has {len(polygon)} points; an area has at least 3")
        low, high = polygon.min(axis=0), polygon.max(axis=0)
        if not (
            np.isfinite(polygon).all() and low.min() >= -_SLACK and (high <= np.array([width, height]) + _SLACK).all()
        ):
            raise InputError(f"{name} leaves its image of {width}x{height} pixels; draw it again")
    inside = [np.clip(polygon, 0, (width, height)).round(3) for polygon in polygons]
    flat = [polygon.ravel().tolist() for polygon in inside]
    code = to_rle(flat, size)
    corners = np.concatenate(inside)
    (left, top), (right, bottom) = corners.min(axis=0).tolist(), corners.max(axis=0).tolist()
    return {"segmentation": flat, "bbox": [left, top, right - left, bottom - top], "area": float(rle.area(code))}


def outline_of(entry: Entry, image: Mapping[str, Any]) -> np.ndarray | None:
    """One polygon (P, 2) x y in pixels around all of an entry's mask, or None where it has a box alone.

    Raises:
        InputError: The mask cannot be read.

    """
    from hassod_ros.formats.polygons import to_polygon

    given = entry.get("segmentation")
    if not given:
        return None
    if isinstance(given, list) and len(given) == 1 and len(given[0]) >= 6 and len(given[0]) % 2 == 0:
        return np.array(given[0], np.float64).reshape(-1, 2)
    try:
        return to_polygon(to_rle(given, (image["height"], image["width"])))
    except ValueError as error:
        raise InputError(
            f"annotation {entry.get('id')} of {image['file_name']} {error}; write the file again"
        ) from error


def corners_of(entry: Entry, image: Mapping[str, Any]) -> tuple[float, float, float, float]:
    """Left, top, right and bottom of an entry's box in pixels.

    Raises:
        InputError: It has none.

    """
    try:
        x, y, width, height = box_of(entry, (image["height"], image["width"]))
    except ValueError as error:
        raise InputError(
            f"annotation {entry.get('id')} of {image['file_name']} {error}; write the file again"
        ) from error
    return x, y, x + width, y + height


def place_of(image: Mapping[str, Any]) -> PurePosixPath:
    """The file name as a path that stays below a folder.

    Raises:
        InputError: It leads out of it.

    """
    name = PurePosixPath(str(image["file_name"]))
    if name.is_absolute() or ".." in name.parts:
        raise InputError(f"the name {name} leads out of the folder of images; write names relative to that folder")
    return name
