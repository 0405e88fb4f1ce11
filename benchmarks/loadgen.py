"""A bundle's engine under MLPerf's LoadGen: SingleStream, MultiStream (8 samples) and Offline, each with its accuracy mode.

    python benchmarks/loadgen.py model.edge --images test/ [--scenario Offline] [--seconds 600] [--batch 32]
        [--json FILE] [--logs FOLDER]

Needs ``pip install 'edge-resnet[loadgen]'``. LoadGen makes the queries, takes the times and judges: the settings are those
of MLPerf Inference that it brings (seeds, percentiles, least counts of queries), but for the duration, 10 s where a
submission runs 600. Samples are prepared by the bundle's own preprocessing before the clock runs, as the rules have it. A
figure is no submission's: those are of MLPerf's own networks and data, and audited.
"""

from __future__ import annotations

import argparse
import json
import platform
import sys
import tempfile
import time
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import closing
from dataclasses import asdict, dataclass, replace
from importlib.metadata import version
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import mlperf_loadgen as loadgen
import numpy as np
import numpy.typing as npt
from _loadgen_logs import Result, read_answers, read_detail, table, top1, why_not

from edge_resnet.demo import TEST
from edge_resnet.errors import EdgeResnetError, ImageError, ModelError
from edge_resnet.images import ImageSet, open_images
from edge_resnet.runtime import Runtime

IN_MEMORY = 1024
"""Samples that LoadGen has prepared at a time, as MLPerf sets it for ResNet-50."""
MOST_OFFLINE = 24_576
"""Offline asks for as many samples as there are images, up to this (MLPerf Inference rules, Offline)."""
DETAIL, ANSWERS = "mlperf_log_detail.txt", "mlperf_log_accuracy.json"


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


def measure(runtime: Runtime, images: ImageSet, scenario: Scenario, seconds: float, logs: Path) -> Result:
    """Runs performance mode, then accuracy mode.

    Args:
        runtime: an opened bundle.
        images: labelled, in the order of the network's classes.
        scenario: how LoadGen asks.
        seconds: how long performance mode runs at least.
        logs: a folder for LoadGen's logs.
    """
    assert images.labels is not None
    samples = Samples(runtime, images)
    system = System(runtime, samples, scenario.batch)
    settings = settings_of(scenario, seconds, len(samples), logs)
    expect(settings, system.batch, system.seconds_of_a_batch())
    settings.mode = loadgen.TestMode.PerformanceOnly
    found = read_detail(start(system, samples, settings, logs / "performance") / DETAIL)
    settings.mode = loadgen.TestMode.AccuracyOnly
    answers = read_answers(start(system, samples, settings, logs / "accuracy") / ANSWERS)
    queries = found["result_query_count"]
    p50, p90, p99 = (
        found[f"result_{percent}.00_percentile_latency_ns"] / 1e6 if queries > 1 else None for percent in (50, 90, 99)
    )
    return Result(
        scenario=scenario.name,
        valid=found["result_validity"] == "VALID",
        why=why_not(found),
        queries=queries,
        samples=queries * found["effective_samples_per_query"],
        published=found[scenario.published] * scenario.scale,
        unit=scenario.unit,
        p50_ms=p50,
        p90_ms=p90,
        p99_ms=p99,
        top1=top1(answers, images.labels),
        min_seconds=found["effective_min_duration_ms"] / 1e3,
        min_queries=found["effective_min_query_count"],
    )


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


def start(system: System, samples: Samples, settings: loadgen.TestSettings, logs: Path) -> Path:
    """One test of LoadGen; returns the folder of its logs.

    Raises:
        Exception: what the engine raised, once the test has ended.
    """
    logs.mkdir(parents=True, exist_ok=True)
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


def labelled_images(runtime: Runtime, folder: Path, limit: int | None) -> ImageSet:
    """Images whose labels index the network's answers.

    Raises:
        ModelError: the network gives features.
        ImageError: the images have no labels, or others than the network.
    """
    if runtime.labels is None:
        raise ModelError("this network gives features, no classes: LoadGen's accuracy mode needs a classifier")
    images = open_images(folder, limit).with_labels_of(runtime.labels)
    if images.labels is None:
        raise ImageError(f"{folder} has no labels: give a folder of class folders, or a CSV with labels")
    return images


def facts(runtime: Runtime, images: ImageSet) -> dict[str, Any]:
    """What a figure depends on."""
    return {
        "target": runtime.target,
        "device": runtime.engine.device(),
        "images": len(images),
        "python": platform.python_version(),
        "edge-resnet": version("edge-resnet"),
        "loadgen": version("mlcommons-loadgen"),
    }


def measure_alone(options: argparse.Namespace, scenario: Scenario, logs: Path) -> tuple[Result, dict[str, Any]]:
    """Opens the bundle and measures it: the result, and what it is of."""
    with closing(Runtime(options.bundle, target=options.target)) as runtime:
        images = labelled_images(runtime, options.images, options.limit)
        return measure(runtime, images, scenario, options.seconds, logs), facts(runtime, images)


def run(options: argparse.Namespace, logs: Path) -> None:
    """Measures each scenario in a process of its own: LoadGen reads MLPerf's settings once in a process, for one."""
    chosen = {**SCENARIOS, "Offline": replace(SCENARIOS["Offline"], batch=options.batch)}
    results = []
    for name in dict.fromkeys(options.scenario or chosen):
        with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as process:
            result, about = process.submit(measure_alone, options, chosen[name], logs / name).result()
        results.append(result)
    print(f"{options.bundle.name}: {', '.join(f'{key} {value}' for key, value in about.items())}\n\n{table(results)}")
    if options.json is not None:
        text = json.dumps({**about, "results": [asdict(each) for each in results]}, indent=1, ensure_ascii=False)
        options.json.write_text(text + "\n", encoding="utf-8")


def positive(text: str) -> int:
    if (value := int(text)) < 1:
        raise ValueError
    return value


def positive_seconds(text: str) -> float:
    if not 0 < (value := float(text)) < float("inf"):
        raise ValueError
    return value


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("bundle", type=Path)
    parser.add_argument("--images", type=Path, default=TEST, help="labelled images; by default the demo's")
    parser.add_argument("--limit", type=positive, help="draw so many of the images")
    parser.add_argument("--target", help="which engine of the bundle")
    parser.add_argument("--scenario", action="append", choices=tuple(SCENARIOS), help="may be repeated; by default all")
    parser.add_argument(
        "--seconds", type=positive_seconds, default=10, help="of performance mode at least; MLPerf: 600"
    )
    parser.add_argument("--batch", type=positive, default=8, help="samples that the engine gets at once in Offline")
    parser.add_argument("--json", type=Path, help="write the record to this file too")
    parser.add_argument("--logs", type=Path, help="keep LoadGen's logs in this folder")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        try:
            run(options, options.logs or Path(folder))
        except EdgeResnetError as error:
            print(f"loadgen: {error}", file=sys.stderr)
            sys.exit(error.exit_code)


if __name__ == "__main__":
    main()
