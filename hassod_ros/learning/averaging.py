"""One detector from several: the mean of their weights (`train/average.py` says when that helps)."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from pathlib import Path

from torch import Tensor
from torch.optim.swa_utils import AveragedModel

from hassod_ros.detection.base import Detector
from hassod_ros.detection.checkpoints import open_detector, read_config
from hassod_ros.errors import InputError


def average(checkpoints: Sequence[Path], shares: Sequence[float] | None = None) -> Detector:
    """A detector with the mean of the checkpoints' weights and running statistics.

    Args:
        checkpoints: Detectors of one config.
        shares: What each counts, >= 0 and not all 0. Default: all the same.

    Raises:
        InputError: None given, one cannot be loaded, their configs differ, or the shares do not fit.

    """
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
    detector = mean.module
    assert isinstance(detector, Detector)
    return detector
