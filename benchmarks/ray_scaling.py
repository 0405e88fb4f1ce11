"""Calibration on a Ray cluster: the speed-up of more workers, the bytes that move, and where it would saturate.

    python benchmarks/ray_scaling.py [--images 512] [--rounds 3] [--workers 1 2 4]

ResNet-50, 224×224, the ranges that ``calibrate`` collects by default (``mse``), photos as JPEG files. The clusters are of
real nodes of one CPU each on this machine, every worker with one thread; more workers than cores share them. In each round
every cluster has its turn; a speed-up is the median of the rounds' ratios to one worker. All tables must be the same bytes,
and those of this machine alone.

What is then predicted for more workers is a simulation: workers take parts in order, read their images, compute, and send
what they have seen; the one machine that asked for the work receives and merges it. Its figures are those measured here,
the network's are given: --gigabits for each machine, --storage-mb for all reading together.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import time
from collections import deque
from contextlib import ExitStack
from dataclasses import dataclass
from heapq import heapreplace
from pathlib import Path

import numpy as np
import onnx
from _common import Row, Table, parser, photo_frames, report, resnet50
from PIL import Image

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests" / "support"))
from ray_nodes import ray_cluster  # before ray, which reads its settings when it is imported

from edge_resnet.calibration.collect import merge
from edge_resnet.cluster.connection import connected
from edge_resnet.cluster.crew import LARGEST_PART, CalibrationJob, Crew
from edge_resnet.cluster.work import AHEAD
from edge_resnet.image_parts import parts_of
from edge_resnet.images import ImageSet, open_images
from edge_resnet.preprocessing import NAMED
from edge_resnet.workforce import THIS_MACHINE

SPEC, METHOD = NAMED["imagenet"], "mse"
IMAGENET = 1_281_167
"""Training images of ILSVRC 2012; their JPEG files are 138 GB."""
IMAGENET_FILE_BYTES = 138e9 / IMAGENET
SIMULATED = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024, 2048, 4096)


@dataclass(frozen=True)
class Costs:
    """What was measured of one part's way; seconds and bytes."""

    begin: float
    """Of a worker, until it is ready."""
    image: float
    """To decode, run and observe one, on one thread, its file in memory."""
    state: int
    """What a worker sends of a part, however many images that has."""
    merge: float
    """To unpickle it and merge it, on the machine that asked."""


@dataclass(frozen=True)
class Wires:
    """What is assumed of the network, bytes a second."""

    link: float
    """Of each machine."""
    storage: float
    """Of all that is read together."""


def photos(folder: Path, shared: Path, count: int) -> ImageSet:
    """Photos as JPEG files."""
    for index, frame in enumerate(photo_frames(shared, count)):
        Image.fromarray(frame).save(folder / f"{index:05}.jpg", quality=90)
    return open_images(folder)


def costs_of(model: onnx.ModelProto, images: ImageSet) -> Costs:
    """Does one part here as a worker does, and merges it."""
    from ray import cloudpickle  # what Ray itself sends results by

    (part, *_) = parts_of(images, 32, {})
    start = time.perf_counter()
    do = CalibrationJob(model, SPEC, METHOD, frozenset()).begin()
    ready = time.perf_counter()
    seen = do(part)
    done = time.perf_counter()
    state = cloudpickle.dumps(seen)
    whole = seen.observers
    merges = []
    for _ in range(5):
        begin = time.perf_counter()
        merge(whole, cloudpickle.loads(state).observers)  # what this process has made itself
        merges.append(time.perf_counter() - begin)
    return Costs(ready - start, (done - ready) / len(part.paths), len(state), float(np.median(merges)))


def simulated_seconds(workers: int, images: int, costs: Costs, wires: Wires, file_bytes: float) -> float:
    """From the first task until the last part is merged."""
    free = [costs.begin] * workers
    storage, merged, consumed = 0.0, 0.0, deque[float](maxlen=AHEAD * workers)
    for first in range(0, images, LARGEST_PART):
        count = min(LARGEST_PART, images - first)
        sent = consumed[0] if len(consumed) == consumed.maxlen else 0.0  # no more tasks than so many are ahead
        start = max(free[0], sent)
        storage = max(storage, start) + count * file_bytes / wires.storage
        done = max(storage, start + count * file_bytes / wires.link) + count * costs.image
        heapreplace(free, done)
        merged = max(merged, done) + costs.state / wires.link + costs.merge  # fetched one after another, in order
        consumed.append(merged)
    return merged


