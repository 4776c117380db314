"""Hierarchical adaptive clustering: patches merge into regions, the most similar neighbours first (HASSOD, 3.1)."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numba import njit

from hassod_ros.errors import InputError

# Added to every upper bound. A cosine near 1 is rounded by 1e-16 or a little more, its angle by the root of that: 1e-8.
_SLACK = 1e-6


def merge_regions(features: np.ndarray, thresholds: Sequence[float]) -> np.ndarray:
    """Merge adjacent patches while they are similar enough, into one partition per threshold.

    Each partition is nested in the next. A region stands for the sum of its patches' raw features; the similarity of
    two regions is the cosine of their sums. Patches start as regions, the most similar pair of 4-neighbours merges
    first. Equally similar pairs merge in the order in which they became neighbours: the start goes in raster order
    (right, then down), the pairs of a merged region follow the order of the pairs that they replace. A threshold's
    partition is complete when no pair reaches it. Sums and similarities are float64. Time grows as n log n with the
    number of patches n.

    Args:
        features: (C, h, w) float32, C features of each patch.
        thresholds: Cosine similarities in [-1, 1], descending; the paper uses 0.4, 0.2, 0.1.

    Returns:
        (T, h, w) int32 region numbers, one map per threshold in the order given. Regions are numbered from 0 by their
        first patch in raster order.

    Raises:
        InputError: Features that are not (C, h, w) or not finite, or thresholds that are none, not descending or
            outside [-1, 1].

    Example:
        >>> merge_regions(np.array([[[1, 1, 0]], [[0, 0.1, 1]]], np.float32), [0.5, 0.05]).tolist()
        [[[0, 0, 1]], [[0, 0, 0]]]

    """
    levels = check_thresholds(thresholds)
    features = np.ascontiguousarray(features, np.float32)
    if features.ndim != 3 or 0 in features.shape:
        raise InputError(f"features must have the shape (C, h, w) with no side of 0, got {features.shape}")
    if not np.isfinite(features).all():
        raise InputError("the features hold NaN or infinity; check the weights and the image they come from")
    _, height, width = features.shape
    return _merge(features.reshape(len(features), -1), width, levels).reshape(-1, height, width)


def centred(features: np.ndarray, share: float) -> np.ndarray:
    """Features (C, h, w) float32 less a share of their mean: what all patches have in common makes all alike."""
    if not share:
        return features
    return features - np.float32(share) * features.mean(axis=(1, 2), keepdims=True, dtype=np.float32)


def check_thresholds(thresholds: Sequence[float]) -> np.ndarray:
    """The thresholds as (T,) float64.

    Raises:
        InputError: There are none, or they are not descending or outside [-1, 1].

    """
    levels = np.asarray(thresholds, np.float64)
    if levels.ndim != 1 or not len(levels):
        raise InputError("give at least one merging threshold, such as 0.4")
    if not ((levels >= -1) & (levels <= 1)).all():
        raise InputError(f"merging thresholds are cosine similarities between -1 and 1, got {levels.tolist()}")
    if not (np.diff(levels) < 0).all():
        raise InputError(f"merging thresholds must descend, such as 0.4 0.2 0.1, got {levels.tolist()}")
    return levels


def warm_up() -> None:
    """Compile, or load from numba's cache, so that the first image is as fast as the next."""
    merge_regions(np.ones((1, 2, 2), np.float32), [0.5])


@njit(cache=True, nogil=True, error_model="numpy", fastmath={"reassoc", "contract", "nsz"})
def _dot(a: np.ndarray, b: np.ndarray) -> float:
    total = 0.0
    for i in range(a.size):
        total += a[i] * b[i]
    return total


@njit(cache=True, nogil=True, error_model="numpy", fastmath={"reassoc", "contract", "nsz"})
def _add(a: np.ndarray, b: np.ndarray) -> float:
    """Add b to a in place; the squared norm of the sum."""
    total = 0.0
    for i in range(a.size):
        a[i] += b[i]
        total += a[i] * a[i]
    return total


@njit(cache=True, nogil=True, error_model="numpy")
def _transpose(features: np.ndarray) -> np.ndarray:
    """(n, C) float64 of (C, n) float32, in tiles that stay in the cache."""
    channels, n = features.shape
    out = np.empty((n, channels), np.float64)
    for i0 in range(0, n, 16):
        i1 = min(i0 + 16, n)
        for c0 in range(0, channels, 16):
            for i in range(i0, i1):
                for c in range(c0, min(c0 + 16, channels)):
                    out[i, c] = features[c, i]
    return out


@njit(cache=True, nogil=True, error_model="numpy")
def _cosine(dot: float, square_a: float, square_b: float) -> float:
    # One root of the product: exact wherever the sums are small whole numbers, so that ties stay ties.
    product = square_a * square_b
    return dot / np.sqrt(product) if product > 0.0 else 0.0


