"""Work on the newest prediction now and then, which the loop that makes predictions never waits for."""

from __future__ import annotations

import logging
import os
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Generic, TypeVar

from edge_resnet.classifier import Prediction

Result = TypeVar("Result")
_LOG = logging.getLogger(__name__)
NICENESS = 10
"""Of threads that stand back: where processors are few, the loop gets ten times their share (sched(7)). Only for work that
is done outside Python's lock: a thread that is kept from running while it holds that one keeps the loop too."""


class NewestWorker(Generic[Result]):
    """Works on the newest prediction in a thread of its own, while somebody watches, and keeps the result.

    It rests at least as long as it works, and its thread stands back behind others; so do the threads that the work
    starts, since Linux hands niceness down.

    Args:
        work: makes a result; an error ends the worker, and is in ``failure``.
        per_second: results, at most.
        name: of the thread.
    """

    def __init__(self, work: Callable[[Prediction], Result], per_second: float, name: str) -> None:
        self.result: Result | None = None
        self.failure: str | None = None
        self._work, self._pause_s = work, 1 / per_second
        self._newest: Prediction | None = None
        self._lock = threading.Lock()
        self._watchers = 0
        self._closing = threading.Event()
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)
        self._thread.start()

    def put(self, prediction: Prediction) -> None:
        """Leaves a prediction for it. There is no lock here: whoever held it might be kept from running by others."""
        self._newest = prediction

    @contextmanager
    def watched(self) -> Iterator[None]:
        """Somebody watches, as long as the block lasts."""
        with self._lock:
            self._watchers += 1
        try:
            yield
        finally:
            with self._lock:
                self._watchers -= 1

    @property
    def watchers(self) -> int:
        """How many watch."""
        return self._watchers

    def close(self) -> None:
        """Ends it, and waits for the work at hand."""
        self._closing.set()
        self._thread.join()

    def _run(self) -> None:
        _stand_back()
        done: Prediction | None = None
        took = 0.0
        while not self._closing.wait(max(took, self._pause_s - took)):
            started, prediction = time.monotonic(), self._newest
            if self._watchers and prediction is not None and prediction is not done:
                try:
                    self.result = self._work(prediction)
                except Exception as error:  # whatever it is, the loop goes on, and the page says what is missing
                    _LOG.warning("%s: %s", self._thread.name, error)
                    self.failure = str(error)
                    return
                done = prediction
            took = time.monotonic() - started


def _stand_back() -> None:
    """Lets other threads go before this one, and before those that it starts from now on."""
    try:
        os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), NICENESS)
    except OSError:  # a sandbox may forbid even that
        _LOG.debug("this thread's niceness cannot be set")
