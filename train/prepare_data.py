"""Prepare a public image set: check what was downloaded, write what stage 1 or the evaluation reads.

python train/prepare_data.py coco --source /data/coco --output /data/coco/pictures.txt
python train/prepare_data.py sa1b --source /data/sa1b --output sa1b.json --pictures 50000
"""

import argparse
import sys

from hassod_ros.errors import InputError
from hassod_ros.packages import required

with required("train"):
    from hassod_ros.learning.sources import SOURCES, Options, prepare


def main(argv: list[str] | None = None) -> int:
    """Run; 2 where something is missing."""
    sets = "\n".join(f"  {name:11} {source.summary}" for name, source in SOURCES.items())
    parser = argparse.ArgumentParser(
        prog="prepare_data",
        description=f"{__doc__}\nsets:\n{sets}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("set", choices=sorted(SOURCES), metavar="set", help="one of the sets above")
    parser.add_argument("--source", required=True, help="folder that the set was downloaded to; file names refer to it")
    parser.add_argument("--output", required=True, help="file to write: .txt for coco, else .json")
    parser.add_argument("--pictures", type=int, default=Options.pictures, help="sa1b: how many to draw (%(default)s)")
    parser.add_argument("--seed", type=int, default=Options.seed, help="sa1b: of the draw (%(default)s)")
    parser.add_argument(
        "--duplicate-iou",
        type=float,
        default=Options.duplicate_iou,
        help="coco_lvis: masks that overlap more are one object (%(default)s)",
    )
    options = parser.parse_args(argv)
    try:
        choices = Options(options.pictures, options.seed, options.duplicate_iou)
        prepared = prepare(options.set, options.source, options.output, choices)
    except InputError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    print(f"{prepared.path}: {prepared.pictures} pictures, {prepared.annotations} annotations")
    if prepared.missing:
        print(f"{prepared.missing} annotated pictures are not in {options.source} and were left out", file=sys.stderr)
    return 0


if __name__ == "__main__":
    sys.exit(main())
