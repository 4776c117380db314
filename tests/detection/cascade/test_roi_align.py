"""The CPU kernel against torchvision's, forwards and backwards."""

import pytest
import torch
from torchvision.ops import roi_align

from hassod_ros.detection.cascade.roi_align import roi_align_pyramid

STRIDES = (4, 8)


def _maps() -> list[torch.Tensor]:
    return [torch.randn(2, 5, 64 // stride, 96 // stride) for stride in STRIDES]


def _oracle(
    maps: list[torch.Tensor], rois: torch.Tensor, levels: torch.Tensor, side: int, samples: int
) -> torch.Tensor:
    found = torch.zeros(len(rois), maps[0].shape[1], side, side)
    for i, stride in enumerate(STRIDES):
        chosen = torch.nonzero(levels == i)[:, 0]
        part = roi_align(maps[i], rois[chosen], side, 1 / stride, samples, aligned=True)
        found = found.index_put((chosen,), part)
    return found


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize("samples", [0, 1, 3])
def test_values_and_gradients_are_torchvisions(layout: torch.memory_format, samples: int) -> None:
    torch.manual_seed(0)
    corner = torch.rand(60, 2) * torch.tensor([110.0, 76.0]) - 8  # some boxes reach outside
    size = torch.rand(60, 2) * 70
    size[:5] = 0.01
    rois = torch.cat([torch.randint(0, 2, (60, 1)).float(), corner, corner + size], dim=1)
    levels = torch.randint(0, 2, (60,))
    maps = [each.contiguous(memory_format=layout).requires_grad_() for each in _maps()]
    weight = torch.randn(60, 5, 7, 7)

    ours = roi_align_pyramid(maps, rois, levels, STRIDES, 7, samples)
    ours_gradient = torch.autograd.grad((ours * weight).sum(), maps)
    theirs = _oracle(maps, rois, levels, 7, samples)
    theirs_gradient = torch.autograd.grad((theirs * weight).sum(), maps)

    torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-5)
    for mine, its in zip(ours_gradient, theirs_gradient, strict=True):
        torch.testing.assert_close(mine, its, rtol=1e-4, atol=1e-5)


def test_no_boxes_give_no_cells_and_zero_gradients() -> None:
    maps = [each.requires_grad_() for each in _maps()]
    pooled = roi_align_pyramid(maps, torch.zeros(0, 5), torch.zeros(0, dtype=torch.int64), STRIDES, 7)
    pooled.sum().backward()
    assert pooled.shape == (0, 5, 7, 7)
    assert all(not each.grad.any() for each in maps)
