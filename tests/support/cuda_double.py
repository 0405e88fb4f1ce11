"""CUDA without a GPU, stricter than CUDA: work waits until somebody synchronizes, and what a GPU would punish is an error.

Errors here: memory used after it was freed, or freed while queued work needs it; host memory that changes while a copy of
it is queued; a host array that is read before the stream was synchronized (it holds what it held); sizes and pitches that
leave their allocation; calls without a current context, or that a capture forbids; a graph of another stream.
"""

from __future__ import annotations

import ctypes
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import count
from threading import local

import numpy as np

from edge_resnet.engines.cuda.api import CudaApi, Gpu
from edge_resnet.errors import EngineError

PAGE = 4096


class MisuseError(AssertionError):
    """What a GPU would punish with wrong answers, a crash, or not at all today."""


@dataclass(eq=False)
class Work:
    """Something queued: what it is called, which allocations it needs, and what it does."""

    name: str
    needs: tuple[int, ...]
    do: Callable[[], None]


@dataclass(eq=False)
class FakeStream:
    number: int
    queue: deque[Work] = field(default_factory=deque)
    captured: list[Work] | None = None
    dead: bool = False


@dataclass(eq=False)
class FakeGraph:
    stream: FakeStream
    work: list[Work]
    dead: bool = False


