"""Shrink photographs to what training sees, for a machine that they must be carried to.

python train/shrink_photos.py --images photos --out pool --max-side 320
"""

import argparse
import sys
from pathlib import Path

from hassod_ros.commands import run, script_parser
from hassod_ros.footage.store import as_images
from hassod_ros.learning.pool import shrink


def build_parser() -> argparse.ArgumentParser:
    """The script's options."""
    parser = script_parser("shrink_photos", __doc__)
    parser.add_argument("--images", required=True, help="folder of photographs, or text file with one path a line")
    parser.add_argument("--out", required=True, help="folder to write: images/ and pool.json")
    parser.add_argument("--max-side", type=int, default=320, help="of the longer side in pixels")
    parser.add_argument("--quality", type=int, default=80, help="of JPEG, 1 to 95")
    parser.add_argument("--megabytes", type=int, default=60, help="largest size of the pool in MB")
    return parser


def main(argv: list[str] | None = None) -> int:
    """Run; the status is that of `commands.run`."""
    options = build_parser().parse_args(argv)

    def work() -> None:
        pool = shrink(
            as_images(options.images, Path(f"{options.out}.frames")),
            options.out,
            max_side=options.max_side,
            quality=options.quality,
            megabytes=options.megabytes,
        )
        print(f"{options.out}: {pool['photographs']} photographs, {pool['bytes'] / 1e6:.1f} MB")
        for reason in pool["left_out"]:
            print(f"left out: {reason}", file=sys.stderr)

    return run("shrink_photos", work)


if __name__ == "__main__":
    sys.exit(main())
