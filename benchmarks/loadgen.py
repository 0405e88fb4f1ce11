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
from concurrent.futures import ProcessPoolExecutor
from contextlib import closing
from dataclasses import asdict, replace
from importlib.metadata import version
from multiprocessing import get_context
from pathlib import Path
from typing import Any

from _loadgen_logs import Result, read_answers, read_detail, table, top1, why_not
from _loadgen_system import SCENARIOS, Samples, Scenario, System, expect, settings_of, start

from edge_resnet.demo import TEST
from edge_resnet.errors import EdgeResnetError, ImageError, ModelError
from edge_resnet.images import ImageSet, open_images
from edge_resnet.runtime import Runtime

DETAIL, ANSWERS = "mlperf_log_detail.txt", "mlperf_log_accuracy.json"


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
    found = read_detail(start(system, samples, settings, "PerformanceOnly", logs / "performance") / DETAIL)
    answers = read_answers(start(system, samples, settings, "AccuracyOnly", logs / "accuracy") / ANSWERS)
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
