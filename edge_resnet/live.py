"""A camera classified live: what was seen last, and how fast, over the last seconds."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from edge_resnet.camera import Camera, CameraStats
from edge_resnet.classifier import Classifier, Prediction

WINDOW_S = 5.0
"""Rates and latencies are those of so many seconds."""
SMOOTHING = 0.3
"""Weight of the newest probabilities in those that are shown: bars that jump cannot be read."""


@dataclass(frozen=True)
class LiveView:
    """One moment of a live classification."""

    prediction: Prediction
    """Of the newest frame."""
    smoothed: tuple[tuple[str, float], ...]
    """The most probable classes over the last frames, the first first."""
    answered: int
    """Frames so far."""
    dropped: int
    """Prepared, and replaced by newer ones."""
    per_second: float
    run_ms: float
    """Median of the engine."""
    age_ms: float
    """Median from capture to answer."""
    age_p99_ms: float
    camera: CameraStats


class LiveWindow:
    """Keeps the last seconds of a stream, and sums them up."""

    def __init__(self, labels: tuple[str, ...], now: Callable[[], float] = time.monotonic) -> None:
        self._labels, self._now = labels, now
        self._times: deque[tuple[float, float, float]] = deque()
        self._probabilities: np.ndarray[Any, np.dtype[np.float64]] | None = None
        self._answered = 0

    def view(self, prediction: Prediction, dropped: int, camera: CameraStats) -> LiveView:
        """Takes one more prediction of a stream; gives the moment."""
        assert prediction.timing is not None and prediction.timing.age_ms is not None  # a stream's, of a camera
        now = self._now()
        self._answered += 1
        self._times.append((now, prediction.timing.run_ms, prediction.timing.age_ms))
        while now - self._times[0][0] > WINDOW_S:
            self._times.popleft()
        span = now - self._times[0][0]
        _, runs, ages = zip(*self._times, strict=True)
        return LiveView(
            prediction,
            self._smoothed(prediction),
            self._answered,
            dropped,
            (len(self._times) - 1) / span if span > 0 else 0.0,
            float(np.median(runs)),
            float(np.median(ages)),
            float(np.percentile(ages, 99)),
            camera,
        )

    def _smoothed(self, prediction: Prediction, k: int = 5) -> tuple[tuple[str, float], ...]:
        found = prediction.probabilities
        before = self._probabilities
        self._probabilities = found if before is None else SMOOTHING * found + (1 - SMOOTHING) * before
        order = np.argsort(-self._probabilities, kind="stable")[:k]
        return tuple((self._labels[i], float(self._probabilities[i])) for i in order)


def watch(classify: Classifier, camera: Camera) -> Iterator[LiveView]:
    """Classifies a camera's frames until it ends: its newest, or every one where it keeps them.

    Raises:
        CameraError: the camera failed for good.
    """
    window = LiveWindow(classify.labels)
    with classify.stream(camera, latest=camera.latest) as predictions:
        for prediction in predictions:
            yield window.view(prediction, predictions.stats.dropped, camera.stats)
