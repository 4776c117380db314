"""The dense CRF in plain torch: the lattice as sparse index tables, for training machines with a GPU."""

from __future__ import annotations

import numpy as np
import torch

from hassod_ros.discovery.crf import FLOOR, CRFConfig
from hassod_ros.errors import InputError


def refine_torch(image: np.ndarray, groups: list[np.ndarray], config: CRFConfig, device: str) -> list[np.ndarray]:
    """See `crf.refine`: the same labels, dense float32 values, all groups in one pass.

    Args:
        image: (H, W, 3) uint8 RGB.
        groups: (R, H, W) float32 probabilities each.
        config: Constants.
        device: A torch device.

    Returns:
        One (R, H, W) float32 array per group.

    Raises:
        InputError: The device does not exist here.

    """
    try:
        target = torch.device(device)
        torch.empty(1, device=target)
    except (RuntimeError, AssertionError) as error:
        raise InputError(f"torch cannot use the device '{device}' here; choose another, e.g. cpu") from error
    with torch.inference_mode():
        return _mean_field(image, groups, config, target)


def _mean_field(
    image: np.ndarray, groups: list[np.ndarray], config: CRFConfig, device: torch.device
) -> list[np.ndarray]:
    height, width = image.shape[:2]
    y, x = torch.meshgrid(torch.arange(height, device=device), torch.arange(width, device=device), indexing="ij")
    position = torch.stack([x.flatten(), y.flatten()], 1).float()
    colour = torch.from_numpy(image.copy()).to(device).reshape(-1, 3).float()
    near = _Filter(position / config.gaussian_sxy)
    bilateral = _Filter(torch.cat([position / config.bilateral_sxy, colour / config.bilateral_srgb], 1))

    sizes = [len(group) for group in groups]
    unary = torch.cat([torch.from_numpy(group).to(device).reshape(len(group), -1) for group in groups]).T
    unary = unary.clamp(FLOOR, 1).log()  # (N, L)
    probabilities = _softmax(unary, sizes)
    running = [size > 1 for size in sizes]
    for _ in range(config.iterations):
        if not any(running):
            break
        logits = (
            unary + config.gaussian_compat * near(probabilities) + config.bilateral_compat * bilateral(probabilities)
        )
        parts = []
        new_parts = _softmax(logits, sizes).split(sizes, 1)
        for group, (old, new) in enumerate(zip(probabilities.split(sizes, 1), new_parts, strict=True)):
            parts.append(new if running[group] else old)
            if running[group] and config.stop_at is not None:
                changed = (old.argmax(1) != new.argmax(1)).float().mean().item()
                running[group] = changed >= config.stop_at
        probabilities = torch.cat(parts, 1)
    split = probabilities.T.split(sizes)
    return [part.reshape(len(part), height, width).contiguous().cpu().numpy() for part in split]


def _softmax(logits: torch.Tensor, sizes: list[int]) -> torch.Tensor:
    return torch.cat([part.softmax(1) for part in logits.split(sizes, 1)], 1)


class _Filter:
    """Permutohedral filter over features (N, d), normalised symmetrically; see `lattice` for the scheme."""

    def __init__(self, features: torch.Tensor) -> None:
        n, d = features.shape
        device = features.device
        index = torch.arange(1, d + 1, device=device)
        scaled = features * ((2 / 3) ** 0.5 * (d + 1) / (index * (index + 1)).float().sqrt())
        after = scaled.flip(1).cumsum(1).flip(1)  # sum of features i and later
        elevated = torch.cat([after, after.new_zeros(n, 1)], 1)
        elevated[:, 1:] -= index * scaled

        down = (elevated / (d + 1)).floor()
        down += (elevated - down * (d + 1) > (d + 1) / 2).float()
        residual = elevated - down * (d + 1)
        excess = down.sum(1, keepdim=True).long()
        smaller = residual[:, :, None] < residual[:, None, :]
        tied = (residual[:, :, None] == residual[:, None, :]) & torch.ones(d + 1, d + 1, device=device).tril(-1).bool()
        rank = (smaller | tied).sum(2) + excess
        wrap = (rank < 0).long() - (rank > d).long()
        rank += wrap * (d + 1)
        corner = down.long() * (d + 1) + wrap * (d + 1)
        residual = (elevated - corner) / (d + 1)
        weights = residual.new_zeros(n, d + 2)
        weights.scatter_add_(1, d - rank, residual)
        weights.scatter_add_(1, d + 1 - rank, -residual)
        weights[:, 0] += 1 + weights[:, d + 1]
        self.weights = weights[:, : d + 1]  # (N, d + 1)

        bits = 62 // d
        shifts = torch.tensor([bits * (d - 1 - j) for j in range(d)], device=device)
        half = 1 << (bits - 1)
        keys = []
        for r in range(d + 1):
            offset = torch.where(rank <= d - r, r, r - (d + 1))
            keys.append((((corner + offset)[:, :d] + half) << shifts).sum(1))
        points, corners = torch.unique(torch.stack(keys, 1), return_inverse=True)
        self.corners = corners  # (N, d + 1)
        self.points = len(points)
        ones = int((1 << shifts).sum())
        self.neighbours = []  # per axis the (before, after) points, `points` where there is none
        for j in range(d + 1):
            step = ones - ((d + 1) << int(shifts[j]) if j < d else 0)
            self.neighbours.append([self._find(points, points + sign * step) for sign in (-1, 1)])
        self.norm = torch.ones(n, 1, device=device)
        self.norm = 1 / (self(self.norm) + 1e-20).sqrt()

    @staticmethod
    def _find(points: torch.Tensor, wanted: torch.Tensor) -> torch.Tensor:
        at = torch.searchsorted(points, wanted).clamp(max=len(points) - 1)
        return torch.where(points[at] == wanted, at, len(points))

    def __call__(self, values: torch.Tensor) -> torch.Tensor:
        """Filter (N, L) values."""
        values = values * self.norm
        lattice = values.new_zeros(self.points + 1, values.shape[1])  # the last row stays 0
        corners_each = self.corners.shape[1]
        for r in range(corners_each):
            lattice.index_add_(0, self.corners[:, r], self.weights[:, r, None] * values)
        for before, after in self.neighbours:
            lattice[:-1] += 0.5 * (lattice[before] + lattice[after])
        total = torch.zeros_like(values)
        for r in range(corners_each):
            total += self.weights[:, r, None] * lattice[self.corners[:, r]]
        return total * (self.norm / (1 + 2.0 ** (1 - corners_each)))
