"""Whether memory grows or a frame is lost, over many frames of random sizes and colours through one stream.

    python benchmarks/soak.py [--frames 100000]

The demo's bundle on the CPU. Every frame has a size of its own, from 8×8 to 256×256, and one of the cameras' colours.
Resident memory is read off ``/proc`` every 5,000 frames; the slope is that of a straight line through all readings but
the first tenth. Every answer must be one of the demo's labels, every frame answered once and in its order.

Exits with 1 when memory grows by 1 MB or more for 10,000 frames, or a frame is lost.
"""

from __future__ import annotations

import os
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
from _common import Table, parser, report

import edge_resnet
from edge_resnet.demo import demo_recipe
from edge_resnet.frames import FrameColor, FrameFormat

EVERY = 5_000
LIMIT_MB = 1.0
"""For 10,000 frames."""


def frames(count: int) -> Iterator[edge_resnet.CameraFrame]:
    random = np.random.default_rng(0)
    colors = list(FrameColor)
    noise = random.integers(0, 256, 256 * 256 * 4, np.uint8)
    for index in range(count):
        height, width = (2 * int(side) for side in random.integers(4, 129, 2))
        found = FrameFormat(height, width, colors[index % len(colors)])
        pixels = noise[: int(np.prod(found.shape))].reshape(found.shape)
        yield edge_resnet.CameraFrame(pixels, found.color, time.monotonic(), index)


def resident_mb() -> float:
    pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 1e6


def main() -> int:
    arguments = parser(__doc__)
    arguments.add_argument("--frames", type=int, default=100_000)
    chosen = arguments.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        recipe = demo_recipe()
        build = replace(recipe.build, targets=("cpu",), output=Path(folder) / "demo.edge")
        edge_resnet.build(replace(recipe, build=build, accuracy=replace(recipe.accuracy, images=None)))
        readings, lost = [], 0
        with edge_resnet.Classifier(build.output, target="cpu") as classify:
            start = time.monotonic()
            with classify.stream(frames(chosen.frames), latest=False) as stream:
                for index, prediction in enumerate(stream):
                    assert prediction.frame is not None and prediction.label in classify.labels
                    lost += prediction.frame.index != index
                    if index % EVERY == 0:
                        readings.append((index, resident_mb()))
            stats, seconds = stream.stats, time.monotonic() - start
    settled = readings[len(readings) // 10 :]
    slope = 1e4 * float(np.polyfit(*zip(*settled, strict=True), 1)[0])
    lost += chosen.frames - stats.answered
    rows = [(f"{index:,}", f"{megabytes:.1f}") for index, megabytes in readings]
    figures = {"mb_for_10000_frames": slope, "lost": lost, "answered": stats.answered}
    report([Table("Resident memory", ("frames", "MB"), rows)], chosen.json, **figures)
    print(
        f"\n{slope:+.3f} MB for 10,000 frames (limit {LIMIT_MB}), {lost} lost, {stats.answered / seconds:.0f} frames/s"
    )
    return int(slope >= LIMIT_MB or lost > 0)


if __name__ == "__main__":
    sys.exit(main())
