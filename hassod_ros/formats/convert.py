"""One format into another: COCO, YOLO, LabelMe."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from hassod_ros.coco import check_images, is_list, stream
from hassod_ros.errors import InputError
from hassod_ros.files import atomic_path
from hassod_ros.formats.labelme import is_labelme, read_labelme, write_labelme
from hassod_ros.formats.labels import LEVELS, Entry, Labels, class_of, corners_of
from hassod_ros.formats.yolo import DATA, read_yolo, write_yolo
from hassod_ros.images import image_root
from hassod_ros.store import Groups

_KEPT = ("score", "level", "parent_id", "scene", "track_id")


def form_of(source: str | os.PathLike) -> str:
    """What annotations are: "coco", "labelme" or "yolo"; "coco" for a file of no other kind, there or not.

    Raises:
        InputError: A folder of none of them.

    """
    path = Path(source)
    if path.suffix.lower() in (".yaml", ".yml"):
        return "yolo"
    if not path.is_dir():
        return "labelme" if path.suffix == ".json" and path.is_file() and is_labelme(path) else "coco"
    if (path / DATA).is_file():
        return "yolo"
    if any(is_labelme(file) for file in path.rglob("*.json")):
        return "labelme"
    if next(path.rglob("*.txt"), None):
        return "yolo"
    raise InputError(f"{path} holds neither YOLO's text files nor LabelMe's JSON files; give the folder that does")


def read_labels(source: str | os.PathLike, images: str | os.PathLike | None = None) -> Labels:
    """Annotations in any of the formats.

    Args:
        source: COCO file (.json, .json.gz), YOLO data.yaml or folder of text files, LabelMe file or folder.
        images: Folder of the images, or list of them, where the annotations do not say it.

    Raises:
        InputError: It cannot be read, or is damaged.

    """
    path, folder = Path(source), None if images is None else image_root(images)
    form = form_of(path)
    if form == "coco":
        return _read_coco(path, folder)
    return read_yolo(path, None if images is None else Path(images)) if form == "yolo" else read_labelme(path, folder)


def write_coco(labels: Labels, out: Path) -> int:
    """Write COCO JSON that FiftyOne and CVAT read: classes are categories, and what COCO lacks are `attributes` too.

    Returns:
        How many things were written.

    """
    index = {name: number for number, name in enumerate(labels.classes, start=1)}
    categories = [{"id": number, "name": name, "supercategory": ""} for name, number in index.items()]
    head = {
        "info": {"description": "written by hassod_ros", "version": "1.0", "year": 0, "contributor": "", "url": ""},
        "licenses": [{"id": 0, "name": "", "url": ""}],
        "categories": categories,
    }
    count = 0
    with atomic_path(out) as temporary, open(temporary, "w", encoding="utf-8") as file:
        file.write(json.dumps(head, separators=(",", ":"))[:-1] + ',"annotations":[')
        rows = []
        for image_id, (image, entries) in enumerate(labels, start=1):
            rows.append({**image, "id": image_id})
            numbers = {entry["id"]: count + place for place, entry in enumerate(entries, start=1)}
            for entry in entries:
                count += 1
                row = _row(entry, image, index[entry["class"]])
                row |= {"id": count, "image_id": image_id}
                if "parent_id" in entry:
                    row["parent_id"] = numbers.get(entry["parent_id"], 0)
                row["attributes"] = {key: row[key] for key in _KEPT if key in row}
                file.write(",\n" * (count > 1) + json.dumps(row, separators=(",", ":")))
        file.write('],"images":' + json.dumps(rows, separators=(",", ":")) + "}\n")
    return count


WRITERS: Mapping[str, Callable[[Labels, Path], int]] = {
    "coco": write_coco,
    "yolo": write_yolo,
    "labelme": write_labelme,
}


def _row(entry: Entry, image: Mapping[str, Any], category: int) -> dict[str, Any]:
    left, top, right, bottom = corners_of(entry, image)
    width, height = right - left, bottom - top
    kept = {key: entry[key] for key in _KEPT if key in entry}
    return {
        "category_id": category,
        "segmentation": entry.get("segmentation") or [],
        "bbox": [left, top, width, height],
        "area": entry.get("area", width * height),
        "iscrowd": int(entry.get("iscrowd", 0)),
        **kept,
    }


def _read_coco(path: Path, folder: Path | None) -> Labels:
    images = check_images([] if is_list(path) else list(stream(path, "images")), path)
    if not images:
        raise InputError(f"{path} is not a COCO annotation file; it needs `images` and `annotations`")
    names = {category["id"]: str(category["name"]) for category in stream(path, "categories")}
    seen: set[str] = set()

    def noted() -> Iterator[Entry]:
        for entry in stream(path, "annotations"):
            seen.add(class_of(entry, names))
            yield entry

    groups = Groups(noted())
    order = [*LEVELS, *dict.fromkeys(names.values()), "object"]
    if seen & set(LEVELS):
        seen |= set(LEVELS)
    classes = [name for name in dict.fromkeys(order) if name in seen] or ["object"]

    def entries(image_id: Any) -> list[Entry]:
        return [{**entry, "class": class_of(entry, names)} for entry in groups.of(image_id)]

    return Labels(folder, classes, images, entries)
