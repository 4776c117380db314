"""Native TensorRT: one context and stream, buffers allocated once, the whole frame one CUDA graph. No torch.

Not yet run on a device, see docs/tensorrt.md.
"""

from __future__ import annotations

import os
from typing import Any

import numpy as np
import tensorrt as trt
from cuda.bindings import runtime as cudart

from hassod_ros.errors import InputError
from hassod_ros.runtime.backends.base import blank_images, check_features, check_images, gpu_number
from hassod_ros.runtime.cuda import Buffer, check, use_device
from hassod_ros.runtime.model_info import ModelInfo, read_model_info
from hassod_ros.runtime.postprocess import RawDetections
from hassod_ros.runtime.tensorrt_builder import BuildOptions, Report, load_engine, print_line


class TensorRTBackend:
    """See `Backend`.

    Args:
        engine: Built from a file of `to_onnx`.
        info: Its metadata.
        device: Number of the GPU that it was built for and loaded on.
        features: See `Backend.load`.

    """

    def __init__(self, engine: trt.ICudaEngine, info: ModelInfo, device: int = 0, *, features: bool = False) -> None:
        self.info = info
        self.name = f"tensorrt {trt.__version__}"
        self._device = device
        self._features = features
        self._wanted: dict[str, Buffer] = {}
        self._engine = engine
        self._context: Any = None
        self._stream: Any = None
        self._graph: Any = None
        self._inputs: dict[str, Buffer] = {}
        self._outputs: dict[str, Buffer] = {}
        self._closed = False
        try:
            self._allocate()
        except BaseException:
            self.close()
            raise

    def _allocate(self) -> None:
        """Get what runs the engine; what was got already is given back by `close`."""
        engine = self._engine
        self._context = engine.create_execution_context()
        if self._context is None:
            raise InputError("the GPU has too little free memory for this engine; stop other programs")
        self._stream = check(cudart.cudaStreamCreateWithFlags(cudart.cudaStreamNonBlocking))
        for i in range(engine.num_io_tensors):
            name = engine.get_tensor_name(i)
            buffer = Buffer(tuple(engine.get_tensor_shape(name)), np.dtype(trt.nptype(engine.get_tensor_dtype(name))))
            is_input = engine.get_tensor_mode(name) == trt.TensorIOMode.INPUT
            (self._inputs if is_input else self._outputs)[name] = buffer
            self._context.set_tensor_address(name, buffer.address)
        self._wanted = {name: each for name, each in self._outputs.items() if self._features or name != "features"}

    @classmethod
    def load(
        cls,
        path: str | os.PathLike,
        *,
        cache: str | os.PathLike | None = None,
        workspace: int = 0,
        dla_core: int | None = None,
        device: str = "",
        features: bool = False,
        report: Report = print_line,
    ) -> TensorRTBackend:
        """Load an ONNX file; its engine is built the first time, which takes minutes.

        Args:
            path: A file of `to_onnx`.
            cache: Folder of engines. Default: `default_cache_folder()`.
            workspace: See `BuildOptions`.
            dla_core: See `BuildOptions`.
            device: "cuda:NUMBER", or "" for the first GPU.
            features: See `Backend.load`.
            report: Takes a line of the build's progress at a time.

        Raises:
            InputError: See `load_engine`.

        """
        info = read_model_info(path)
        if features:
            check_features(info, str(path))
        options = BuildOptions(workspace=workspace, dla_core=dla_core)
        number = gpu_number(device)
        use_device(number)
        engine = load_engine(path, info, options, cache=cache, report=report)
        return cls(engine, info, number, features=features)

    def infer(self, images: np.ndarray) -> RawDetections:
        """See `Backend.infer`."""
        check_images(images, self.info)
        if self._closed:
            raise RuntimeError("this backend is closed")
        use_device(self._device)  # the choice is a thread's own
        np.copyto(self._inputs["images"].host, images)
        if self._graph is None:
            self._enqueue()  # TensorRT initialises itself in the first call, which cannot be captured
            check(cudart.cudaStreamSynchronize(self._stream))
            self._graph = self._capture()
        check(cudart.cudaGraphLaunch(self._graph, self._stream))
        check(cudart.cudaStreamSynchronize(self._stream))
        found = {name: buffer.host.copy() for name, buffer in self._wanted.items()}
        found["converged"] = found["converged"].astype(bool)
        return RawDetections(**found, mask_stride=self.info.mask_stride)

    def warm_up(self) -> None:
        """See `Backend.warm_up`."""
        self.infer(blank_images(self.info))

    def close(self) -> None:
        """See `Backend.close`."""
        if self._closed:
            return
        self._closed = True
        use_device(self._device)
        if self._stream is not None:
            check(cudart.cudaStreamSynchronize(self._stream))
        if self._graph is not None:
            check(cudart.cudaGraphExecDestroy(self._graph))
        del self._context, self._engine
        for buffer in (*self._inputs.values(), *self._outputs.values()):
            buffer.free()
        if self._stream is not None:
            check(cudart.cudaStreamDestroy(self._stream))

    def _enqueue(self) -> None:
        for buffer in self._inputs.values():
            buffer.upload(self._stream)
        if not self._context.execute_async_v3(int(self._stream)):
            raise RuntimeError("TensorRT could not run the engine; see its log")
        for buffer in self._wanted.values():
            buffer.download(self._stream)

    def _capture(self) -> Any:
        """Copies and network as one executable graph."""
        mode = cudart.cudaStreamCaptureMode.cudaStreamCaptureModeThreadLocal
        check(cudart.cudaStreamBeginCapture(self._stream, mode))
        self._enqueue()
        graph = check(cudart.cudaStreamEndCapture(self._stream))
        executable = check(cudart.cudaGraphInstantiate(graph, 0))
        check(cudart.cudaGraphDestroy(graph))
        return executable
