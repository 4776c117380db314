"""Boxes as (N, 4) tensors, x0 y0 x1 y1 in pixels, and the code in which networks predict them."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

SCALE_CLAMP = math.log(1000 / 16)  # a network's box grows to at most 62.5 times its anchor
_BLOCK = 2048  # boxes that `pairwise_iou` compares at once


def encode_boxes(boxes: Tensor, targets: Tensor, weights: Sequence[float]) -> Tensor:
    """Weighted (dx, dy, dw, dh) that turn `boxes` into `targets` (R-CNN, appendix C).

    Args:
        boxes: (..., 4), each with an area.
        targets: (..., 4), each with an area.
        weights: Of dx, dy, dw, dh.

    Returns:
        (..., 4) deltas: `decode_boxes` inverts them.

    """
    size, target_size = boxes[..., 2:] - boxes[..., :2], targets[..., 2:] - targets[..., :2]
    centre, target_centre = boxes[..., :2] + 0.5 * size, targets[..., :2] + 0.5 * target_size
    deltas = torch.cat([(target_centre - centre) / size, torch.log(target_size / size)], dim=-1)
    return deltas * deltas.new_tensor(weights)


def decode_boxes(boxes: Tensor, deltas: Tensor, weights: Sequence[float]) -> Tensor:
    """Move and scale `boxes` (..., 4) by weighted `deltas` (..., 4), in float32."""
    deltas = deltas.float()
    deltas = deltas / deltas.new_tensor(weights)
    size = boxes[..., 2:] - boxes[..., :2]
    centre = boxes[..., :2] + 0.5 * size + deltas[..., :2] * size
    half = 0.5 * size * torch.exp(deltas[..., 2:].clamp(max=SCALE_CLAMP))
    return torch.cat([centre - half, centre + half], dim=-1)


def clip_boxes(boxes: Tensor, limits: Tensor) -> Tensor:
    """Cut `boxes` (..., 4) off at 0 and at `limits` (..., 4), which hold (width, height, width, height)."""
    return torch.minimum(boxes.clamp(min=0), limits)


def box_limits(sizes: Sequence[tuple[int, int]], like: Tensor) -> Tensor:
    """(B, 4) limits for `clip_boxes` of B image sizes (height, width), on the device of `like`."""
    return torch.tensor([(w, h, w, h) for h, w in sizes], dtype=torch.float32, device=like.device)


def has_area(boxes: Tensor) -> Tensor:
    """(...) bool of (..., 4) boxes: the box is wider and higher than 0."""
    return (boxes[..., 2:] > boxes[..., :2]).all(dim=-1)


def to_rois(boxes: Sequence[Tensor]) -> Tensor:
    """Boxes of B images -> (M, 5) float32 rows of (image index, x0, y0, x1, y1), as RoIAlign wants them."""
    counts = torch.tensor([len(each) for each in boxes], device=boxes[0].device)
    images = torch.repeat_interleave(torch.arange(len(boxes), device=boxes[0].device), counts)
    return torch.cat([images[:, None].float(), torch.cat(list(boxes)).float()], dim=1)


def pairwise_iou(first: Tensor, second: Tensor) -> Tensor:
    """Intersection over union of (..., N, 4) and (..., M, 4) xyxy boxes -> (..., N, M); torchvision's `box_iou`.

    Coordinate by coordinate and, on a CPU, in blocks that stay in its cache: there 8 to 10 times as fast for an image's
    objects and anchors.
    """
    x0, y0, x1, y1 = (column[..., None] for column in first.mT.contiguous().unbind(-2))
    areas = (x1 - x0) * (y1 - y0)
    count = second.shape[-2]
    iou = first.new_empty(*first.shape[:-1], count)
    block = _BLOCK if first.device.type == "cpu" else max(1, count)
    for start in range(0, count, block):
        part = second[..., start : start + block, :].mT.contiguous()
        u0, v0, u1, v1 = (column[..., None, :] for column in part.unbind(-2))
        width = torch.minimum(x1, u1).sub_(torch.maximum(x0, u0)).clamp_(min=0)
        height = torch.minimum(y1, v1).sub_(torch.maximum(y0, v0)).clamp_(min=0)
        common = width.mul_(height)
        union = areas.add((u1 - u0) * (v1 - v0)).sub_(common)
        torch.div(common, union, out=iou[..., start : start + block])
    return iou
