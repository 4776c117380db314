r"""Average the weights of several stages of one training: often better than each, at the price of one.

python train/average.py --checkpoints second/burn_in/model.pth second/mean_teacher/model.pth --out averaged.pth

Wortsman et al., "Model soups: averaging weights of multiple fine-tuned models improves accuracy without increasing
inference time". The checkpoints must descend from one another, or from one they all started from. With `--shares` what
was learned is mixed with what it began with, so that less is forgotten (Wortsman et al., "Robust fine-tuning of
zero-shot models"); a stage that begins with an ONNX file leaves that beside its weights as `initial.pth`:

python train/average.py --checkpoints mine/initial.pth mine/model.pth --shares 0.7 0.3 --out mixed.pth
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
    parser.add_argument(
        "--shares", nargs="+", type=float, metavar="SHARE", help="what each counts, from 0 (default: all the same)"
    )
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

        save_weights(average(options.checkpoints, options.shares), options.out)
        print(options.out)

    return run("average", work, after_stop="nothing was written")


if __name__ == "__main__":
    sys.exit(main())
