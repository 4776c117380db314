r"""Average the weights of several stages of one training: often better than each, at the price of one.

python train/average.py --checkpoints second/burn_in/model.pth second/mean_teacher/model.pth --out averaged.pth

Wortsman et al., "Model soups: averaging weights of multiple fine-tuned models improves accuracy without increasing
inference time". The checkpoints must descend from one another, or from one they all started from.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from hassod_ros.errors import InputError
from hassod_ros.packages import required


def main(argv: Sequence[str] | None = None) -> int:
    """Run; 2 where the input is wrong."""
    parser = argparse.ArgumentParser(
        prog="average", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--checkpoints", nargs="+", type=Path, required=True, help="detectors of one config")
    parser.add_argument("--out", type=Path, required=True, help="file to write")
    options = parser.parse_args(argv)
    try:
        # torch loads slowly: --help answers without it.
        with required("train"):
            from hassod_ros.detection.checkpoints import save_weights
            from hassod_ros.learning.averaging import average

        save_weights(average(options.checkpoints), options.out)
    except InputError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    print(options.out)
    return 0


if __name__ == "__main__":
    sys.exit(main())
