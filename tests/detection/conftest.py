"""A small detector with lively weights, quick to build."""

import pytest
import torch

from hassod_ros.detection.cascade.config import DetectorConfig
from hassod_ros.detection.cascade.model import CascadeMaskRCNN
from tests.tiny_network import narrow_cascade


@pytest.fixture
def small_config() -> DetectorConfig:
    return narrow_cascade(rpn_pre_nms=(300, 100), rpn_post_nms=(300, 60), detections=20)


@pytest.fixture
def build():
    """Build a detector whose outputs are not all alike, as those of a fresh one would be."""

    def build(config: DetectorConfig) -> CascadeMaskRCNN:
        torch.manual_seed(0)
        model = CascadeMaskRCNN(config)
        heads = ("objectness_logits", "anchor_deltas", "cls_score", "bbox_pred", "predictor")
        with torch.no_grad():
            for name, value in model.named_parameters():
                if any(part in name for part in heads):
                    value.normal_(std=0.1)
        return model.eval()

    return build
