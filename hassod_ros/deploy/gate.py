"""Is a new model at least as good as the running one? Asked without labels, on frames that neither has learned from.

A segmentation that means something stays the same from one frame to the next (masks are carried along by optical flow)
and in the mirror; both order models as labelled sets do, see docs/retraining.md. Because few huge masks would be
consistent too, numbers of instances and covered area may not run away, and what the running model is sure of must be
found again on pictures of the old domain, nearly as often as it finds that again itself in the mirror.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import cv2
import numpy as np

from hassod_ros.errors import InputError
from hassod_ros.files import sha256
from hassod_ros.footage.select import measure
from hassod_ros.images import list_images, read_image
from hassod_ros.instances import Instances
from hassod_ros.runtime.model_names import resolve_model
from hassod_ros.runtime.segmenter import ImageSegmenter, open_segmenter

_WIDTH = 320  # px, about, at which masks are compared
_SAME_VIEW = 0.5  # correlation of thumbnails from which two frames show the same
_FOUND = 0.5  # IoU from which a mask is found again
_PROGRESS = 10.0  # s between two lines

Say = Callable[[str], object]
T = TypeVar("T")


@dataclass(frozen=True)
class GateConfig:
    """How far a candidate may be worse."""

    consistency: float = 0.01  # greatest loss of temporal and of mirrored consistency
    least: float = 0.5  # least ratio of instances and of covered area to the running model's
    most: float = 2.0  # greatest ratio
    recall: float = 0.9  # least share of its confident masks found again, relative to what it finds again in the mirror
    confident: float = (
        0.6  # score from which a mask of the running model is confident, relative to its best of the frame
    )
    latency: float = 1.1  # greatest ratio of times
    frames: int = 60  # most frames; evenly spread pairs where there are more
    replay: int = 40  # most pictures of the old domain


@dataclass(frozen=True)
class Check:
    """One question: a figure, its limits, and whether it lies within."""

    name: str
    running: float | None
    candidate: float | None
    passed: bool
    sentence: str


@dataclass
class Frames:
    """What one model finds on the frames, by their index."""

    instances: list[Instances] = field(default_factory=list)
    reflected: list[Instances] = field(default_factory=list)  # in the mirror, as it shows them
    mirrored: list[float] = field(default_factory=list)
    temporal: dict[int, float] = field(default_factory=dict)  # by the index of the later frame
    seconds: list[float] = field(default_factory=list)
    precision: str = ""  # of the model, where its file says so

    def score(self, index: int) -> float:
        """Consistency of one frame."""
        values = [self.mirrored[index], *([self.temporal[index]] if index in self.temporal else [])]
        return float(np.mean(values))


@dataclass(frozen=True)
class Verdict:
    """What the gate found.

    Attributes:
        accepted: Whether the candidate may take the running model's place.
        checks: All questions.
        paths: The frames.
        running: What the running model finds on them.
        candidate: What the candidate finds.
        facts: Fingerprints of models, numbers of frames, limits.

    """

    accepted: bool
    checks: tuple[Check, ...]
    paths: tuple[Path, ...]
    running: Frames
    candidate: Frames
    facts: dict[str, Any]

    @property
    def reason(self) -> str:
        """The failed questions in a sentence; "" where all are passed."""
        return "; ".join(check.sentence for check in self.checks if not check.passed)

    def to_json(self) -> dict[str, Any]:
        """Figures without pictures."""
        return {
            "accepted": self.accepted,
            "reason": self.reason,
            "checks": [asdict(check) for check in self.checks],
            "facts": self.facts,
        }


def judge(
    running: str | Path,
    candidate: str | Path,
    frames: Path,
    *,
    replay: Path | None = None,
    config: GateConfig | None = None,
    backend: str = "auto",
    say: Say = print,
) -> Verdict:
    """Compare two models.

    Args:
        running: Model file or name.
        candidate: Model file or name.
        frames: Folder of images in their order in time, one folder below for each camera; not trained on.
        replay: Pictures of the old domain for the recall of what the running model is sure of; default: `frames`.
        config: Limits.
        backend: See `open_backend`.
        say: Gets progress.

    Raises:
        InputError: A model cannot be loaded, or there are no frames, or the running model finds nothing on them.

    """
    config = config or GateConfig()
    files = {name: Path(resolve_model(str(path))) for name, path in (("running", running), ("candidate", candidate))}
    paths = pick(list_images(frames), config.frames)
    old = evenly(list_images(replay), config.replay) if replay else []
    models = {name: open_segmenter(path, backend) for name, path in files.items()}
    try:
        for model in models.values():
            model.warm_up()
        found, pairs = look(paths, models, say)
        again = look(old, models, say, "pictures of the old domain")[0] if old else found
        for name, model in models.items():
            found[name].precision = model.info.precision if model.info else ""
    finally:
        for model in models.values():
            model.close()
    checks = compare(found["running"], found["candidate"], again["running"], again["candidate"], config)
    facts = {
        **{f"{name}_sha256": sha256(path) for name, path in files.items()},
        "frames": len(paths),
        "pairs": pairs,
        "pictures_of_recall": len(again["running"].instances),
        "limits": asdict(config),
    }
    accepted = all(check.passed for check in checks)
    return Verdict(accepted, checks, tuple(paths), found["running"], found["candidate"], facts)


def pick(paths: Sequence[Path], count: int) -> list[Path]:
    """At most `count` paths: pairs of neighbours, evenly spread."""
    if len(paths) <= count:
        return list(paths)
    pairs = max(1, count // 2)
    starts = np.linspace(0, len(paths) - 2, pairs).round().astype(int)
    return [paths[i] for i in sorted({int(index) for start in starts for index in (start, start + 1)})]


def evenly(items: Sequence[T], count: int) -> list[T]:
    """At most `count` of them, evenly spread."""
    places = np.linspace(0, len(items) - 1, min(count, len(items))).round().astype(int)
    return [items[i] for i in np.unique(places).tolist()]


def look(
    paths: Sequence[Path], models: Mapping[str, ImageSegmenter], say: Say = print, what: str = "frames of the gate"
) -> tuple[dict[str, Frames], int]:
    """What each model finds on frames in their order, how consistently, and how many pairs of neighbours there are."""
    found = {name: Frames() for name in models}
    before: tuple[Path, np.ndarray, np.ndarray] | None = None  # path, small grey picture, signature
    last = {name: np.zeros((0, 1, 1), bool) for name in models}
    pairs = 0
    for index, (path, image) in enumerate(_progress(paths, what, say)):
        shape = small_shape(image.shape[:2])
        grey = cv2.resize(cv2.cvtColor(image, cv2.COLOR_RGB2GRAY), shape[::-1], interpolation=cv2.INTER_AREA)
        signature = measure(image).signature
        paired = before is not None and before[0].parent == path.parent and before[1].shape == grey.shape
        paired = paired and float(signature @ before[2]) > _SAME_VIEW  # type: ignore[index]
        flow = _flow(grey, before[1]) if paired else None  # type: ignore[index]
        pairs += paired
        for name, model in models.items():
            rows = found[name]
            start = time.perf_counter()
            instances = model(image)
            rows.seconds.append(time.perf_counter() - start)
            masks = small_masks(instances, shape)
            reflected = model(np.ascontiguousarray(image[:, ::-1]))
            rows.instances.append(instances)
            rows.reflected.append(reflected)
            rows.mirrored.append(agreement(masks, small_masks(reflected, shape)[:, :, ::-1]))
            if flow is not None:
                rows.temporal[index] = agreement(last[name][:, flow[1], flow[0]], masks)
            last[name] = masks
        before = path, grey, signature
    return found, pairs


def agreement(first: np.ndarray, second: np.ndarray) -> float:
    """Mean over the masks of both of the best IoU with a mask of the other, 0..1; 0 where only one has any.

    Args:
        first: (N, H, W) bool.
        second: (M, H, W) bool.

    """
    if not len(first) or not len(second):
        return float(len(first) == len(second))
    iou = overlaps(first, second)
    return float((iou.max(axis=1).sum() + iou.max(axis=0).sum()) / sum(iou.shape))


def overlaps(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """(N, M) of (N, H, W) and (M, H, W) bool."""
    a, b = (masks.reshape(len(masks), -1).astype(np.float32) for masks in (first, second))
    common = a @ b.T
    return common / np.maximum(a.sum(axis=1)[:, None] + b.sum(axis=1)[None] - common, 1)


def small_shape(size: tuple[int, int]) -> tuple[int, int]:
    """(h, w) at which masks of pictures of (H, W) are compared."""
    scale = min(1.0, _WIDTH / size[1])
    return max(1, round(size[0] * scale)), max(1, round(size[1] * scale))


def small_masks(instances: Instances, shape: tuple[int, int]) -> np.ndarray:
    """(N, h, w) bool at the size of the comparison: the pixels nearest to its."""
    height, width = instances.image_size
    rows = ((np.arange(shape[0]) + 0.5) * height / shape[0]).astype(int)
    columns = ((np.arange(shape[1]) + 0.5) * width / shape[1]).astype(int)
    small = np.zeros((len(instances), *shape), bool)
    for target, mask, (x0, y0, x1, y1) in zip(small, instances.masks, instances.regions.tolist(), strict=True):
        i0, i1 = np.searchsorted(rows, (y0, y1))
        j0, j1 = np.searchsorted(columns, (x0, x1))
        target[i0:i1, j0:j1] = mask.view(bool)[np.ix_(rows[i0:i1] - y0, columns[j0:j1] - x0)]
    return small


def _flow(grey: np.ndarray, before: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Column and row in the frame before of each pixel, (h, w) int."""
    estimator = cv2.DISOpticalFlow_create(cv2.DISOPTICAL_FLOW_PRESET_FAST)  # type: ignore[attr-defined]
    moved = estimator.calc(grey, before, None)
    rows, columns = np.mgrid[: grey.shape[0], : grey.shape[1]]
    return (
        np.clip(np.round(columns + moved[..., 0]), 0, grey.shape[1] - 1).astype(int),
        np.clip(np.round(rows + moved[..., 1]), 0, grey.shape[0] - 1).astype(int),
    )


