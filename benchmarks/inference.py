"""How long an image takes, stage by stage, beside torchvision's stock Mask R-CNN in the same run.

Weights are random, scaled layer by layer so that detections are spread; every threshold is 0, so that each model
returns as many instances as it can. Models take turns, frame by frame: whatever else the machine does hits them alike.

Exported files take part with the thresholds that they recommend, as a node runs them.

Last comes what is outside of the network, with the options of the shipped model and 100 made-up detections that are
all kept: processor time of one thread, part by part, which tells something on a busy machine too. A picture is one of
--images.

Example:
    python benchmarks/inference.py --models small r50 --images photos/ --frames 20
    python benchmarks/inference.py --models --no-stock --images photos/ --frames 100    # outside of the network alone
    python benchmarks/inference.py --models --no-stock --images photos/ --exported default=model.onnx
    python benchmarks/inference.py --models r50 mask2former --precisions fp32 --no-stock --images photos/ --memory

"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import replace
from functools import cache, partial
from pathlib import Path
from typing import Any
from unittest.mock import patch

import cv2
import numpy as np
import onnx
import torch
from torch import nn
from torchvision.models.detection import maskrcnn_resnet50_fpn

from hassod_ros.default_model import default_model
from hassod_ros.deploy.onnx_export import static_detector, trace
from hassod_ros.deploy.photographs import load_batches
from hassod_ros.deploy.quantization import quantize
from hassod_ros.detection.base import Detector
from hassod_ros.detection.cascade.config import DetectorConfig
from hassod_ros.detection.cascade.model import CascadeMaskRCNN
from hassod_ros.detection.cascade.static_graph import with_limits
from hassod_ros.detection.mask2former.config import Mask2FormerConfig
from hassod_ros.detection.mask2former.model import Mask2Former
from hassod_ros.discovery.method import parse_option
from hassod_ros.errors import InputError
from hassod_ros.images import list_images, read_image
from hassod_ros.instances import Instances
from hassod_ros.masks import paste_filled
from hassod_ros.runtime import postprocess, segmenter
from hassod_ros.runtime.backends import open_backend
from hassod_ros.runtime.backends.base import Backend
from hassod_ros.runtime.backends.torch_backend import TorchBackend, describe
from hassod_ros.runtime.evidence import find_cues
from hassod_ros.runtime.model_info import ModelInfo, read_model_info
from hassod_ros.runtime.parents import find_parents
from hassod_ros.runtime.postprocess import (
    PostprocessOptions,
    RawDetections,
    find_maps,
    select_rows,
    to_instances,
)
from hassod_ros.runtime.preprocess import Letterbox, letterbox
from hassod_ros.runtime.segmenter import Segmenter
from hassod_ros.runtime.tracking import Tracker

# config, input size, proposals, detections
Setting = tuple[DetectorConfig | Mask2FormerConfig, tuple[int, int], int, int]
_LIGHT = DetectorConfig(
    backbone="mobilenet_v3_large", fpn_norm="none", fpn_channels=64, mask_channels=64, box_width=256
)
MODELS: dict[str, Setting] = {
    "small": (_LIGHT, (320, 320), 50, 20),
    "medium": (replace(_LIGHT, backbone="resnet18", fpn_channels=128, mask_channels=128), (320, 320), 100, 50),
    "r50": (DetectorConfig(), (480, 640), 300, 50),
    "mask2former": (Mask2FormerConfig(), (480, 640), 100, 50),
}
STOCK = "torchvision stock"  # resizes 640x480 to 1066x800, finds next to nothing with random weights: a low bar
OUTSIDE_SIZES = ((480, 640), (1080, 1920))
OUTSIDE_INSTANCES = 100
OUTSIDE_PARTS = {
    "preprocess": (segmenter, "letterbox"),
    "colours": (postprocess, "follow_colors"),
    "evidence": (postprocess, "find_cues"),
    "masks": (postprocess, "paste_filled"),
    "hierarchy": (postprocess, "coverage_forest"),
    "blank or not": (segmenter, "visible"),
}


@cache
def random_detector(name: str) -> Detector:
    """A model of `MODELS` with random weights that returns as many instances as it can."""
    config, input_size, proposals, detections = MODELS[name]
    if isinstance(config, DetectorConfig):
        return with_limits(scaled_random(config, input_size), proposals=proposals, detections=detections)
    torch.manual_seed(0)
    return Mask2Former(config.changed(detections=detections)).eval()


@cache
def scaled_random(config: DetectorConfig, input_size: tuple[int, int]) -> CascadeMaskRCNN:
    """Random weights with outputs of unit variance in every layer (less where boxes are predicted)."""
    torch.manual_seed(0)
    model = CascadeMaskRCNN(config).eval()
    done: set[str] = set()

    def scale(name: str, module: nn.Module) -> Callable[..., torch.Tensor | None]:
        def hook(module: Any, _: object, output: torch.Tensor) -> torch.Tensor | None:
            if name in done or output.numel() == 0:
                return None
            done.add(name)
            wanted = 0.2 if "bbox_pred" in name or "anchor_deltas" in name else 1.0
            factor = wanted / max(float(output.std()), 1e-6)
            module.weight.mul_(factor)
            if module.bias is not None:
                module.bias.zero_()
            return output * factor if getattr(module, "norm", None) is None else None

        return hook

    handles = [
        module.register_forward_hook(scale(name, module))
        for name, module in model.named_modules()
        if isinstance(module, nn.Conv2d | nn.ConvTranspose2d | nn.Linear)
    ]
    noise = cv2.resize(np.random.default_rng(0).integers(0, 256, (20, 20, 3)).astype(np.uint8), input_size[::-1])
    with torch.no_grad():
        model(torch.from_numpy(noise).permute(2, 0, 1)[None].float())
    for handle in handles:
        handle.remove()
    return model


class Clock:
    """Milliseconds by (model, stage).

    Args:
        now: Tells the time, s.

    """

    def __init__(self, now: Callable[[], float] = time.perf_counter) -> None:
        self.times: dict[tuple[str, str], list[float]] = defaultdict(list)
        self._now = now

    def measure(self, model: str, stage: str, run: Callable[[], Any]) -> Any:
        """Run, note how long it took, and hand back the result."""
        start = self._now()
        result = run()
        self.times[model, stage].append(1e3 * (self._now() - start))
        return result

    def row(self, model: str, stage: str) -> tuple[float, float]:
        """Median and 95th percentile."""
        p50, p95 = np.percentile(self.times[model, stage], (50, 95))
        return float(p50), float(p95)


def run_stages(clock: Clock, name: str, backend: Backend, image: np.ndarray, buffer: np.ndarray) -> Instances:
    """What `Segmenter` does, with a clock between the stages."""
    options = replace(PostprocessOptions.recommended(backend.info), score_thresholds=(0.0, 0.0, 0.0))
    start = time.perf_counter()
    placed = clock.measure(name, "preprocess", lambda: letterbox(image, buffer[0], fill=(124, 116, 104)))
    raw = clock.measure(name, "network", lambda: backend.infer(buffer))
    assert backend.info.batch == 1
    instances = finish(clock, name, raw, placed, options, buffer[0])
    clock.times[name, "total"].append(1e3 * (time.perf_counter() - start))
    return instances


def peak_memory(path: Path, frame: np.ndarray, threads: int) -> float:
    """Most memory in MB of a process that has run an exported model; torch is not in it."""
    code = (
        "import sys, numpy as np\n"
        "from hassod_ros.runtime.segmenter import Segmenter\n"
        "segment = Segmenter(sys.argv[1], 'onnxruntime-cpu', threads=int(sys.argv[3]))\n"
        "frame = np.load(sys.argv[2])\n"
        "segment(frame); segment(frame)\n"
        "print(open('/proc/self/status').read().partition('VmHWM:')[2].split()[0])"
    )
    with tempfile.TemporaryDirectory() as folder:
        np.save(Path(folder) / "frame.npy", frame)
        command = [sys.executable, "-c", code, str(path), str(Path(folder) / "frame.npy"), str(threads)]
        return int(subprocess.run(command, capture_output=True, text=True, check=True).stdout) / 1024


def finish(
    clock: Clock,
    name: str,
    raw: RawDetections,
    placed: Letterbox,
    options: PostprocessOptions,
    pixels: np.ndarray | None = None,
) -> Instances:
    """`to_instances` in its parts; as a whole where masks span the input."""
    if raw.ancestors is not None:
        return clock.measure(name, "instances", lambda: to_instances(raw, 0, placed, options, pixels))
    rows, levels = select_rows(raw, 0, options)
    seen, boxes, maps = clock.measure(name, "outlines", lambda: find_maps(raw, 0, rows, placed, options, pixels))
    rows, levels = rows[seen], levels[seen]
    if options.evidence and pixels is not None:
        shown, threshold = pixels[: placed.content_size[0], : placed.content_size[1]], options.mask_threshold
        limits = np.array(placed.content_size[::-1] * 2, np.float32)
        places, scores = np.clip(raw.boxes[0, rows], 0, limits), raw.scores[0, rows]
        clock.measure(name, "evidence", lambda: find_cues(maps, places, scores, shown, threshold))
    kept, masks = clock.measure(name, "masks", lambda: paste_filled(maps, boxes, options.mask_threshold))
    rows, levels, boxes = rows[kept], levels[kept], boxes[kept]
    known = levels if options.level_source == "head" else None
    parents, levels = clock.measure(
        name, "hierarchy", lambda: find_parents(boxes, masks, known, options.parent_coverage)
    )
    return clock.measure(
        name,
        "instances",
        lambda: Instances(
            image_size=placed.image_size,
            boxes=boxes,
            masks=masks,
            scores=raw.scores[0, rows],
            levels=levels,
            parents=parents,
        ),
    )


def fabricate(input_size: tuple[int, int], count: int, seed: int = 0) -> RawDetections:
    """Detections of all sizes (12 px to most of the image) with blob-like masks and random levels."""
    rng = np.random.default_rng(seed)
    height, width = input_size
    size = np.exp(rng.uniform(np.log(12), np.log(0.7 * height), (count, 2)))
    corner = rng.random((count, 2)) * (np.array([width, height]) - size)
    grid = (np.arange(28) - 13.5) / 14
    distance = np.hypot(grid[:, None], grid)
    masks = 1 / (1 + np.exp(8 * (distance[None] - rng.uniform(0.6, 1.1, (count, 1, 1)))))
    return RawDetections(
        boxes=np.concatenate([corner, corner + size], axis=1).astype(np.float32)[None],
        scores=np.sort(rng.random(count).astype(np.float32))[None, ::-1],
        level_probabilities=np.eye(3, dtype=np.float32)[rng.integers(0, 3, count)][None],
        masks=masks.astype(np.float32)[None],
        count=np.array([count], np.int32),
        converged=np.ones(1, bool),
    )


class StandIn:
    """A network of the shipped model's form that answers at once.

    Args:
        info: Metadata of the model that it stands for.

    """

    name = "stand-in"

    def __init__(self, info: ModelInfo) -> None:
        self.info = info
        self._raw = fabricate(info.input_size, OUTSIDE_INSTANCES)

    def infer(self, images: np.ndarray) -> RawDetections:
        """The same for every image."""
        return replace(self._raw, masks=self._raw.masks.copy())

    def warm_up(self) -> None:
        """Nothing to do."""

    def close(self) -> None:
        """Nothing to give back."""


def measure_outside(image: np.ndarray, frames: int) -> Clock:
    """Everything outside of the network, at each of `OUTSIDE_SIZES`."""
    clock = Clock(time.thread_time)
    for size in OUTSIDE_SIZES:
        name = f"outside {size[1]}x{size[0]}, {OUTSIDE_INSTANCES} instances"
        picture = cv2.resize(image, size[::-1])
        with ExitStack() as patches:
            stand_in = StandIn(replace(read_model_info(default_model()), batch=1))
            patches.enter_context(patch.object(segmenter, "open_backend", lambda *_, stand_in=stand_in: stand_in))
            found, tracker = segmenter.Segmenter("stand-in"), Tracker()
            found.options = replace(found.options, score_thresholds=(0.0, 0.0, 0.0))
            for round_ in range(frames + 3):
                if round_ == 3:
                    for stage, (module, function) in OUTSIDE_PARTS.items():
                        timed = partial(_timed, clock, name, stage, getattr(module, function))
                        patches.enter_context(patch.object(module, function, timed))
                watch = clock if round_ >= 3 else Clock()
                instances = watch.measure(name, "all but tracking", partial(found, picture))
                watch.measure(name, "tracking", partial(tracker.update, instances, round_ / 30, picture))
    return clock


def _timed(clock: Clock, model: str, stage: str, function: Callable[..., Any], *arguments: Any, **options: Any) -> Any:
    return clock.measure(model, stage, partial(function, *arguments, **options))


def export(name: str, folder: Path, images: list[Path], precision: str) -> Path:
    """ONNX file of a model with random weights; the gates are `to_onnx`'s affair."""
    input_size = MODELS[name][1]
    path = folder / f"{name}-fp32.onnx"
    model = random_detector(name)
    info = describe(model, input_size=input_size, batch=1, weights_sha256="0" * 64)
    if not path.exists():
        onnx.save(trace(static_detector(model, batch=1, input_size=input_size), info), path)
    if precision == "int8":
        quantised = folder / f"{name}-int8.onnx"
        quantize(path, quantised, load_batches(images[:16], info), target="x86")
        graph = onnx.load(quantised)
        onnx.helper.set_model_props(graph, replace(info, precision="int8").to_metadata())
        onnx.save(graph, quantised)
        return quantised
    return path


