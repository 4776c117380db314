"""What the student was shown and what it finds, side by side, for TensorBoard."""

from __future__ import annotations

import numpy as np
import torch

from hassod_ros.detection.base import Detector, InstanceOptions
from hassod_ros.drawing import draw
from hassod_ros.instances import Instances
from hassod_ros.learning.dataset import Batch

_SHOWN = 20  # best detections, whatever their score: an early detector is sure of nothing


@torch.no_grad()
def preview(detector: Detector, batch: Batch) -> np.ndarray:
    """(H, 2 W, 3) uint8 RGB: the first picture of a batch with its labels, and with the detector's best finds."""
    size = batch.sizes[0]
    image = batch.images[:1, :, : size[0], : size[1]]
    training = detector.training
    detector.eval()
    found = detector(image)[0].to_instances(size, InstanceOptions(mask_threshold=detector.config.mask_threshold))
    detector.train(training)
    target = batch.targets[0]
    masks = np.zeros((0, *size), bool) if target.masks is None else target.masks.cpu().numpy()
    labels = Instances.from_dense(masks, image_size=size, levels=target.levels.cpu().numpy())
    pixels = np.ascontiguousarray(image[0].permute(1, 2, 0).cpu().numpy())
    return np.hstack([draw(pixels, labels), draw(pixels, found.select(np.arange(min(len(found), _SHOWN))))])
