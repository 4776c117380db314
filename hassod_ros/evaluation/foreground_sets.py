"""Ground truth of the foreground tasks: masks, boxes or classes of pictures, from COCO files and published folders.

A folder is told by what lies in it:

* masks: ECSSD (`images`, `ground_truth_mask`), DUTS-TE (`DUTS-TE-Image`, `DUTS-TE-Mask`), DUT-OMRON
  (`DUT-OMRON-image`, `pixelwiseGT-new-PNG`), or any folder with `images` and `masks`;
* boxes: VOC2007 or VOC2012 (`JPEGImages`, `Annotations`, `ImageSets/Main/trainval.txt`), COCO20k
  (`coco_20k_filenames.txt` of LOST, `train2014`, `annotations/instances_train2014.json`);
* classes: VOC2012 (`JPEGImages`, `SegmentationClass`, `ImageSets/Segmentation/val.txt`), COCO-Stuff (`val2017`,
  `stuffthingmaps/val2017`, `annotations/{instances,stuff}_val2017.json`, for the 27 groups), or any folder with
  `images` and `labels` (PNG, a class a pixel, 255 = void).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
from PIL import Image, UnidentifiedImageError
from pycocotools import mask as rle

from hassod_ros.coco import read_json, to_rle
from hassod_ros.errors import InputError
from hassod_ros.evaluation.segmentation import VOID
from hassod_ros.images import EXTENSIONS

_VOC_CLASSES = 21
_MASK_FOLDERS = (
    ("images", "ground_truth_mask"),
    ("DUTS-TE-Image", "DUTS-TE-Mask"),
    ("DUTS-TR-Image", "DUTS-TR-Mask"),
    ("DUT-OMRON-image", "pixelwiseGT-new-PNG"),
    ("images", "masks"),
)


@dataclass(frozen=True, eq=False)
class Example:
    """One picture and what is true in it.

    Attributes:
        name: Of the picture, without its ending, and with its folders where several have the same, as frames of videos
            do; maps that were made before are found by it.
        image: Its file.
        truth: Gives the (H, W) bool mask, the (n, 4) float64 boxes x0 y0 x1 y1, or the (H, W) uint8 classes.

    """

    name: str
    image: Path
    truth: Callable[[], np.ndarray]


@dataclass(frozen=True, eq=False)
class ExampleSet:
    """Annotated pictures.

    Attributes:
        examples: The pictures, sorted by name.
        classes: Number of classes, with background, where the truth is classes; else 0.
        left_out: Pictures without annotation, which cannot be scored.

    """

    examples: list[Example]
    classes: int = 0
    left_out: int = 0


def load_masks(path: Path, images: Path | None = None) -> ExampleSet:
    """Foreground masks: of a COCO file the union of an image's annotations, of a folder see above.

    Args:
        path: COCO file or folder.
        images: Folder that the file names of a COCO file are relative to.

    Raises:
        InputError: Neither a file nor a folder that is known, or files are missing.

    """
    if path.is_dir():
        for pictures, masks in _MASK_FOLDERS:
            if (path / pictures).is_dir() and (path / masks).is_dir():
                return _pairs(path / pictures, path / masks, _read_mask)
        raise InputError(f"{path} holds no masks; {_known('masks', (' + '.join(each) for each in _MASK_FOLDERS))}")
    return _from_coco(path, images, _union, lambda entry: True)


def load_boxes(path: Path, images: Path | None = None) -> ExampleSet:
    """Boxes of objects: of a COCO file its single objects (no crowds, no `one_object: false`), of a folder see above.

    Args and errors as in `load_masks`.

    """
    if not path.is_dir():
        return _from_coco(path, images, _boxes, lambda entry: entry.get("one_object", True))
    if (path / "coco_20k_filenames.txt").is_file():
        return _coco20k(path)
    if (path / "Annotations").is_dir():
        names = _listed(path / "ImageSets" / "Main" / "trainval.txt")
        examples = [
            Example(
                name, path / "JPEGImages" / f"{name}.jpg", partial(_voc_boxes, path / "Annotations" / f"{name}.xml")
            )
            for name in names
        ]
        _require_files([*(each.image for each in examples), *(path / "Annotations" / f"{n}.xml" for n in names)], path)
        return ExampleSet(examples)
    layouts = ("Annotations + JPEGImages + ImageSets (VOC)", "coco_20k_filenames.txt + train2014 + annotations")
    raise InputError(f"{path} holds no boxes; {_known('boxes', layouts)}")


def load_classes(path: Path, images: Path | None = None, *, split: str = "val") -> ExampleSet:
    """Classes of pixels: of a panoptic COCO file the groups (`supercategory`), of a folder see above.

    Args:
        path: COCO file or folder.
        images: As in `load_masks`.
        split: Of VOC2012: `train` or `val`.

    Raises:
        InputError: See `load_masks`.

    """
    if not path.is_dir():
        groups = _groups(read_json(path).get("categories", []), str(path))
        return _from_coco(path, images, partial(_paint, groups), lambda entry: True, classes=len(set(groups.values())))
    if (path / "SegmentationClass").is_dir():
        names = _listed(path / "ImageSets" / "Segmentation" / f"{split}.txt")
        files = {name: path / "SegmentationClass" / f"{name}.png" for name in names}
        examples = [
            Example(name, path / "JPEGImages" / f"{name}.jpg", partial(read_labels, file))
            for name, file in files.items()
        ]
        _require_files([*(each.image for each in examples), *files.values()], path)
        return ExampleSet(examples, _VOC_CLASSES)
    if (path / "stuffthingmaps").is_dir():
        return _coco_stuff(path)
    if (path / "labels").is_dir() and (path / "images").is_dir():
        found = _pairs(path / "images", path / "labels", read_labels)
        highest = max(int(np.where(labels == VOID, 0, labels).max()) for labels in (e.truth() for e in found.examples))
        return ExampleSet(found.examples, highest + 1, found.left_out)
    layouts = ("SegmentationClass + JPEGImages + ImageSets (VOC)", "stuffthingmaps (COCO-Stuff)", "images + labels")
    raise InputError(f"{path} holds no classes; {_known('classes', layouts)}")


def read_labels(path: Path) -> np.ndarray:
    """(H, W) uint8 classes of a label PNG, palette or grey."""
    try:
        with Image.open(path) as file:
            if file.mode not in ("P", "L"):
                raise InputError(
                    f"{path} is no label map ({file.mode}); it needs one class a pixel, 8-bit grey or palette"
                )
            return np.array(file)
    except (UnidentifiedImageError, OSError, SyntaxError) as error:
        raise InputError(f"{path} cannot be read ({error}); fetch it again") from error


def _read_mask(path: Path) -> np.ndarray:
    try:
        with Image.open(path) as file:
            return np.array(file.convert("L")) > 127
    except (UnidentifiedImageError, OSError, SyntaxError) as error:
        raise InputError(f"{path} cannot be read ({error}); fetch it again") from error


def _known(what: str, layouts: Iterable[str]) -> str:
    return f"known layouts of {what} are {', '.join(layouts)}, or give a COCO file"


def _pairs(pictures: Path, truths: Path, read: Callable[[Path], np.ndarray]) -> ExampleSet:
    """Pictures and truths of the same names; pictures without truth are left out."""
    found = {path.stem: path for path in sorted(truths.iterdir()) if path.suffix.lower() in EXTENSIONS}
    images = {path.stem: path for path in sorted(pictures.iterdir()) if path.suffix.lower() in EXTENSIONS}
    examples = [Example(name, images[name], partial(read, file)) for name, file in found.items() if name in images]
    if not examples:
        raise InputError(f"no picture in {pictures} has its truth in {truths}; names must agree but for their endings")
    if alone := len(found) - len(examples):
        raise InputError(f"{alone} of {len(found)} files in {truths} have no picture in {pictures}; complete the set")
    return ExampleSet(examples, left_out=len(images) - len(examples))


def _listed(path: Path) -> list[str]:
    try:
        names = sorted({line.split()[0] for line in path.read_text(encoding="utf-8").splitlines() if line.strip()})
    except OSError as error:
        raise InputError(
            f"{path} cannot be read ({error.strerror}); the set is not complete, fetch it again"
        ) from error
    if not names:
        raise InputError(f"{path} names no image; fetch it again")
    return names


def _require_files(paths: list[Path], root: Path) -> None:
    missing = [path for path in paths if not path.is_file()]
    if missing:
        example = missing[0].relative_to(root)
        raise InputError(f"{root} lacks {len(missing)} of {len(paths)} files, such as {example}; complete the set")


def _voc_boxes(path: Path) -> np.ndarray:
    """(n, 4) pixel rectangles; VOC counts from 1 and includes both ends."""
    try:
        root = ElementTree.parse(path).getroot()
        rows = [
            [float(box.findtext(key, "")) for key in ("xmin", "ymin", "xmax", "ymax")]
            for box in root.iterfind("object/bndbox")
        ]
    except (ElementTree.ParseError, ValueError, OSError) as error:
        raise InputError(f"{path} cannot be read ({error}); fetch it again") from error
    return np.array(rows, np.float64).reshape(-1, 4) - (1, 1, 0, 0)


def _coco20k(root: Path) -> ExampleSet:
    names = {Path(name).stem for name in _listed(root / "coco_20k_filenames.txt")}
    file = root / "annotations" / "instances_train2014.json"
    found = _from_coco(file, root / "train2014", _boxes, lambda entry: True, names=names)
    if len(found.examples) + found.left_out < len(names):
        raise InputError(f"{file} knows {len(found.examples) + found.left_out} of {len(names)} images; fetch it again")
    return found


def _coco_stuff(root: Path) -> ExampleSet:
    categories: list[Any] = []
    for name in ("instances", "stuff"):
        categories += read_json(root / "annotations" / f"{name}_val2017.json").get("categories", [])
    groups = _groups(categories, str(root / "annotations"))
    table = np.full(256, VOID, np.uint8)
    for category, group in groups.items():
        if category <= VOID:
            table[category - 1] = group  # the pictures count from 0

    def read(path: Path) -> np.ndarray:
        return np.asarray(table[read_labels(path)])

    found = _pairs(root / "val2017", root / "stuffthingmaps" / "val2017", read)
    return ExampleSet(found.examples, len(set(groups.values())), found.left_out)


def _groups(categories: Any, source: str) -> dict[int, int]:
    """Category id -> number of its supercategory, in the order of their names."""
    try:
        names = sorted({str(each["supercategory"]) for each in categories})
        groups = {int(each["id"]): names.index(str(each["supercategory"])) for each in categories}
    except (KeyError, TypeError, ValueError) as error:
        raise InputError(f"{source}: categories need `id` and `supercategory`; give a panoptic COCO file") from error
    if not groups:
        raise InputError(f"{source} has no categories; give a panoptic COCO file")
    return groups


def _from_coco(
    path: Path,
    images: Path | None,
    make: Callable[[list[dict[str, Any]], tuple[int, int], str], np.ndarray],
    wanted: Callable[[Mapping[str, Any]], bool],
    *,
    names: set[str] | None = None,
    classes: int = 0,
) -> ExampleSet:
    """Examples of a COCO file; images without a wanted annotation are left out."""
    if images is None:
        raise InputError(f"{path} names pictures; give the folder that they are relative to with --images")
    content = read_json(path)
    try:
        entries: dict[int, list[dict[str, Any]]] = {}
        for entry in content["annotations"]:
            if not entry.get("iscrowd") and wanted(entry):
                entries.setdefault(entry["image_id"], []).append(entry)
        pictures = [each for each in content["images"] if names is None or Path(each["file_name"]).stem in names]
        stems = {Path(each["file_name"]).stem for each in pictures}
        alone = len(stems) == len(pictures)
        examples = [
            Example(
                Path(each["file_name"]).stem if alone else Path(each["file_name"]).with_suffix("").as_posix(),
                images / each["file_name"],
                partial(
                    make, entries[each["id"]], (int(each["height"]), int(each["width"])), f"{path}, {each['file_name']}"
                ),
            )
            for each in sorted(pictures, key=lambda each: str(each["file_name"]))
            if each["id"] in entries
        ]
    except (KeyError, TypeError, ValueError) as error:
        raise InputError(
            f"{path} is not a COCO annotation file ({error}); it needs `images` and `annotations`"
        ) from error
    if not examples:
        raise InputError(f"{path} annotates no image; give a file with `annotations`")
    _require_files([example.image for example in examples], images)
    return ExampleSet(examples, classes, len(pictures) - len(examples))


def _decode(entry: Mapping[str, Any], size: tuple[int, int], source: str) -> np.ndarray:
    try:
        return np.asarray(rle.decode(to_rle(entry.get("segmentation"), size)), bool)
    except ValueError as error:
        raise InputError(f"{source}: annotation {entry.get('id')} {error}") from error


def _union(entries: list[dict[str, Any]], size: tuple[int, int], source: str) -> np.ndarray:
    mask = np.zeros(size, bool)
    for entry in entries:
        mask |= _decode(entry, size, source)
    return mask


def _boxes(entries: list[dict[str, Any]], size: tuple[int, int], source: str) -> np.ndarray:
    try:
        boxes = np.array([entry["bbox"] for entry in entries], np.float64).reshape(-1, 4)
    except (KeyError, ValueError) as error:
        raise InputError(f"{source}: an annotation has no box of four numbers; write `bbox`") from error
    return np.concatenate([boxes[:, :2], boxes[:, :2] + boxes[:, 2:]], axis=1)


def _paint(groups: Mapping[int, int], entries: list[dict[str, Any]], size: tuple[int, int], source: str) -> np.ndarray:
    labels = np.full(size, VOID, np.uint8)
    for entry in entries:
        if entry["category_id"] not in groups:
            raise InputError(f"{source}: annotation {entry.get('id')} has the unknown category {entry['category_id']}")
        labels[_decode(entry, size, source)] = groups[entry["category_id"]]
    return labels
