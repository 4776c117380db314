"""RoIAlign over a pyramid for training on CPUs (He et al., "Mask R-CNN", section 3).

torchvision's CPU kernel walks over channels outside and pixels inside, and its backward pass has one thread: a third of
a training step. With the channels of a pixel side by side both passes become vector instructions.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numba import njit
from torch import Tensor


def roi_align_pyramid(
    maps: Sequence[Tensor], rois: Tensor, levels: Tensor, strides: Sequence[int], side: int, sampling_ratio: int = 0
) -> Tensor:
    """What `torchvision.ops.roi_align(aligned=True)` gives, each box from its own map.

    Args:
        maps: (B, C, H, W) float32 on the CPU; fastest in channels_last.
        rois: (M, 5) float32, image index and box in image pixels; gets no gradient.
        levels: (M,) int64, index into `maps`.
        strides: Image pixels per cell of each map.
        side: Cells of the output along each side.
        sampling_ratio: Samples along each side of such a cell; 0: one for each cell of the map that it spans.

    Returns:
        (M, C, side, side) float32, channels_last.

    """
    return _RoiAlign.apply(rois, levels, tuple(strides), side, sampling_ratio, *maps)  # type: ignore[no-untyped-call]


class _RoiAlign(torch.autograd.Function):
    @staticmethod
    def forward(  # type: ignore[override]
        ctx: Any,
        rois: Tensor,
        levels: Tensor,
        strides: tuple[int, ...],
        side: int,
        sampling_ratio: int,
        *maps: Tensor,
    ) -> Tensor:
        ctx.boxes, ctx.levels = rois.detach().numpy(), levels.numpy()
        ctx.strides, ctx.shapes, ctx.sampling_ratio = strides, [each.shape for each in maps], sampling_ratio
        pooled = torch.zeros(len(rois), side, side, maps[0].shape[1])
        for i, (stride, cells) in enumerate(zip(strides, maps, strict=True)):
            last = cells.detach().permute(0, 2, 3, 1).contiguous().numpy()
            _walk(last, pooled.numpy(), ctx.boxes, np.flatnonzero(ctx.levels == i), 1 / stride, sampling_ratio, False)
        return pooled.permute(0, 3, 1, 2)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:  # type: ignore[override]
        pooled = gradient.permute(0, 2, 3, 1).contiguous().numpy()
        gradients = []
        for i, (stride, shape) in enumerate(zip(ctx.strides, ctx.shapes, strict=True)):
            batch, channels, height, width = shape
            last = torch.zeros(batch, height, width, channels)
            rows = np.flatnonzero(ctx.levels == i)
            _walk(last.numpy(), pooled, ctx.boxes, rows, 1 / stride, ctx.sampling_ratio, True)
            gradients.append(last.permute(0, 3, 1, 2))
        return None, None, None, None, None, *gradients


@njit(cache=True, nogil=True)
def _corner(at: float, length: int) -> tuple[int, int, float]:
    """Lower cell, upper cell and the weight of the upper one for a place on an axis; lower is -1 outside."""
    if at < -1.0 or at > length:
        return -1, -1, 0.0
    at = max(at, 0.0)
    low = int(at)
    if low >= length - 1:
        return length - 1, length - 1, 0.0
    return low, low + 1, at - low


@njit(cache=True, nogil=True, fastmath={"contract"})
def _walk(cells, pooled, rois, rows, scale, samples, backward):  # type: ignore[no-untyped-def]
    """Average `cells` (B, H, W, C) into `pooled` (M, S, S, C), or, backward, spread `pooled` over `cells`."""
    side, channels = pooled.shape[1], pooled.shape[3]
    height, width = cells.shape[1:3]
    for m in rows:
        image = int(rois[m, 0])
        left, top = rois[m, 1] * scale - 0.5, rois[m, 2] * scale - 0.5
        bin_w, bin_h = (rois[m, 3] - rois[m, 1]) * scale / side, (rois[m, 4] - rois[m, 2]) * scale / side
        samples_x, samples_y = samples or math.ceil(bin_w), samples or math.ceil(bin_h)
        share = 1.0 / max(samples_x * samples_y, 1)
        for v in range(side):
            for sv in range(samples_y):
                y0, y1, wy = _corner(top + bin_h * (v + (sv + 0.5) / samples_y), height)
                if y0 < 0:
                    continue
                for u in range(side):
                    out = pooled[m, v, u]
                    for su in range(samples_x):
                        x0, x1, wx = _corner(left + bin_w * (u + (su + 0.5) / samples_x), width)
                        if x0 < 0:
                            continue
                        w00, w01 = np.float32((1 - wy) * (1 - wx) * share), np.float32((1 - wy) * wx * share)
                        w10, w11 = np.float32(wy * (1 - wx) * share), np.float32(wy * wx * share)
                        c00, c01 = cells[image, y0, x0], cells[image, y0, x1]
                        c10, c11 = cells[image, y1, x0], cells[image, y1, x1]
                        if backward:
                            # one corner after the other: at the border two of them are the same cell
                            for c in range(channels):
                                c00[c] += w00 * out[c]
                            for c in range(channels):
                                c01[c] += w01 * out[c]
                            for c in range(channels):
                                c10[c] += w10 * out[c]
                            for c in range(channels):
                                c11[c] += w11 * out[c]
                        else:
                            for c in range(channels):
                                out[c] += w00 * c00[c] + w01 * c01[c] + w10 * c10[c] + w11 * c11[c]
