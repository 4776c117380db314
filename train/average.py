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

from hassod_ros.commands import run, script_parser
from hassod_ros.packages import required


def build_parser() -> argparse.ArgumentParser:
    """The script's options."""
    parser = script_parser("average", __doc__)
    parser.add_argument("--checkpoints", nargs="+", type=Path, required=True, help="detectors of one config (.pth)")
    parser.add_argument("--out", type=Path, required=True, help="file to write (.pth)")
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run; the status is that of `commands.run`."""
    options = build_parser().parse_args(argv)

    def work() -> None:
        # torch loads slowly: --help answers without it.
        with required("train"):
            from hassod_ros.detection.checkpoints import save_weights
            from hassod_ros.learning.averaging import average

        save_weights(average(options.checkpoints), options.out)
        print(options.out)

    return run("average", work, after_stop="nothing was written")


if __name__ == "__main__":
    sys.exit(main())
