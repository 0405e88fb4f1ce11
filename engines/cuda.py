"""CUDA memory and streams, a thin layer over the runtime API in NVIDIA's ``cuda-bindings``.

Nothing is imported before it is needed. Every call of CUDA goes through one function, which turns an error code into
an exception that has CUDA's name for it: :class:`UnavailableError` where there is no GPU that could be used, and
:class:`EngineError` for all else. Everything works on the calling thread's current device, in its primary context.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from importlib import import_module
from types import ModuleType
from typing import Any

import numpy as np
import numpy.typing as npt

from edge_resnet.errors import EngineError, UnavailableError

_NO_GPU = frozenset(
    {
        "cudaErrorInsufficientDriver",  # also what CUDA says where there is no driver at all
        "cudaErrorNoDevice",
        "cudaErrorInitializationError",
        "cudaErrorDevicesUnavailable",
        "cudaErrorSystemDriverMismatch",
        "cudaErrorSystemNotReady",
        "cudaErrorCompatNotSupportedOnDevice",
        "cudaErrorStubLibrary",
    }
)


def gpu_sm() -> int | None:
    """The current GPU's generation as compute capability × 10 (86 is 8.6); None where CUDA finds no GPU.

    Raises:
        UnavailableError: ``cuda-bindings`` is not installed.
    """
    runtime = _runtime()
    attributes = runtime.cudaDeviceAttr
    try:
        device = _call(runtime.cudaGetDevice)
        major = _call(runtime.cudaDeviceGetAttribute, attributes.cudaDevAttrComputeCapabilityMajor, device)
        minor = _call(runtime.cudaDeviceGetAttribute, attributes.cudaDevAttrComputeCapabilityMinor, device)
    except UnavailableError:
        return None
    return 10 * int(major) + int(minor)


class DeviceBuffer:
    """Memory on the GPU.

    Raises:
        UnavailableError: there is no GPU, or ``cuda-bindings`` is not installed.
        EngineError: the GPU has not that much memory left.
    """

    def __init__(self, size_bytes: int) -> None:
        self.size_bytes = size_bytes
        self.address = int(_call(_runtime().cudaMalloc, size_bytes))

    def close(self) -> None:
        """Frees the memory."""
        _call(_runtime().cudaFree, self.address)


class PinnedArray:
    """Page-locked host memory, seen as one array: the only host memory that CUDA copies without waiting.

    Raises:
        UnavailableError: there is no GPU, or ``cuda-bindings`` is not installed.
        EngineError: the memory cannot be had.
    """

    def __init__(self, shape: tuple[int, ...], dtype: npt.DTypeLike) -> None:
        runtime = _runtime()
        size_bytes = int(np.prod(shape)) * np.dtype(dtype).itemsize
        self._address = int(_call(runtime.cudaHostAlloc, size_bytes, runtime.cudaHostAllocDefault))
        memory = memoryview((ctypes.c_uint8 * size_bytes).from_address(self._address))
        self.array: npt.NDArray[Any] = np.frombuffer(memory, dtype=dtype).reshape(shape)

    def close(self) -> None:
        """Frees the memory; ``array`` must not be touched any more."""
        _call(_runtime().cudaFreeHost, self._address)


class Stream:
    """A queue of GPU work, done in order and beside the host.

    Raises:
        UnavailableError: there is no GPU, or ``cuda-bindings`` is not installed.
    """

    def __init__(self) -> None:
        runtime = _runtime()
        self._stream = _call(runtime.cudaStreamCreateWithFlags, runtime.cudaStreamNonBlocking)
        self.handle = int(self._stream)

    def upload(self, source: npt.NDArray[Any], target: DeviceBuffer) -> None:
        """Queues a copy of a contiguous pinned array to the start of a device buffer."""
        kind = _runtime().cudaMemcpyKind.cudaMemcpyHostToDevice
        self._copy(target.address, source.ctypes.data, min(source.nbytes, target.size_bytes), kind)

    def download(self, source: DeviceBuffer, target: npt.NDArray[Any]) -> None:
        """Queues a copy of the start of a device buffer to a contiguous pinned array, which it fills."""
        kind = _runtime().cudaMemcpyKind.cudaMemcpyDeviceToHost
        self._copy(target.ctypes.data, source.address, min(target.nbytes, source.size_bytes), kind)

    def _copy(self, target: int, source: int, size_bytes: int, kind: Any) -> None:
        _call(_runtime().cudaMemcpyAsync, target, source, size_bytes, kind, self._stream)

    def synchronize(self) -> None:
        """Waits until everything queued is done.

        Raises:
            EngineError: some of it failed.
        """
        _call(_runtime().cudaStreamSynchronize, self._stream)

    def close(self) -> None:
        """Frees the stream."""
        _call(_runtime().cudaStreamDestroy, self._stream)


def _runtime() -> ModuleType:
    try:
        return import_module("cuda.bindings.runtime")
    except ImportError as error:
        raise UnavailableError("cuda-bindings is not installed: pip install 'edge-resnet[cuda]'") from error


def _call(function: Callable[..., tuple[Any, ...]], *arguments: Any) -> Any:
    """Calls a CUDA function, which returns its error code and at most one value; returns the value."""
    code, *values = function(*arguments)
    runtime = _runtime()
    if code == runtime.cudaError_t.cudaSuccess:
        return values[0] if values else None
    name = runtime.cudaGetErrorName(code)[1].decode()
    if name in _NO_GPU:
        raise UnavailableError(f"needs an NVIDIA GPU: this host has none that CUDA can use ({name})")
    meaning = runtime.cudaGetErrorString(code)[1].decode()
    raise EngineError(f"CUDA's {function.__name__} failed: {name} ({meaning})")
