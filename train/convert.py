"""Convert annotations between COCO, YOLO and LabelMe: labels of ours for other tools, and theirs for evaluation.

hassod_ros convert labels.json --to yolo --out for_yolo --images photos
hassod_ros convert labels.json --to labelme --out for_labelme --images photos
hassod_ros convert found/predictions.json --to coco --out for_fiftyone.json
hassod_ros convert yolo/data.yaml --to coco --out truth.json

Levels become the classes whole, part and subpart. YOLO and LabelMe get one polygon for each thing: pieces and holes of
its mask are joined by lines of no width. COCO keeps masks as they are and tells levels as categories, for FiftyOne and
CVAT. Regions that are marked iscrowd stay out of YOLO and LabelMe.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from hassod_ros.commands import run, script_parser


def build_parser() -> argparse.ArgumentParser:
    """The script's options."""
    parser = script_parser("convert", __doc__)
    parser.add_argument(
        "annotations",
        help="COCO file (.json, .json.gz), YOLO data.yaml or folder of text files, LabelMe file or folder",
    )
    parser.add_argument("--to", required=True, choices=["coco", "yolo", "labelme"], help="format to write")
    parser.add_argument("--out", required=True, type=Path, help="file to write (coco) or folder (yolo, labelme)")
    parser.add_argument(
        "--images", help="folder of the images, or list of them (default: what the annotations say, or none)"
    )
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    """Run; the status is that of `commands.run`."""
    options = build_parser().parse_args(arguments)

    def work() -> None:
        from hassod_ros.formats.convert import WRITERS, read_labels

        labels = read_labels(options.annotations, options.images)
        count = WRITERS[options.to](labels, options.out)
        print(f"{len(labels.images)} images, {count} annotations of {len(labels.classes)} classes: {options.out}")

    return run("convert", work)


if __name__ == "__main__":
    sys.exit(main())
