"""What the page shows of a live classification, as JSON values, for any number of browsers."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from enum import Enum
from typing import Any

from edge_resnet.camera import Camera, CameraStats
from edge_resnet.classifier import Classifier, Prediction
from edge_resnet.live import LiveView
from edge_resnet.web.beside import Compared, Fp32Beside
from edge_resnet.web.history import STEP_S, STEPS, TOP, History
from edge_resnet.web.newest import NewestWorker
from edge_resnet.web.picture import Picture, picture_of

PICTURES = 15
"""A second, at most."""
COMPARISONS = 10
"""With FP32 a second, at most."""
SILENT_S = 2.0
"""Without an answer, after which the page says so."""


class Status(Enum):
    """How the classification is; the values are the page's words for it."""

    STARTING = "starting"
    """Connected, and no frame yet."""
    LIVE = "live"
    SILENT = "silent"
    """Connected, but nothing was answered for ``SILENT_S``."""
    LOST = "lost"
    """The camera is gone, and is tried again."""
    ENDED = "ended"
    """A file or folder has been gone through."""
    STOPPED = "stopped"
    """The command ends; nothing comes after it."""


class Board:
    """Takes the moments of a live classification and has them ready for browsers; a context manager.

    ``put`` belongs into the loop, and is done in microseconds; everything else may be called from any thread.

    Args:
        classify: what classifies.
        camera: what it looks at.

    Raises:
        BundleError: the classifier's bundle has become another one.
        TrustError: it has, and no key that the classifier trusts has signed it.
    """

    def __init__(self, classify: Classifier, camera: Camera) -> None:
        opened = classify.reopen()
        self._camera, self._labels = camera, classify.labels
        self._facts = {
            "source": camera.source.name,
            "bundle": classify.path.name,
            "network": opened.manifest.architecture or opened.manifest.name,
            "precision": opened.manifest.precision.upper(),
            "target": classify.target,
            "device": classify.engine.device(),
            "why": classify.why,
            "labels": classify.labels,
        }
        self.pictures: NewestWorker[Picture] = NewestWorker(picture_of, PICTURES, "edge-resnet-pictures")
        self._beside: NewestWorker[Compared] | None = None
        if opened.manifest.precision != "fp32":
            self._beside = NewestWorker(Fp32Beside(opened, classify.labels), COMPARISONS, "edge-resnet-fp32")
        self._lock = threading.Lock()
        self._view: LiveView | None = None
        self._fresh: deque[tuple[float, Prediction]] = deque()
        self._started = self._seen = time.monotonic()
        self._history = History(self._started)
        self._end: Status | None = None

    def put(self, view: LiveView) -> None:
        """Takes the newest moment."""
        self._view = view
        self._fresh.append((time.monotonic(), view.prediction))
        if self._lock.acquire(blocking=False):  # else a browser is being told, and takes this one along the next time
            self._take_fresh()
            self._lock.release()
        self.pictures.put(view.prediction)
        if self._beside is not None:
            self._beside.put(view.prediction)

    def end(self, status: Status) -> None:
        """Nothing is put any more: the source has ``ENDED``, or all is ``STOPPED``."""
        self._end = status

    @property
    def stopped(self) -> bool:
        """Whether nothing comes any more."""
        return self._end is Status.STOPPED

    @contextmanager
    def watched(self) -> Iterator[None]:
        """A browser watches, as long as the block lasts: then FP32 runs."""
        if self._beside is None:
            yield
        else:
            with self._beside.watched():
                yield

    def hello(self) -> dict[str, Any]:
        """What does not change."""
        return self._facts | {
            "fp32": self._beside is not None,
            "step_s": STEP_S,
            "steps": STEPS,
            "silent_s": SILENT_S,
        }

    def moment(self, after: int = -1) -> dict[str, Any]:
        """What is now, with the history's steps after one of this number."""
        now = time.monotonic()
        with self._lock:
            self._take_fresh()
            view, silent_s = self._view, now - self._seen
            steps, number = self._history.since(after, now), self._history.number(now)
        camera = self._camera.stats
        status = self._status(view, silent_s, camera)
        return {
            "status": status.value,
            "error": camera.last_error if status is Status.LOST else None,
            "silent_s": round(silent_s, 1),
            "up_s": round(now - self._started, 1),
            "captured": camera.captured,
            "dropped": camera.dropped + (0 if view is None else view.dropped),
            "reconnects": camera.reconnects,
            "stalled": camera.stalled,
            "number": number,
            "steps": [step.to_json() for step in steps],
            "view": None if view is None else _view_json(view),
            "compared": self._compared(),
        }

    def _take_fresh(self) -> None:
        """Takes what was put since, whoever holds the lock."""
        while self._fresh:
            self._seen, prediction = self._fresh.popleft()
            self._history.put(prediction, self._seen)

    def _status(self, view: LiveView | None, silent_s: float, camera: CameraStats) -> Status:
        if self._end is not None:
            return self._end
        if self._camera.source.live and not camera.connected:
            return Status.LOST
        if silent_s > SILENT_S:
            return Status.SILENT
        return Status.STARTING if view is None else Status.LIVE

    def _compared(self) -> dict[str, Any] | None:
        if self._beside is None:
            return None
        if self._beside.failure is not None:
            return {"failure": self._beside.failure}
        found = self._beside.result
        return None if found is None else _compared_json(found)

    def close(self) -> None:
        """Says that nothing comes any more, and ends the threads."""
        self.end(Status.STOPPED)
        self.pictures.close()
        if self._beside is not None:
            self._beside.close()

    def __enter__(self) -> Board:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _view_json(view: LiveView) -> dict[str, Any]:
    prediction = view.prediction
    return {
        "frame": None if prediction.frame is None else prediction.frame.index,
        "answered": view.answered,
        "per_second": round(view.per_second, 2),
        "run_ms": round(view.run_ms, 2),
        "age_ms": round(view.age_ms, 2),
        "age_p99_ms": round(view.age_p99_ms, 2),
        "top": [[label, round(value, 4)] for label, value in view.smoothed],
    }


def _compared_json(found: Compared) -> dict[str, Any]:
    assert found.given.frame is not None and found.given.timing is not None and found.fp32.timing is not None
    return {
        "frame": found.given.frame.index,
        "compared": found.compared,
        "agreed": found.agreed,
        "given": _answer_json(found.given),
        "fp32": _answer_json(found.fp32),
    }


def _answer_json(prediction: Prediction) -> dict[str, Any]:
    assert prediction.timing is not None
    top = [[each.index, each.label, round(each.probability, 4)] for each in prediction.top(TOP)]
    return {"run_ms": round(prediction.timing.run_ms, 2), "top": top}
