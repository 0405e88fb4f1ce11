"""Whether memory grows or a frame is lost over many frames, and what a killed camera and a full disk do.

    python benchmarks/soak.py [--frames 100000] [--kills 5] [--bundle F.edge]

First, frames of random sizes and colours through one stream: every frame has a size of its own, from 8×8 to 256×256, and
one of the cameras' colours. Resident memory is read off ``/proc`` every 5,000 frames; the slope is that of a straight
line through all readings but the first tenth. Every answer must be one of the labels, every frame answered once and in
its order. Then a network camera, Debian's GStreamer server on loopback, is killed and started again so many times, while
no file takes another byte (``RLIMIT_FSIZE``) and the log goes to ``/dev/full``: the loop must find the camera each time,
and every frame be answered or counted as dropped. Without the server's packages (see ``_soak_camera.py``) this is an error;
``--kills 0`` leaves it out.

The demo's bundle on the CPU, built first, or the one given. Exits with 1 when memory grows by 1 MB or more for 10,000
frames, or a frame is unaccounted for.
"""

from __future__ import annotations

import os
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from _common import Table, parser, report
from _soak_camera import survive

import edge_resnet
from edge_resnet.demo import demo_recipe
from edge_resnet.frames import FrameColor, FrameFormat

LIMIT_MB = 1.0
"""For 10,000 frames."""


@dataclass(frozen=True)
class Soak:
    """What many frames left behind."""

    readings: tuple[tuple[int, float], ...]
    """Frames so far, and resident MB."""
    answered: int
    lost: int
    """Not answered, or not in their order."""
    seconds: float

    @property
    def slope_mb(self) -> float:
        """For 10,000 frames."""
        settled = self.readings[len(self.readings) // 10 :]
        return 1e4 * float(np.polyfit(*zip(*settled, strict=True), 1)[0])


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


def soak(classify: edge_resnet.Classifier, count: int) -> Soak:
    """Sends frames through one stream, none of which may be lost."""
    readings, misplaced, start = [], 0, time.monotonic()
    every = min(5_000, max(1, count // 20))
    with classify.stream(frames(count), latest=False) as stream:
        for index, prediction in enumerate(stream):
            assert prediction.frame is not None and prediction.label in classify.labels
            misplaced += prediction.frame.index != index
            if index % every == 0:
                readings.append((index, resident_mb()))
    answered = stream.stats.answered
    return Soak(tuple(readings), answered, misplaced + count - answered, time.monotonic() - start)


def build(folder: Path) -> Path:
    """The demo's bundle, for the CPU."""
    recipe = demo_recipe()
    target = replace(recipe.build, targets=("cpu",), output=folder / "demo.edge")
    edge_resnet.build(replace(recipe, build=target, accuracy=replace(recipe.accuracy, images=None)))
    return target.output


def main() -> int:
    arguments = parser(__doc__)
    arguments.add_argument("--frames", type=int, default=100_000)
    arguments.add_argument("--kills", type=int, default=5)
    arguments.add_argument("--bundle", type=Path, help="a classifier's bundle in place of the demo's")
    chosen = arguments.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        bundle = chosen.bundle or build(Path(folder))
        with edge_resnet.Classifier(bundle, target="cpu") as classify:
            many = soak(classify, chosen.frames)
            killed = survive(classify, chosen.kills) if chosen.kills else None
    rows = [(f"{index:,}", f"{megabytes:.1f}") for index, megabytes in many.readings]
    figures = {"mb_for_10000_frames": many.slope_mb, "lost": many.lost, "answered": many.answered}
    report(
        [Table("Resident memory", ("frames", "MB"), rows)],
        chosen.json,
        **figures,
        camera=None if killed is None else killed.to_json(),
    )
    print(
        f"\n{many.slope_mb:+.3f} MB for 10,000 frames (limit {LIMIT_MB}), {many.lost} lost, "
        f"{many.answered / many.seconds:.0f} frames/s"
    )
    if killed is not None:
        print(killed)
    return int(many.slope_mb >= LIMIT_MB or many.lost > 0 or (killed is not None and killed.unaccounted > 0))


if __name__ == "__main__":
    sys.exit(main())
