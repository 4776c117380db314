"""ONNX file -> TensorRT engine, for exactly this GPU and this TensorRT.

Written for TensorRT 10.3 (JetPack 6) to 11: the network is strongly typed, so that precision follows from the types and
Q/DQ pairs in the ONNX file and there is nothing else to choose. Not yet run on a device, see docs/tensorrt.md.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import tensorrt as trt

from hassod_ros.errors import InputError
from hassod_ros.files import atomic_path, sha256
from hassod_ros.runtime.cuda import current_device, free_memory
from hassod_ros.runtime.engine_cache import EngineCache, EngineKey, is_memory_shortage
from hassod_ros.runtime.model_info import ModelInfo

Report = Callable[[str], None]


def print_line(line: str) -> None:
    """The default `Report`: standard error."""
    print(line, file=sys.stderr)


@dataclass(frozen=True, kw_only=True)
class BuildOptions:
    """What to build.

    Attributes:
        workspace: Most bytes of scratch memory that a layer may use; 0 = all of the device's.
        dla_core: Run what it can on this deep learning accelerator (Jetson), the rest on the GPU. None = GPU only.

    """

    workspace: int = 0
    dla_core: int | None = None


class Logger(trt.ILogger):
    """Keeps TensorRT's errors for our messages and hands its warnings on."""

    def __init__(self, report: Report) -> None:
        trt.ILogger.__init__(self)
        self.errors: list[str] = []
        self._report = report

    def log(self, severity: trt.ILogger.Severity, msg: str) -> None:
        """Called by TensorRT."""
        if severity in (trt.ILogger.Severity.INTERNAL_ERROR, trt.ILogger.Severity.ERROR):
            self.errors.append(msg)
        elif severity == trt.ILogger.Severity.WARNING:
            self._report(f"TensorRT: {msg}")


class Progress(trt.IProgressMonitor):
    """Tells how far a build, which takes minutes, has come."""

    def __init__(self, report: Report) -> None:
        trt.IProgressMonitor.__init__(self)
        self._report = report
        self._steps: dict[str, int] = {}
        self._told: dict[str, int] = {}

    def phase_start(self, phase_name: str, parent_phase: str | None, num_steps: int) -> None:
        """Called by TensorRT, possibly from several threads."""
        self._steps[phase_name] = max(num_steps, 1)
        self._told[phase_name] = 0
        self._report(f"{phase_name}: {num_steps} steps")

    def step_complete(self, phase_name: str, step: int) -> bool:
        """Called by TensorRT; True = go on. Tells every tenth of a phase."""
        tenth = 10 * (step + 1) // self._steps.get(phase_name, 1)
        if tenth > self._told.get(phase_name, 0):
            self._told[phase_name] = tenth
            self._report(f"{phase_name}: {10 * tenth} %")
        return True

    def phase_finish(self, phase_name: str) -> None:
        """Called by TensorRT."""
        self._steps.pop(phase_name, None)


def engine_key(path: str | os.PathLike, info: ModelInfo, options: BuildOptions) -> EngineKey:
    """What an engine of this model on the current device depends on."""
    device = current_device()
    height, width = info.input_size
    return EngineKey(
        model_sha256=sha256(path),
        compiler=f"tensorrt {trt.__version__}",
        device=device.name,
        compute_capability=device.compute_capability,
        multiprocessors=device.multiprocessors,
        precision=info.precision,
        shapes=f"images:{info.batch}x{height}x{width}x3",
        options=f"workspace={options.workspace},dla={options.dla_core}",
    )


def build_engine(
    path: str | os.PathLike,
    options: BuildOptions,
    *,
    timing_cache: Path | None = None,
    report: Report = print_line,
) -> bytes:
    """Compile an ONNX file.

    Args:
        path: A file of `to_onnx`.
        options: See there.
        timing_cache: File that remembers measured kernels, read and written; makes the next build faster.
        report: Takes a line of progress at a time.

    Raises:
        InputError: TensorRT refuses the graph; the message names the node. Or there is no such accelerator.

    """
    logger = Logger(report)
    builder = trt.Builder(logger)
    network = builder.create_network(1 << int(trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED))
    parser = trt.OnnxParser(network, logger)
    if not parser.parse(Path(path).read_bytes()):
        errors = [_describe(parser.get_error(i)) for i in range(parser.num_errors)]
        raise InputError(f"TensorRT {trt.__version__} cannot read {path}: {'; '.join(errors)}; export it again")
    config = builder.create_builder_config()
    config.progress_monitor = Progress(report)
    if options.workspace:
        config.set_memory_pool_limit(trt.MemoryPoolType.WORKSPACE, options.workspace)
    if options.dla_core is not None:
        if options.dla_core >= builder.num_DLA_cores:
            raise InputError(f"there is no DLA core {options.dla_core}, this device has {builder.num_DLA_cores}")
        config.default_device_type = trt.DeviceType.DLA
        config.DLA_core = options.dla_core
        config.set_flag(trt.BuilderFlag.GPU_FALLBACK)
    known = timing_cache.read_bytes() if timing_cache is not None and timing_cache.exists() else b""
    if not config.set_timing_cache(config.create_timing_cache(known), ignore_mismatch=False):
        report("the timing cache is of another device or version; starting a new one")
        config.set_timing_cache(config.create_timing_cache(b""), ignore_mismatch=False)
    serialized = builder.build_serialized_network(network, config)
    if serialized is None:
        reasons = "; ".join(logger.errors) or "no reason was given"
        raise InputError(f"TensorRT {trt.__version__} cannot build {path}: {reasons}")
    if timing_cache is not None:
        with atomic_path(timing_cache) as temporary:
            temporary.write_bytes(memoryview(config.get_timing_cache().serialize()))
    return bytes(memoryview(serialized))


def load_engine(
    path: str | os.PathLike,
    info: ModelInfo,
    options: BuildOptions,
    *,
    cache: str | os.PathLike | None = None,
    report: Report = print_line,
) -> trt.ICudaEngine:
    """The engine of an ONNX file: from the cache, or built. One that TensorRT refuses is put aside and built anew.

    Raises:
        InputError: See `build_engine`; or not even the new engine can be loaded, or the GPU has too little memory.

    """
    engines = EngineCache(cache)
    key = engine_key(path, info, options)
    device = f"{key.device} {key.compute_capability} {key.multiprocessors}".replace(" ", "-").replace("/", "-")
    timing_cache = engines.folder / f"timing-{trt.__version__}-{device}.cache"

    def build() -> bytes:
        report(f"building {path} for {key.device}; this takes minutes, once")
        return build_engine(path, options, timing_cache=timing_cache, report=report)

    logger = Logger(report)
    runtime = trt.Runtime(logger)

    def load(data: bytes) -> trt.ICudaEngine | None:
        logger.errors.clear()
        engine = runtime.deserialize_cuda_engine(data)
        if engine is None:
            reasons = "; ".join(logger.errors)
            # It needs its weights on the device, and they are nearly all of its bytes.
            if is_memory_shortage(reasons) or free_memory() < len(data):
                raise InputError(f"the GPU has too little free memory for {path} ({reasons}); stop other programs")
            report(f"TensorRT refused an engine: {reasons or 'no reason was given'}")
        return engine

    return engines.open(key, build, load, report)


def _describe(error: trt.ParserError) -> str:
    return f"node {error.node_name()} ({error.node_operator()}): {error.desc()}"
