"""Hands frames from the thread that captures to the one that uses them, and accounts for each."""

from __future__ import annotations

import threading
import time
from collections import deque

import numpy as np
import numpy.typing as npt

from edge_resnet.frames import CameraFrame, FrameColor


class FrameSlot:
    """A place for frames: one, where the newest takes the place of what nobody fetched, or several, without loss.

    At any time ``captured == delivered + dropped + waiting``. Every method may be called from any thread.

    Args:
        capacity: frames that may wait.
        newest_wins: a new frame drops those that wait; otherwise it waits itself until there is room.
    """

    def __init__(self, capacity: int, *, newest_wins: bool) -> None:
        self.captured = self.delivered = self.dropped = 0
        self._capacity, self._newest_wins = capacity, newest_wins
        self._waiting: deque[CameraFrame] = deque()
        self._ended = self._closed = False
        self._error: Exception | None = None
        self._lock = threading.Lock()
        self._filled = threading.Condition(self._lock)
        self._freed = threading.Condition(self._lock)

    def put(self, pixels: npt.NDArray[np.uint8], color: FrameColor) -> bool:
        """Takes a frame that is complete now; false once the slot is closed, and the frame is dropped."""
        with self._lock:
            frame = CameraFrame(pixels, color, time.monotonic(), self.captured)
            self.captured += 1
            if self._newest_wins:
                self._drop_waiting()
            while len(self._waiting) >= self._capacity and not self._closed:
                self._freed.wait()
            if self._closed:
                self.dropped += 1
                return False
            self._waiting.append(frame)
            self._filled.notify()
            return True

    def take(self) -> CameraFrame | None:
        """The next frame, waited for; ``None`` at the end.

        Raises:
            CameraError: what ``end`` was given, once the frames before it are taken.
        """
        with self._lock:
            while not self._waiting and not self._ended:
                self._filled.wait()
            if self._waiting:
                self.delivered += 1
                self._freed.notify()
                return self._waiting.popleft()
            if self._error is not None:
                raise self._error
            return None

    def end(self, error: Exception | None = None) -> None:
        """No frame comes any more; those that wait can still be taken. The first call counts."""
        with self._lock:
            if not self._ended:
                self._ended, self._error = True, error
            self._filled.notify_all()

    def close(self) -> None:
        """Drops what waits and wakes everybody who does."""
        with self._lock:
            self._closed = self._ended = True
            self._drop_waiting()
            self._filled.notify_all()
            self._freed.notify_all()

    def counts(self) -> tuple[int, int, int]:
        """Captured, delivered and dropped, all of one moment."""
        with self._lock:
            return self.captured, self.delivered, self.dropped

    def _drop_waiting(self) -> None:
        self.dropped += len(self._waiting)
        self._waiting.clear()
