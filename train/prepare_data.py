"""Prepare a public image set: check what was downloaded, write what stage 1 or the evaluation reads.

python train/prepare_data.py coco --source /data/coco --output /data/coco/pictures.txt
python train/prepare_data.py sa1b --source /data/sa1b --output sa1b.json --pictures 50000
"""

import argparse
import sys

from hassod_ros.commands import number, run, script_parser, whole_number
from hassod_ros.packages import required

with required():
    from hassod_ros.learning.sources import SOURCES, Options, prepare


def build_parser() -> argparse.ArgumentParser:
    """The script's options."""
    sets = "\n".join(f"  {name:11} {source.summary}" for name, source in SOURCES.items())
    parser = script_parser("prepare_data", f"{__doc__}\nsets:\n{sets}")
    parser.add_argument("set", choices=sorted(SOURCES), metavar="set", help="one of the sets above")
    parser.add_argument("--source", required=True, help="folder that the set was downloaded to; file names refer to it")
    parser.add_argument("--output", required=True, help="file to write: .txt for coco, else .json")
    parser.add_argument("--pictures", type=whole_number(1), default=Options.pictures, help="sa1b: how many to draw")
    parser.add_argument("--seed", type=whole_number(0), default=Options.seed, help="sa1b: of the draw")
    parser.add_argument(
        "--duplicate-iou",
        type=number(0, 1),
        default=Options.duplicate_iou,
        help="coco_lvis: masks that overlap more are one object, IoU in [0, 1]",
    )
    return parser


def main(argv: list[str] | None = None) -> int:
    """Run; the status is that of `commands.run`."""
    options = build_parser().parse_args(argv)

    def work() -> None:
        choices = Options(options.pictures, options.seed, options.duplicate_iou)
        prepared = prepare(options.set, options.source, options.output, choices)
        print(f"{prepared.path}: {prepared.pictures} pictures, {prepared.annotations} annotations")
        if prepared.missing:
            left_out = f"{prepared.missing} annotated pictures are not in {options.source} and were left out"
            print(left_out, file=sys.stderr)

    return run("prepare_data", work, after_stop="nothing was written")


if __name__ == "__main__":
    sys.exit(main())
