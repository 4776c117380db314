"""Detectors of few channels: quick to build and to run; a test names what it wants otherwise."""

from typing import Any

from hassod_ros.detection.cascade.config import DetectorConfig
from hassod_ros.detection.mask2former.config import Mask2FormerConfig

_NARROW = {"backbone": "resnet18", "fpn_channels": 16, "box_width": 32, "mask_layers": 1, "mask_channels": 16}
# For pictures of 64 pixels; a test adds the backbone.
TINY = {
    "fpn_channels": 16,
    "anchor_sizes": (8.0, 16.0, 32.0, 64.0, 128.0),
    "rpn_pre_nms": (100, 50),
    "rpn_post_nms": (50, 20),
    "rpn_samples": 32,
    "box_samples": 32,
    "box_layers": 1,
    "box_width": 32,
    "mask_layers": 1,
    "mask_channels": 16,
    "detections": 20,
}
_QUERIES = {
    "backbone": "resnet18",
    "backbone_width": 0.25,
    "queries": 8,
    "width": 32,
    "heads": 4,
    "encoder_layers": 1,
    "decoder_layers": 1,
    "feedforward": 32,
    "points": 64,
}


def narrow_cascade(**changes: Any) -> DetectorConfig:
    """The published layout with few channels."""
    return DetectorConfig(**(_NARROW | changes))


def tiny_cascade(**changes: Any) -> DetectorConfig:
    """A detector that learns pictures of 64 pixels in seconds."""
    return DetectorConfig(**({"backbone": "mobilenet_v3_large"} | TINY | changes))


def tiny_mask2former(**changes: Any) -> Mask2FormerConfig:
    """The same with queries."""
    return Mask2FormerConfig(**(_QUERIES | changes))