def recall(
    running: Sequence[Instances], other: Sequence[Instances], confident: float, *, reflected: bool = False
) -> tuple[float, int]:
    """Share of the running model's confident masks that are among others, and how many they are.

    Args:
        running: What it finds on each picture.
        other: What is found there by another model, or by the same one in the mirror.
        confident: Score from which a mask is confident, relative to the best of its picture.
        reflected: Whether `other` is of the pictures' mirror images.

    Raises:
        InputError: The running model finds nothing.

    """
    hits = total = 0
    for sure, found in zip(running, other, strict=True):
        if not len(sure):
            continue
        shape = small_shape(sure.image_size)
        masks = small_masks(sure.select(sure.scores >= confident * sure.scores.max()), shape)
        total += len(masks)
        if len(found):
            others = small_masks(found, shape)[:, :, :: -1 if reflected else 1]
            hits += int((overlaps(masks, others).max(axis=1) >= _FOUND).sum())
    if not total:
        raise InputError("the running model finds nothing on these pictures, so nothing can be compared; give others")
    return hits / total, total


def compare(
    running: Frames,
    candidate: Frames,
    old_running: Frames,
    old_candidate: Frames,
    config: GateConfig,
) -> tuple[Check, ...]:
    """Every question of the gate.

    Args:
        running: What the running model finds on the frames.
        candidate: What the candidate finds on them.
        old_running: What the running model finds on pictures of the old domain.
        old_candidate: What the candidate finds on them.
        config: Limits.

    Raises:
        InputError: The running model finds nothing.

    """
    both = (running, candidate)
    checks = []
    for name, values in (
        ("temporal consistency", [list(frames.temporal.values()) for frames in both]),
        ("mirrored consistency", [frames.mirrored for frames in both]),
    ):
        if not values[0]:
            checks.append(Check(name, None, None, True, f"{name} was not asked: no two frames in a row show the same"))
            continue
        old, new = (float(np.mean(column)) for column in values)
        limit = old - config.consistency
        checks.append(Check(name, old, new, new >= limit, f"{name} is {new:.3f}, at least {limit:.3f} is asked"))
    for name, figures in (
        ("instances per frame", [np.mean([len(found) for found in frames.instances]) for frames in both]),
        ("covered area", [np.mean([_covered(found) for found in frames.instances]) for frames in both]),
    ):
        old, new = map(float, figures)
        ratio = new / old if old else float(new == old)
        sentence = f"{name} is {ratio:.2f} times the running model's, {config.least:g} to {config.most:g} is asked"
        checks.append(Check(name, old, new, config.least <= ratio <= config.most, sentence))
    share, sure = recall(old_running.instances, old_candidate.instances, config.confident)
    # No model finds all its own masks again; more than itself in the mirror cannot be asked of another one.
    own, _ = recall(old_running.instances, old_running.reflected, config.confident, reflected=True)
    sentence = (
        f"{share:.1%} of {sure} confident masks of the running model are found, at least {config.recall * own:.1%} is "
        f"asked; in the mirror it finds {own:.1%} itself"
    )
    checks.append(Check("recall of confident masks", own, share, share >= config.recall * own, sentence))
    old, new = (float(np.median(frames.seconds)) * 1e3 for frames in both)
    # Frame by frame, because the machine is not equally busy all the time.
    ratio = float(np.median(np.divide(candidate.seconds, running.seconds)))
    sentence = f"it takes {ratio:.2f} times as long as the running model, {config.latency:g} is allowed"
    if ratio > config.latency and running.precision != candidate.precision:
        sentence += f": it is {candidate.precision} and the running model {running.precision}, export it likewise"
    checks.append(Check("milliseconds per frame", old, new, ratio <= config.latency, sentence))
    return tuple(checks)


def _covered(instances: Instances) -> float:
    full = np.zeros(instances.image_size, bool)
    for mask, (x0, y0, x1, y1) in zip(instances.masks, instances.regions.tolist(), strict=True):
        full[y0:y1, x0:x1] |= mask.view(bool)
    return float(full.mean())


def _progress(paths: Sequence[Path], what: str, say: Say) -> Iterator[tuple[Path, np.ndarray]]:
    start = last = time.monotonic()
    for done, path in enumerate(paths):
        yield path, read_image(path)
        if (now := time.monotonic()) - last > _PROGRESS:
            last = now
            left = (now - start) / (done + 1) * (len(paths) - done - 1)
            say(f"{done + 1} of {len(paths)} {what}, {left:.0f} s left")
