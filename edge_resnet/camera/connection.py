"""One connection to a source: a thread that reads its frames, and the watch over it."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator

from edge_resnet.camera.retry import Retry
from edge_resnet.camera.slot import FrameSlot
from edge_resnet.camera.source import Shot, Source
from edge_resnet.errors import CameraError, CameraUnavailableError, EdgeResnetError


class Connection:
    """Reads a source into a slot until it ends, fails or is abandoned.

    A thread that hangs in a driver cannot be stopped, only left behind: an abandoned connection gives no frame any more,
    and its thread ends as soon as the source lets it.

    Args:
        connected: called when the source is open.
        paced: wait for the time of each shot, as if it were recorded only now.
    """

    def __init__(
        self, source: Source, slot: FrameSlot, retry: Retry, connected: Callable[[], None], *, paced: bool
    ) -> None:
        self.frames = 0
        self.stalled = self.connected = False
        self._source, self._slot, self._retry, self._paced = source, slot, retry, paced
        self._on_connected = connected
        self._error: Exception | None = None
        self._over, self._abandoned = threading.Event(), threading.Event()
        self._opened = threading.Event()
        """Connected, or over without."""
        self._asked: float | None = None
        """When the reader began to wait for a frame."""
        self._thread = threading.Thread(target=self._read, name=f"frames of {source.name}", daemon=True)

    def start(self) -> None:
        """Starts reading."""
        self._thread.start()

    def abandon(self) -> None:
        """Gives it up, from any thread."""
        self._abandoned.set()
        self._over.set()
        self._opened.set()
        self._source.interrupt()

    def join(self, seconds: float) -> None:
        """Waits for the thread, so long at most; not for itself."""
        if threading.current_thread() is not self._thread:
            self._thread.join(seconds)

    def watch(self) -> Exception | None:
        """Waits until it is over, and abandons it where it takes too long; why it is over, ``None`` for an end."""
        live = self._source.live
        if not self._opened.wait(self._retry.connect_s if live else None):
            self._give_up(f"did not answer within {self._retry.connect_s:g} s")
        while not self._over.wait(self._patience_s() if live else None):
            if self._patience_s() == 0:
                self.stalled = True
                self._give_up(f"gave no frame for {self._retry.stall_s:g} s")
        return self._error

    def _patience_s(self) -> float:
        """Seconds that the source may still take for a frame; the time in which nobody asks it does not count."""
        asked = self._asked
        return self._retry.stall_s if asked is None else max(0.0, asked + self._retry.stall_s - time.monotonic())

    def _give_up(self, reason: str) -> None:
        self._error = CameraUnavailableError(f"{self._source.name} {reason}")
        self.abandon()

    def _read(self) -> None:
        error: Exception | None = None
        try:
            with self._source.connect() as shots:
                self._take_all(iter(shots))
        except EdgeResnetError as known:
            error = known
        except Exception as unknown:  # a stranger's iterator may raise anything; the loop that waits has to learn it
            error = CameraError(f"{self._source.name} failed: {type(unknown).__name__}: {unknown}")
            error.__cause__ = unknown
        finally:
            if not self._over.is_set():
                self._error = error
            self._over.set()
            self._opened.set()

    def _take_all(self, shots: Iterator[Shot]) -> None:
        if self._abandoned.is_set():
            return
        self.connected = True
        self._on_connected()
        self._opened.set()
        began: float | None = None
        while (shot := self._next(shots)) is not None:
            if self._paced and shot.at_s is not None:
                began = time.monotonic() - shot.at_s if began is None else began
                self._abandoned.wait(max(0.0, began + shot.at_s - time.monotonic()))
            if self._abandoned.is_set() or not self._slot.put(shot.pixels, self._source.color):
                return
            self.frames += 1

    def _next(self, shots: Iterator[Shot]) -> Shot | None:
        self._asked = time.monotonic()
        shot = next(shots, None)
        self._asked = None
        return shot
