"""How long a network takes for a frame: measured where its engine runs, else an estimate."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Literal

import numpy as np

from edge_resnet.benchmark import times_ms
from edge_resnet.estimate import mixed_latency
from edge_resnet.launches import launches_of
from edge_resnet.tuning.workshop import Made

RUNS = 50
"""Frames that count, of each engine."""


class Speed(ABC):
    """Says how long frames take, one after another."""

    kind: Literal["measured", "estimate"]

    @abstractmethod
    def latency_ms(self, made: Made) -> float:
        """Milliseconds a frame."""


class Measured(Speed):
    """Runs an engine in turns with that of the recipe as it stands, so that trials of different minutes compare.

    A trial's latency is the ratio of the two medians, times the recipe's own as it was measured first.
    """

    kind: Literal["measured", "estimate"] = "measured"

    def __init__(self, own: Made, own_ms: float | None) -> None:
        assert own.engine is not None
        self._own = own.engine
        self._own_ms = float(np.median(times_ms([self._own], RUNS))) if own_ms is None else own_ms

    def latency_ms(self, made: Made) -> float:
        assert made.engine is not None
        if made.engine is self._own:
            return self._own_ms
        ours, theirs = np.median(times_ms([self._own, made.engine], RUNS), axis=1)
        return self._own_ms * float(theirs / ours)


class Estimated(Speed):
    """Asks the model of the device that is not here; layers left float count as FP16."""

    kind: Literal["measured", "estimate"] = "estimate"

    def __init__(self, target: str) -> None:
        self._target = target

    def latency_ms(self, made: Made) -> float:
        return mixed_latency(launches_of(made.model, "the network"), self._target, made.settings.keep_float).estimate