def main(arguments: list[str] | None = None) -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", nargs="*", choices=tuple(MODELS), default=["small"])
    parser.add_argument("--precisions", nargs="+", choices=("fp32", "int8"), default=["fp32", "int8"])
    parser.add_argument("--eager", action="store_true", help="also the torch backend")
    parser.add_argument(
        "--exported", action="append", default=[], metavar="NAME=FILE", help="exported model; may be given again"
    )
    parser.add_argument("--images", required=True, help="folder or list of photographs")
    parser.add_argument("--frames", type=int, default=20)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--memory", action="store_true", help="also the most memory of a process of each model")
    parser.add_argument("--no-stock", action="store_true", help="without torchvision's Mask R-CNN")
    given = parser.parse_args(arguments)
    torch.set_num_threads(given.threads)
    cv2.setNumThreads(given.threads)
    try:
        images = list_images(given.images)
        print_table(measure(given, images))
        cv2.setNumThreads(1)
        print("processor time:")
        print_table(measure_outside(read_image(images[0]), given.frames))
    except InputError as error:
        print(f"inference: {error}", file=sys.stderr)
        return 2
    return 0


def measure(given: argparse.Namespace, images: list[Path]) -> Clock:
    """All models and torchvision's on the same frames."""
    frames = [cv2.resize(read_image(path), (640, 480)) for path in images[: given.frames]]
    backends: dict[str, Backend] = {}
    with tempfile.TemporaryDirectory() as folder:
        for name in given.models:
            for precision in given.precisions:
                path = export(name, Path(folder), images, precision)
                backends[f"{name} {precision}"] = open_backend(path, "onnxruntime-cpu", threads=given.threads)
                if given.memory:
                    peak = peak_memory(path, frames[0], given.threads)
                    print(f"{name} {precision}: {peak:.0f} MB at most, {path.stat().st_size / 2**20:.0f} MB on disk")
            if given.eager:
                model = random_detector(name)
                info = describe(model, input_size=MODELS[name][1], batch=1, weights_sha256="0" * 64)
                backends[f"{name} eager"] = TorchBackend(model, info)
    exported = {
        name: Segmenter(path, "onnxruntime-cpu", threads=given.threads)
        for name, path in map(parse_option, given.exported)
    }
    clock = Clock()
    stock = (
        {}
        if given.no_stock
        else {
            STOCK: maskrcnn_resnet50_fpn(weights=None, weights_backbone=None).eval(),
            f"{STOCK}, not enlarged": maskrcnn_resnet50_fpn(
                weights=None, weights_backbone=None, min_size=480, max_size=640
            ).eval(),
        }
    )
    buffers = {name: np.empty((1, *backend.info.input_size, 3), np.uint8) for name, backend in backends.items()}
    for name, backend in backends.items():
        backend.warm_up()
        run_stages(Clock(), name, backend, frames[0], buffers[name])
    for exported_one in exported.values():
        exported_one(frames[0])
    for i in range(given.frames):
        frame = frames[i % len(frames)]
        for name, exported_one in exported.items():
            clock.measure(name, "total", partial(exported_one, frame))
        for name, backend in backends.items():
            run_stages(clock, name, backend, frame, buffers[name])
        if i < max(3, given.frames // 4):
            pixels = torch.from_numpy(frame).permute(2, 0, 1).float() / 255
            for name, model in stock.items():
                with torch.inference_mode():
                    clock.measure(name, "total", partial(model, [pixels]))
    return clock


def print_table(clock: Clock) -> None:
    """One row a model and stage."""
    stock = clock.row(STOCK, "total")[0] if (STOCK, "total") in clock.times else None
    print(f"{'model':36} {'stage':11} {'p50 ms':>9} {'p95 ms':>9}")
    for model, stage in clock.times:
        p50, p95 = clock.row(model, stage)
        ratio = ""
        if stage == "total" and not model.startswith(("outside", "torchvision")):
            ratio = f"  {1000 / p50:6.1f} frames/s" + (f", {stock / p50:5.1f}x stock" if stock else "")
        print(f"{model:36} {stage:11} {p50:9.2f} {p95:9.2f}{ratio}")


if __name__ == "__main__":
    sys.exit(main())
