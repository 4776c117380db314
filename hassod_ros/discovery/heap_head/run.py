"""A folder of photographs in, a trained head out: features are cached, training resumes, TensorBoard shows it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from torch.utils.tensorboard import SummaryWriter
from tqdm import tqdm

from hassod_ros.discovery.features import DEFAULT, load_features
from hassod_ros.discovery.features.base import Features
from hassod_ros.discovery.heap import Heap, HeapConfig, NumpyHead
from hassod_ros.discovery.heap_head.cache import FeatureCache
from hassod_ros.discovery.heap_head.network import Head
from hassod_ros.discovery.heap_head.training import train_head
from hassod_ros.discovery.method import change
from hassod_ros.discovery.regions import on_the_border, vectors_of
from hassod_ros.discovery.states import describe, save_state
from hassod_ros.errors import InputError
from hassod_ros.images import name_images, read_image, read_size

_SHOWN = 4  # images in TensorBoard
_SIDE = 160  # pixels of each


@dataclass(frozen=True)
class HeapRequest:
    """What a head is to be trained on, and how; see `train/heap.py`."""

    images: Path
    out: Path
    features: str = DEFAULT
    weights: Path | None = None
    device: str | None = None
    precision: str | None = None
    options: Mapping[str, Any] = field(default_factory=dict)


def train_heap(request: HeapRequest) -> str:
    """Train a head, or go on with a run that was stopped; a sentence about the result.

    Images that cannot be read are named and left out.

    Raises:
        InputError: Wrong options or features, fewer than two images that can be read, or a head that has collapsed.

    """
    config: HeapConfig = change(HeapConfig(), request.options)
    method = Heap(config)
    if request.out.suffix != ".npz":
        raise InputError(f"{request.out} is to hold a state; give it the ending .npz")
    if request.out.exists():
        raise InputError(f"{request.out} exists; remove it or write to another file")
    root, names = name_images(request.images)
    features = load_features(request.features, request.weights, request.device, request.precision)
    names = _readable(root, names)
    if len(names) < 2:
        raise InputError(f"HEAP compares images and needs at least 2, {request.images} has {len(names)}; give more")
    folder = request.out.with_name(f"{request.out.stem}.run")
    first = method.sample([method.prepare(read_image(root / names[0]), features.patch_size)], features)[0]
    grid = (first.shape[1], first.shape[2])
    content = {"images": names, "features": describe(features), "size": config.size, "keep_aspect": config.keep_aspect}
    cache = FeatureCache(folder / "features.npy", content, (len(names), grid[0] * grid[1], features.dim))
    with tqdm(total=len(names), initial=cache.done, unit="image", desc="features") as bar:
        cache.fill(_vectors(method, features, root, names[cache.done :], bar))
    shown = [read_image(root / names[i]) for i in np.linspace(0, len(names) - 1, _SHOWN).astype(int)]
    device = request.device or ("cuda" if torch.cuda.is_available() else "cpu")
    with _Board(folder / "tensorboard", method, features, shown, config.head.iterations) as board:
        head = train_head(
            cache.vectors,
            on_the_border(grid).ravel(),
            config.head,
            device=device,
            checkpoint=folder / "checkpoint.pt",
            provenance=content,
            report=board.report,
        )
    state = method.state(head, cache.vectors, grid, describe(features))
    save_state(request.out, state)
    return f"{request.out}: a head of {config.head.tokens} tokens on {features.name}, from {len(names)} images"


def _readable(root: Path, names: list[str]) -> list[str]:
    """Names of images that can be opened; the others are said."""
    faults = {name: _fault(root / name) for name in names}
    for fault in filter(None, faults.values()):
        print(f"left out: {fault}", flush=True)
    return [name for name, fault in faults.items() if not fault]


def _fault(path: Path) -> str:
    try:
        read_size(path)
    except InputError as error:
        return str(error)
    return ""


def _vectors(method: Heap, features: Features, root: Path, names: list[str], bar: tqdm) -> Iterator[np.ndarray]:
    for name in names:
        (sample,) = method.sample([method.prepare(read_image(root / name), features.patch_size)], features)
        yield vectors_of(sample.astype(np.float32))
        bar.update()


class _Board:
    """A progress line, TensorBoard's curves, and pictures of foreground and regions."""

    def __init__(
        self, folder: Path, method: Heap, features: Features, images: list[np.ndarray], iterations: int
    ) -> None:
        self._writer = SummaryWriter(str(folder))
        self._method, self._images = method, images
        self._features = [features(method.prepare(image, features.patch_size)[None])[0] for image in images]
        self._bar = tqdm(total=iterations, unit="iteration", desc="head")

    def __enter__(self) -> _Board:
        return self

    def __exit__(self, *_: object) -> None:
        self._bar.close()
        self._writer.close()

    def report(self, iteration: int, means: dict[str, float], head: Head) -> None:
        """Show the state of the training after `iteration` iterations."""
        for name, value in means.items():
            self._writer.add_scalar(f"train/{name}", value, iteration)
        self._bar.update(iteration - self._bar.n)
        self._bar.set_postfix({name: f"{means[name]:.3f}" for name in ("loss", "groups", "foreground")})
        arrays = {f"head.{name}": value.detach().cpu().numpy() for name, value in head.state_dict().items()}
        runner = NumpyHead(arrays, self._method.config.head)
        rows = [self._drawn(image, values, runner) for image, values in zip(self._images, self._features, strict=True)]
        self._writer.add_image("foreground and regions", np.concatenate(rows), iteration, dataformats="HWC")

    def _drawn(self, image: np.ndarray, values: np.ndarray, runner: NumpyHead) -> np.ndarray:
        """(160, 480, 3) uint8: the image, its foreground, its regions."""
        found = self._method.regions(values, runner, np.zeros((0, values.shape[0]), np.float32))
        size = (_SIDE, _SIDE)
        map_ = cv2.resize(found.foreground, size, interpolation=cv2.INTER_LINEAR)
        colours = cv2.applyColorMap(
            (255 * found.labels / max(int(found.labels.max()), 1)).astype(np.uint8), cv2.COLORMAP_TURBO
        )
        regions = cv2.resize(colours, size, interpolation=cv2.INTER_NEAREST)[..., ::-1]
        grey = np.repeat((255 * map_).astype(np.uint8)[..., None], 3, axis=2)
        return np.concatenate([cv2.resize(image, size, interpolation=cv2.INTER_AREA), grey, regions], axis=1)
