import inspect

import torch

from hassod_ros.detection.base import Detector, LossOptions, Targets
from hassod_ros.detection.cascade.model import CascadeMaskRCNN
from hassod_ros.detection.detections import Detections


def test_the_cascade_keeps_the_protocols_promises(build, small_config):
    """What learning, evaluation and export call: the same names, and further ones only with defaults."""
    wanted, there = (inspect.signature(kind.losses).parameters for kind in (Detector, CascadeMaskRCNN))
    assert all(name in there and there[name].kind == value.kind for name, value in wanted.items())
    assert all(there[name].default is not inspect.Parameter.empty for name in there if name not in wanted)

    model = build(small_config).train()
    detector: Detector = model
    images, sizes = torch.zeros(1, 3, 64, 64), [(64, 64)]
    masks = torch.zeros(1, 64, 64, dtype=torch.bool)
    masks[0, 10:40, 10:40] = True
    targets = [Targets(torch.tensor([[10.0, 10, 40, 40]]), torch.tensor([0]), masks, torch.tensor([-1]))]
    losses = detector.losses(images, sizes, targets, LossOptions(drop_loss_iou=0.01, mask_weight=0.5))
    assert all(value.shape == () for value in losses.values())
    (found,) = model.eval()(images, sizes)
    assert isinstance(found, Detections)