class CudaDouble(CudaApi):
    """CUDA by nobody; see the module."""

    name = "double"
    has_graphs = True

    def __init__(self, *, sm: int = 87, integrated: bool = False, memory: int = 1 << 30) -> None:
        self._gpu = Gpu("NVIDIA Double", sm, integrated)
        self.gpu_is_integrated = integrated
        self._free = memory
        self.device_memory: dict[int, np.ndarray] = {}
        self.host_memory: dict[int, np.ndarray] = {}
        self.mapped: dict[int, int] = {}
        self.streams: dict[int, FakeStream] = {}
        self.graphs: set[FakeGraph] = set()
        self.events = 0
        self.log: list[str] = []
        self._addresses = count(0x7000_0000_0000, 1 << 32)
        self._numbers = count(0x1000, 8)
        self._thread = local()
        self.default_stream = FakeStream(1)
        self.streams[1] = self.default_stream

    @contextmanager
    def current(self) -> Iterator[None]:
        self._thread.depth = getattr(self._thread, "depth", 0) + 1
        try:
            yield
        finally:
            self._thread.depth -= 1

    def _need_context(self) -> None:
        if getattr(self._thread, "depth", 0) == 0:
            raise MisuseError("no context is current on this thread")

    def _no_capture(self, what: str) -> None:
        self._need_context()
        if any(stream.captured is not None for stream in self.streams.values()):
            raise EngineError(f"CUDA's {what} failed: CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED (operation not permitted)")

    def gpu(self) -> Gpu:
        self._need_context()
        return self._gpu

    def driver_version(self) -> int:
        return 12060

    def free_bytes(self) -> int:
        self._need_context()
        return self._free

    def allocate(self, size: int) -> int:
        self._no_capture("cuMemAlloc")
        if size > self._free:
            raise EngineError("CUDA's cuMemAlloc failed: CUDA_ERROR_OUT_OF_MEMORY (out of memory)")
        self._free -= size
        address = next(self._addresses)
        self.device_memory[address] = np.full(size, 0xA5, np.uint8)
        return address

    def release(self, address: int) -> None:
        self._no_capture("cuMemFree")
        self._check_idle(address)
        self._free += self.device_memory.pop(address).nbytes

    def allocate_host(self, size: int, *, mapped: bool) -> int:
        self._no_capture("cuMemHostAlloc")
        backing = np.full(size + PAGE, 0x5A, np.uint8)
        start = -backing.ctypes.data % PAGE
        memory = backing[start : start + size]
        address = memory.ctypes.data
        self.host_memory[address] = memory
        if mapped:
            self.mapped[next(self._addresses)] = address
        return address

    def release_host(self, address: int) -> None:
        self._no_capture("cuMemFreeHost")
        self._check_idle(address)
        memory = self.host_memory.pop(address)
        memory[:] = 0xDD  # what still reads it reads this
        self.mapped = {device: host for device, host in self.mapped.items() if host != address}

    def device_address(self, host_address: int) -> int:
        self._need_context()
        return next(device for device, host in self.mapped.items() if host == host_address)

    def _check_idle(self, address: int) -> None:
        users = [work.name for stream in self.streams.values() for work in stream.queue if address in work.needs]
        if users:
            raise MisuseError(f"memory is freed while queued work needs it: {', '.join(users)}")

    def on_gpu(self, address: int, size: int) -> np.ndarray:
        """The bytes that the GPU sees at an address; they must be allocated."""
        for start, memory in self.device_memory.items():
            if start <= address and address + size <= start + memory.nbytes:
                return memory[address - start : address - start + size]
        for start, host in self.mapped.items():
            memory = self.host_memory[host]
            if start <= address and address + size <= start + memory.nbytes:
                return memory[address - start : address - start + size]
        raise MisuseError(f"the GPU has no {size} bytes at {address:#x}")

    def allocation(self, address: int) -> int:
        """Where the allocation starts that an address of the GPU lies in."""
        starts = [start for start, memory in self.device_memory.items() if start <= address < start + memory.nbytes]
        starts += [
            host for device, host in self.mapped.items() if 0 <= address - device < self.host_memory[host].nbytes
        ]
        if not starts:
            raise MisuseError(f"the GPU has no memory at {address:#x}")
        return starts[0]

    def pinned(self, address: int, size: int) -> np.ndarray:
        """Page-locked bytes at a host address."""
        for start, memory in self.host_memory.items():
            if start <= address and address + size <= start + memory.nbytes:
                return memory[address - start : address - start + size]
        raise MisuseError(f"an asynchronous copy of {size} bytes of host memory that is not page-locked")

    def create_stream(self) -> FakeStream:
        self._no_capture("cuStreamCreate")
        stream = FakeStream(next(self._numbers))
        self.streams[stream.number] = stream
        return stream

    def stream_number(self, stream: FakeStream) -> int:
        return stream.number

    def queue(self, stream: FakeStream, work: Work) -> None:
        self._need_context()
        if stream.dead:
            raise MisuseError("work for a stream that was destroyed")
        if stream.captured is not None:
            stream.captured.append(work)
        else:
            stream.queue.append(work)

    def finish(self, stream: FakeStream) -> None:
        """Does all that is queued."""
        while stream.queue:
            work = stream.queue.popleft()
            work.do()
            self.log.append(work.name)

    def synchronize(self, stream: FakeStream) -> None:
        self._need_context()
        if stream.dead:
            raise MisuseError("a stream is waited for that was destroyed")
        if stream.captured is not None:
            raise EngineError("CUDA's cuStreamSynchronize failed: CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED ()")
        self.finish(stream)
        self.log.append("synchronize")

    def destroy_stream(self, stream: FakeStream) -> None:
        self._no_capture("cuStreamDestroy")
        if stream.queue:
            raise MisuseError("a stream is destroyed with work in its queue")
        stream.dead = True
        del self.streams[stream.number]

    def upload(self, target: int, source: int, size: int, stream: FakeStream) -> None:
        host, seen = self.pinned(source, size), self.pinned(source, size).copy()
        self.on_gpu(target, size)

        def do() -> None:
            if stream.captured is None and not captured and not np.array_equal(seen, host):
                raise MisuseError("host memory changed while a copy of it was queued")
            self.on_gpu(target, size)[:] = host

        captured = stream.captured is not None  # a graph reads what is there when it is launched
        self.queue(stream, Work(f"upload {size}", (self.allocation(target), source), do))

    def download(self, target: int, source: int, size: int, stream: FakeStream) -> None:
        host = self.pinned(target, size)
        self.on_gpu(source, size)

        def do() -> None:
            host[:] = self.on_gpu(source, size)

        self.queue(stream, Work(f"download {size}", (target, self.allocation(source)), do))

    def copy_rows(self, target: int, source: int, pitch: int, width: int, rows: int, stream: FakeStream) -> None:
        if pitch < width:
            raise EngineError("CUDA's cuMemcpy2DAsync failed: CUDA_ERROR_INVALID_VALUE (invalid argument)")
        self.on_gpu(source, pitch * (rows - 1) + width)
        self.on_gpu(target, width * rows)

        def do() -> None:
            for row in range(rows):
                self.on_gpu(target + row * width, width)[:] = self.on_gpu(source + row * pitch, width)

        needs = (self.allocation(target), self.allocation(source))
        self.queue(stream, Work(f"copy {rows} rows of {width}", needs, do))

    def create_event(self) -> list[float]:
        self._need_context()
        self.events += 1
        return []

    def record(self, event: list[float], stream: FakeStream) -> None:
        self.queue(stream, Work("event", (), lambda: event.append(float(len(self.log)))))

    def follow(self, stream: FakeStream, other: int) -> None:
        leader = self.streams[other]
        before = tuple(leader.queue)

        def do() -> None:
            while leader.queue and leader.queue[0] in before:
                work = leader.queue.popleft()
                work.do()
                self.log.append(work.name)

        self.queue(stream, Work("follow", (), do))

    def elapsed_ms(self, start: list[float], end: list[float]) -> float:
        if not start or not end:
            raise EngineError("CUDA's cuEventElapsedTime failed: CUDA_ERROR_NOT_READY (device not ready)")
        return end[-1] - start[-1]

    def destroy_event(self, event: list[float]) -> None:
        self._need_context()
        self.events -= 1

    def begin_capture(self, stream: FakeStream) -> None:
        self._no_capture("cuStreamBeginCapture")
        if stream.queue:
            self.finish(stream)  # a capture may begin behind queued work, which is done on its own
        stream.captured = []

    def end_capture(self, stream: FakeStream) -> FakeGraph:
        if stream.captured is None:
            raise EngineError("CUDA's cuStreamEndCapture failed: CUDA_ERROR_ILLEGAL_STATE (illegal state)")
        graph = FakeGraph(stream, stream.captured)
        stream.captured = None
        self.graphs.add(graph)
        self.log.append(f"capture of {', '.join(work.name for work in graph.work)}")
        return graph

    def abandon_capture(self, stream: FakeStream) -> None:
        stream.captured = None

    def launch(self, graph: FakeGraph, stream: FakeStream) -> None:
        if graph.dead:
            raise MisuseError("a graph is launched that was destroyed")
        if stream is not graph.stream:
            raise MisuseError("a graph is launched on another stream than it was captured on")
        self.log.append("launch")
        for work in graph.work:
            for address in work.needs:
                if address not in self.device_memory and address not in self.host_memory:
                    raise MisuseError(f"a graph's {work.name} needs memory that was freed")
            self.queue(stream, work)

    def destroy_graph(self, graph: FakeGraph) -> None:
        self._need_context()
        if any(work in graph.stream.queue for work in graph.work):
            raise MisuseError("a graph is destroyed while it runs")
        graph.dead = True
        self.graphs.discard(graph)

    def held(self) -> dict[str, int]:
        """What has not been freed."""
        streams = len(self.streams) - 1
        found = {
            "device memory": len(self.device_memory),
            "host memory": len(self.host_memory),
            "streams": streams,
            "graphs": len(self.graphs),
            "events": self.events,
        }
        return {what: number for what, number in found.items() if number}


def at_address(address: int, size: int) -> np.ndarray:
    """Host memory as it is, allocated or not."""
    return np.frombuffer(memoryview((ctypes.c_uint8 * size).from_address(address)), np.uint8)