def measured(
    model: onnx.ModelProto, images: ImageSet, workers: list[int], rounds: int
) -> tuple[dict[int, list[float]], set[str]]:
    """Seconds of each round with so many workers, and all tables that came out."""
    seconds: dict[int, list[float]] = {count: [] for count in workers}
    tables = set()
    with ExitStack() as stack:
        clusters = {count: stack.enter_context(ray_cluster(*({},) * count)) for count in workers}
        for _ in range(rounds):
            for count, cluster in clusters.items():
                with connected(cluster.address):
                    crew = Crew(print)
                    crew.calibrate(model, images.take(range(4 * count)), SPEC, METHOD, _nothing)  # processes start
                    start = time.perf_counter()
                    table = crew.calibrate(model, images, SPEC, METHOD, _nothing)
                    seconds[count].append(time.perf_counter() - start)
                tables.add(table.to_json())
    return seconds, tables


def _nothing(done: int) -> None:
    """Nobody watches."""


def plan(costs: Costs, wires: Wires) -> Table:
    """ImageNet's training images on more and more workers."""
    one = simulated_seconds(1, IMAGENET, costs, wires, IMAGENET_FILE_BYTES)
    rows: list[Row] = []
    for workers in SIMULATED:
        seconds = simulated_seconds(workers, IMAGENET, costs, wires, IMAGENET_FILE_BYTES)
        read = IMAGENET * IMAGENET_FILE_BYTES / seconds / 1e6
        rows.append((str(workers), f"{seconds / 60:.1f} min", f"{one / seconds:.1f}", f"{read:.0f} MB/s"))
    return Table("Simulated: 1,281,167 images", ("workers", "time", "speed-up", "images read at"), rows)


def main() -> None:
    arguments = parser(__doc__)
    arguments.add_argument("--images", type=int, default=512, help="images to calibrate on (default 512)")
    arguments.add_argument("--rounds", type=int, default=3)
    arguments.add_argument("--workers", type=int, nargs="+", default=[1, 2, 4])
    arguments.add_argument("--gigabits", type=float, default=10, help="of each machine's network (default 10)")
    arguments.add_argument("--storage-mb", type=float, default=1000, help="MB a second of all reading (default 1000)")
    options: argparse.Namespace = arguments.parse_args()
    model = resnet50(np.stack(list(photo_frames(options.shared, 32))))
    with tempfile.TemporaryDirectory() as folder:
        images = photos(Path(folder), options.shared, options.images)
        costs = costs_of(model, images)
        before = os.getloadavg()[0]
        seconds, tables = measured(model, images, sorted(options.workers), options.rounds)
        load = f"{before:.1f} before, {os.getloadavg()[0]:.1f} after, {os.cpu_count()} cores"
        tables.add(THIS_MACHINE.calibrate(model, images, SPEC, METHOD, _nothing).to_json())
    one = np.array(seconds[min(seconds)])
    rows = [
        (
            str(count),
            f"{np.median(each):.1f} s",
            f"{np.median(one / each):.2f}",
            f"{min(one / each):.2f} … {max(one / each):.2f}",
        )
        for count, each in ((count, np.array(each)) for count, each in seconds.items())
    ]
    wires = Wires(options.gigabits * 1e9 / 8, options.storage_mb * 1e6)
    parts = -(-IMAGENET // LARGEST_PART)
    moved: list[Row] = [
        ("the network, once a machine", f"{len(model.SerializeToString()) / 1e6:.0f} MB"),
        ("image files of ImageNet, read once, on any machine", f"{IMAGENET * IMAGENET_FILE_BYTES / 1e9:.0f} GB"),
        ("what a part's worker has seen", f"{costs.state / 1e6:.2f} MB"),
        (f"the same of all {parts} parts of ImageNet", f"{parts * costs.state / 1e9:.1f} GB"),
    ]
    took: list[Row] = [
        ("a worker makes ready", f"{costs.begin:.1f} s"),
        ("an image, one thread", f"{1e3 * costs.image:.0f} ms"),
        ("to merge a part", f"{1e3 * costs.merge:.1f} ms"),
    ]
    speedups = Table(
        f"Measured: {options.images} images (load {load})", ("workers", "time", "speed-up", "rounds"), rows
    )
    report(
        [speedups, Table("Costs", ("", ""), took), Table("Bytes", ("", ""), moved), plan(costs, wires)],
        options.json,
        seconds={str(count): each for count, each in seconds.items()},
    )
    if len(tables) != 1:
        raise SystemExit("the tables differ")
    print("\nAll tables are the same bytes, and those of this machine without a cluster.")


if __name__ == "__main__":
    main()
