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
import itertools
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, cast

from hassod_ros.commands import run, script_parser
from hassod_ros.errors import InputError

if TYPE_CHECKING:
    from torch import Tensor

    from hassod_ros.detection.base import Detector


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
        mean = average(options.checkpoints, options.shares)
        from hassod_ros.detection.checkpoints import save_weights

        save_weights(mean, options.out)
        print(options.out)

    return run("average", work, writes=(options.out.parent,), after_stop="nothing was written")


def average(checkpoints: Sequence[Path], shares: Sequence[float] | None = None) -> Detector:
    """The mean of the checkpoints' weights and running statistics.

    Args:
        checkpoints: Detectors of one config.
        shares: What each counts, >= 0 and not all 0. Default: all the same.

    Raises:
        InputError: None given, one cannot be loaded, their configs differ, or the shares do not fit.

    """
    # torch loads slowly: --help answers without it.
    from torch.optim.swa_utils import AveragedModel

    from hassod_ros.detection.checkpoints import open_detector, read_config

    if not checkpoints:
        raise InputError("there is nothing to average; give at least one checkpoint")
    shares = [1.0] * len(checkpoints) if shares is None else list(shares)
    if len(shares) != len(checkpoints) or min(shares) < 0 or not sum(shares):
        raise InputError(f"shares are a number from 0 for each of the {len(checkpoints)} checkpoints, not all 0")
    config = read_config(checkpoints[0])
    for other in checkpoints[1:]:
        if read_config(other) != config:
            raise InputError(
                f"{other} is not the same kind of detector as {checkpoints[0]}; average those of one config"
            )
    counted = [(path, share) for path, share in zip(checkpoints, shares, strict=True) if share]
    sums = list(itertools.accumulate(share for _, share in counted))

    def mix(mean: Tensor, new: Tensor, number: Tensor | int) -> Tensor:
        return mean + (new - mean) * (counted[int(number)][1] / sums[int(number)])

    mean = AveragedModel(open_detector(checkpoints[0], config), avg_fn=mix, use_buffers=True)
    for checkpoint, _ in counted:
        mean.update_parameters(open_detector(checkpoint, config))
    return cast("Detector", mean.module)


if __name__ == "__main__":
    sys.exit(main())
