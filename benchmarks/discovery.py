"""Times the first stage after the features against a plain transcription of the published algorithm.

Both work on the same images and the same synthetic features in one run: `python benchmarks/discovery.py`. The plain
version scans a dict of pairs for each merge, runs pydensecrf once per threshold, and filters, fills, encodes and
compares masks one by one at full size, as the published code does. `benchmarks/features.py` times the features.

Times are means over the images; each stage of ours is run three times and the fastest counts, the plain version runs
once. The last rows give the CPU time of all threads together, which other work on the machine disturbs less.
"""

from __future__ import annotations

import argparse
import math
import os
import platform
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field, replace
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import cv2
import numba
import numpy as np

from hassod_ros.coco import to_coco
from hassod_ros.discovery.clustering import merge_regions
from hassod_ros.discovery.crf import refine_label_maps
from hassod_ros.discovery.filters import Masks, select_masks
from hassod_ros.discovery.hassod import HassodConfig, discover_from_features, resize, working_size
from hassod_ros.errors import InputError
from hassod_ros.hierarchy import coverage_forest
from hassod_ros.images import list_images, read_image
from hassod_ros.instances import Instances

PAPER = HassodConfig()
EARLY = replace(PAPER, crf=replace(PAPER.crf, stop_at=1e-4) if PAPER.crf else None)
BUNDLED = ("astronaut", "coffee", "chelsea", "rocket")  # photographs inside scikit-image's wheel
REPEATS = 3


def main(arguments: list[str] | None = None) -> int:
    """Run what was asked for and print the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=Path, help="folder of photographs; default: scikit-image's own")
    parser.add_argument("--limit", type=int, default=4, help="how many of them (default: %(default)s)")
    parser.add_argument("--dims", type=int, nargs="+", default=[64, 768], help="feature sizes (default: %(default)s)")
    parser.add_argument("--threads", type=int, default=min(2, os.cpu_count() or 1), help="default: %(default)s")
    parser.add_argument("--skip-plain", action="store_true", help="time only ours")
    options = parser.parse_args(arguments)
    try:
        images = photographs(options.images, options.limit)
    except InputError as error:
        print(error, file=sys.stderr)
        return 2
    numba.set_num_threads(options.threads)
    cv2.setNumThreads(options.threads)
    sizes = ", ".join(f"{image.shape[1]}x{image.shape[0]}" for image in images)
    print(
        f"{len(images)} photographs ({sizes}); {options.threads} threads; {platform.machine()}, {os.cpu_count()} cores"
    )
    for dims in options.dims:
        cases = [(image, synthetic_features(image, dims, 60)) for image in images]
        compare(cases, dims, options.threads, skip_plain=options.skip_plain)
    growth(images, options.dims)
    workers(images, options.dims[0])
    return 0


def photographs(folder: Path | None, limit: int) -> list[np.ndarray]:
    """The first images of a folder, or scikit-image's."""
    if folder is not None:
        return [read_image(path) for path in list_images(folder)[:limit]]
    import skimage.data

    return [getattr(skimage.data, name)() for name in BUNDLED[:limit]]


