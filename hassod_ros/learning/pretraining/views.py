"""Multi-crop views of a batch (Caron et al., 2021, section 3.1), drawn for all its pictures at once.

Libraries draw one random crop or colour for a whole batch, or work picture by picture. Here every picture has its own,
and one call serves the batch: on a GPU the views cost a small part of a step.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

_ASPECT = (3 / 4, 4 / 3)
_BLUR_TAPS = 9
# Brightness Y and two axes of colour, in which hue is an angle and saturation a length.
_RGB_TO_YIQ = ((0.299, 0.587, 0.114), (0.5959, -0.2746, -0.3213), (0.2115, -0.5227, 0.3112))


class Views(NamedTuple):
    """Views of B pictures as the networks take them, normalised.

    Attributes:
        large: (2B, 3, H, W) both large views of each picture, all first ones before all second ones.
        small: (B, 3, H', W') each.
        masks: (2B, h, w) bool patches of `large` that the student does not see; None: it sees all.
        descriptors: (2B, h * w, 12) what the patches of `large` look like; None: nobody asks.

    """

    large: Tensor
    small: list[Tensor]
    masks: Tensor | None
    descriptors: Tensor | None


def crop(pictures: Tensor, size: int, scale: tuple[float, float]) -> Tensor:
    """A random part of each picture, mirrored or not.

    Args:
        pictures: (B, 3, S, S) float32.
        size: Side of the result in pixels.
        scale: Range of the part's share of the area; its aspect ratio lies within 3:4 and 4:3.

    Returns:
        (B, 3, size, size) float32, bilinear. Draws from torch's global generator of the pictures' device.

    """
    count, device = len(pictures), pictures.device
    area = _uniform(count, scale, device)
    aspect = _uniform(count, (math.log(_ASPECT[0]), math.log(_ASPECT[1])), device).exp()
    width, height = ((area * ratio).sqrt().clamp(max=1.0) for ratio in (aspect, 1 / aspect))
    x, y = ((1 - side) * _uniform(count, (-1.0, 1.0), device) for side in (width, height))
    mirror = torch.where(torch.rand(count, device=device) < 0.5, -1.0, 1.0)
    zero = torch.zeros_like(x)
    theta = torch.stack([torch.stack([width * mirror, zero, x], 1), torch.stack([zero, height, y], 1)], 1)  # (B, 2, 3)
    grid = F.affine_grid(theta, [count, 3, size, size], align_corners=False)
    return F.grid_sample(pictures, grid, padding_mode="border", align_corners=False)


def colours(views: Tensor, *, blur: float, solarise: float) -> Tensor:
    """DINO's colour changes, drawn for each view on its own.

    Brightness and contrast by up to 0.4, saturation 0.2, hue 0.1 (probability 0.8), grey (0.2), Gaussian blur of sigma
    0.1 to 2 pixels (`blur`), inversion of the upper half of the values (`solarise`).

    Args:
        views: (B, 3, H, W) float32 RGB in [0, 1].
        blur: Probability.
        solarise: Probability.

    Returns:
        The same shape and range. Draws from torch's global generator of the views' device.

    """
    count, device = len(views), views.device

    def chosen(probability: float) -> Tensor:
        return (torch.rand(count, device=device) < probability).view(-1, 1, 1, 1)

    jitter = chosen(0.8)
    brightness, contrast = (_uniform(count, (0.6, 1.4), device).view(-1, 1, 1, 1) for _ in range(2))
    changed = (views * brightness).clamp(0, 1)
    mean = changed.mean((1, 2, 3), keepdim=True)
    changed = (mean + (changed - mean) * contrast).clamp(0, 1)
    saturation = _uniform(count, (0.8, 1.2), device)
    angle = _uniform(count, (-0.1, 0.1), device) * (2 * math.pi)
    views = torch.where(jitter, _turn_colours(changed, saturation, angle), views)
    grey = _turn_colours(views, torch.zeros(count, device=device), torch.zeros(count, device=device))
    views = torch.where(chosen(0.2), grey, views)
    if blur:
        views = torch.where(chosen(blur), _blur(views, _uniform(count, (0.1, 2.0), device)), views)
    if solarise:
        views = torch.where(chosen(solarise) & (views > 0.5), 1 - views, views)
    return views


def block_masks(
    count: int, side: int, *, probability: float, share: tuple[float, float], device: torch.device
) -> Tensor:
    """Patches that the student does not see: rectangles, as iBOT masks them (Zhou et al., 2022, section 3.2).

    Args:
        count: Views.
        side: Patches along a side.
        probability: That a view is masked at all.
        share: Range of the masked share of a masked view; four rectangles overlap, so that it may be less.
        device: Of the result and of the generator.

    Returns:
        (count, side, side) bool, at least one True in all.

    """
    rectangles = 4
    # Four rectangles of the share s at random places together cover about 1 - (1 - s)^4.
    wanted = 1 - (1 - _uniform(count, share, device).clamp(max=0.99)) ** (1 / rectangles)
    area = (wanted * side * side)[:, None]  # (B, 1)
    aspect = _uniform(count * rectangles, (math.log(0.3), math.log(1 / 0.3)), device).exp().view(count, rectangles)
    extents = [(area * ratio).sqrt().round().clamp(1, side) for ratio in (aspect, 1 / aspect)]
    place = torch.arange(side, device=device).view(1, 1, -1)
    inside = []
    for extent in extents:
        start = (torch.rand(count, rectangles, device=device) * (side - extent + 1)).floor()
        inside.append((place >= start[..., None]) & (place < (start + extent)[..., None]))  # (B, R, side)
    masks = (inside[0][..., :, None] & inside[1][..., None, :]).any(1)
    masked = torch.rand(count, device=device) < probability
    masked[0] |= ~masked.any()
    return masks & masked.view(-1, 1, 1)


def _uniform(count: int, ends: tuple[float, float], device: torch.device) -> Tensor:
    return torch.rand(count, device=device) * (ends[1] - ends[0]) + ends[0]


def _turn_colours(views: Tensor, saturation: Tensor, angle: Tensor) -> Tensor:
    """Turn the hue of (B, 3, H, W) views by (B,) radians and stretch their saturation by (B,) factors."""
    forth = torch.tensor(_RGB_TO_YIQ)
    forth, back = forth.to(views.device), torch.linalg.inv(forth).to(views.device)  # on a GPU the inverse would wait
    cosine, sine = saturation * angle.cos(), saturation * angle.sin()
    one, zero = torch.ones_like(cosine), torch.zeros_like(cosine)
    turn = torch.stack([one, zero, zero, zero, cosine, -sine, zero, sine, cosine], 1).view(-1, 3, 3)
    matrix = back @ turn @ forth  # (B, 3, 3)
    return torch.einsum("bij,bjhw->bihw", matrix, views).clamp(0, 1)


def _blur(views: Tensor, sigma: Tensor) -> Tensor:
    """Gaussian blur of (B, 3, H, W) views by (B,) pixels, one axis after the other."""
    count, channels = views.shape[:2]
    half = _BLUR_TAPS // 2
    taps = torch.arange(-half, half + 1, device=views.device, dtype=views.dtype)
    kernel = torch.exp(-0.5 * (taps / sigma[:, None]) ** 2)
    kernel = (kernel / kernel.sum(1, keepdim=True)).repeat_interleave(channels, 0)  # (B * 3, taps)
    flat = F.pad(views.reshape(1, -1, *views.shape[2:]), (half, half, half, half), mode="replicate")
    flat = F.conv2d(flat, kernel[:, None, :, None], groups=count * channels)
    return F.conv2d(flat, kernel[:, None, None, :], groups=count * channels).view_as(views)
