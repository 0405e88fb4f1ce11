"""What LoadGen is given: a bundle's engine as its system under test, images as its samples, MLPerf's settings."""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from edge_resnet.images import ImageSet
from edge_resnet.runtime import Runtime

try:
    import mlperf_loadgen as loadgen
except ModuleNotFoundError:
    print("loadgen: LoadGen is not installed: pip install 'edge-resnet[loadgen]'", file=sys.stderr)
    raise SystemExit(4) from None

IN_MEMORY = 1024
"""Samples that LoadGen has prepared at a time, as MLPerf sets it for ResNet-50."""
MOST_OFFLINE = 24_576
"""Offline asks for as many samples as there are images, up to this (MLPerf Inference rules, Offline)."""


@dataclass(frozen=True)
class Scenario:
    """How LoadGen asks, and which of its figures MLPerf publishes."""

    name: str
    batch: int
    """Samples that the engine gets at once: the whole query; of Offline's one query, a part."""
    published: str
    """Key of LoadGen's detailed log."""
    unit: str
    scale: float
    """Units in one of the log's."""


SCENARIOS = {
    scenario.name: scenario
    for scenario in (
        Scenario("SingleStream", 1, "early_stopping_latency_ss", "ms, 90th percentile", 1e-6),
        Scenario("MultiStream", 8, "early_stopping_latency_ms", "ms, 99th percentile", 1e-6),
        Scenario("Offline", 8, "result_samples_per_second", "samples/s", 1),
    )
}


class Samples:
    """LoadGen's sample library: it says which images it will ask for, and they are prepared."""

    def __init__(self, runtime: Runtime, images: ImageSet) -> None:
        self._runtime, self._images = runtime, images
        self._pixels: dict[int, Any] = {}

    def __len__(self) -> int:
        return len(self._images)

    def load(self, indices: Sequence[int]) -> None:
        """Prepares images; LoadGen names some twice to fill its last query."""
        for index in indices:
            self._pixels[index] = self._runtime.ready(self._images.paths[index]).pixels

    def unload(self, indices: Sequence[int]) -> None:
        for index in set(indices):
            del self._pixels[index]

    def batch(self, indices: Sequence[int]) -> Any:
        """uint8 N×H×W×C, in memory that the engine takes without a copy."""
        out = self._runtime.engine.staging(len(indices))
        return np.stack([self._pixels[index] for index in indices], out=out)


class System:
    """LoadGen's system under test: queries go to the engine, and the classes that it answers go back."""

    def __init__(self, runtime: Runtime, samples: Samples, batch: int) -> None:
        self._engine, self._samples = runtime.engine, samples
        self.batch = min(batch, runtime.engine.input.max_batch or batch)
        self.failure: Exception | None = None
        """Why the engine gave no answer: the test ran on without."""

    def issue(self, queries: Sequence[loadgen.QuerySample]) -> None:
        """Answers a query, and returns when it is answered.

        A class goes back as float32, which MLPerf's ``accuracy-imagenet.py`` reads when it is told nothing else.
        """
        for start in range(0, len(queries), self.batch):
            part = queries[start : start + self.batch]
            try:
                classes = self._classes([query.index for query in part]).astype(np.float32)
            except Exception as error:  # LoadGen passes no error on: it crashes
                self.failure, classes = error, np.full(len(part), -1, np.float32)
            at, size = classes.ctypes.data, classes.itemsize
            responses = [
                loadgen.QuerySampleResponse(query.id, at + size * place, size) for place, query in enumerate(part)
            ]
            loadgen.QuerySamplesComplete(responses)

    def flush(self) -> None:
        """Nothing waits: ``issue`` has answered all that it was given."""

    def seconds_of_a_batch(self) -> float:
        """The least of some runs, without LoadGen."""
        indices = [place % len(self._samples) for place in range(self.batch)]
        self._samples.load(indices)
        least = min(self._timed(indices) for _ in range(20))
        self._samples.unload(indices)
        return least

    def _timed(self, indices: Sequence[int]) -> float:
        start = time.perf_counter()
        self._classes(indices)
        return time.perf_counter() - start

    def _classes(self, indices: Sequence[int]) -> npt.NDArray[np.int64]:
        return np.asarray(self._engine.run(self._samples.batch(indices)).argmax(1), np.int64)


def settings_of(scenario: Scenario, seconds: float, images: int, logs: Path) -> loadgen.TestSettings:
    """MLPerf's, which LoadGen has within itself and reads before a user's file; that one shortens the run.

    It reads them once in a process: of a second scenario there, seeds and least counts are LoadGen's bare defaults.
    """
    logs.mkdir(parents=True, exist_ok=True)
    user = logs / "user.conf"
    user.write_text(
        f"*.{scenario.name}.min_duration = {round(1e3 * seconds)}\n"
        f"*.Offline.min_query_count = {min(images, MOST_OFFLINE)}\n",
        encoding="utf-8",
    )
    settings = loadgen.TestSettings()
    settings.FromConfig(str(user), "edge-resnet", scenario.name, 1)  # 1: a user's file
    settings.scenario = getattr(loadgen.TestScenario, scenario.name)
    settings.multi_stream_samples_per_query = SCENARIOS["MultiStream"].batch
    return settings


def expect(settings: loadgen.TestSettings, batch: int, seconds: float) -> None:
    """LoadGen makes its queries beforehand, as many as the time will take; each scenario reads its own expectation.

    We say twice as fast as it was: too few make the run short and invalid, too many only wait.
    """
    settings.single_stream_expected_latency_ns = settings.multi_stream_expected_latency_ns = round(1e9 * seconds / 2)
    settings.offline_expected_qps = 2 * batch / seconds


def start(system: System, samples: Samples, settings: loadgen.TestSettings, mode: str, logs: Path) -> Path:
    """One test of LoadGen; returns the folder of its logs.

    Args:
        mode: one of LoadGen's, ``PerformanceOnly`` or ``AccuracyOnly``.

    Raises:
        Exception: what the engine raised, once the test has ended.
    """
    logs.mkdir(parents=True, exist_ok=True)
    settings.mode = getattr(loadgen.TestMode, mode)
    log = loadgen.LogSettings()
    log.enable_trace = False
    log.log_output = loadgen.LogOutputSettings()
    log.log_output.outdir = str(logs)
    log.log_output.copy_summary_to_stdout = False
    sut = loadgen.ConstructSUT(system.issue, system.flush)
    qsl = loadgen.ConstructQSL(len(samples), min(len(samples), IN_MEMORY), samples.load, samples.unload)
    loadgen.StartTestWithLogSettings(sut, qsl, settings, log)
    loadgen.DestroyQSL(qsl)
    loadgen.DestroySUT(sut)
    if system.failure is not None:
        raise system.failure
    return logs
