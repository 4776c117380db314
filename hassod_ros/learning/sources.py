"""Public image sets, from folders as their owners ship them to what stage 1 and the evaluation read, class-agnostic."""

from __future__ import annotations

import json
import os
import random
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from pycocotools import mask as rle

from hassod_ros.coco import to_rle
from hassod_ros.errors import InputError
from hassod_ros.files import atomic_path, write_text
from hassod_ros.images import EXTENSIONS


@dataclass(frozen=True)
class Prepared:
    """What was written.

    Attributes:
        path: List of pictures (.txt), or COCO JSON.
        pictures: How many.
        annotations: How many; 0 for a list.
        missing: Pictures that the annotations name and the folder lacks: they were left out.

    """

    path: Path
    pictures: int
    annotations: int
    missing: int


@dataclass(frozen=True)
class Source:
    """One set that can be prepared.

    Attributes:
        summary: What comes out, for `--help`.
        needs: What the downloaded folder must hold, relative to it.
        prepare: (folder, output, options) -> what was written.

    """

    summary: str
    needs: tuple[str, ...]
    prepare: Callable[[Path, Path, Options], Prepared]


@dataclass(frozen=True)
class Options:
    """Choices of some sets.

    Attributes:
        pictures: SA-1B: pictures to draw at random; the paper takes 50,000.
        seed: Of that draw.
        duplicate_iou: COCO + LVIS: an LVIS mask that overlaps a COCO mask more is the same object.

    """

    pictures: int = 50_000
    seed: int = 0
    duplicate_iou: float = 0.5


def prepare(name: str, folder: str | os.PathLike, output: str | os.PathLike, options: Options) -> Prepared:
    """Check a downloaded set and write its list of pictures or its class-agnostic annotations.

    Raises:
        InputError: Something is missing: all of it is named.

    """
    source, root = SOURCES[name], Path(folder)
    if not root.is_dir():
        raise InputError(f"{root} does not exist; give the folder that {name} was downloaded to")
    missing = [need for need in source.needs if not (root / need).exists()]
    if missing:
        raise InputError(
            f"{root} lacks {', '.join(missing)}; {name} needs {', '.join(source.needs)}: download and unpack the rest"
        )
    return source.prepare(root, Path(output), options)


def _coco_train(root: Path, output: Path, options: Options) -> Prepared:
    folders = [root / "train2017", root / "unlabeled2017"]
    names = [f"{folder.name}/{name}" for folder in folders for name in sorted(_image_names(folder))]
    if empty := [folder.name for folder in folders if not any(_image_names(folder))]:
        raise InputError(f"{root} holds no picture in {', '.join(empty)}; unpack the archives there")
    # Absolute, so that the list may lie anywhere.
    write_text(output, "".join(f"{root.resolve() / name}\n" for name in names))
    return Prepared(output, len(names), 0, 0)


def _coco_val(root: Path, output: Path, options: Options) -> Prepared:
    content = _read(root / "annotations/instances_val2017.json")
    return _write(root, output, _renamed(content["images"], lambda image: f"val2017/{image['file_name']}"), content)


def _lvis(root: Path, output: Path, options: Options) -> Prepared:
    content = _read(root / "annotations/lvis_v1_val.json")
    return _write(root, output, _renamed(content["images"], _coco_place), content)


def _objects365(root: Path, output: Path, options: Options) -> Prepared:
    contents = [_read(path) for path in sorted((root / "annotations").glob("*val*.json"))]
    if not contents:
        raise InputError(
            f"{root / 'annotations'} holds no *val*.json; download the validation annotations of v1 and v2"
        )
    # The two versions' files may repeat pictures and ids.
    images: list[dict[str, Any]] = []
    annotations: list[dict[str, Any]] = []
    seen: set[str] = set()
    for content in contents:
        ids: dict[int, int] = {}
        for image in content["images"]:
            place = _objects365_place(root, image["file_name"])
            if place in seen:
                continue
            seen.add(place)
            ids[image["id"]] = len(images) + 1
            images.append({**image, "id": len(images) + 1, "file_name": place})
        annotations += [
            {**annotation, "image_id": ids[annotation["image_id"]]}
            for annotation in content["annotations"]
            if annotation["image_id"] in ids
        ]
    return _write(root, output, images, {"annotations": annotations})


def _sa1b(root: Path, output: Path, options: Options) -> Prepared:
    files = sorted(str(path.relative_to(root)) for path in root.rglob("sa_*.json"))
    if len(files) > options.pictures:
        files = sorted(random.Random(options.seed).sample(files, options.pictures))
    contents = ((name, _read(root / name)) for name in files)
    images: list[dict[str, Any]] = []
    missing = 0

    def annotations() -> Iterator[Mapping[str, Any]]:
        nonlocal missing
        for name, content in contents:
            picture = f"{name.removesuffix('.json')}.jpg"
            if not (root / picture).is_file():
                missing += 1
                continue
            images.append({**content["image"], "id": len(images) + 1, "file_name": picture})
            for annotation in content["annotations"]:
                yield {**annotation, "image_id": len(images)}

    # One picture at a time: 50,000 of them hold five million masks.
    count = _write_json(output, images, annotations())
    return Prepared(output, len(images), count, missing)