@njit(cache=True, nogil=True, error_model="numpy")
def _append(after: np.ndarray, prior: np.ndarray, head: np.ndarray, tail: np.ndarray, region: int, half: int) -> None:
    last = tail[region]
    prior[half], after[half] = last, -1
    if last >= 0:
        after[last] = half
    else:
        head[region] = half
    tail[region] = half


@njit(cache=True, nogil=True, error_model="numpy")
def _unlink(after: np.ndarray, prior: np.ndarray, head: np.ndarray, tail: np.ndarray, region: int, half: int) -> None:
    left, right = prior[half], after[half]
    if left >= 0:
        after[left] = right
    else:
        head[region] = right
    if right >= 0:
        prior[right] = left
    else:
        tail[region] = left


@njit(cache=True, nogil=True, error_model="numpy")
def _rise(heap: np.ndarray, place: np.ndarray, key: np.ndarray, seq: np.ndarray, at: int) -> int:
    """Move the edge at `at` towards the top as far as it belongs; its new position."""
    edge = heap[at]
    value, order = key[edge], seq[edge]
    while at > 0:
        up = (at - 1) >> 1
        rival = heap[up]
        if key[rival] > value or (key[rival] == value and seq[rival] < order):
            break
        heap[at] = rival
        place[rival] = at
        at = up
    heap[at] = edge
    place[edge] = at
    return at


@njit(cache=True, nogil=True, error_model="numpy")
def _sink(heap: np.ndarray, place: np.ndarray, key: np.ndarray, seq: np.ndarray, at: int, size: int) -> None:
    """Move the edge at `at` away from the top as far as it belongs."""
    edge = heap[at]
    value, order = key[edge], seq[edge]
    while True:
        down = 2 * at + 1
        if down >= size:
            break
        rival = heap[down]
        if down + 1 < size:
            second = heap[down + 1]
            if key[second] > key[rival] or (key[second] == key[rival] and seq[second] < seq[rival]):
                down, rival = down + 1, second
        if key[rival] < value or (key[rival] == value and seq[rival] > order):
            break
        heap[at] = rival
        place[rival] = at
        at = down
    heap[at] = edge
    place[edge] = at


@njit(cache=True, nogil=True, error_model="numpy")
def _remove(heap: np.ndarray, place: np.ndarray, key: np.ndarray, seq: np.ndarray, edge: int, size: int) -> int:
    """Take an edge out of the heap if it is there; the new size."""
    at = place[edge]
    if at < 0:
        return size
    place[edge] = -1
    size -= 1
    if at < size:
        heap[at] = heap[size]
        _sink(heap, place, key, seq, _rise(heap, place, key, seq, at), size)
    return size


@njit(cache=True, nogil=True, error_model="numpy")
def _number(owner: np.ndarray, labels: np.ndarray) -> None:
    """Number the regions of an owner forest by first appearance; shortens the paths on the way."""
    number = np.full(len(owner), -1, np.int32)
    regions = 0
    for i in range(len(owner)):
        root = i
        while owner[root] != root:
            root = owner[root]
        at = i
        while owner[at] != root:
            owner[at], at = root, owner[at]
        if number[root] < 0:
            number[root] = regions
            regions += 1
        labels[i] = number[root]


