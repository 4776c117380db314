"""What was allocated is given back, over a CUDA that counts; the real one is used in test_tensorrt.py."""

import ctypes
import sys
import types
from collections.abc import Callable

import numpy as np
import pytest

pytest.importorskip("cuda.bindings.runtime", reason="cuda-python is not installed")

from hassod_ros.errors import InputError
from hassod_ros.runtime import cuda


class Counted:
    """The calls of cudart that are used, with a device that has room for so many buffers."""

    def __init__(self, real: types.ModuleType, room: int) -> None:
        self._real = real
        self.room = room
        self.held: dict[int, object] = {}

    def __getattr__(self, name: str) -> object:
        return getattr(self._real, name)

    def _give(self, size: int) -> tuple:
        memory = ctypes.create_string_buffer(size)
        self.held[ctypes.addressof(memory)] = memory
        return self._real.cudaError_t.cudaSuccess, ctypes.addressof(memory)

    def cudaHostAlloc(self, size: int, flags: int) -> tuple:  # noqa: N802
        return self._give(size)

    def cudaMalloc(self, size: int) -> tuple:  # noqa: N802
        self.room -= 1
        return (self._real.cudaError_t.cudaErrorMemoryAllocation, None) if self.room < 0 else self._give(size)

    def cudaFree(self, address: int) -> tuple:  # noqa: N802
        del self.held[address]
        return (self._real.cudaError_t.cudaSuccess,)

    cudaFreeHost = cudaFree  # noqa: N815

    def cudaStreamCreateWithFlags(self, flags: int) -> tuple:  # noqa: N802
        self.held[1] = "stream"
        return self._real.cudaError_t.cudaSuccess, 1

    def cudaStreamDestroy(self, stream: int) -> tuple:  # noqa: N802
        return self.cudaFree(stream)

    def cudaStreamSynchronize(self, stream: int) -> tuple:  # noqa: N802
        return (self._real.cudaError_t.cudaSuccess,)

    def cudaGetDeviceCount(self) -> tuple:  # noqa: N802
        return self._real.cudaError_t.cudaSuccess, 1

    def cudaSetDevice(self, number: int) -> tuple:  # noqa: N802
        return (self._real.cudaError_t.cudaSuccess,)


@pytest.fixture
def counted(monkeypatch: pytest.MonkeyPatch) -> Callable[[int], Counted]:
    def make(room: int) -> Counted:
        device = Counted(cuda.cudart, room)
        monkeypatch.setattr(cuda, "cudart", device)
        return device

    return make


def test_a_buffer_gives_back_both_memories(counted):
    device = counted(1)
    buffer = cuda.Buffer((2, 3), np.dtype(np.float32))
    assert len(device.held) == 2
    assert buffer.host.shape == (2, 3)
    buffer.free()
    assert not device.held


def test_a_buffer_that_does_not_fit_leaves_nothing(counted):
    device = counted(0)
    with pytest.raises(InputError, match="too little free memory"):
        cuda.Buffer((2, 3), np.dtype(np.float32))
    assert not device.held


class Engine:
    """Of TensorRT, as far as a backend asks about it: four tensors and a context that takes their addresses."""

    num_io_tensors = 4

    def create_execution_context(self) -> object:
        return types.SimpleNamespace(set_tensor_address=lambda name, address: None)

    def get_tensor_name(self, i: int) -> str:
        return f"tensor {i}"

    def get_tensor_shape(self, name: str) -> tuple[int, ...]:
        return (1, 4)

    def get_tensor_dtype(self, name: str) -> type:
        return np.float32

    def get_tensor_mode(self, name: str) -> str:
        return "input" if name.endswith("0") else "output"


@pytest.mark.parametrize("room", [0, 1, 3, 4])
def test_a_backend_that_does_not_fit_leaves_nothing(counted, monkeypatch, room):
    device = counted(room)
    names = ("ILogger", "IProgressMonitor", "ICudaEngine", "Runtime", "Builder", "ParserError")
    fake = types.ModuleType("tensorrt")
    for name in names:
        setattr(fake, name, type(name, (), {"Severity": None}))
    fake.__version__, fake.nptype = "0", lambda dtype: dtype
    fake.TensorIOMode = types.SimpleNamespace(INPUT="input")
    monkeypatch.setitem(sys.modules, "tensorrt", fake)
    for module in ("backends.tensorrt_backend", "tensorrt_builder"):  # and taken away again: the next test has no such
        monkeypatch.setitem(sys.modules, f"hassod_ros.runtime.{module}", None)
        del sys.modules[f"hassod_ros.runtime.{module}"]
    from hassod_ros.runtime.backends import tensorrt_backend

    monkeypatch.setattr(tensorrt_backend, "cudart", device)
    if room < Engine.num_io_tensors:
        with pytest.raises(InputError, match="too little free memory"):
            tensorrt_backend.TensorRTBackend(Engine(), info=None)
    else:
        backend = tensorrt_backend.TensorRTBackend(Engine(), info=None)
        assert len(device.held) == 9
        backend.close()
        backend.close()
    assert not device.held
