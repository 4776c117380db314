"""The few calls of the CUDA runtime that the TensorRT backend needs, through cuda-python; errors become exceptions."""

from __future__ import annotations

import ctypes
from dataclasses import dataclass
from typing import Any

import numpy as np
from cuda.bindings import runtime as cudart

from hassod_ros.errors import InputError


@dataclass(frozen=True)
class Device:
    """The GPU that engines are built for: name, compute capability such as "8.7", number of multiprocessors."""

    name: str
    compute_capability: str
    multiprocessors: int


def check(result: tuple[Any, ...]) -> Any:
    """Value(s) of a cuda-python call, which returns its error code first.

    Raises:
        InputError: Out of memory, or no device or driver.
        RuntimeError: Any other error.

    """
    code, *values = result
    if code != cudart.cudaError_t.cudaSuccess:
        _, text = cudart.cudaGetErrorString(code)
        message = text.decode() if isinstance(text, bytes) else str(text)
        if code == cudart.cudaError_t.cudaErrorMemoryAllocation:
            raise InputError("the GPU has too little free memory; stop other programs or export a smaller model")
        if code in (cudart.cudaError_t.cudaErrorNoDevice, cudart.cudaError_t.cudaErrorInsufficientDriver):
            raise InputError(f"CUDA cannot be used here ({message}); check the GPU and its driver")
        raise RuntimeError(f"CUDA: {message}")
    return values[0] if len(values) == 1 else values


def current_device() -> Device:
    """The device in use.

    Raises:
        InputError: There is none.

    """
    properties = check(cudart.cudaGetDeviceProperties(check(cudart.cudaGetDevice())))
    name = properties.name.decode() if isinstance(properties.name, bytes) else str(properties.name)
    return Device(name.rstrip("\0"), f"{properties.major}.{properties.minor}", int(properties.multiProcessorCount))


def free_memory() -> int:
    """Bytes that are free on the device in use."""
    free, _ = check(cudart.cudaMemGetInfo())
    return int(free)


def use_device(number: int) -> None:
    """Take a device for the calls of this thread.

    Raises:
        InputError: There is no device of this number.

    """
    count = int(check(cudart.cudaGetDeviceCount()))
    if not 0 <= number < count:
        raise InputError(f"there is no GPU {number}, this machine has {count}; choose another device")
    check(cudart.cudaSetDevice(number))


class Buffer:
    """One tensor in page-locked host memory and on the device.

    Attributes:
        host: Array over the page-locked memory.
        address: Of the device's memory.

    """

    def __init__(self, shape: tuple[int, ...], dtype: np.dtype) -> None:
        size = int(np.prod(shape)) * dtype.itemsize
        self._host_address = int(check(cudart.cudaHostAlloc(size, cudart.cudaHostAllocDefault)))
        memory = (ctypes.c_uint8 * size).from_address(self._host_address)
        self.host = np.ctypeslib.as_array(memory).view(dtype).reshape(shape)
        try:
            self.address = int(check(cudart.cudaMalloc(size)))
        except BaseException:
            check(cudart.cudaFreeHost(self._host_address))
            raise

    def upload(self, stream: Any) -> None:
        """Copy to the device, in the stream's order."""
        kind = cudart.cudaMemcpyKind.cudaMemcpyHostToDevice
        check(cudart.cudaMemcpyAsync(self.address, self._host_address, self.host.nbytes, kind, stream))

    def download(self, stream: Any) -> None:
        """Copy to the host, in the stream's order."""
        kind = cudart.cudaMemcpyKind.cudaMemcpyDeviceToHost
        check(cudart.cudaMemcpyAsync(self._host_address, self.address, self.host.nbytes, kind, stream))

    def free(self) -> None:
        """Give both memories back; `host` is then invalid."""
        self.host = np.empty(0, self.host.dtype)
        check(cudart.cudaFree(self.address))
        check(cudart.cudaFreeHost(self._host_address))
