from __future__ import annotations

import pytest
import torch

from hassod_ros.detection.base import Targets
from hassod_ros.detection.mask2former.config import Mask2FormerConfig
from hassod_ros.detection.mask2former.model import Mask2Former
from tests.tiny_network import tiny_mask2former

SIZE = (60, 90)


@pytest.fixture(scope="session")
def small_query_config() -> Mask2FormerConfig:
    return tiny_mask2former(queries=12, decoder_layers=2, feedforward=64, points=256)


@pytest.fixture(scope="session")
def mask2former(small_query_config) -> Mask2Former:
    """Fresh weights; nobody changes them."""
    torch.manual_seed(0)
    return Mask2Former(small_query_config)


@pytest.fixture(scope="session")
def nested() -> Targets:
    """A whole, its part and the part's part."""
    masks = torch.zeros(3, *SIZE, dtype=torch.bool)
    masks[0, 10:50, 10:60] = True
    masks[1, 12:30, 12:30] = True
    masks[2, 14:22, 14:22] = True
    boxes = torch.tensor([[10.0, 10, 60, 50], [12, 12, 30, 30], [14, 14, 22, 22]])
    return Targets(boxes, torch.tensor([0, 1, 2]), masks, torch.tensor([-1, 0, 1]))


@pytest.fixture(scope="session")
def empty() -> Targets:
    none = torch.zeros(0, dtype=torch.int64)
    return Targets(torch.zeros(0, 4), none, torch.zeros(0, *SIZE, dtype=torch.bool), none)
