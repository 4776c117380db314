"""Build a TensorRT engine, and hold it against ONNX Runtime. Needs no torch: it runs on the robot."""

from __future__ import annotations

import os
import time
from collections.abc import Callable

import numpy as np

from hassod_ros.deploy.parity import ParityLimits, compare
from hassod_ros.deploy.photographs import load_batches
from hassod_ros.errors import InputError
from hassod_ros.images import list_images
from hassod_ros.runtime.backends import open_backend

PARITY_IMAGES = 8
_TIMED = 50
# Half precision and int8 round; engines also compute float32 with TF32.
_LIMITS = {
    "fp32": ParityLimits(box=1.0, score=5e-3, level=5e-3, mask=5e-3, unmatched=0.05),
    "fp16": ParityLimits(box=2.0, score=2e-2, level=2e-2, mask=2e-2, unmatched=0.1),
    "int8": ParityLimits(box=4.0, score=5e-2, level=5e-2, mask=5e-2, unmatched=0.2),
}


def build_and_check(
    model: str | os.PathLike,
    *,
    images: str | os.PathLike | None,
    build_only: bool,
    cache: str | os.PathLike | None = None,
    workspace: int = 0,
    dla_core: int | None = None,
    report: Callable[[str], None] = print,
) -> None:
    """Fill the engine cache; unless `build_only`, compare with ONNX Runtime on photographs and time the engine.

    Raises:
        InputError: The engine cannot be built or loaded, or its answers differ.

    """
    if not build_only and images is None:
        raise InputError("the engine is compared on photographs; give --images, or --build-only to leave it out")
    engine = open_backend(model, "tensorrt", cache=cache, workspace=workspace, dla_core=dla_core)
    report(f"the engine of {model} is in the cache")
    if images is None:
        engine.close()
        return
    info = engine.info
    limits = _LIMITS[info.precision]
    batches = list(load_batches(list_images(images)[: PARITY_IMAGES * info.batch], info))
    reference = open_backend(model, "onnxruntime-cpu")
    report(f"parity with ONNX Runtime, {limits}")
    report(f"  {compare(reference, engine, batches, limits)}")
    times = []
    for _ in range(_TIMED):
        start = time.perf_counter()
        engine.infer(batches[0])
        times.append(1e3 * (time.perf_counter() - start))
    p50, p95 = np.percentile(times, (50, 95))
    report(f"  a batch of {info.batch} takes {p50:.2f} ms (p95 {p95:.2f})")
    engine.close()
