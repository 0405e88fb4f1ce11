"""CUDA by PyCUDA, for programs that use it already: in the same primary context, pushed and popped around our work.

PyCUDA knows no graphs; where ``cuda-bindings`` is installed too, it captures them on PyCUDA's streams.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cached_property
from importlib import import_module
from importlib.util import find_spec
from types import ModuleType
from typing import Any

import numpy as np

from edge_resnet.engines.cuda.api import CudaApi, Gpu, Handle, needs_gpu
from edge_resnet.engines.cuda.bindings import CudaBindings
from edge_resnet.errors import EngineError, UnavailableError


class PyCuda(CudaApi):
    """CUDA by PyCUDA, on the device of the calling thread's context, else on the first.

    Raises:
        UnavailableError: the package is not installed.
    """

    name = "pycuda"

    def __init__(self) -> None:
        if find_spec("pycuda") is None:
            raise UnavailableError(
                "PyCUDA is not installed: pip install 'edge-resnet[pycuda]' (it needs CUDA's headers: docs/gpu.md)"
            )
        self._memory: dict[int, Any] = {}
        self._host_memory: dict[int, Any] = {}
        self.has_graphs = find_spec("cuda") is not None and find_spec("cuda.bindings") is not None

    @cached_property
    def _cuda(self) -> ModuleType:
        try:
            cuda = import_module("pycuda.driver")
            cuda.init()
        except ImportError as error:  # PyCUDA is linked to the driver
            raise needs_gpu(" ".join(str(error).split())) from error
        except cuda.Error as error:
            raise needs_gpu(str(error)) from error
        return cuda

    @cached_property
    def _bindings(self) -> CudaBindings:
        return CudaBindings()

    def _call(self, function: Callable[..., Any], *arguments: Any, **named: Any) -> Any:
        """Calls a function of PyCUDA, whose exceptions have the name of CUDA's function and its reason."""
        try:
            return function(*arguments, **named)
        except self._cuda.Error as error:
            raise EngineError(f"CUDA's {' '.join(str(error).split())}") from error

    @cached_property
    def _device(self) -> Any:
        if self._call(self._cuda.Context.get_current) is not None:
            return self._call(self._cuda.Context.get_device)
        return self._call(self._cuda.Device, 0)

    @cached_property
    def _context(self) -> Any:
        return self._call(self._device.retain_primary_context)

    @contextmanager
    def current(self) -> Iterator[None]:
        context = self._context
        self._call(context.push)
        try:
            yield
        finally:
            self._call(context.pop)

    def gpu(self) -> Gpu:
        major, minor = self._device.compute_capability()
        integrated = self._device.get_attribute(self._cuda.device_attribute.INTEGRATED)
        return Gpu(self._device.name(), 10 * major + minor, bool(integrated))

    def driver_version(self) -> int:
        return int(self._cuda.get_driver_version())

    def free_bytes(self) -> int:
        return int(self._call(self._cuda.mem_get_info)[0])

    def allocate(self, size: int) -> int:
        memory = self._call(self._cuda.mem_alloc, size)
        self._memory[int(memory)] = memory
        return int(memory)

    def release(self, address: int) -> None:
        self._call(self._memory.pop(address).free)

    def allocate_host(self, size: int, *, mapped: bool) -> int:
        flags = self._cuda.host_alloc_flags.DEVICEMAP if mapped else 0
        array = self._call(self._cuda.pagelocked_empty, (size,), np.uint8, mem_flags=flags)
        self._host_memory[array.ctypes.data] = array.base
        return int(array.ctypes.data)

    def release_host(self, address: int) -> None:
        self._call(self._host_memory.pop(address).free)

    def device_address(self, host_address: int) -> int:
        return int(self._call(self._host_memory[host_address].get_device_pointer))

    def create_stream(self) -> Handle:
        return self._call(self._cuda.Stream, _NON_BLOCKING)

    def stream_number(self, stream: Handle) -> int:
        return int(stream.handle)

    def synchronize(self, stream: Handle) -> None:
        self._call(stream.synchronize)

    def destroy_stream(self, stream: Handle) -> None:
        """Nothing: PyCUDA does it when the last reference goes."""

    def upload(self, target: int, source: int, size: int, stream: Handle) -> None:
        self._call(self._cuda.memcpy_htod_async, target, (ctypes.c_uint8 * size).from_address(source), stream)

    def download(self, target: int, source: int, size: int, stream: Handle) -> None:
        self._call(self._cuda.memcpy_dtoh_async, (ctypes.c_uint8 * size).from_address(target), source, stream)

    def copy_rows(self, target: int, source: int, pitch: int, width: int, rows: int, stream: Handle) -> None:
        copy = self._cuda.Memcpy2D()
        copy.set_src_device(source)
        copy.set_dst_device(target)
        copy.src_pitch, copy.dst_pitch, copy.width_in_bytes, copy.height = pitch, width, width, rows
        self._call(copy, stream)

    def create_event(self) -> Handle:
        return self._call(self._cuda.Event)

    def record(self, event: Handle, stream: Handle) -> None:
        self._call(event.record, stream)

    def follow(self, stream: Handle, other: int) -> None:
        self._need_bindings("the caller's stream")
        self._bindings.follow(stream.handle, other)

    def elapsed_ms(self, start: Handle, end: Handle) -> float:
        return float(self._call(start.time_till, end))

    def destroy_event(self, event: Handle) -> None:
        """Nothing: PyCUDA does it when the last reference goes."""

    def begin_capture(self, stream: Handle) -> None:
        self._need_bindings("a CUDA graph")
        self._bindings.begin_capture(stream.handle)

    def end_capture(self, stream: Handle) -> Handle:
        return self._bindings.end_capture(stream.handle)

    def abandon_capture(self, stream: Handle) -> None:
        self._bindings.abandon_capture(stream.handle)

    def launch(self, graph: Handle, stream: Handle) -> None:
        self._bindings.launch(graph, stream.handle)

    def destroy_graph(self, graph: Handle) -> None:
        self._bindings.destroy_graph(graph)

    def _need_bindings(self, what: str) -> None:
        if not self.has_graphs:
            raise UnavailableError(f"PyCUDA cannot take {what}: pip install 'edge-resnet[cuda]' beside it")


_NON_BLOCKING = 1
"""CU_STREAM_NON_BLOCKING of CUDA's ``cuda.h``, for which PyCUDA has no name."""
