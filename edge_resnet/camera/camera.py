"""A camera: a source in a thread of its own, watched, and connected to again where it is lost."""

from __future__ import annotations

import logging
import random
import threading
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from edge_resnet.camera.connection import Connection
from edge_resnet.camera.registry import source_of
from edge_resnet.camera.retry import Retry
from edge_resnet.camera.slot import FrameSlot
from edge_resnet.camera.source import Source
from edge_resnet.errors import CameraError, CameraUnavailableError
from edge_resnet.frames import CameraFrame, FrameColor

_LOG = logging.getLogger(__name__)
WAITING = 4
"""Frames that may wait where none is to be lost: enough for a consumer that takes one now and then a little longer."""
GOODBYE_S = 0.5
"""How long ``close`` waits for the threads, seconds; one stuck in a driver or a stranger's iterator ends when it can."""


@dataclass(frozen=True)
class CameraStats:
    """What a camera did so far; frames that wait to be taken are captured and neither delivered nor dropped yet."""

    captured: int
    """Frames that the source gave."""
    delivered: int
    """Of these, those that the loop got."""
    dropped: int
    """Those that nobody got: a newer one came first, or the camera was closed."""
    reconnects: int
    """How often it was connected again after it was lost."""
    stalled: int
    """How often it was lost because no frame came in time."""
    connected: bool
    last_error: str | None
    """Why it was last lost."""


class Camera:
    """Frames of one source, for a loop; a context manager.

    Any thread may close it, and several may take frames, each of which goes to one.

    Args:
        source: where the frames come from.
        latest: keep the newest frame alone; otherwise no frame is lost, and the source waits for the loop.
        retry: when a live source counts as lost, and when to try again.

    Raises:
        CameraUnavailableError: a live source is not there, and ``retry.from_start`` is off.
        CameraError: what the source gives cannot be used.
        UnavailableError: a package that it needs is not installed.
    """

    def __init__(self, source: Source, *, latest: bool, retry: Retry | None = None) -> None:
        self.source = source
        self.latest = latest
        self._retry = retry or Retry()
        self._paced = latest and not source.live
        self._slot = FrameSlot(1 if latest else WAITING, newest_wins=latest)
        self._lock = threading.Lock()
        self._settled, self._closing = threading.Event(), threading.Event()
        self._connection: Connection | None = None
        self._connections = self._stalled = 0
        self._last_error: str | None = None
        self._refusal: Exception | None = None
        self._thread = threading.Thread(target=self._run, name=f"camera {source.name}", daemon=True)
        self._thread.start()
        self._settled.wait()
        if self._refusal is not None:
            self.close()
            raise self._refusal

    def __iter__(self) -> Camera:
        return self

    def __next__(self) -> CameraFrame:
        """The next frame, waited for; ends at the end of a file or folder, and once the camera is closed.

        Raises:
            CameraError: the source failed, and is not tried again.
        """
        frame = self._slot.take()
        if frame is None:
            raise StopIteration
        return frame

    @property
    def stats(self) -> CameraStats:
        """What it did so far."""
        captured, delivered, dropped = self._slot.counts()
        with self._lock:
            return CameraStats(
                captured,
                delivered,
                dropped,
                reconnects=max(0, self._connections - 1),
                stalled=self._stalled,
                connected=self._connection is not None and self._connection.connected,
                last_error=self._last_error,
            )

    def close(self) -> None:
        """Ends it, from any thread; a loop that waits for a frame ends. Again is no harm."""
        self._closing.set()
        self._slot.close()
        with self._lock:
            connection = self._connection
        if connection is not None:
            connection.abandon()
            connection.join(GOODBYE_S)
        if threading.current_thread() is not self._thread:
            self._thread.join(GOODBYE_S)
        self._settled.set()

    def __enter__(self) -> Camera:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _run(self) -> None:
        """Connects, watches, and connects again, until the source has ended, failed for good, or was closed."""
        failures = 0
        while not self._closing.is_set():
            connection = self._connect()
            error = connection.watch()
            failures = 1 if connection.frames else failures + 1
            with self._lock:
                self._connection = None
                self._stalled += connection.stalled
            if self._closing.is_set() or not self._goes_on(connection, error, failures):
                break
            wait = self._retry.wait_s(failures, random.random())
            _LOG.warning("%s: next attempt in %.1f s", self._last_error, wait)
            self._closing.wait(wait)
        self._settled.set()

    def _connect(self) -> Connection:
        connection = Connection(self.source, self._slot, self._retry, self._connected, paced=self._paced)
        with self._lock:
            self._connection = connection
        connection.start()
        if self._closing.is_set():  # between the two: close() may have missed it
            connection.abandon()
        return connection

    def _connected(self) -> None:
        """A connection stands; each but the first is a reconnect."""
        with self._lock:
            self._connections += 1
            again = self._connections > 1
        if again:
            _LOG.warning("%s is connected again", self.source.name)
        self._settled.set()

    def _goes_on(self, connection: Connection, error: Exception | None, failures: int) -> bool:
        """Whether to connect again; if not, the loop gets the end, or the error."""
        lost = self.source.live and (error is None or isinstance(error, CameraUnavailableError))
        if not lost:
            return self._ends(error)
        error = error or CameraUnavailableError(f"{self.source.name} ended")
        _forget_trace(error)
        with self._lock:
            self._last_error = str(error)
        if not self._settled.is_set() and not self._retry.from_start:
            return self._ends(error)
        self._settled.set()
        if failures == self._retry.attempts:
            return self._ends(CameraUnavailableError(f"{error}; gave up after {failures} attempts without a frame"))
        return True

    def _ends(self, error: Exception | None) -> bool:
        if not self._settled.is_set():
            self._refusal = error
        self._slot.end(error)
        return False


def _forget_trace(error: BaseException | None) -> None:
    """Frees what a lost connection held, frames among it.

    An error, its traceback and the connection form a ring, which Python would leave in memory for long.
    """
    while error is not None:
        error.__traceback__ = None
        error = error.__cause__ or error.__context__


def open_camera(
    source: str | Path | Iterable[npt.NDArray[np.uint8]],
    *,
    latest: bool | None = None,
    color: FrameColor | str = FrameColor.RGB,
    retry: Retry | None = None,
) -> Camera:
    """Opens a camera, stream, video file or image folder, or anything that gives arrays.

        with open_camera("v4l2:///dev/video0?size=1280x720") as camera:
            for frame in camera: ...

    Args:
        source: an address (``rtsp://…``, ``v4l2:///dev/video0``, ``csi://0``), the path of a video file or of a folder
            of images, or an iterable of uint8 H×W×C arrays (H×W where grey), which another thread runs through.
        latest: keep the newest frame alone, and play a video file at its own speed; off, no frame is lost, and the
            source waits for the loop. By default on where the source is live.
        color: of the frames. What is decoded is brought to it; an iterable's arrays are declared to have it.
        retry: when a live source counts as lost, and when to try again.

    Raises:
        CameraUnavailableError: the camera is not there.
        CameraError: the address, or what it leads to, cannot be used.
        UnavailableError: a package that it needs is not installed.
    """
    found = source_of(source, _color(color))
    return Camera(found, latest=found.live if latest is None else latest, retry=retry)


def _color(given: FrameColor | str) -> FrameColor:
    try:
        return FrameColor(given)
    except ValueError:
        known = ", ".join(each.value for each in FrameColor)
        raise CameraError(f"color is '{given}': give one of {known}") from None
