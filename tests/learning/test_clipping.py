import pytest
import torch
from torch import nn

from hassod_ros.detection.cascade.config import DetectorConfig
from hassod_ros.detection.cascade.model import CascadeMaskRCNN
from hassod_ros.learning.config import Recipe, StageConfig
from hassod_ros.learning.loop import clip_gradients


def network() -> nn.Sequential:
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 3), nn.Linear(3, 2))
    (net(torch.randn(16, 4)) * torch.tensor([40.0, 0.01])).square().mean().backward()
    net[3].bias.grad = None  # what got no gradient is passed over
    return net


@pytest.mark.parametrize("norm", [1.0, 0.3])
def test_per_parameter_clipping_is_torchs_on_each_parameter_alone(norm):
    """Detectron2 calls `clip_grad_norm_` on one parameter after the other; so does the released code."""
    ours, theirs = network(), network()
    clip_gradients(ours, StageConfig(clip_norm=norm))
    for parameter in theirs.parameters():
        torch.nn.utils.clip_grad_norm_(parameter, norm)
    norms = []
    for mine, other in zip(ours.parameters(), theirs.parameters(), strict=True):
        if other.grad is not None:
            torch.testing.assert_close(mine.grad, other.grad, rtol=1e-6, atol=0)
            norms.append(float(mine.grad.norm()))
    assert max(norms) <= norm * (1 + 1e-5)


def test_global_clipping_and_none():
    ours, theirs, untouched = network(), network(), network()
    clip_gradients(ours, StageConfig(clip_norm=1.0, clip="global"))
    torch.nn.utils.clip_grad_norm_(theirs.parameters(), 1.0)
    clip_gradients(untouched, StageConfig(clip_norm=0.0))
    for mine, other, same, fresh in zip(
        ours.parameters(), theirs.parameters(), untouched.parameters(), network().parameters(), strict=True
    ):
        if other.grad is not None:
            torch.testing.assert_close(mine.grad, other.grad)
            torch.testing.assert_close(same.grad, fresh.grad)


def test_the_published_recipe_clips_each_parameter_in_both_stages():
    recipe = Recipe()
    assert (recipe.burn_in.clip, recipe.burn_in.clip_norm) == ("per_parameter", 1.0)
    assert (recipe.mean_teacher.clip, recipe.mean_teacher.clip_norm) == ("per_parameter", 1.0)


def test_small_gradients_keep_their_size_beside_large_ones():
    detector = CascadeMaskRCNN(DetectorConfig(backbone="mobilenet_v3_large", fpn_channels=8, box_width=8, box_layers=1))
    parameters = list(detector.parameters())
    for parameter in parameters:
        parameter.grad = torch.full_like(parameter, 0.5 / parameter.numel() ** 0.5)
    parameters[0].grad *= 60  # norm 30
    clip_gradients(detector, StageConfig())
    assert float(parameters[0].grad.norm()) == pytest.approx(1.0, rel=1e-5)
    assert max(abs(float(each.grad.norm()) - 0.5) for each in parameters[1:]) < 1e-3
