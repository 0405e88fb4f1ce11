"""The last minute in steps, for the page's plots: how old answers were, how long the engine took, what it saw."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from edge_resnet.classifier import Prediction

STEP_S = 0.25
STEPS = 240
TOP = 5


@dataclass(frozen=True)
class Step:
    """What happened within ``STEP_S``; one without an answer is left out."""

    number: int
    """Steps since the start."""
    frames: int
    age_ms: float
    """Median from capture to answer."""
    age_max_ms: float
    run_ms: float
    """Median of the engine."""
    top: tuple[tuple[int, float], ...]
    """The classes that were the most probable on average, and how probable."""

    def to_json(self) -> list[Any]:
        """The step as a row of JSON values, milliseconds and probabilities rounded to what a plot shows."""
        times = [round(value, 2) for value in (self.age_ms, self.age_max_ms, self.run_ms)]
        return [self.number, self.frames, *times, [[index, round(value, 3)] for index, value in self.top]]


@dataclass
class _Open:
    """The step that is going on."""

    number: int
    ages: list[float] = field(default_factory=list)
    runs: list[float] = field(default_factory=list)
    probabilities: npt.NDArray[np.float64] | None = None

    def closed(self) -> Step:
        assert self.probabilities is not None
        mean = self.probabilities / len(self.ages)
        order = np.argsort(-mean, kind="stable")[:TOP].tolist()
        return Step(
            self.number,
            len(self.ages),
            float(np.median(self.ages)),
            max(self.ages),
            float(np.median(self.runs)),
            tuple((index, float(mean[index])) for index in order),
        )


class History:
    """Sums a stream up in steps of ``STEP_S``, and keeps the last ``STEPS`` of them; for one thread at a time.

    Args:
        start: when step 0 begins, in seconds of whatever clock.
    """

    def __init__(self, start: float) -> None:
        self._start = start
        self._closed: deque[Step] = deque()
        self._open: _Open | None = None

    def put(self, prediction: Prediction, now: float) -> None:
        """Takes one more prediction of a stream."""
        assert prediction.timing is not None and prediction.timing.age_ms is not None
        self._advance(now)
        step = self._open = self._open or _Open(self.number(now))
        step.ages.append(prediction.timing.age_ms)
        step.runs.append(prediction.timing.run_ms)
        found = prediction.probabilities
        step.probabilities = found if step.probabilities is None else step.probabilities + found

    def number(self, now: float) -> int:
        """Of the step that goes on at a time."""
        return int((now - self._start) / STEP_S)

    def since(self, number: int, now: float) -> list[Step]:
        """The closed steps of the last minute after one of this number, oldest first."""
        self._advance(now)
        return [step for step in self._closed if step.number > number]

    def _advance(self, now: float) -> None:
        current = self.number(now)
        if self._open is not None and self._open.number < current:
            self._closed.append(self._open.closed())
            self._open = None
        while self._closed and self._closed[0].number < current - STEPS:
            self._closed.popleft()