@njit(cache=True, nogil=True, error_model="numpy")
def _merge(features: np.ndarray, width: int, thresholds: np.ndarray) -> np.ndarray:
    """(T, n) labels of (C, n) features.

    Vector products are the cost. A product with a merged region is the sum of the two known ones where both were
    neighbours; elsewhere the similarity is replaced by an upper bound, and computed only if that comes to the top.
    """
    n = features.shape[1]
    sums = _transpose(features)
    square = np.empty(n, np.float64)
    for i in range(n):
        square[i] = _dot(sums[i], sums[i])
    lowest = thresholds[-1]

    # Edge e joins ends[e, 0] and ends[e, 1]. Each region holds a doubly linked list of its half-edges 2 e + side, in
    # the order of `seq`: the order in which a dict of pairs would be walked.
    count = 0
    capacity = 2 * n
    ends = np.empty((capacity, 2), np.int32)
    after = np.full(2 * capacity, -1, np.int32)
    prior = np.full(2 * capacity, -1, np.int32)
    head = np.full(n, -1, np.int32)
    tail = np.full(n, -1, np.int32)
    dots = np.empty(capacity, np.float64)  # dot product of the two sums, where known
    known = np.ones(capacity, np.bool_)
    key = np.empty(capacity, np.float64)  # the similarity, or where it is not known an upper bound of it
    seq = np.arange(capacity)
    for i in range(n):
        for j, there in ((i + 1, (i + 1) % width != 0), (i + width, i + width < n)):
            if not there:
                continue
            ends[count, 0], ends[count, 1] = i, j
            dots[count] = _dot(sums[i], sums[j])
            key[count] = _cosine(dots[count], square[i], square[j])
            for side in range(2):
                _append(after, prior, head, tail, ends[count, side], 2 * count + side)
            count += 1
    latest = count

    # Max-heap of edges that knows where each one stands, so that a changed similarity moves it a few steps. Edges that
    # cannot reach the lowest threshold stay out.
    heap = np.empty(capacity, np.int32)
    place = np.full(capacity, -1, np.int32)
    size = 0
    for e in range(count):
        if key[e] >= lowest:
            heap[size] = e
            place[e] = size
            size += 1
    for at in range(size // 2 - 1, -1, -1):
        _sink(heap, place, key, seq, at, size)

    owner = np.arange(n)
    mark = np.full(n, -1, np.int32)  # the edge that joins a region with the merged one
    origin = np.zeros(capacity, np.int8)  # whose neighbour it was: 0 of the region that grew, 1 of the other, 2 of both
    bound = np.empty(capacity, np.float64)
    labels = np.empty((len(thresholds), n), np.int32)
    for level in range(len(thresholds)):
        while size and key[heap[0]] >= thresholds[level]:
            e = heap[0]
            a, b = ends[e, 0], ends[e, 1]
            if not known[e]:
                dots[e] = _dot(sums[a], sums[b])
                known[e] = True
                key[e] = _cosine(dots[e], square[a], square[b])
                if key[e] >= lowest:
                    _sink(heap, place, key, seq, 0, size)
                else:
                    size = _remove(heap, place, key, seq, e, size)
                continue

            # Region b joins a.
            owner[b] = a
            _unlink(after, prior, head, tail, a, 2 * e)
            _unlink(after, prior, head, tail, b, 2 * e + 1)
            size = _remove(heap, place, key, seq, e, size)
            square_a, square_b, dot_ab = square[a], square[b], dots[e]
            square[a] = _add(sums[a], sums[b])
            grown_a = np.sqrt(square_a / square[a]) if square[a] > 0 else 0.0
            grown_b = np.sqrt(square_b / square[a]) if square[a] > 0 else 0.0
            # Cosines between the merged region and the two it is made of.
            near_a = max(-1.0, min(_cosine(square_a + dot_ab, square_a, square[a]), 1.0))
            near_b = max(-1.0, min(_cosine(square_b + dot_ab, square_b, square[a]), 1.0))
            far_a, far_b = np.sqrt(1 - near_a * near_a), np.sqrt(1 - near_b * near_b)

            half_a, half_b = head[a], head[b]
            head[a], tail[a] = -1, -1
            while half_a >= 0 or half_b >= 0:
                from_a = half_b < 0 or (half_a >= 0 and seq[half_a >> 1] < seq[half_b >> 1])
                half = half_a if from_a else half_b
                if from_a:
                    half_a = after[half_a]
                else:
                    half_b = after[half_b]
                f = half >> 1
                other = half ^ 1
                c = ends[f, other & 1]
                twin = mark[c]
                _unlink(after, prior, head, tail, c, other)
                if twin >= 0:  # neighbour of both
                    first, second = (grown_b, grown_a) if from_a else (grown_a, grown_b)
                    bound[twin] = key[twin] * first + key[f] * second
                    # Two known products add up, exactly enough while sums do not cancel.
                    if known[twin] and known[f] and dot_ab >= 0:
                        dots[twin] += dots[f]
                    else:
                        known[twin] = False
                    origin[twin] = 2
                    size = _remove(heap, place, key, seq, f, size)
                else:
                    mark[c] = f
                    origin[f] = 0 if from_a else 1
                    ends[f, half & 1] = a
                    _append(after, prior, head, tail, c, other)
                    _append(after, prior, head, tail, a, half)

            half = head[a]
            while half >= 0:
                f = half >> 1
                c = ends[f, (half ^ 1) & 1]
                mark[c] = -1
                if origin[f] == 2:
                    value = _cosine(dots[f], square[a], square[c]) if known[f] else min(bound[f] + _SLACK, 1.0)
                else:
                    # The angle to c shrinks at most by the angle that the merged region has turned.
                    known[f] = False
                    near, far = (near_a, far_a) if origin[f] == 0 else (near_b, far_b)
                    old = key[f]
                    value = old * near + np.sqrt(max(0.0, 1 - old * old)) * far + _SLACK if old < near else 1.0
                if not known[f] and (size == 0 or value >= key[heap[0]]):  # it would come up at once
                    dots[f] = _dot(sums[a], sums[c])
                    known[f] = True
                    value = _cosine(dots[f], square[a], square[c])
                key[f] = value
                seq[f] = latest
                latest += 1
                if value < lowest:
                    size = _remove(heap, place, key, seq, f, size)
                elif place[f] < 0:
                    heap[size] = f
                    _rise(heap, place, key, seq, size)
                    size += 1
                else:
                    _sink(heap, place, key, seq, _rise(heap, place, key, seq, place[f]), size)
                half = after[half]
        _number(owner, labels[level])
    return labels
