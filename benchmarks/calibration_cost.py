"""What calibration costs: memory above plain inference, and time over plain inference of the same images.

    python benchmarks/calibration_cost.py [--images 512]

ResNet-50, 224×224, batches as ``calibrate`` has them, the ranges that ``build`` collects (``mse``). Memory is the largest
resident set of a process that loads the model and runs plain inference, and of another that collects, over the same images.
For time, both run in one process and take turns, 32 images each; the share is the median of the turns' ratios, and, for all
that there is, setup and choice of the ranges included, the ratio of the sums.

Exits with 1 when collecting takes more than 1 GB above inference, or more than 1.3 times its time.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path

import numpy as np
import onnx
from _common import Frames, Row, Table, parser, photo_frames, report, resnet50

from edge_resnet.calibration.collect import collect
from edge_resnet.calibration.simulate import fast_session, run_frames
from edge_resnet.workforce import CALIBRATION_BATCH

METHOD = "mse"
TURN = 16
"""Batches that one of the two runs before the other has its turn. The last one is still being observed when the other's
untimed run begins: a sixteenth of what observing costs is not timed."""
MEMORY_LIMIT_MB, TIME_LIMIT = 1000, 1.3


def batches(shared: Path, images: int) -> Iterator[Frames]:
    frames = photo_frames(shared, images)
    while part := list(islice(frames, CALIBRATION_BATCH)):
        yield np.stack(part)


def infer(model: onnx.ModelProto, frames: Iterable[Frames]) -> None:
    session = fast_session(model)
    for batch in frames:
        run_frames(session, batch)


def collect_ranges(model: onnx.ModelProto, frames: Iterable[Frames]) -> None:
    collect(model, frames, method=METHOD, images={}, preprocessing={})


ROLES = {"infer": infer, "collect": collect_ranges}


def peak_mb(role: str, model: Path, images: int, shared: Path) -> float:
    """Largest resident set of a process of its own that plays a role over some images."""
    command = [sys.executable, __file__, "--role", role, "--model", model, "--images", images, "--shared", shared]
    done = subprocess.run([str(part) for part in command], check=True, capture_output=True, text=True)
    return float(done.stdout.splitlines()[-1])


def play(options: argparse.Namespace) -> None:
    """What such a process does: plays its role and prints its largest resident set, in MB."""
    ROLES[options.role](onnx.load(options.model), batches(options.shared, options.images))
    # Not getrusage, whose peak a process inherits from the one that started it.
    status = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
    (peak,) = [line for line in status if line.startswith("VmHWM:")]
    print(int(peak.split()[1]) / 1000)


@dataclass
class Turns:
    """Frames for ``collect`` that time it: between two turns of it, plain inference has one over the same frames."""

    model: onnx.ModelProto
    frames: Iterator[Frames]
    plain: list[float] = field(default_factory=list)
    collecting: list[float] = field(default_factory=list)
    apart: float = 0.0
    """Seconds in which ``collect`` only waited for frames."""

    def __iter__(self) -> Iterator[Frames]:
        start = time.perf_counter()
        session = fast_session(self.model)
        self.plain_setup = time.perf_counter() - start
        while part := list(islice(self.frames, TURN)):
            run_frames(session, part[0])  # untimed: the caches and threads change hands
            begin = time.perf_counter()
            for batch in part:
                run_frames(session, batch)
            end = time.perf_counter()
            self.apart += end - start
            yield from part
            start = time.perf_counter()
            self.plain.append(end - begin)
            self.collecting.append(start - end)
        self.apart += time.perf_counter() - start


def timing(model: onnx.ModelProto, shared: Path, images: int) -> tuple[Row, float]:
    """The row, and the share that is judged: of all that there is."""
    turns = Turns(model, batches(shared, images))
    start = time.perf_counter()
    collect_ranges(model, turns)
    whole = time.perf_counter() - start - turns.apart
    ratios = np.array(turns.collecting) / np.array(turns.plain)
    plain = sum(turns.plain)
    share = whole / (plain + turns.plain_setup)
    middle, low, high = np.percentile(ratios, [50, 25, 75])
    cost = (f"{1e3 * plain / images:.1f} ms", f"{1e3 * whole / images:.1f} ms")
    return (str(images), *cost, f"{middle:.2f} ({low:.2f} … {high:.2f})", f"{share:.2f}"), share


def main() -> None:
    arguments = parser(__doc__)
    arguments.add_argument("--images", type=int, default=512, help="images to collect over (default 512)")
    arguments.add_argument("--role", choices=ROLES, help=argparse.SUPPRESS)
    arguments.add_argument("--model", type=Path, help=argparse.SUPPRESS)
    options = arguments.parse_args()
    if options.role is not None:
        play(options)
        return
    model = resnet50(np.stack(list(photo_frames(options.shared, 32))))
    memory: list[Row] = []
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "resnet50.onnx"
        onnx.save(model, path)
        for count in sorted({16, 128, options.images}):
            inference, collecting = (peak_mb(role, path, count, options.shared) for role in ROLES)
            above = collecting - inference
            memory.append((str(count), f"{inference:.0f} MB", f"{collecting:.0f} MB", f"{above:+.0f} MB"))
    time_row, share = timing(model, options.shared, options.images)
    tables = [
        Table("Peak memory of a process", ("images", "plain inference", "collecting", "difference"), memory),
        Table(
            "Time",
            ("images", "plain, an image", "collecting, an image", "median of turns (quartiles)", "with setup"),
            [time_row],
        ),
    ]
    report(tables, options.json, time_share=share, memory_above_mb=above)
    if above > MEMORY_LIMIT_MB or share > TIME_LIMIT:
        raise SystemExit(f"collecting takes {above:.0f} MB above inference and {share:.2f} times its time")


if __name__ == "__main__":
    main()
