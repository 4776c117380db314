"""Anchors: the boxes that the region proposal network starts from."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor


def cell_anchors(size: float, ratios: Sequence[float]) -> Tensor:
    """(A, 4) boxes around the origin with area size**2, one for each height / width ratio."""
    ratio = torch.tensor(ratios, dtype=torch.float64)
    width = size / ratio.sqrt()
    half = torch.stack([width, ratio * width], dim=1) / 2
    return torch.cat([-half, half], dim=1).float()


def grid_anchors(shape: tuple[int, int], stride: int, cells: Tensor) -> Tensor:
    """Anchors of a feature map, shifted to the cells' upper left corners.

    Args:
        shape: (rows, columns) of the map.
        stride: Pixels between two cells.
        cells: (A, 4) from `cell_anchors`.

    Returns:
        (rows * columns * A, 4), row by row, the A anchors of a cell together.

    """
    y = torch.arange(shape[0], dtype=torch.float32, device=cells.device) * stride
    x = torch.arange(shape[1], dtype=torch.float32, device=cells.device) * stride
    y, x = torch.meshgrid(y, x, indexing="ij")
    shifts = torch.stack([x, y, x, y], dim=-1).reshape(-1, 1, 4)
    return (shifts + cells).reshape(-1, 4)
