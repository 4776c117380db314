"""One detector from several: the mean of their weights (`train/average.py` says when that helps)."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from torch.optim.swa_utils import AveragedModel

from hassod_ros.detection.base import Detector
from hassod_ros.detection.checkpoints import open_detector, read_config
from hassod_ros.errors import InputError


def average(checkpoints: Sequence[Path]) -> Detector:
    """A detector with the mean of the checkpoints' weights and running statistics.

    Raises:
        InputError: None given, one cannot be loaded, or their configs differ.

    """
    if not checkpoints:
        raise InputError("there is nothing to average; give at least one checkpoint")
    config = read_config(checkpoints[0])
    for other in checkpoints[1:]:
        if read_config(other) != config:
            raise InputError(
                f"{other} is not the same kind of detector as {checkpoints[0]}; average those of one config"
            )
    mean = AveragedModel(open_detector(checkpoints[0], config), use_buffers=True)
    for checkpoint in checkpoints:
        mean.update_parameters(open_detector(checkpoint, config))
    detector = mean.module
    assert isinstance(detector, Detector)
    return detector
