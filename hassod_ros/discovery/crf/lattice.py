"""The permutohedral lattice: Gaussian filtering of an image in position and colour.

Adams, Baek, Davis: Fast High-Dimensional Filtering Using the Permutohedral Lattice (2010). A pixel splats its values
onto the d + 1 corners of the simplex around its feature, the corners are blurred along d + 1 axes, and the pixel
gathers them again. Built as in Krähenbühl and Koltun's dense CRF, with their symmetric normalisation inside the
weights: filtering is gather(blur(splat(values))).

Three orders keep the work near the cache: pixels go tile by tile, lattice points are numbered as the pixels meet
them, and each axis lists its points as chains of neighbours, so that one walk along a chain blurs it in place.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import NamedTuple

import numpy as np
from numba import njit, prange

from hassod_ros.errors import InputError

_TILE = 16
PARTS = 64  # pieces of a parallel loop


class Lattice(NamedTuple):
    """A lattice of M points over N pixels in the order of `tile_order`, for features of d dimensions.

    Attributes:
        corners: (N, d + 1) int32 points of each pixel.
        weights: (N, d + 1) float32 weights to gather from them.
        first: (M + 1,) int32, entries first[p] to first[p + 1] of `pixels` belong to point p.
        pixels: (N * (d + 1),) int32 pixels that splat onto each point.
        shares: (N * (d + 1),) float32 weights of those.
        chain: points of all chains of at least two neighbours, axis after axis, int32.
        chain_first: (chains + 1,) int32 where each chain starts in `chain`.
        axis_first: (d + 2,) int64 where each axis starts in `chain_first`.

    """

    corners: np.ndarray
    weights: np.ndarray
    first: np.ndarray
    pixels: np.ndarray
    shares: np.ndarray
    chain: np.ndarray
    chain_first: np.ndarray
    axis_first: np.ndarray

    @property
    def size(self) -> int:
        """Number of lattice points."""
        return len(self.first) - 1


@lru_cache(maxsize=8)
def tile_order(height: int, width: int) -> np.ndarray:
    """Raster index of every pixel, tile by tile: (height * width,) int32."""
    rows, columns = -(-height // _TILE), -(-width // _TILE)
    padded = np.full((rows * _TILE, columns * _TILE), -1, np.int32)
    padded[:height, :width] = np.arange(height * width, dtype=np.int32).reshape(height, width)
    tiled = padded.reshape(rows, _TILE, columns, _TILE).transpose(0, 2, 1, 3).ravel()
    return tiled[tiled >= 0]


@lru_cache(maxsize=4)
def spatial_lattice(height: int, width: int, sxy: float) -> Lattice:
    """Lattice over pixel positions alone. It depends on the size only and is kept for the next image."""
    return _build(np.empty((height * width, 0), np.uint8), width, tile_order(height, width), (sxy, sxy))


def bilateral_lattice(image: np.ndarray, sxy: float, srgb: float) -> Lattice:
    """Lattice over pixel positions and colours.

    Args:
        image: (H, W, 3) uint8.
        sxy: Standard deviation in pixels.
        srgb: Standard deviation in colour steps of 0..255.

    Raises:
        InputError: The deviations are so small for this image that the lattice cannot be numbered.

    """
    height, width = image.shape[:2]
    colours = np.ascontiguousarray(image).reshape(-1, 3)
    return _build(colours, width, tile_order(height, width), (sxy, sxy, srgb, srgb, srgb))


def join(lattices: Sequence[tuple[Lattice, float]]) -> Lattice:
    """Lattices over the same pixels and their factors, as one that gives the weighted sum of their results."""
    corners, first, chain, lengths = [], [np.zeros(1, np.int32)], [], []
    points = entries = 0
    axes = max(len(lattice.axis_first) for lattice, _ in lattices) - 1
    axis_chains = np.zeros(axes, np.int64)
    order = []  # axis of each piece of `chain`
    for lattice, _ in lattices:
        corners.append(lattice.corners + np.int32(points))
        first.append(lattice.first[1:] + np.int32(entries))
        for axis in range(len(lattice.axis_first) - 1):
            starts = lattice.chain_first[lattice.axis_first[axis] : lattice.axis_first[axis + 1] + 1]
            chain.append(lattice.chain[starts[0] : starts[-1]] + np.int32(points))
            lengths.append(np.diff(starts))
            axis_chains[axis] += len(starts) - 1
            order.append(axis)
        points += lattice.size
        entries += len(lattice.pixels)
    by_axis = np.argsort(order, kind="stable")
    return Lattice(
        corners=np.concatenate(corners, axis=1),
        weights=np.concatenate([lattice.weights * np.float32(factor) for lattice, factor in lattices], axis=1),
        first=np.concatenate(first),
        pixels=np.concatenate([lattice.pixels for lattice, _ in lattices]),
        shares=np.concatenate([lattice.shares for lattice, _ in lattices]),
        chain=np.concatenate([chain[k] for k in by_axis]),
        chain_first=np.cumsum(np.concatenate([[0], *[lengths[k] for k in by_axis]]), dtype=np.int32),
        axis_first=np.concatenate([[0], np.cumsum(axis_chains)]),
    )


def _build(colours: np.ndarray, width: int, order: np.ndarray, sigmas: tuple[float, ...]) -> Lattice:
    d = len(sigmas)
    bits = 62 // d
    # The lattice's own spacing makes its blur a Gaussian of deviation 1 (Adams et al., section 3).
    scale = np.array([np.sqrt(2 / 3) * (d + 1) / np.sqrt((i + 1) * (i + 2)) for i in range(d)], np.float32)
    most = np.array([width, -(-len(order) // width), *[255.0] * (d - 2)]) / sigmas * scale
    if max(most.sum(), (most * np.arange(1, d + 1)).max()) + 2 * (d + 1) >= 2 ** (bits - 1):
        raise InputError(f"the CRF's deviations {sigmas} are too small for an image of {width} columns; raise them")
    keys, weights = _embed(colours, width, order, np.array(sigmas, np.float32), scale, bits)
    corners, points, table, numbers = _number(keys)
    chain, chain_first, axis_first = _chains(_successors(points, table, numbers, d, bits))
    first, pixels, shares = _transpose(corners, weights, len(points))
    _normalise(corners, weights, first, pixels, shares, chain, chain_first, axis_first)
    return Lattice(corners, weights, first, pixels, shares, chain, chain_first, axis_first)


@njit(cache=True, inline="always")
def piece(n, k):  # type: ignore[no-untyped-def]
    """Begin and end of the k-th of the pieces of range(n).

    Each thread gets a run of successive k; their pieces lie all over the range, so that the threads end together.
    """
    part = k * 39 % PARTS  # 39 / 64: near the golden ratio
    return n * part // PARTS, n * (part + 1) // PARTS


@njit(cache=True, parallel=True)
def _embed(colours, width, order, sigmas, scale, bits):  # type: ignore[no-untyped-def]
    """Corners of each pixel's simplex, packed into one integer each, and the barycentric weights."""
    n, d = order.size, sigmas.size
    keys = np.empty((n, d + 1), np.int64)
    weights = np.empty((n, d + 1), np.float32)
    step = np.float32(d + 1)
    down = np.float32(1 / (d + 1))
    for part in prange(PARTS):
        elevated = np.empty(d + 1, np.float32)
        corner = np.empty(d + 1, np.int64)
        rank = np.empty(d + 1, np.int64)
        bary = np.empty(d + 2, np.float32)
        begin, end = piece(n, part)
        for i in range(begin, end):
            pixel = order[i]
            total = np.float32(0)
            for j in range(d, 0, -1):
                if j > 2:
                    value = np.float32(colours[pixel, j - 3])
                elif j == 2:
                    value = np.float32(pixel // width)
                else:
                    value = np.float32(pixel % width)
                value = value / sigmas[j - 1] * scale[j - 1]
                elevated[j] = total - np.float32(j) * value
                total += value
            elevated[0] = total
            # The nearest lattice point of remainder 0; the ranks of the residuals tell the simplex around it.
            excess = np.int64(0)
            for j in range(d + 1):
                multiple = np.floor(elevated[j] * down)
                if not (multiple + np.float32(1)) * step - elevated[j] >= elevated[j] - multiple * step:
                    multiple += np.float32(1)
                corner[j] = np.int64(multiple) * (d + 1)
                excess += np.int64(multiple)
                elevated[j] -= multiple * step
                rank[j] = 0
            for a in range(d + 1):
                for b in range(a + 1, d + 1):
                    less = np.int64(elevated[a] < elevated[b])  # no branch: it would be a coin toss
                    rank[a] += less
                    rank[b] += 1 - less
            bary[:] = 0
            for j in range(d + 1):
                rank[j] += excess
                if rank[j] < 0:
                    rank[j] += d + 1
                    corner[j] += d + 1
                    elevated[j] -= step
                elif rank[j] > d:
                    rank[j] -= d + 1
                    corner[j] -= d + 1
                    elevated[j] += step
                share = elevated[j] * down
                bary[d - rank[j]] += share
                bary[d + 1 - rank[j]] -= share
            bary[0] += np.float32(1) + bary[d + 1]
            for r in range(d + 1):
                key = np.int64(0)
                for j in range(d):
                    offset = r if rank[j] <= d - r else r - (d + 1)
                    key = (key << bits) | (corner[j] + offset + (1 << (bits - 1)))
                keys[i, r] = key
                weights[i, r] = bary[r]
    return keys, weights


@njit(cache=True, inline="always")
def _slot(table, key):  # type: ignore[no-untyped-def]
    """Where the key stands in the open-addressing table, or the empty slot where it would."""
    slot = np.int64((np.uint64(key) * np.uint64(0x9E3779B97F4A7C15)) >> np.uint64(32)) & (table.size - 1)
    while table[slot] != key and table[slot] != -1:
        slot = (slot + 1) & (table.size - 1)
    return slot


@njit(cache=True)
def _number(keys):  # type: ignore[no-untyped-def]
    """Number the distinct keys by first appearance: a pixel's neighbours get nearby numbers."""
    n, corners_each = keys.shape
    corners = np.empty((n, corners_each), np.int32)
    table = np.full(1 << 18, -1, np.int64)
    numbers = np.empty(1 << 18, np.int32)
    points = np.empty(1 << 17, np.int64)
    count = 0
    for i in range(n):
        for r in range(corners_each):
            key = keys[i, r]
            if i > 0 and keys[i - 1, r] == key:
                corners[i, r] = corners[i - 1, r]
                continue
            slot = _slot(table, key)
            if table[slot] == -1:
                if count == points.size:
                    grown = np.empty(2 * count, np.int64)
                    grown[:count] = points
                    points = grown
                    table = np.full(4 * count, -1, np.int64)
                    numbers = np.empty(4 * count, np.int32)
                    for p in range(count):
                        slot = _slot(table, points[p])
                        table[slot] = points[p]
                        numbers[slot] = p
                    slot = _slot(table, key)
                table[slot] = key
                numbers[slot] = count
                points[count] = key
                count += 1
            corners[i, r] = numbers[slot]
    return corners, points[:count].copy(), table, numbers


@njit(cache=True, parallel=True)
def _successors(points, table, numbers, d, bits):  # type: ignore[no-untyped-def]
    """The next point along each axis, (d + 1, M), or -1."""
    successors = np.empty((d + 1, points.size), np.int32)
    ones = np.int64(0)
    for _ in range(d):
        ones = (ones << bits) | 1
    for p in prange(points.size):
        for j in range(d + 1):
            key = points[p] + ones
            if j < d:
                key -= np.int64(d + 1) << np.int64(bits * (d - 1 - j))
            slot = _slot(table, key)
            successors[j, p] = numbers[slot] if table[slot] == key else -1
    return successors


@njit(cache=True)
def _chains(successors):  # type: ignore[no-untyped-def]
    """Each axis's points as runs of neighbours; a point without neighbours is left out, the blur keeps it."""
    axes, count = successors.shape
    chain = np.empty(axes * count, np.int32)
    chain_first = np.empty(axes * count // 2 + 1, np.int32)
    axis_first = np.zeros(axes + 1, np.int64)
    length = chains = 0
    for j in range(axes):
        follows = np.zeros(count, np.bool_)
        for p in range(count):
            if successors[j, p] >= 0:
                follows[successors[j, p]] = True
        for p in range(count):
            if not follows[p] and successors[j, p] >= 0:
                chain_first[chains] = length
                chains += 1
                member = p
                while member >= 0:
                    chain[length] = member
                    length += 1
                    member = successors[j, member]
        axis_first[j + 1] = chains
    chain_first[chains] = length
    return chain[:length].copy(), chain_first[: chains + 1].copy(), axis_first


@njit(cache=True)
def _transpose(corners, weights, count):  # type: ignore[no-untyped-def]
    """Pixels by point instead of points by pixel."""
    n, corners_each = corners.shape
    first = np.zeros(count + 1, np.int32)
    for i in range(n):
        for r in range(corners_each):
            first[corners[i, r] + 1] += 1
    for p in range(count):
        first[p + 1] += first[p]
    free = first[:-1].copy()
    pixels = np.empty(n * corners_each, np.int32)
    shares = np.empty(n * corners_each, np.float32)
    for i in range(n):
        for r in range(corners_each):
            entry = free[corners[i, r]]
            free[corners[i, r]] = entry + 1
            pixels[entry] = i
            shares[entry] = weights[i, r]
    return first, pixels, shares


@njit(cache=True, parallel=True)
def _normalise(corners, weights, first, pixels, shares, chain, chain_first, axis_first):  # type: ignore[no-untyped-def]
    """Multiply both sides by 1 / sqrt(filter of ones), the gather by the lattice's gain."""
    n, corners_each = corners.shape
    ones = np.empty(first.size - 1, np.float32)
    for p in prange(ones.size):
        total = np.float32(0)
        for entry in range(first[p], first[p + 1]):
            total += shares[entry]
        ones[p] = total
    for j in range(axis_first.size - 1):
        for c in range(axis_first[j], axis_first[j + 1]):
            before = np.float32(0)
            here = ones[chain[chain_first[c]]]
            for q in range(chain_first[c], chain_first[c + 1]):
                after = ones[chain[q + 1]] if q + 1 < chain_first[c + 1] else np.float32(0)
                ones[chain[q]] = here + np.float32(0.5) * (before + after)
                before = here
                here = after
    gain = np.float32(1 / (1 + 2.0 ** (1 - corners_each)))
    norm = np.empty(n, np.float32)
    for i in prange(n):
        total = np.float32(0)
        for r in range(corners_each):
            total += weights[i, r] * ones[corners[i, r]]
        norm[i] = 1 / np.sqrt(gain * total + np.float32(1e-20))
        for r in range(corners_each):
            weights[i, r] *= gain * norm[i]
    for p in prange(ones.size):
        for entry in range(first[p], first[p + 1]):
            shares[entry] *= norm[pixels[entry]]
