"""How long a bundle's engine takes: single frames, one after another, as a camera gives them."""

from __future__ import annotations

import time
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from edge_resnet.errors import EngineError
from edge_resnet.runtime import Runtime


@dataclass(frozen=True)
class Latency:
    """Times of one engine at batch 1, prepared frame to answer."""

    target: str
    device: str
    runs: int
    p50_ms: float
    p90_ms: float
    p99_ms: float
    per_second: float
    """Frames a second, one after another."""


def measure_latency(bundle: Path, target: str | None, runs: int = 200, warmup: int = 20) -> Latency:
    """Runs random frames through the engine.

    Raises:
        UnavailableError: the engine does not run here.
    """
    if runs < 1:
        raise EngineError(f"runs is {runs}: give 1 or more")
    with closing(Runtime(bundle, target=target)) as runtime:
        spec = runtime.engine.input
        frame = np.random.default_rng(0).integers(0, 256, (1, spec.height, spec.width, spec.channels), np.uint8)
        seconds = []
        for _ in range(warmup + runs):
            start = time.perf_counter()
            runtime.engine.run(frame)
            seconds.append(time.perf_counter() - start)
        counted = np.array(seconds[warmup:])
        p50, p90, p99 = (float(1e3 * np.percentile(counted, q)) for q in (50, 90, 99))
        return Latency(runtime.target, runtime.engine.device(), runs, p50, p90, p99, float(runs / counted.sum()))