def synthetic_features(image: np.ndarray, dims: int, grid: int) -> np.ndarray:
    """Stand-ins for ViT keys: (dims, grid, grid) float32 of each patch's colour, texture and place.

    Random Fourier features: their cosine is a Gaussian kernel of the patches' descriptions. Norms vary from 2 to 3 and
    a little noise is added, as in real keys, so that there are no ties.
    """
    rng = np.random.default_rng(0)
    lab = cv2.cvtColor(cv2.resize(image, (8 * grid, 8 * grid), interpolation=cv2.INTER_AREA), cv2.COLOR_RGB2LAB)
    patches = lab.reshape(grid, 8, grid, 8, 3).transpose(0, 2, 1, 3, 4).reshape(grid * grid, 64, 3).astype(np.float32)
    place = np.argwhere(np.ones((grid, grid))) / grid
    described = np.concatenate([patches.mean(1) / 43, patches.std(1) / 29, place * 1.05], axis=1)
    waves = described @ rng.normal(size=(described.shape[1], dims // 2))
    features = np.concatenate([np.cos(waves), np.sin(waves)], axis=1) * (2 / dims) ** 0.5
    features += rng.normal(size=features.shape) * 0.1 / dims**0.5
    features *= rng.uniform(2, 3, (len(features), 1)) / np.linalg.norm(features, axis=1, keepdims=True)
    return np.ascontiguousarray(features.T.reshape(dims, grid, grid), np.float32)


# --- ours against the plain version --------------------------------------------------------------------------------


@dataclass
class Clock:
    """Seconds by stage: by the clock on the wall and of CPU time."""

    wall: dict[str, float] = field(default_factory=dict)
    cpu: dict[str, float] = field(default_factory=dict)

    def __call__(self, stage: str, work: Callable[..., Any], *arguments: Any, repeats: int = 1) -> Any:
        """Do the work and add its (fastest) time to the stage."""
        wall = cpu = math.inf
        for _ in range(repeats):
            start, start_cpu = time.perf_counter(), time.process_time()
            result = work(*arguments)
            wall = min(wall, time.perf_counter() - start)
            cpu = min(cpu, time.process_time() - start_cpu)
        self.wall[stage] = self.wall.get(stage, 0.0) + wall
        self.cpu[stage] = self.cpu.get(stage, 0.0) + cpu
        return result


def total(seconds: dict[str, float], stages: tuple[str, ...]) -> float:
    """Seconds of some stages, or of all if none is named."""
    return sum(value for stage, value in seconds.items() if not stages or stage in stages)


def compare(cases: list[tuple[np.ndarray, np.ndarray]], dims: int, threads: int, *, skip_plain: bool) -> None:
    """Print the stages of both versions, and how far their masks agree."""
    ours, early, plain = Clock(), Clock(), Clock()
    discover_from_features(*cases[0])  # compiles
    counts, agreeing, alike = [], 0, []
    for image, features in cases:
        label_maps, found = staged(image, features, PAPER, ours)
        _, sooner = staged(image, features, EARLY, early)
        counts.append([int(labels.max()) + 1 for labels in label_maps])
        if skip_plain:
            continue
        plain_maps, masks = plain_discover(image, features, list(PAPER.thresholds), threads, plain)
        agreeing += sum(np.array_equal(a, b) for a, b in zip(label_maps, plain_maps, strict=True))
        alike.append((overlap(masks, found), overlap(masks, sooner), len(masks), len(found), len(sooner)))

    print(f"\n{dims} dims, 60x60 patches; regions per threshold: {counts}")
    rows: list[tuple[str, tuple[str, ...], tuple[str, ...]]] = [
        ("clustering", ("clustering",), ("clustering",)),
        ("interpolation and CRF", ("interpolation", "crf"), ("crf",)),
        ("overlap filter, resize, fill holes", ("overlap filter", "resize", "fill holes"), ("filters",)),
        ("RLE", ("rle",), ("rle",)),
        ("forest", ("forest",), ("forest",)),
        ("whole path after features", (), ()),
    ]
    n = len(cases)
    print(f"{'ms per image':36}{'plain':>10}{'ours':>10}{'ratio':>8}{'stopping at 1e-4':>18}{'ratio':>8}")
    for name, theirs, mine in rows:
        print_row(name, *(total(c.wall, s) / n for c, s in ((plain, theirs), (ours, mine), (early, mine))))
    for name, theirs, mine in (rows[0], rows[-1]):
        print_row(f"{name}, CPU", *(total(c.cpu, s) / n for c, s in ((plain, theirs), (ours, mine), (early, mine))))
    if not skip_plain:
        print(f"equal label maps: {agreeing} of {3 * n} (the plain version sums in float32, ours in float64)")
        for k, name in ((0, "exact"), (1, "stopping at 1e-4")):
            share = np.concatenate([one[k] for one in alike])
            extra = sum(one[3 + k] for one in alike) - sum(one[2] for one in alike)
            print(
                f"{name}: best IoU of the {len(share)} plain masks: mean {share.mean():.4f}, "
                f"{(share >= 0.99).mean():.1%} at 0.99 or more; {extra:+d} masks"
            )


def print_row(name: str, plain: float, ours: float, early: float) -> None:
    """One stage; seconds in, milliseconds out."""
    print(
        f"{name:36}{plain * 1e3:10.1f}{ours * 1e3:10.1f}{plain / ours:7.1f}x{early * 1e3:18.1f}{plain / early:7.1f}x",
        flush=True,
    )


def staged(image: np.ndarray, features: np.ndarray, config: HassodConfig, clock: Clock) -> tuple[np.ndarray, Instances]:
    """`discover_from_features` and its RLE, stage by stage."""
    size = (image.shape[0], image.shape[1])
    label_maps = clock("clustering", merge_regions, features, config.thresholds, repeats=REPEATS)
    refined = clock("crf", refined_maps, image, label_maps, config, repeats=REPEATS)
    masks = clock("filters", filtered, label_maps, refined, size, config, repeats=REPEATS)
    parents, levels = clock("forest", coverage_forest, masks.regions, masks.crops, repeats=REPEATS)
    found = Instances(image_size=size, boxes=masks.regions, masks=masks.crops, levels=levels, parents=parents)
    clock("rle", to_coco, found, 1, repeats=REPEATS)
    return label_maps, found


def refined_maps(image: np.ndarray, label_maps: np.ndarray, config: HassodConfig) -> list[np.ndarray]:
    """Resize the image and run the CRF of all thresholds."""
    assert config.crf is not None
    return refine_label_maps(resize(image, working_size(image.shape[:2], config)), label_maps, config.crf)


def filtered(label_maps: np.ndarray, refined: list[np.ndarray], size: tuple[int, int], config: HassodConfig) -> Masks:
    """All thresholds' masks."""
    pairs = zip(label_maps, refined, strict=True)
    return Masks.concatenate([select_masks(*pair, size, config.filters) for pair in pairs])


def overlap(masks: np.ndarray, found: Instances) -> np.ndarray:
    """For each of the (N, H, W) masks the IoU with the instance that fits it best."""
    from pycocotools import mask as rle

    codes = [rle.encode(np.asfortranarray(mask, np.uint8)) for mask in masks]
    ours = [rle.encode(np.asfortranarray(mask, np.uint8)) for mask in found.dense()]
    if not codes or not ours:
        return np.zeros(len(codes))
    return rle.iou(codes, ours, [0] * len(ours)).max(axis=1)


# --- the published algorithm, plainly ------------------------------------------------------------------------------


def plain_discover(
    image: np.ndarray, features: np.ndarray, thresholds: list[float], threads: int, clock: Clock
) -> tuple[np.ndarray, np.ndarray]:
    """Label maps (T, h, w) and masks (N, H, W) the published way."""
    import torch
    from scipy import ndimage

    torch.set_num_threads(threads)
    height, width = image.shape[:2]
    label_maps = clock("clustering", plain_merge, features, thresholds)
    small = np.array(resize(image, (480, 480)))
    masks = []
    for labels in label_maps:
        one_hot = (labels == np.arange(labels.max() + 1)[:, None, None]).astype(np.float32)
        before = clock("interpolation", interpolated, one_hot, (480, 480))
        after = clock("crf", plain_crf, small, before)
        kept = clock("overlap filter", plain_overlap, before, after)
        resized = clock("resize", interpolated, after[kept >= 0.5], (height, width)) >= 0.5
        for mask in resized:
            corners = int(mask[0, 0]) + int(mask[0, -1]) + int(mask[-1, 0]) + int(mask[-1, -1])
            if mask.sum() >= 100 and corners < 3:
                masks.append(clock("fill holes", ndimage.binary_fill_holes, mask))
    clock("rle", plain_rles, masks)
    clock("forest", plain_forest, masks)
    return label_maps, np.array(masks, bool).reshape(-1, height, width)


def plain_merge(features: np.ndarray, thresholds: list[float]) -> np.ndarray:
    """Greedy merging by scanning a dict of all pairs."""
    import torch
    from torch.nn.functional import normalize

    maps = torch.from_numpy(features)
    _, h, w = features.shape

    def region(total: torch.Tensor, pixels: list[int]) -> dict[str, Any]:
        return {"total": total, "pixels": pixels, "mean": normalize(total / len(pixels), dim=0)}

    def similarity(i: int, j: int) -> float:
        return (regions[i]["mean"] * regions[j]["mean"]).sum().item()

    regions = [region(maps[:, i // w, i % w], [i]) for i in range(h * w)]
    pairs: dict[tuple[int, int], float] = {}
    for i in range(h * w):
        if (i + 1) % w:
            pairs[i, i + 1] = similarity(i, i + 1)
        if i + w < h * w:
            pairs[i, i + w] = similarity(i, i + w)
    alive = set(range(h * w))
    result = []
    for threshold in thresholds:
        while pairs:
            best = max(pairs, key=pairs.__getitem__)
            if pairs[best] < threshold:
                break
            i, j = best
            new = len(regions)
            regions.append(
                region(regions[i]["total"] + regions[j]["total"], regions[i]["pixels"] + regions[j]["pixels"])
            )
            alive -= {i, j}
            alive.add(new)
            touched = [pair for pair in pairs if pair[0] == i or pair[1] == i or pair[0] == j or pair[1] == j]
            for pair in touched:
                del pairs[pair]
            for pair in touched:
                if pair != best:
                    other = pair[1] if pair[0] in best else pair[0]
                    pairs[other, new] = similarity(other, new)
        labels = np.empty(h * w, np.int32)
        for number, root in enumerate(sorted(alive, key=lambda root: min(regions[root]["pixels"]))):
            labels[regions[root]["pixels"]] = number
        result.append(labels.reshape(h, w))
    return np.stack(result)


def interpolated(maps: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """(R, H, W) float32, bilinear."""
    import torch

    if not len(maps):
        return np.zeros((0, *size), np.float32)
    return torch.nn.functional.interpolate(torch.from_numpy(maps)[None], size=size, mode="bilinear")[0].numpy()


def plain_crf(image: np.ndarray, maps: np.ndarray) -> np.ndarray:
    """The original code with the paper's constants on one threshold's regions."""
    from pydensecrf.densecrf import DenseCRF2D
    from pydensecrf.utils import unary_from_softmax

    crf = DenseCRF2D(maps.shape[2], maps.shape[1], len(maps))
    crf.setUnaryEnergy(np.ascontiguousarray(unary_from_softmax(maps)))
    crf.addPairwiseGaussian(sxy=3, compat=7)
    crf.addPairwiseBilateral(sxy=50, srgb=5, rgbim=image, compat=10)
    return np.array(crf.inference(10), np.float32).reshape(maps.shape)


def plain_overlap(before: np.ndarray, after: np.ndarray) -> np.ndarray:
    """IoU of each region before and after."""
    first, second = before >= 0.5, after >= 0.5
    union = np.logical_or(first, second).sum(axis=(1, 2))
    return np.logical_and(first, second).sum(axis=(1, 2)) / np.maximum(union, 1)


def plain_rles(masks: list[np.ndarray]) -> list[tuple[Any, Any, Any]]:
    """Areas, boxes and codes; the published code encodes each mask twice."""
    from pycocotools import mask as rle

    result = []
    for mask in masks:
        code = rle.encode(np.asfortranarray(mask.astype(np.uint8)))
        result.append((rle.area(code), rle.toBbox(code), rle.encode(np.asfortranarray(mask[..., None], np.uint8))))
    return result


def plain_forest(masks: list[np.ndarray]) -> list[int]:
    """Levels from the intersections of all pairs of full-size masks."""
    areas = [mask.sum() for mask in masks]
    parents = []
    for child, a in enumerate(masks):
        candidates = []
        for parent, b in enumerate(masks):
            common = np.logical_and(a, b).sum()
            if child != parent and common / areas[child] >= 0.9 and common / areas[parent] < 0.9:
                candidates.append(parent)
        parents.append(min(candidates, key=lambda parent: areas[parent], default=-1))

    def depth(i: int) -> int:
        return 0 if parents[i] < 0 else 1 + depth(parents[i])

    return [min(depth(i), 2) for i in range(len(masks))]


# --- growth and workers --------------------------------------------------------------------------------------------


def growth(images: list[np.ndarray], dims: list[int]) -> None:
    """Print how clustering grows with the number of patches.

    It exceeds n log n where a large background grows: each of its merges touches all its neighbours.
    """
    print("\nclustering, CPU ms per image  60x60   120x120   growth   (n log n: 4.7x, n^2: 16x)")
    for size in dims:
        times = []
        for grid in (60, 120):
            clock = Clock()
            for image in images:
                features = synthetic_features(image, size, grid)
                clock("clustering", merge_regions, features, PAPER.thresholds, repeats=REPEATS)
            times.append(clock.cpu["clustering"] / len(images) * 1e3)
        print(f"{size:5} dims {times[0]:24.1f}{times[1]:10.1f}{times[1] / times[0]:8.1f}x")


def workers(images: list[np.ndarray], dims: int) -> None:
    """Print images per second of one and two worker processes of one thread each, and the memory of a worker."""
    print(f"\nworkers of one thread, {dims} dims, features given   images/s   peak MB a worker")
    rates = []
    for count in (1, 2):
        with ProcessPoolExecutor(count, mp_context=get_context("spawn")) as pool:
            # One slow first task for each, so that every process has compiled before the clock starts.
            for future in [pool.submit(work, images[0], dims, 2.0) for _ in range(count)]:
                future.result()
            start = time.perf_counter()
            jobs = [pool.submit(work, image, dims, 0.0) for image in each(images, 4 * count)]
            peaks = [job.result() for job in jobs]
            rates.append(len(jobs) / (time.perf_counter() - start))
        print(f"{count:<48}{rates[-1]:9.2f}{max(peaks):19.0f}")
    print(f"growth from 1 to 2 workers: {rates[1] / rates[0]:.2f}x")


def each(images: list[np.ndarray], times: int) -> Iterator[np.ndarray]:
    """The images, one after the other, so many times."""
    for _ in range(times):
        yield from images


def work(image: np.ndarray, dims: int, at_least: float) -> float:
    """What a labelling worker does with one image; the process's peak memory so far in MB."""
    start = time.perf_counter()
    numba.set_num_threads(1)
    cv2.setNumThreads(1)
    to_coco(discover_from_features(image, synthetic_features(image, dims, 60)), 1)
    time.sleep(max(0.0, at_least - (time.perf_counter() - start)))
    # VmHWM, not getrusage: that one starts from the parent's peak.
    status = Path("/proc/self/status").read_text(encoding="ascii")
    return int(status.partition("VmHWM:")[2].split()[0]) / 1024


if __name__ == "__main__":
    sys.exit(main())
