"""YOLO's text files: a line for each thing, its class and a box or a polygon in shares of the image.

As Ultralytics reads and writes them: `class x y w h` with the box's centre, or `class x1 y1 x2 y2 ...`; a number at
the end is a confidence. `data.yaml` names the classes and where the images are; labels lie where /images/ of an image's
path is /labels/.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping, Sequence
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from hassod_ros.errors import InputError
from hassod_ros.files import make_folder, write_text
from hassod_ros.formats.labels import LEVELS, Entry, Labels, corners_of, outline_of, place_of, polygon_entry
from hassod_ros.images import list_images, read_size

DATA = "data.yaml"
_SPLITS = ("val", "test", "train")
_SLACK = 0.01  # shares of the image that a box may be outside

logger = logging.getLogger(__name__)


def read_yolo(source: Path, images: Path | None) -> Labels:
    """The labels of a `data.yaml` (its `val`, else `test`, else `train`), or of a folder of text files.

    Args:
        source: Either of them.
        images: Folder of images or list of them; needed for a folder of text files that is not called `labels` beside
            one that is called `images`.

    Raises:
        InputError: No labels, no images, or a line that is none; with its file and number.

    """
    names: list[str] = []
    if source.is_dir() and (source / DATA).is_file():
        source /= DATA
    if source.is_file():
        names, found = _described(source)
        root = Path(os.path.commonpath([path.parent for path in found]))
        pairs = [(path, _label_of(path)) for path in found]
    else:
        root = images or _images_beside(source)
        found = list_images(root)
        root = root if root.is_dir() else root.parent
        pairs = [(path, source / path.relative_to(root).with_suffix(".txt")) for path in found]
        flat = [(path, source / f"{path.stem}.txt") for path in found]
        pairs = pairs if any(label.is_file() for _, label in pairs) else flat
        if (file := source.parent / DATA).is_file():
            names = _names(_content(file), file)
    if not any(label.is_file() for _, label in pairs):
        raise InputError(
            f"none of {len(pairs)} images of {root} has a label file, such as {pairs[0][1]}; check the two folders"
        )
    entries: dict[Any, list[dict[str, Any]]] = {}
    rows: list[dict[str, Any]] = []
    for number, (path, label) in enumerate(pairs, start=1):
        height, width = read_size(path)
        rows.append({"id": number, "file_name": os.path.relpath(path, root), "height": height, "width": width})
        entries[number] = _read(label, (height, width), names) if label.is_file() else []  # no file: nothing there
    every = [entry for some in entries.values() for entry in some]
    if any("segmentation" in entry for entry in every) and not all("segmentation" in entry for entry in every):
        logger.warning("%s mixes boxes and polygons: only the boxes of all things count", source)
        entries = {key: [_box_alone(entry) for entry in some] for key, some in entries.items()}
    numbers = count(1)
    for image_id, some in entries.items():
        for entry in some:
            entry |= {"id": next(numbers), "image_id": image_id}
    classes = names or [str(k) for k in range(1 + max((int(entry["category_id"]) - 1 for entry in every), default=0))]
    return Labels(root, classes, rows, lambda image_id: entries[image_id])


def write_yolo(labels: Labels, out: Path) -> int:
    """Write `labels/`, `data.yaml` and, where it is known where the images are, links to them in `images/`.

    Returns:
        How many things were written.

    Raises:
        InputError: Two images would share a label file, or a name leads out of the folder.

    """
    index = {name: number for number, name in enumerate(labels.classes)}
    taken: dict[str, Any] = {}
    written = 0
    for image, entries in labels:
        place = place_of(image)
        label = str(place.with_suffix(".txt"))
        if label in taken:
            raise InputError(f"{taken[label]} and {place} would share the label file {label}; rename one of them")
        taken[label] = place
        lines = [_line(entry, image, index) for entry in entries if not entry.get("iscrowd", 0)]
        write_text(out / "labels" / label, "".join(f"{line}\n" for line in lines))
        written += len(lines)
        if picture := labels.image_file(place):
            link = out / "images" / place
            make_folder(link.parent)
            try:
                link.unlink(missing_ok=True)
                link.symlink_to(picture.resolve())
            except OSError as error:  # such as a stick without links
                raise InputError(f"cannot link {link} ({error.strerror}); choose another folder") from error
    names = dict(enumerate(labels.classes))
    content = {"path": str(out.resolve()), "train": "images", "val": "images", "names": names}
    write_text(out / DATA, yaml.safe_dump(content, sort_keys=False))
    return written


def _line(entry: Entry, image: Mapping[str, Any], index: Mapping[str, int]) -> str:
    outline = outline_of(entry, image)
    scale = np.array([image["width"], image["height"]], np.float64)
    if outline is None:
        x0, y0, x1, y1 = corners_of(entry, image)
        values = [(x0 + x1) / 2 / scale[0], (y0 + y1) / 2 / scale[1], (x1 - x0) / scale[0], (y1 - y0) / scale[1]]
    else:
        values = (outline / scale).ravel().tolist()
    return " ".join([str(index[entry["class"]]), *(f"{min(max(value, 0.0), 1.0):.6f}" for value in values)])


def _described(file: Path) -> tuple[list[str], list[Path]]:
    """Names of the classes and images of a data.yaml."""
    content = _content(file)
    root = file.parent / str(content.get("path") or "")
    root = root if root.is_dir() else file.parent  # paths of another machine
    split = next((name for name in _SPLITS if content.get(name)), None)
    if split is None:
        raise InputError(f"{file} has none of {', '.join(_SPLITS)}; name the folder of images there")
    given = content[split] if isinstance(content[split], list) else [content[split]]
    found = [path for place in given for path in list_images(root / str(place))]
    return _names(content, file), found


def _content(file: Path) -> dict[str, Any]:
    try:
        content = yaml.safe_load(file.read_text(encoding="utf-8"))
    except OSError as error:
        raise InputError(f"{file} cannot be read ({error.strerror}); check the path") from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise InputError(f"{file} is not YAML ({' '.join(str(error).split())}); write it again") from error
    if not isinstance(content, dict):
        raise InputError(f"{file} is no data.yaml; it needs val, or train, and names")
    return content


def _names(content: Mapping[str, Any], file: Path) -> list[str]:
    names = content.get("names") or []
    if isinstance(names, dict) and sorted(names) == list(range(len(names))):
        return [str(names[number]) for number in range(len(names))]
    if isinstance(names, list):
        return [str(name) for name in names]
    raise InputError(f"{file}: names must be a list, or numbers from 0 on with a name each")


def _label_of(image: Path) -> Path:
    head, found, tail = str(image.with_suffix(".txt")).rpartition(f"{os.sep}images{os.sep}")
    return Path(f"{head}{os.sep}labels{os.sep}{tail}") if found else image.with_suffix(".txt")


def _images_beside(labels: Path) -> Path:
    head, found, tail = f"{labels.resolve()}{os.sep}".rpartition(f"{os.sep}labels{os.sep}")
    folder = Path(f"{head}{os.sep}images{os.sep}{tail}")
    if not found or not folder.is_dir():
        raise InputError(f"{labels} holds label files; give the folder of their images with --images")
    return folder


def _read(label: Path, size: tuple[int, int], names: Sequence[str]) -> list[dict[str, Any]]:
    height, width = size
    entries: list[dict[str, Any]] = []
    for number, line in enumerate(label.read_text(encoding="utf-8-sig").splitlines(), start=1):
        if not line.strip():
            continue
        place = f"{label}, line {number}"
        try:
            kind, *values = map(float, line.split())
        except ValueError as error:
            raise InputError(f"{place} is not numbers ({error}); write it again") from error
        if kind != int(kind) or kind < 0 or (names and kind >= len(names)):
            raise InputError(f"{place} has the class {kind:g}; there are {len(names)} names, from 0 on")
        box = len(values) in (4, 5)
        if not box and len(values) < 6:
            raise InputError(f"{place} has {len(values)} numbers after its class; a box has 4, a polygon 6 or more")
        score = values.pop() if len(values) % 2 else None
        points = np.array(values).reshape(-1, 2)
        if not np.isfinite(points).all() or points.min() < -_SLACK or points.max() > 1 + _SLACK:
            raise InputError(f"{place} has numbers outside [0, 1]; YOLO wants shares of the image")
        entry: dict[str, Any] = {"category_id": int(kind) + 1, "iscrowd": 0}
        scale = np.array([width, height])
        if box:
            (x, y), (w, h) = points * scale
            entry |= {"bbox": [x - w / 2, y - h / 2, w, h], "area": w * h}
        else:
            entry |= polygon_entry([points * scale], size, place)
        name = names[int(kind)] if names else str(int(kind))
        entry["class"] = name
        if name in LEVELS:
            entry["level"] = LEVELS[name]
        if score is not None:
            entry["score"] = score
        entries.append(entry)
    return entries


def _box_alone(entry: Entry) -> dict[str, Any]:
    return {key: value for key, value in entry.items() if key != "segmentation"}
