"""Select frames worth labelling from recordings (rosbag2, MCAP, ROS 1), videos and folders of images.

Kept are sharp, well exposed frames that show something new, evenly from all cameras. FRAMES/images holds them,
FRAMES/contact_sheet.jpg shows what was kept and dropped, FRAMES/frames.jsonl says why. A killed run continues where it
stopped when the same command is given again.

Example:
    python train/extract.py last_night.mcap bag_folder clip.mp4 --out frames --count 300

"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING

import cv2

from hassod_ros.commands import number, run, script_parser, whole_number
from hassod_ros.errors import InputError
from hassod_ros.footage.select import KEPT, SelectConfig
from hassod_ros.footage.store import HELD, IMAGES, SHEET, ExtractConfig, extract, summary

if TYPE_CHECKING:
    import argparse


def main(arguments: Sequence[str] | None = None) -> int:
    """Run; the status is that of `commands.run`."""
    options = build_parser().parse_args(arguments)

    def work() -> None:
        select = SelectConfig(**{field.name: getattr(options, field.name) for field in fields(SelectConfig)})
        config = ExtractConfig(select, tuple(options.topics), options.rate, options.hold_back)
        threads = cv2.getNumThreads()
        cv2.setNumThreads(1)  # measuring is many small steps, on which threads cost more than they save
        try:
            counts = extract(options.sources, options.out, config)
        finally:
            cv2.setNumThreads(threads)
        told, sheet = summary(counts), options.out / SHEET
        if not counts.get(KEPT) and not counts.get(HELD):
            raise InputError(
                f"{told}: {sheet} shows them; give other footage or, unless they are blank, wider limits such as "
                "--bright 1 --dark 1 --sharpness 0"
            )
        print(f"{told}: {options.out / IMAGES}; look at {sheet}")

    return run("extract", work)


def build_parser() -> argparse.ArgumentParser:
    """The script's options."""
    parser = script_parser("extract", __doc__)
    parser.add_argument(
        "sources", type=Path, nargs="+", metavar="SOURCE", help="bag (folder or file), video, or folder of images"
    )
    parser.add_argument("--out", type=Path, required=True, metavar="FRAMES", help="folder to write")
    parser.add_argument(
        "--topics", nargs="+", default=[], metavar="TOPIC", help="only these image topics (default: all)"
    )
    parser.add_argument(
        "--rate",
        type=number(0),
        default=ExtractConfig.max_rate,
        metavar="HZ",
        help="most frames per second and camera that are looked at, 0 = all",
    )
    parser.add_argument(
        "--hold-back",
        type=number(0, 1),
        default=ExtractConfig.hold_back,
        metavar="X",
        help="share of the time, in blocks, whose frames are kept apart in FRAMES/held_back, to judge models on",
    )
    about = {
        "novelty": (number(0, 2), "difference from which a frame is new, 0 to 2; 0 = keep repeats"),
        "sharpness": (number(0, 1), "least share of the sharpness of its neighbours in time; 0 = keep blurred frames"),
        "neighbours": (whole_number(1), "frames before and after that its sharpness is compared with"),
        "dark": (number(0, 1), "greatest share of dark pixels"),
        "bright": (number(0, 1), "greatest share of overexposed pixels"),
        "count": (whole_number(1), "most frames of all cameras together"),
    }
    for field in fields(SelectConfig):
        kind, text = about[field.name]
        parser.add_argument(
            f"--{field.name}",
            type=kind,
            default=field.default,
            metavar="N" if isinstance(field.default, int) else "X",
            help=text,
        )
    return parser


if __name__ == "__main__":
    sys.exit(main())
