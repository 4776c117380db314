"""ONNX Runtime on the CPU, on CUDA, or through its TensorRT provider."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime

from hassod_ros.cores import usable_cores
from hassod_ros.errors import InputError
from hassod_ros.runtime.backends.base import blank_images, check_features, check_images, gpu_number
from hassod_ros.runtime.engine_cache import default_cache_folder, is_memory_shortage, private_folder
from hassod_ros.runtime.model_info import ModelInfo, read_model_info
from hassod_ros.runtime.postprocess import RawDetections

_PROVIDERS = {
    "cpu": "CPUExecutionProvider",
    "cuda": "CUDAExecutionProvider",
    "tensorrt": "TensorrtExecutionProvider",
}
OUTPUTS = ("boxes", "scores", "level_probabilities", "masks", "count", "converged")
ANCESTORS, FEATURES = "ancestors", "features"


class OnnxRuntimeBackend:
    """See `Backend`."""

    def __init__(
        self, session: onnxruntime.InferenceSession, info: ModelInfo, outputs: tuple[str, ...] = OUTPUTS
    ) -> None:
        self.info = info
        self.name = f"onnxruntime {onnxruntime.__version__} {session.get_providers()[0]}"
        self._outputs = outputs
        self._session: onnxruntime.InferenceSession | None = session

    @classmethod
    def load(
        cls,
        path: str | os.PathLike,
        *,
        provider: str = "auto",
        device: str = "",
        threads: int = 0,
        cache: str | os.PathLike | None = None,
        features: bool = False,
    ) -> OnnxRuntimeBackend:
        """Load an ONNX file.

        Args:
            path: The file.
            provider: "cpu", "cuda", "tensorrt", or "auto": CUDA where it is installed, otherwise the CPU.
            device: "cpu", "cuda", or "cuda:NUMBER"; "" = as the provider has it.
            threads: Threads of the CPU provider; 0 = one per core that the process may use.
            cache: Folder for the TensorRT provider's engines. Default: `default_cache_folder()`.
            features: See `Backend.load`.

        Raises:
            InputError: The file is missing, damaged, not one of ours or too large for the memory, or the provider is
                not installed or does not start.

        """
        info = read_model_info(path)
        if features:
            check_features(info, str(path))
        outputs = (*OUTPUTS, *((ANCESTORS,) if info.mask_stride else ()), *((FEATURES,) if features else ()))
        name = _choose_provider("cpu" if provider == "auto" and device == "cpu" else provider)
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads or _allowed_cores()
        options.log_severity_level = 3  # errors; they are raised as well
        # Threads that wait for work would spin, on cores that other models and nodes want.
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        settings: dict[str, Any] = {}
        if device and (device == "cpu") != (name == _PROVIDERS["cpu"]):
            raise InputError(f"device is {device}, but {name} runs the model; choose another backend or device")
        if name != _PROVIDERS["cpu"]:
            settings["device_id"] = gpu_number(device)
        gpu = dict(settings)
        if provider == "tensorrt":
            folder = private_folder(Path(cache or default_cache_folder()) / "onnxruntime")
            settings |= {"trt_engine_cache_enable": True, "trt_engine_cache_path": str(folder)}
        providers: list[Any] = [(name, settings)]
        if provider == "tensorrt":
            providers.append((_PROVIDERS["cuda"], gpu))
        if name != _PROVIDERS["cpu"]:
            providers.append(_PROVIDERS["cpu"])
        try:
            session = onnxruntime.InferenceSession(str(path), options, providers=providers)
        except Exception as error:  # ONNX Runtime's errors share no base class of their own
            raise _explain(error, Path(path)) from error
        if session.get_providers()[0] != name:
            raise InputError(f"ONNX Runtime has {name} but it did not start; check the driver and CUDA libraries")
        _check_signature(session, info, outputs, str(path))
        return cls(session, info, outputs)

    def infer(self, images: np.ndarray) -> RawDetections:
        """See `Backend.infer`."""
        check_images(images, self.info)
        if self._session is None:
            raise RuntimeError("this backend is closed")
        found = dict(zip(self._outputs, self._session.run(self._outputs, {"images": images}), strict=True))
        found["converged"] = found["converged"].astype(bool)
        return RawDetections(**found, mask_stride=self.info.mask_stride)

    def warm_up(self) -> None:
        """See `Backend.warm_up`."""
        self.infer(blank_images(self.info))

    def close(self) -> None:
        """See `Backend.close`."""
        self._session = None


def _allowed_cores() -> int:
    """Cores that the process may use (`taskset`, a container's quota), or 0 where it may use all.

    Left to itself (0), ONNX Runtime binds a thread to each core of the machine, whatever the process is bound to.
    """
    cores = usable_cores()
    return 0 if cores == os.cpu_count() else cores


def _choose_provider(provider: str) -> str:
    available = onnxruntime.get_available_providers()
    if provider == "auto":
        return _PROVIDERS["cuda"] if _PROVIDERS["cuda"] in available else _PROVIDERS["cpu"]
    if provider not in _PROVIDERS:
        raise InputError(f"there is no provider {provider!r}; choose one of auto, {', '.join(_PROVIDERS)}")
    if _PROVIDERS[provider] not in available:
        raise InputError(
            f"this onnxruntime has no {_PROVIDERS[provider]} (only {', '.join(available)}); install onnxruntime-gpu"
        )
    return _PROVIDERS[provider]


def _explain(error: Exception, path: Path) -> InputError:
    text = " ".join(str(error).split())
    if "Unsupported model IR version" in text or ("Opset" in text and "under development" in text):
        return InputError(
            f"{path} is of a newer ONNX than ONNX Runtime {onnxruntime.__version__} reads; install a newer onnxruntime"
        )
    if isinstance(error, MemoryError) or is_memory_shortage(text):
        return InputError(f"{path} does not fit into the memory; free some or export a smaller size ({text})")
    return InputError(f"ONNX Runtime {onnxruntime.__version__} cannot load {path} ({text}); copy or export it again")


def _check_signature(
    session: onnxruntime.InferenceSession, info: ModelInfo, outputs: tuple[str, ...], name: str
) -> None:
    """The graph must be what its metadata promise."""
    inputs = {value.name: (value.type, tuple(value.shape)) for value in session.get_inputs()}
    expected = {"images": ("tensor(uint8)", (info.batch, *info.input_size, 3))}
    if inputs != expected:
        raise InputError(f"{name} takes {inputs}, its metadata promise {expected}; export it again")
    missing = set(outputs) - {value.name for value in session.get_outputs()}
    if missing:
        raise InputError(f"{name} lacks the output {', '.join(sorted(missing))}; export it again")
