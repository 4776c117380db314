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

import numpy as np

from hassod_ros.commands import reached, run, script_parser, whole_number
from hassod_ros.discovery.features import DEFAULT, load_features, suited_options
from hassod_ros.drawing import side_by_side
from hassod_ros.errors import InputError
from hassod_ros.images import image_root, keep_apart, list_images, picture_names, read_image, write_image
from hassod_ros.instances import Instances

Labelled = tuple[str, np.ndarray, Instances]  # name of the picture, (H, W, 3) uint8 RGB, what is in it


def build_parser() -> argparse.ArgumentParser:
    """The script's options."""
    parser = script_parser("visualise", __doc__)
    parser.add_argument(
        "--images", type=Path, required=True, help="folder of images or list of them; with --labels what names refer to"
    )
    parser.add_argument("--out", type=Path, required=True, help="folder for the pictures (.jpg)")
    parser.add_argument("--labels", type=Path, help="COCO file of pseudo_label (default: discover on the fly)")
    parser.add_argument("--count", type=whole_number(1), default=20, help="how many images, spread over all")
    parser.add_argument("--features", default=DEFAULT, help="without --labels: features by name")
    parser.add_argument(
        "--weights", type=Path, help="without --labels: file of the features' weights (default: downloaded by name)"
    )
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    """Run; the status is that of `commands.run`."""
    options = build_parser().parse_args(arguments)

    def work() -> None:
        drawn = 0
        keep_apart(options.out, options.images)
        for name, image, instances in _labelled(options) if options.labels else _discovered(options):
            write_image(options.out / name, side_by_side(image, instances))
            drawn += 1
            reached(f"{drawn} pictures in {options.out}")
        print(f"{drawn} pictures in {options.out}")

    return run("visualise", work, after_stop="the same command draws them anew")


def _labelled(options: argparse.Namespace) -> Iterator[Labelled]:
    from hassod_ros.coco import from_coco

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
    chosen = _spread(entries, options.count)
    root = image_root(options.images)
    for name, entry in zip(picture_names([entry["file_name"] for entry in chosen]), chosen, strict=True):
        image = read_image(root / entry["file_name"])
        try:
            instances = from_coco(annotations[entry["id"]], image.shape[:2])
        except ValueError as error:
            raise InputError(f"the labels of {entry['file_name']} do not fit: {error}; label it anew") from error
        yield name, image, instances


def _discovered(options: argparse.Namespace) -> Iterator[Labelled]:
    # Compiles: not needed to draw labels.
    from hassod_ros.discovery.hassod import HassodConfig, discover
    from hassod_ros.discovery.method import change

    features = load_features(options.features, options.weights)
    config = change(HassodConfig(), suited_options(options.features))
    root = image_root(options.images)
    chosen = _spread(list_images(options.images), options.count)
    # A list may name pictures outside its own folder.
    for name, path in zip(picture_names([os.path.relpath(path, root) for path in chosen]), chosen, strict=True):
        image = read_image(path)
        yield name, image, discover(image, features, config)


def _spread(items: list, count: int) -> list:
    """`count` items from all over the list."""
    return [items[i] for i in np.unique(np.linspace(0, len(items) - 1, min(count, len(items))).astype(int))]


if __name__ == "__main__":
    sys.exit(main())
