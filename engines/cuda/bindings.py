"""CUDA by NVIDIA's ``cuda-bindings``: the driver API, in the GPU's primary context, which all libraries share.

Every call goes through one function, which turns an error code into an exception that has CUDA's name for it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cached_property
from importlib import import_module
from types import ModuleType
from typing import Any

from edge_resnet.engines.cuda.api import CudaApi, Gpu, Handle, needs_gpu
from edge_resnet.errors import EngineError, UnavailableError

_NO_GPU = frozenset(
    {
        "CUDA_ERROR_NO_DEVICE",
        "CUDA_ERROR_NOT_INITIALIZED",
        "CUDA_ERROR_DEVICE_UNAVAILABLE",
        "CUDA_ERROR_STUB_LIBRARY",
        "CUDA_ERROR_SYSTEM_DRIVER_MISMATCH",
        "CUDA_ERROR_SYSTEM_NOT_READY",
        "CUDA_ERROR_COMPAT_NOT_SUPPORTED_ON_DEVICE",
        "CUDA_ERROR_UNKNOWN",  # what a driver says whose kernel module is another version's
    }
)
_GONE = frozenset({"CUDA_ERROR_DEINITIALIZED"})
"""The process ends and the driver has freed everything already."""


class CudaBindings(CudaApi):
    """CUDA by ``cuda-bindings``, on the device of the calling thread's context, else on the first.

    Raises:
        UnavailableError: the package is not installed.
    """

    name = "cuda-bindings"
    has_graphs = True

    def __init__(self) -> None:
        try:
            self._cuda: ModuleType = import_module("cuda.bindings.driver")
        except ImportError as error:
            raise UnavailableError("cuda-bindings is not installed: pip install 'edge-resnet[cuda]'") from error
        self._success = self._cuda.CUresult.CUDA_SUCCESS

    def _call(self, function: Callable[..., tuple[Any, ...]], *arguments: Any) -> Any:
        """Calls a CUDA function, which returns its error code and at most one value; returns the value."""
        result = function(*arguments)
        if result[0] == self._success:
            return result[1] if len(result) > 1 else None
        name = self._cuda.cuGetErrorName(result[0])[1].decode()
        if name in _NO_GPU:
            raise needs_gpu(name)
        meaning = self._cuda.cuGetErrorString(result[0])[1].decode()
        raise EngineError(f"CUDA's {function.__name__} failed: {name} ({meaning})")

    def _free(self, function: Callable[..., tuple[Any, ...]], handle: Any) -> None:
        result = function(handle)
        if result[0] != self._success and result[0].name not in _GONE:
            self._call(lambda: result)

    @cached_property
    def _device(self) -> Any:
        try:
            self._call(self._cuda.cuInit, 0)
        except RuntimeError as error:  # the package found no libcuda.so.1
            raise needs_gpu("no NVIDIA driver") from error
        if int(self._call(self._cuda.cuCtxGetCurrent)):
            return self._call(self._cuda.cuCtxGetDevice)
        return self._call(self._cuda.cuDeviceGet, 0)

    @cached_property
    def _context(self) -> Any:
        return self._call(self._cuda.cuDevicePrimaryCtxRetain, self._device)

    @contextmanager
    def current(self) -> Iterator[None]:
        self._call(self._cuda.cuCtxPushCurrent, self._context)
        try:
            yield
        finally:
            self._call(self._cuda.cuCtxPopCurrent)

    def gpu(self) -> Gpu:
        kinds = self._cuda.CUdevice_attribute

        def attribute(kind: Any) -> int:
            return int(self._call(self._cuda.cuDeviceGetAttribute, kind, self._device))

        name = self._call(self._cuda.cuDeviceGetName, 256, self._device).split(b"\0")[0].decode()
        major = attribute(kinds.CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR)
        minor = attribute(kinds.CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MINOR)
        return Gpu(name, 10 * major + minor, bool(attribute(kinds.CU_DEVICE_ATTRIBUTE_INTEGRATED)))

    def driver_version(self) -> int:
        return int(self._call(self._cuda.cuDriverGetVersion))

    def free_bytes(self) -> int:
        code, free, _ = self._cuda.cuMemGetInfo()
        self._call(lambda: (code,))
        return int(free)

    def allocate(self, size: int) -> int:
        return int(self._call(self._cuda.cuMemAlloc, size))

    def release(self, address: int) -> None:
        self._free(self._cuda.cuMemFree, address)

    def allocate_host(self, size: int, *, mapped: bool) -> int:
        return int(self._call(self._cuda.cuMemHostAlloc, size, self._cuda.CU_MEMHOSTALLOC_DEVICEMAP if mapped else 0))

    def release_host(self, address: int) -> None:
        self._free(self._cuda.cuMemFreeHost, address)

    def device_address(self, host_address: int) -> int:
        return int(self._call(self._cuda.cuMemHostGetDevicePointer, host_address, 0))

    def create_stream(self) -> Handle:
        return self._call(self._cuda.cuStreamCreate, self._cuda.CUstream_flags.CU_STREAM_NON_BLOCKING.value)

    def stream_number(self, stream: Handle) -> int:
        return int(stream)

    def synchronize(self, stream: Handle) -> None:
        self._call(self._cuda.cuStreamSynchronize, stream)

    def destroy_stream(self, stream: Handle) -> None:
        self._free(self._cuda.cuStreamDestroy, stream)

    def upload(self, target: int, source: int, size: int, stream: Handle) -> None:
        self._call(self._cuda.cuMemcpyHtoDAsync, target, source, size, stream)

    def download(self, target: int, source: int, size: int, stream: Handle) -> None:
        self._call(self._cuda.cuMemcpyDtoHAsync, target, source, size, stream)

    def copy_rows(self, target: int, source: int, pitch: int, width: int, rows: int, stream: Handle) -> None:
        copy = self._cuda.CUDA_MEMCPY2D()
        copy.srcMemoryType = copy.dstMemoryType = self._cuda.CUmemorytype.CU_MEMORYTYPE_DEVICE
        copy.srcDevice, copy.srcPitch = source, pitch
        copy.dstDevice, copy.dstPitch = target, width
        copy.WidthInBytes, copy.Height = width, rows
        self._call(self._cuda.cuMemcpy2DAsync, copy, stream)

    def create_event(self) -> Handle:
        return self._call(self._cuda.cuEventCreate, 0)

    def record(self, event: Handle, stream: Handle) -> None:
        self._call(self._cuda.cuEventRecord, event, stream)

    def follow(self, stream: Handle, other: int) -> None:
        event = self._call(self._cuda.cuEventCreate, self._cuda.CUevent_flags.CU_EVENT_DISABLE_TIMING.value)
        try:
            self._call(self._cuda.cuEventRecord, event, other)
            self._call(self._cuda.cuStreamWaitEvent, stream, event, 0)
        finally:
            self._free(self._cuda.cuEventDestroy, event)  # CUDA keeps it until it has happened

    def elapsed_ms(self, start: Handle, end: Handle) -> float:
        return float(self._call(self._cuda.cuEventElapsedTime, start, end))

    def destroy_event(self, event: Handle) -> None:
        self._free(self._cuda.cuEventDestroy, event)

    def begin_capture(self, stream: Handle) -> None:
        # Thread-local: what other threads do with CUDA meanwhile neither stops the capture nor joins it.
        mode = self._cuda.CUstreamCaptureMode.CU_STREAM_CAPTURE_MODE_THREAD_LOCAL
        self._call(self._cuda.cuStreamBeginCapture, stream, mode)

    def end_capture(self, stream: Handle) -> Handle:
        graph = self._call(self._cuda.cuStreamEndCapture, stream)
        try:
            return self._call(self._cuda.cuGraphInstantiate, graph, 0)
        finally:
            self._call(self._cuda.cuGraphDestroy, graph)

    def abandon_capture(self, stream: Handle) -> None:
        code, graph = self._cuda.cuStreamEndCapture(stream)
        if code == self._success and int(graph):
            self._cuda.cuGraphDestroy(graph)

    def launch(self, graph: Handle, stream: Handle) -> None:
        self._call(self._cuda.cuGraphLaunch, graph, stream)

    def destroy_graph(self, graph: Handle) -> None:
        self._free(self._cuda.cuGraphExecDestroy, graph)
