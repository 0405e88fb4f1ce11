"""What engines need of CUDA, as functions on addresses and handles: one Python binding is one subclass."""

from __future__ import annotations

from abc import ABC, abstractmethod
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any, ClassVar

from edge_resnet.errors import UnavailableError

Handle = Any
"""A stream, an event or a graph, as its binding has it."""


@dataclass(frozen=True)
class Gpu:
    """The GPU that a binding works on."""

    name: str
    sm: int
    """Compute capability × 10: 86 is 8.6."""
    integrated: bool
    """Whether it shares its memory with the CPU, as on a Jetson: then nothing needs to be copied."""

    @property
    def words(self) -> str:
        """The GPU as a record names it."""
        return f"{self.name} (SM {self.sm})"


class CudaApi(ABC):
    """CUDA's functions by one Python binding, on one GPU and in its primary context.

    Every function but ``current`` needs that context to be current on the calling thread: call inside
    ``with api.current():``. Sizes are bytes. All work that takes a stream is queued and not waited for.

    Raises (every function):
        UnavailableError: there is no GPU that CUDA can use.
        EngineError: CUDA refuses; its own name for the reason is in the message.
    """

    name: ClassVar[str]
    """What ``cuda_api`` calls it."""
    has_graphs: bool
    """Whether streams can be captured into graphs."""

    @abstractmethod
    def current(self) -> AbstractContextManager[None]:
        """Makes the GPU's primary context current on this thread, and gives the thread back what it had."""

    @abstractmethod
    def gpu(self) -> Gpu:
        """The GPU."""

    @abstractmethod
    def driver_version(self) -> int:
        """The newest CUDA that the driver has, as CUDA counts: 12060 is 12.6."""

    @abstractmethod
    def free_bytes(self) -> int:
        """The GPU's memory that nobody holds."""

    @abstractmethod
    def allocate(self, size: int) -> int:
        """Takes device memory; gives its address."""

    @abstractmethod
    def release(self, address: int) -> None:
        """Frees device memory."""

    @abstractmethod
    def allocate_host(self, size: int, *, mapped: bool) -> int:
        """Takes page-locked host memory, which the GPU can also read where it lies when it is ``mapped``."""

    @abstractmethod
    def release_host(self, address: int) -> None:
        """Frees page-locked host memory."""

    @abstractmethod
    def device_address(self, host_address: int) -> int:
        """Where the GPU sees mapped host memory."""

    @abstractmethod
    def create_stream(self) -> Handle:
        """Makes a stream that does not wait for the default one."""

    @abstractmethod
    def stream_number(self, stream: Handle) -> int:
        """The stream as the number that C takes."""

    @abstractmethod
    def synchronize(self, stream: Handle) -> None:
        """Waits until all that is queued is done; raises what failed of it."""

    @abstractmethod
    def destroy_stream(self, stream: Handle) -> None:
        """Frees a stream."""

    @abstractmethod
    def upload(self, target: int, source: int, size: int, stream: Handle) -> None:
        """Queues a copy from page-locked host memory to the GPU."""

    @abstractmethod
    def download(self, target: int, source: int, size: int, stream: Handle) -> None:
        """Queues a copy from the GPU to page-locked host memory."""

    @abstractmethod
    def copy_rows(self, target: int, source: int, pitch: int, width: int, rows: int, stream: Handle) -> None:
        """Queues a copy on the GPU of rows that start ``pitch`` bytes apart to rows that follow each other."""

    @abstractmethod
    def create_event(self) -> Handle:
        """Makes an event that knows its time."""

    @abstractmethod
    def record(self, event: Handle, stream: Handle) -> None:
        """Queues the event, which happens when all that is queued before it is done."""

    @abstractmethod
    def follow(self, stream: Handle, other: int) -> None:
        """Has all that is queued later wait, on the GPU, for what is queued on another's stream, given as C's number."""

    @abstractmethod
    def elapsed_ms(self, start: Handle, end: Handle) -> float:
        """Milliseconds between two events that have happened."""

    @abstractmethod
    def destroy_event(self, event: Handle) -> None:
        """Frees an event."""

    @abstractmethod
    def begin_capture(self, stream: Handle) -> None:
        """Has a stream note down what is queued in the place of doing it."""

    @abstractmethod
    def end_capture(self, stream: Handle) -> Handle:
        """Makes what a stream has noted down a graph that can be launched."""

    @abstractmethod
    def abandon_capture(self, stream: Handle) -> None:
        """Forgets what a stream has noted down, after a failure; never raises."""

    @abstractmethod
    def launch(self, graph: Handle, stream: Handle) -> None:
        """Queues all of a graph at once."""

    @abstractmethod
    def destroy_graph(self, graph: Handle) -> None:
        """Frees a graph."""


def needs_gpu(reason: str) -> UnavailableError:
    """The error of a host where CUDA finds no GPU; ``reason`` is CUDA's own word for it."""
    return UnavailableError(f"needs an NVIDIA GPU: this host has none that CUDA can use ({reason})")
