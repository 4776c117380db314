"""Classical proposals to compare with: one box, Felzenszwalb's graphs, merge trees. Nothing is learned.

scikit-image does the segmentation (`pip install 'hassod_ros[dev]'`). The order of the proposals was chosen on
development images: coarse before fine.
"""

from __future__ import annotations

import heapq
from collections.abc import Sequence

import numpy as np
from skimage.color import rgb2lab
from skimage.segmentation import felzenszwalb, slic

from hassod_ros.hierarchy import coverage_forest
from hassod_ros.instances import Instances
from hassod_ros.masks import without_duplicates

_SAME = 0.9  # IoU above which the later of two proposals is dropped


def whole_image(image: np.ndarray) -> Instances:
    """One proposal that covers the whole (H, W, 3) image."""
    height, width = image.shape[:2]
    return Instances(
        image_size=(height, width),
        boxes=np.array([[0, 0, width, height]], np.float32),
        masks=[np.ones((height, width), np.uint8)],
    )


def felzenszwalb_proposals(
    image: np.ndarray, *, scales: Sequence[float] = (1000, 300, 100), limit: int = 1000
) -> Instances:
    """Regions of Felzenszwalb and Huttenlocher's graph segmentation (IJCV 2004) at several scales, coarse first.

    Args:
        image: (H, W, 3) uint8 RGB.
        scales: Observation scales, from coarse to fine; within one the larger region comes first.
        limit: Most proposals.

    """
    regions, masks = [], []
    for scale in scales:
        labels = felzenszwalb(image, scale=scale, sigma=0.8, min_size=max(20, int(scale) // 2))
        boxes = _boxes(labels)
        order = np.argsort(-np.bincount(labels.ravel()), kind="stable")
        for label in order:
            x0, y0, x1, y1 = boxes[label]
            regions.append(boxes[label])
            masks.append((labels[y0:y1, x0:x1] == label).astype(np.uint8))
    return _ranked(image.shape[:2], regions, masks, limit)


def slic_merging(image: np.ndarray, *, superpixels: int = 300, limit: int = 1000) -> Instances:
    """All regions of a binary merge tree over SLIC superpixels (Achanta et al., PAMI 2012), last merged first.

    Args:
        image: (H, W, 3) uint8 RGB.
        superpixels: How many to start from.
        limit: Most proposals.

    """
    labels = slic(image, n_segments=superpixels, compactness=10, sigma=1, start_label=0)
    return _merge_tree(image, labels, limit)


def felzenszwalb_merging(image: np.ndarray, *, scale: float = 100, limit: int = 1000) -> Instances:
    """All regions of a binary merge tree over one of Felzenszwalb's segmentations, last merged first.

    Args:
        image: (H, W, 3) uint8 RGB.
        scale: Observation scale of the segmentation to start from.
        limit: Most proposals.

    """
    return _merge_tree(image, felzenszwalb(image, scale=scale, sigma=0.8, min_size=50), limit)


def _merge_tree(image: np.ndarray, labels: np.ndarray, limit: int) -> Instances:
    """Merge neighbours by Ward's criterion on mean Lab colour until one region is left; every region is a proposal.

    The criterion is the squared distance of the means, weighted by n m / (n + m) for sizes n and m, so that small
    regions go first.
    """
    sizes = np.bincount(labels.ravel()).astype(np.float64)
    lab = rgb2lab(image).reshape(-1, 3)
    colors = np.stack([np.bincount(labels.ravel(), lab[:, c]) for c in range(3)], axis=1) / sizes[:, None]
    pairs = _merge_order(labels, colors, sizes)

    n = len(sizes)
    member = np.zeros((n + len(pairs), n), np.uint8)  # which labels a node of the tree is made of
    member[:n] = np.eye(n, dtype=np.uint8)
    boxes = np.concatenate([_boxes(labels), np.zeros((len(pairs), 4), np.int64)])
    for node, (first, second) in enumerate(pairs, start=n):
        member[node] = member[first] | member[second]
        boxes[node] = *np.minimum(boxes[first, :2], boxes[second, :2]), *np.maximum(boxes[first, 2:], boxes[second, 2:])
    nodes = range(len(member) - 1, -1, -1)
    regions = [boxes[node] for node in nodes]
    masks = [member[node][labels[y0:y1, x0:x1]] for node in nodes for x0, y0, x1, y1 in [boxes[node]]]
    return _ranked(image.shape[:2], regions, masks, limit)


def _merge_order(labels: np.ndarray, colors: np.ndarray, sizes: np.ndarray) -> list[tuple[int, int]]:
    """Pairs of nodes in the order in which they merge; the k-th pair makes node n + k."""
    edges = np.concatenate(
        [
            np.stack([labels[:, :-1].ravel(), labels[:, 1:].ravel()], axis=1),
            np.stack([labels[:-1].ravel(), labels[1:].ravel()], axis=1),
        ]
    )
    edges = np.unique(np.sort(edges[edges[:, 0] != edges[:, 1]], axis=1), axis=0)
    mean, size = dict(enumerate(colors)), dict(enumerate(sizes.tolist()))
    neighbours: dict[int, set[int]] = {node: set() for node in mean}
    heap: list[tuple[float, int, int]] = []

    def connect(a: int, b: int) -> None:
        neighbours[a].add(b)
        neighbours[b].add(a)
        distance = float(((mean[a] - mean[b]) ** 2).sum()) * size[a] * size[b] / (size[a] + size[b])
        heapq.heappush(heap, (distance, a, b))

    for a, b in edges.tolist():
        connect(a, b)
    pairs: list[tuple[int, int]] = []
    while heap:
        _, a, b = heapq.heappop(heap)
        if a not in neighbours or b not in neighbours:
            continue  # one of the two is part of a larger node by now
        node = len(colors) + len(pairs)
        pairs.append((a, b))
        size[node] = size[a] + size[b]
        mean[node] = (mean[a] * size[a] + mean[b] * size[b]) / size[node]
        around = (neighbours.pop(a) | neighbours.pop(b)) - {a, b}
        neighbours[node] = set()
        for other in around:
            neighbours[other] -= {a, b}
            connect(other, node)
    return pairs


def _boxes(labels: np.ndarray) -> np.ndarray:
    """(N, 4) int64 extents x0 y0 x1 y1 of the labels 0 ... N - 1, all of which occur."""
    n = int(labels.max()) + 1
    boxes = np.zeros((n, 4), np.int64)
    for axis, column in ((1, 0), (0, 1)):
        # The first and the last place of a label along an axis, by sorting (label, place) pairs once.
        places = np.broadcast_to(
            np.arange(labels.shape[axis]) if axis else np.arange(labels.shape[0])[:, None], labels.shape
        )
        low, high = np.full(n, labels.shape[axis]), np.zeros(n, np.int64)
        np.minimum.at(low, labels, places)
        np.maximum.at(high, labels, places)
        boxes[:, column], boxes[:, column + 2] = low, high + 1
    return boxes


def _ranked(size: tuple[int, ...], regions: Sequence[np.ndarray], masks: Sequence[np.ndarray], limit: int) -> Instances:
    """Proposals in the given order without near copies; scores fall evenly, levels and parents follow from coverage."""
    height, width = size
    keep = without_duplicates(np.array(regions, np.int64).reshape(-1, 4), masks, _SAME)[:limit]
    chosen = np.array([regions[i] for i in keep], np.int64)
    kept = [masks[i] for i in keep]
    parents, levels = coverage_forest(chosen, kept)
    return Instances(
        image_size=(height, width),
        boxes=chosen.astype(np.float32),
        masks=kept,
        scores=1 - np.arange(len(keep), dtype=np.float32) / len(keep),
        levels=levels,
        parents=parents,
    )
