"""Draw wholes, parts and subparts beside their images, from a file of pseudo-labels or discovered on the fly.

Example:
    python train/visualise.py --labels labels.json --images photos --out pictures --count 20
    python train/visualise.py --images photos --out pictures --features handcrafted

"""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections import defaultdict
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from hassod_ros.discovery.features import DEFAULT, load_features
from hassod_ros.drawing import side_by_side
from hassod_ros.errors import InputError
from hassod_ros.files import atomic_path
from hassod_ros.images import list_images, read_image
from hassod_ros.instances import Instances
from hassod_ros.packages import required


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; 2 after an error of the user's input."""
    options = _parser().parse_args(arguments)
    try:
        drawn = 0
        for name, image, instances in _labelled(options) if options.labels else _discovered(options):
            parts = [part for part in Path(name).with_suffix(".jpg").parts if part not in ("..", "/")]
            _write(options.out / "_".join(parts), image, instances)
            drawn += 1
    except InputError as error:
        print(f"visualise: {error}", file=sys.stderr)
        return 2
    print(f"{drawn} pictures in {options.out}")
    return 0


def _labelled(options: argparse.Namespace) -> Iterator[tuple[str, np.ndarray, Instances]]:
    try:
        content = json.loads(options.labels.read_text(encoding="utf-8"))
        entries = sorted(content["images"], key=lambda entry: entry["id"])
        annotations: dict[int, list[dict[str, Any]]] = defaultdict(list)
        for annotation in content["annotations"]:
            annotations[annotation["image_id"]].append(annotation)
    except OSError as error:
        raise InputError(f"{options.labels} cannot be read ({error.strerror}); check the path") from error
    except (ValueError, KeyError, TypeError) as error:
        raise InputError(f"{options.labels} is not a COCO file ({error!r}); give one of pseudo_label") from error
    for entry in _spread(entries, options.count):
        image = read_image(options.images / entry["file_name"])
        try:
            instances = Instances.from_coco(annotations[entry["id"]], image.shape[:2])
        except ValueError as error:
            raise InputError(f"the labels of {entry['file_name']} do not fit: {error}; label it anew") from error
        yield entry["file_name"], image, instances


def _discovered(options: argparse.Namespace) -> Iterator[tuple[str, np.ndarray, Instances]]:
    with required("train"):  # compiles: not needed to draw labels
        from hassod_ros.discovery.hassod import discover

    features = load_features(options.features, options.weights)
    root = options.images if options.images.is_dir() else options.images.parent
    # A list may name pictures outside its own folder.
    for path in _spread(list_images(options.images), options.count):
        image = read_image(path)
        yield os.path.relpath(path, root), image, discover(image, features)


def _spread(items: list, count: int) -> list:
    """`count` items from all over the list."""
    return [items[i] for i in np.unique(np.linspace(0, len(items) - 1, min(count, len(items))).astype(int))]


def _write(path: Path, image: np.ndarray, instances: Instances) -> None:
    with atomic_path(path) as temporary:
        cv2.imwrite(str(temporary), cv2.cvtColor(side_by_side(image, instances), cv2.COLOR_RGB2BGR))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=Path, required=True, help="folder of images (with --labels: their root)")
    parser.add_argument("--out", type=Path, required=True, help="folder for the pictures")
    parser.add_argument("--labels", type=Path, help="COCO file of pseudo_label (default: discover on the fly)")
    parser.add_argument("--count", type=int, default=20, help="how many images, spread over all (default: 20)")
    parser.add_argument("--features", default=DEFAULT, help=f"without --labels: features by name (default: {DEFAULT})")
    parser.add_argument("--weights", type=Path, help="without --labels: file of the features' weights")
    return parser


if __name__ == "__main__":
    sys.exit(main())
