"""How long a bundle's engine takes: frames one after another, as a camera gives them, and in batches."""

from __future__ import annotations

import time
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from edge_resnet.engines.engine import Engine, Progress
from edge_resnet.engines.registry import engine_class
from edge_resnet.engines.targets import target_named
from edge_resnet.errors import EngineError
from edge_resnet.runtime import Runtime

WARMUP = 20
BATCHES = (1, 2, 4, 8, 16, 32)


@dataclass(frozen=True)
class Latency:
    """Times of one engine at batch 1, prepared frame to answer."""

    name: str
    """What tells it from others: its bundle, or its precision."""
    target: str
    device: str
    times_ms: tuple[float, ...]
    """Of each run, in their order."""

    @property
    def per_second(self) -> float:
        """Frames a second, one after another."""
        return 1e3 * len(self.times_ms) / sum(self.times_ms)

    def percentile_ms(self, q: float) -> float:
        """The time that ``q`` percent of the runs did not exceed."""
        return float(np.percentile(self.times_ms, q))

    def to_json(self) -> dict[str, Any]:
        """The keys that ``bench --json`` has for an engine."""
        percentiles = {f"p{q}": self.percentile_ms(q) for q in (50, 90, 99)}
        return {"latency_ms": {**percentiles, "max": max(self.times_ms)}, "per_second": self.per_second}


@dataclass(frozen=True)
class Throughput:
    """Frames a second at one batch size."""

    batch: int
    per_second: float


def measure_latency(runtimes: Sequence[Runtime], names: Sequence[str], runs: int = 200) -> list[Latency]:
    """Runs random frames through engines in turns, so that all see the same clocks.

    Args:
        runtimes: opened bundles.
        names: what the results are called.
        runs: frames that count, for each.

    Raises:
        EngineError: ``runs`` is none.
    """
    times = times_ms([runtime.engine for runtime in runtimes], runs)
    return [
        Latency(name, runtime.target, runtime.engine.device(), tuple(each.tolist()))
        for runtime, name, each in zip(runtimes, names, times, strict=True)
    ]


def measure_against(
    bundle: Path,
    target: str | None,
    precision: str,
    runs: int = 200,
    progress: Progress | None = None,
    trust: Path | None = None,
) -> tuple[Latency, Latency]:
    """Runs random frames through the bundle's engine and through one that is compiled of its FP32 network, in turns.

    Args:
        bundle: the bundle.
        target: which of its engines; None takes the fastest kind that runs here.
        precision: of the other engine: ``fp32``, ``fp16`` or ``bf16``.
        runs: frames that count, for each.
        progress: is told of the compiling.
        trust: as ``open_bundle`` takes it.

    Raises:
        EngineError: the target has not this precision.
        UnavailableError: the engine does not run here, or this host cannot compile.
    """
    from edge_resnet.compiling import compile_float  # needs onnx, which running alone does not

    with ExitStack() as engines:
        runtime = engines.enter_context(Runtime(bundle, target=target, trust=trust))
        if runtime.frames is not None:
            raise EngineError(
                f"the engine for {runtime.target} prepares frames of {runtime.frames} itself, and the other would not: "
                f"compile it without --frames to compare"
            )
        opened, found = runtime.reopen(), target_named(runtime.target)
        compiled = compile_float(opened, found, precision, progress)
        other = engines.enter_context(engine_class(found.kind)(compiled.data))
        device = runtime.engine.device()
        ours, theirs = (tuple(each.tolist()) for each in times_ms([runtime.engine, other], runs))
        return (
            Latency(opened.manifest.precision, found.name, device, ours),
            Latency(precision, found.name, device, theirs),
        )


def measure_throughput(engine: Engine, seconds: float = 0.5) -> list[Throughput]:
    """Frames a second at every batch size that the engine takes, for at least so long each."""
    spec = engine.input
    found = []
    for batch in (each for each in BATCHES if spec.min_batch <= each <= (spec.max_batch or 8)):
        frames = np.random.default_rng(0).integers(0, 256, (batch, spec.height, spec.width, spec.channels), np.uint8)
        for _ in range(3):
            engine.run(frames)
        runs, start = 0, time.perf_counter()
        while time.perf_counter() - start < seconds:
            engine.run(frames)
            runs += 1
        found.append(Throughput(batch, runs * batch / (time.perf_counter() - start)))
    return found


def times_ms(engines: Sequence[Engine], runs: int) -> npt.NDArray[np.float64]:
    """Milliseconds of each run, engines×runs, in turns."""
    if runs < 1:
        raise EngineError(f"runs is {runs}: give 1 or more")
    random = np.random.default_rng(0)
    specs = [engine.input for engine in engines]
    frames = [random.integers(0, 256, (1, spec.height, spec.width, spec.channels), np.uint8) for spec in specs]
    times = np.empty((len(engines), WARMUP + runs))
    for run in range(WARMUP + runs):
        for index, (engine, frame) in enumerate(zip(engines, frames, strict=True)):
            start = time.perf_counter()
            engine.run(frame)
            times[index, run] = 1e3 * (time.perf_counter() - start)
    return times[:, WARMUP:]
