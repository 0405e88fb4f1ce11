"""The GPU's queue of work, points in it, and parts of it that are queued at one stroke."""

from __future__ import annotations

from collections.abc import Callable

from edge_resnet.engines.cuda.api import CudaApi


class Graph:
    """Work that a stream has captured. Queueing it again costs one call, whatever it holds."""

    def __init__(self, api: CudaApi, stream: Stream, work: Callable[[], None]) -> None:
        self._api, self._stream = api, stream
        with api.current():
            api.begin_capture(stream.handle)
            try:
                work()
            except BaseException:
                api.abandon_capture(stream.handle)
                raise
            self._handle = api.end_capture(stream.handle)

    def launch(self) -> None:
        """Queues all of it on the stream that it was captured on."""
        self._api.launch(self._handle, self._stream.handle)

    def close(self) -> None:
        """Frees the graph."""
        with self._api.current():
            self._api.destroy_graph(self._handle)


class Event:
    """A point in a stream's work, which knows when it was reached."""

    def __init__(self, api: CudaApi) -> None:
        self._api = api
        with api.current():
            self._handle = api.create_event()

    def record(self, stream: Stream) -> None:
        """Queues the event."""
        self._api.record(self._handle, stream.handle)

    def ms_since(self, start: Event) -> float:
        """Milliseconds on the GPU since another event; both have happened."""
        with self._api.current():
            return self._api.elapsed_ms(start._handle, self._handle)

    def close(self) -> None:
        """Frees the event."""
        with self._api.current():
            self._api.destroy_event(self._handle)


class Stream:
    """A queue of GPU work, done in order and beside the host and all other streams.

    What queues work on it is called inside ``with api.current():``.

    Raises:
        UnavailableError: there is no GPU.
    """

    def __init__(self, api: CudaApi) -> None:
        self._api = api
        with api.current():
            self.handle = api.create_stream()
            self.number = api.stream_number(self.handle)
            """As C, and so TensorRT, takes it."""

    def follow(self, other: int) -> None:
        """Has later work wait for all that is queued on another's stream, given as C's number; the host waits not."""
        self._api.follow(self.handle, other)

    def synchronize(self) -> None:
        """Waits until everything queued is done.

        Raises:
            EngineError: some of it failed.
        """
        self._api.synchronize(self.handle)

    def close(self) -> None:
        """Frees the stream."""
        with self._api.current():
            self._api.destroy_stream(self.handle)
