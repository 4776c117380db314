"""Shrink photographs to what training sees, for a machine that they must be carried to.

python train/shrink_photos.py --images photos --out pool --max-side 320
"""

import argparse
import sys

from hassod_ros.errors import InputError
from hassod_ros.learning.pool import shrink


def main(argv: list[str] | None = None) -> int:
    """Run; 2 where the input is wrong."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", required=True, help="folder of photographs, or text file with one path a line")
    parser.add_argument("--out", required=True, help="folder to write: images/ and pool.json")
    parser.add_argument("--max-side", type=int, default=320, help="of the longer side in pixels (default %(default)s)")
    parser.add_argument("--quality", type=int, default=80, help="of JPEG (default %(default)s)")
    parser.add_argument("--megabytes", type=int, default=60, help="largest size of the pool (default %(default)s)")
    options = parser.parse_args(argv)
    try:
        pool = shrink(
            options.images,
            options.out,
            max_side=options.max_side,
            quality=options.quality,
            megabytes=options.megabytes,
        )
    except InputError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    print(f"{options.out}: {pool['photographs']} photographs, {pool['bytes'] / 1e6:.1f} MB")
    for reason in pool["left_out"]:
        print(f"left out: {reason}", file=sys.stderr)
    return 0


if __name__ == "__main__":
    sys.exit(main())
