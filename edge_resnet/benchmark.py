"""How long a bundle's engine takes: single frames, one after another, as a camera gives them."""

from __future__ import annotations

import time
from collections.abc import Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from edge_resnet.bundle import open_bundle
from edge_resnet.engines.engine import Engine, Progress
from edge_resnet.engines.registry import engine_class
from edge_resnet.engines.targets import target_named
from edge_resnet.errors import EngineError
from edge_resnet.runtime import Runtime

WARMUP = 20


@dataclass(frozen=True)
class Latency:
    """Times of one engine at batch 1, prepared frame to answer."""

    target: str
    precision: str
    device: str
    runs: int
    p50_ms: float
    p90_ms: float
    p99_ms: float
    per_second: float
    """Frames a second, one after another."""

    @classmethod
    def of(cls, target: str, precision: str, engine: Engine, seconds: npt.NDArray[np.float64]) -> Latency:
        """The latency that single times make."""
        p50, p90, p99 = (float(1e3 * np.percentile(seconds, q)) for q in (50, 90, 99))
        return cls(target, precision, engine.device(), len(seconds), p50, p90, p99, float(len(seconds) / seconds.sum()))

    def to_json(self) -> dict[str, Any]:
        """The keys that ``bench --json`` has for an engine."""
        return {
            "latency_ms": {"p50": self.p50_ms, "p90": self.p90_ms, "p99": self.p99_ms},
            "per_second": self.per_second,
            "precision": self.precision,
        }


def measure_latency(bundle: Path, target: str | None, runs: int = 200) -> Latency:
    """Runs random frames through the engine.

    Raises:
        UnavailableError: the engine does not run here.
    """
    with closing(Runtime(bundle, target=target)) as runtime:
        (seconds,) = _times([runtime.engine], runs)
        return Latency.of(runtime.target, open_bundle(bundle).manifest.precision, runtime.engine, seconds)


def measure_against(
    bundle: Path, target: str | None, precision: str, runs: int = 200, progress: Progress | None = None
) -> tuple[Latency, Latency]:
    """Runs random frames through the bundle's engine and through one that is compiled of its FP32 network, in turns.

    Args:
        bundle: the bundle.
        target: which of its engines; None takes the fastest kind that runs here.
        precision: of the other engine: ``fp32``, ``fp16`` or ``bf16``.
        runs: frames that count, for each.
        progress: is told of the compiling.

    Raises:
        EngineError: the target has not this precision.
        UnavailableError: the engine does not run here, or this host cannot compile.
    """
    from edge_resnet.compiling import compile_float  # needs onnx, which running alone does not

    opened = open_bundle(bundle)
    with ExitStack() as engines:
        runtime = engines.enter_context(closing(Runtime(bundle, target=target)))
        if runtime.frames is not None:
            raise EngineError(
                f"the engine for {runtime.target} prepares frames of {runtime.frames} itself, and the other would not: "
                f"compile it without --frames to compare"
            )
        found = target_named(runtime.target)
        compiled = compile_float(opened, found, precision, progress)
        other = engines.enter_context(engine_class(found.kind)(compiled.data))
        ours, theirs = _times([runtime.engine, other], runs)
        return (
            Latency.of(found.name, opened.manifest.precision, runtime.engine, ours),
            Latency.of(found.name, precision, other, theirs),
        )


def _times(engines: Sequence[Engine], runs: int) -> npt.NDArray[np.float64]:
    """Seconds of each run, engines×runs; the engines take turns, so that all see the same clocks."""
    if runs < 1:
        raise EngineError(f"runs is {runs}: give 1 or more")
    spec = engines[0].input
    frame = np.random.default_rng(0).integers(0, 256, (1, spec.height, spec.width, spec.channels), np.uint8)
    seconds = np.empty((len(engines), WARMUP + runs))
    for run in range(WARMUP + runs):
        for index, engine in enumerate(engines):
            start = time.perf_counter()
            engine.run(frame)
            seconds[index, run] = time.perf_counter() - start
    return seconds[:, WARMUP:]
