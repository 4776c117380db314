"""Self-training: label images by a trained detector, with outlines along superpixels, as COCO JSON.

A killed run continues where it stopped when the same command is given again.

Example:
    python train/relabel.py --checkpoint runs/small/mean_teacher/model.pth --images photos --out labels2.json
    python train/detector.py --config config/recipes/small.yaml --data.images photos --data.annotations labels2.json \
        --burn_in.initial runs/small/mean_teacher/model.pth --burn_in.iterations 600

"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from dataclasses import fields
from pathlib import Path

from hassod_ros.errors import InputError
from hassod_ros.learning.config import RelabelConfig
from hassod_ros.learning.relabel import relabel


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; 2 after an error of the user's input."""
    options = vars(_parser().parse_args(arguments))
    try:
        config = RelabelConfig(**{field.name: options.pop(field.name) for field in fields(RelabelConfig)})
        images, labels, failures = relabel(config=config, **options)
    except InputError as error:
        print(f"relabel: {error}", file=sys.stderr)
        return 2
    print(f"{options['out']}: {labels} masks in {images} images, {labels / images:.1f} an image")
    if failures:
        listed = options["out"].with_name("failures.json")
        print(f"{len(failures)} images could not be labelled; {listed} says why")
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--checkpoint", type=Path, required=True, help="trained detector")
    parser.add_argument("--images", type=Path, required=True, help="folder of images, or text file with a path a line")
    parser.add_argument("--out", type=Path, required=True, help="COCO JSON file to write; failures.json goes beside it")
    parser.add_argument("--processes", type=int, default=1, help="that work side by side (default 1)")
    parser.add_argument("--device", default="auto", help="default: cuda where there is a GPU")
    helps = {
        "short_side": "px of a picture for the detector",
        "max_side": "px of the longer side",
        "score_threshold": "detections must score higher",
        "nms": "IoU of detections that exclude each other",
        "detections": "most of a picture",
        "snap": "how far outlines follow superpixels, 0 to 1",
        "superpixels": "their scale, more is coarser",
        "mask_threshold": "probability from which a pixel belongs to a mask",
        "min_side": "px of a mask's rectangle",
        "cover": "share of a mask that its parent must contain",
    }
    for field in fields(RelabelConfig):
        default = field.default
        about = f"{helps[field.name]} (default {default})"
        parser.add_argument(f"--{field.name.replace('_', '-')}", type=type(default), default=default, help=about)
    return parser


if __name__ == "__main__":
    sys.exit(main())