def _coco_lvis(root: Path, output: Path, options: Options) -> Prepared:
    coco, lvis = _read(root / "annotations/instances_val2017.json"), _read(root / "annotations/lvis_v1_val.json")
    images = _renamed(coco["images"], lambda image: f"val2017/{image['file_name']}")
    sizes = {image["id"]: (image["height"], image["width"]) for image in images}
    extra = defaultdict(list)
    for annotation in lvis["annotations"]:  # LVIS took COCO's pictures with their ids
        if annotation["image_id"] in sizes:
            extra[annotation["image_id"]].append(annotation)
    annotations = list(coco["annotations"])
    own = defaultdict(list)
    for annotation in annotations:
        own[annotation["image_id"]].append(annotation)
    for image_id, candidates in extra.items():
        size = sizes[image_id]
        codes = [to_rle(each["segmentation"], size) for each in own[image_id] if not each.get("iscrowd")]
        for annotation in candidates:
            code = to_rle(annotation["segmentation"], size)
            # Also against LVIS masks that were taken already: some objects bear two names there.
            if codes and np.max(rle.iou([code], codes, [False] * len(codes))) > options.duplicate_iou:
                continue
            codes.append(code)
            annotations.append(annotation)
    return _write(root, output, images, {"annotations": annotations})


SOURCES = {
    "coco": Source(
        "list of COCO's train and unlabeled pictures for stage 1 (241,690)",
        ("train2017", "unlabeled2017"),
        _coco_train,
    ),
    "coco_val": Source(
        "COCO val2017 masks (5,000 pictures)", ("val2017", "annotations/instances_val2017.json"), _coco_val
    ),
    "lvis": Source(
        "LVIS v1 val masks (19,809 pictures of COCO's train2017 and val2017)",
        ("train2017", "val2017", "annotations/lvis_v1_val.json"),
        _lvis,
    ),
    "coco_lvis": Source(
        "COCO and LVIS masks of val2017 without duplicates, for ablations (about 20 a picture)",
        ("val2017", "annotations/instances_val2017.json", "annotations/lvis_v1_val.json"),
        _coco_lvis,
    ),
    "objects365": Source(
        "Objects365 val boxes, v1 and v2 together (80,000 pictures)", ("images", "annotations"), _objects365
    ),
    "sa1b": Source("random SA-1B pictures and their masks (50,000)", (), _sa1b),
}


def _image_names(folder: Path) -> Iterator[str]:
    with os.scandir(folder) as entries:
        yield from (entry.name for entry in entries if Path(entry.name).suffix.lower() in EXTENSIONS)


def _read(path: Path) -> dict[str, Any]:
    try:
        return json.loads(path.read_bytes())
    except ValueError as error:
        raise InputError(f"{path} is not JSON ({error}); download it again") from error


def _renamed(images: Iterable[Mapping[str, Any]], place: Callable[[Mapping[str, Any]], str]) -> list[dict[str, Any]]:
    return [{**image, "file_name": place(image)} for image in images]


def _coco_place(image: Mapping[str, Any]) -> str:
    """LVIS names a picture by its address only: .../val2017/000000397133.jpg."""
    return "/".join(image["coco_url"].split("/")[-2:])


def _objects365_place(root: Path, name: str) -> str:
    """Objects365 unpacks to images/v1/patch8/x.jpg or flat folders; its files name one of these forms."""
    tail = name.removeprefix("images/")
    short = "/".join(tail.split("/")[-2:])
    choices = [f"images/{tail}", f"images/{short}", f"images/val/{short}", f"images/{short.split('/')[-1]}"]
    return next((choice for choice in choices if (root / choice).is_file()), choices[0])


def _write(root: Path, output: Path, images: list[dict[str, Any]], content: Mapping[str, Any]) -> Prepared:
    present = [image for image in images if (root / image["file_name"]).is_file()]
    ids = {image["id"] for image in present}
    count = _write_json(output, present, (each for each in content["annotations"] if each["image_id"] in ids))
    return Prepared(output, len(present), count, len(images) - len(present))


def _write_json(output: Path, images: list[dict[str, Any]], annotations: Iterable[Mapping[str, Any]]) -> int:
    """COCO JSON with one category, written as it comes; `images` may still grow while `annotations` runs."""
    count = 0
    with atomic_path(output) as temporary, open(temporary, "w", encoding="utf-8") as file:
        file.write('{"categories":[{"id":1,"name":"object"}],"annotations":[')
        for annotation in annotations:
            count += 1
            row = {
                "id": count,
                "image_id": annotation["image_id"],
                "category_id": 1,
                "bbox": annotation["bbox"],
                "area": annotation.get("area", annotation["bbox"][2] * annotation["bbox"][3]),
                "iscrowd": annotation.get("iscrowd", 0),
            }
            if "segmentation" in annotation:
                row["segmentation"] = annotation["segmentation"]
            file.write(("," if count > 1 else "") + json.dumps(row, separators=(",", ":")))
        if not images:
            raise InputError(f"no annotated picture was found for {output}; download and unpack the archives")
        rows = [{key: image[key] for key in ("id", "file_name", "height", "width")} for image in images]
        file.write('],"images":' + json.dumps(rows, separators=(",", ":")) + "}\n")
    return count
