"""Backends by name: whatever runs a model file, it is used in one way (`base.Backend`)."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from hassod_ros.errors import InputError
from hassod_ros.runtime.backends.base import Backend


def _onnxruntime(provider: str) -> Callable[..., Backend]:
    def load(path: str | os.PathLike, **options: Any) -> Backend:
        try:
            from hassod_ros.runtime.backends.onnxruntime_backend import OnnxRuntimeBackend
        except ImportError as error:
            raise InputError(
                f"the backend onnxruntime cannot be used here ({error}); run pip install onnxruntime, or with an "
                "NVIDIA GPU pip install onnxruntime-gpu (Jetson: the wheel for its JetPack)"
            ) from error
        return OnnxRuntimeBackend.load(path, provider=provider, **options)

    return load


def _tensorrt(path: str | os.PathLike, **options: Any) -> Backend:
    try:
        from hassod_ros.runtime.backends.tensorrt_backend import TensorRTBackend
    except ImportError as error:
        raise InputError(
            f"the backend tensorrt cannot be used here ({error}); on Jetson install JetPack's python3-libnvinfer, "
            "elsewhere run pip install 'hassod_ros[tensorrt]'"
        ) from error
    return TensorRTBackend.load(path, **options)


def _torch(path: str | os.PathLike, **options: Any) -> Backend:
    try:
        from hassod_ros.runtime.backends.torch_backend import TorchBackend
    except ImportError as error:
        raise InputError(
            f"the backend torch cannot be used here ({error}); pip install 'hassod_ros[train]' or give ONNX"
        ) from error
    return TorchBackend.load(path, **options)


_LOADERS: dict[str, Callable[..., Backend]] = {
    "onnxruntime": _onnxruntime("auto"),
    "onnxruntime-cpu": _onnxruntime("cpu"),
    "onnxruntime-cuda": _onnxruntime("cuda"),
    "onnxruntime-tensorrt": _onnxruntime("tensorrt"),
    "tensorrt": _tensorrt,
    "torch": _torch,
}
BACKENDS = tuple(_LOADERS)
_OPTIONS = {
    "onnxruntime": ("cache", "device", "features", "threads"),
    "tensorrt": ("cache", "device", "dla_core", "features", "workspace"),
    "torch": ("batch", "config", "device", "features", "input_size"),
}


def open_backend(
    path: str | os.PathLike, backend: str = "auto", *, report: Callable[[str], None] | None = None, **options: Any
) -> Backend:
    """Load a model with the backend of that name.

    Args:
        path: An `.onnx` file of `to_onnx`, or a checkpoint for the torch backend.
        backend: One of `BACKENDS`, or "auto": torch for checkpoints, ONNX Runtime's best provider otherwise.
        report: Takes a line at a time while a TensorRT engine is built. Default: standard error.
        options: Passed on to the backend's `load`.

    Raises:
        InputError: Unknown backend or option, or the model cannot be loaded.

    """
    suffix = Path(path).suffix.lower()
    if suffix in (".engine", ".plan", ".trt"):
        raise InputError(f"{path} is a TensorRT engine, which fits one GPU and version only; give the ONNX file")
    if backend == "auto":
        backend = "torch" if suffix in (".pth", ".pkl", ".safetensors") else "onnxruntime"
    if backend not in _LOADERS:
        raise InputError(f"there is no backend {backend!r}; choose one of auto, {', '.join(BACKENDS)}")
    known = _OPTIONS[backend.partition("-")[0]]
    for name in options:
        if name not in known:
            raise InputError(f"the backend {backend} has no option {name}; it has {', '.join(known)}")
    if report is not None and backend == "tensorrt":
        options["report"] = report
    return _LOADERS[backend](path, **options)
