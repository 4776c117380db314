"""What patches look like, as a target."""

import numpy as np
import torch

from hassod_ros.discovery.features.handcrafted import describe
from hassod_ros.learning.pretraining.descriptors import descriptors_of


def test_a_patch_is_described_against_its_view():
    """Halves of two colours: smoothing leaves them as they are, and each lies as far off the mean as the other."""
    view = torch.zeros(1, 3, 32, 64)
    view[:, 0, :, :32] = 1
    view[:, 2, :, 32:] = 1
    found = descriptors_of(view)
    assert found.shape == (1, 32, 12)
    assert torch.allclose(found.mean(1), torch.zeros(1, 12), atol=1e-5)
    assert torch.allclose(found.square().mean(), torch.ones(()), atol=1e-4)
    grid = found.view(4, 8, 12)
    lab = describe((view[0].permute(1, 2, 0).numpy() * 255).astype(np.uint8))[..., :3]
    expected = torch.from_numpy(lab[:, 0] - lab[:, -1])
    ratio = (grid[:, 0, :3] - grid[:, -1, :3]) / expected
    assert torch.allclose(ratio, ratio[0, 0].expand_as(ratio), rtol=0.05)


def test_noise_of_an_even_view_is_not_stretched():
    noise = torch.full((1, 3, 32, 32), 0.5) + 0.002 * torch.randn(
        1, 3, 32, 32, generator=torch.Generator().manual_seed(0)
    )
    assert descriptors_of(noise).square().mean() < 0.5
    assert descriptors_of(torch.full((1, 3, 32, 32), 0.5)).abs().max() < 1e-3
