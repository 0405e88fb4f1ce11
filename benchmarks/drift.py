"""How often the drift monitor cries wolf, what it finds and how soon, and what it costs a frame.

    python benchmarks/drift.py [--frames 20000]

The demo, and, where the data is, the published CIFAR-10 ResNet-20: reference from 256 calibration images, FP32's answers,
the test images in random order. Of each change: the numbers that have drifted after two windows of changed frames, and how
many of those it took (median of ten orders). Cost is processor time of one thread, not the clock's.
"""

from __future__ import annotations

import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
from _common import Frames, Row, Subject, Table, cifar_resnet20, demo_resnet20, parser, report
from PIL import Image, ImageFilter

from edge_resnet.bundle import Bundle, Manifest, open_bundle, write_bundle
from edge_resnet.check import BATCH, float_run
from edge_resnet.drift import DriftChange, DriftMonitor
from edge_resnet.drift_reference import MOST, Reference

WINDOWS = (128, 256, 512)
WINDOW = 256
ORDERS = 10
Answers = np.ndarray


def blurred(frames: Frames) -> Frames:
    pictures = (Image.fromarray(frame.squeeze()).filter(ImageFilter.GaussianBlur(1)) for frame in frames)
    return np.stack([np.asarray(picture).reshape(frames.shape[1:]) for picture in pictures])


def noisy(frames: Frames) -> Frames:
    noise = np.random.default_rng(0).normal(0, 20, frames.shape)
    return np.clip(frames + noise, 0, 255).astype(np.uint8)


CHANGES: dict[str, Callable[[Frames], Frames]] = {
    "0.9 of the exposure": lambda frames: (0.9 * frames).astype(np.uint8),
    "0.7 of the exposure": lambda frames: (0.7 * frames).astype(np.uint8),
    "0.5 of the exposure": lambda frames: (0.5 * frames).astype(np.uint8),
    "blurred, radius 1": blurred,
    "noise of 20 grey levels": noisy,
    "inverted": lambda frames: 255 - frames,
    "red and blue exchanged": lambda frames: frames[..., ::-1],
    "one class alone": lambda frames: frames,
}


def bundle_of(subject: Subject, folder: Path) -> Bundle:
    """A bundle with nothing but the reference, as a build makes it."""
    batches = subject.calibration.draw(MOST).batches(subject.preprocessing, BATCH)
    reference = Reference.of(batches, float_run(subject.model))
    shape = (*subject.preprocessing.size, subject.test.shape[3])
    manifest = Manifest("drift", None, "fp32", tuple("0123456789"), shape, {}, (), None, None, {})
    write_bundle(folder / "drift.edge", manifest, reference.member())
    return open_bundle(folder / "drift.edge")


def shown(monitor: DriftMonitor, frames: Frames, answers: Answers, count: int, seed: int) -> None:
    """So many frames in random order, each as often as the others."""
    draw = np.random.default_rng(seed)
    order = np.concatenate([draw.permutation(len(frames)) for _ in range(count // len(frames) + 1)])[:count]
    for index in order.tolist():
        monitor.observe(answers[index], lambda index=index: frames[index])


def false_alarms(bundle: Bundle, subject: Subject, answers: Answers, frames: int) -> list[Row]:
    rows = []
    for window in WINDOWS:
        monitor = DriftMonitor(bundle, window=window)
        shown(monitor, subject.test, answers, frames, 0)
        rows.append((subject.name, f"{window}", f"{frames:,}", f"{monitor.stats.alarms}"))
    return rows


def found(bundle: Bundle, subject: Subject, name: str) -> Row | None:
    """What is found of one change, from a window of usual frames on."""
    if name == "red and blue exchanged" and subject.test.shape[3] == 1:
        return None
    labels = np.array(subject.labels)
    frames = subject.test[labels == 0] if name == "one class alone" else CHANGES[name](subject.test)
    run = float_run(subject.model)
    usual, answers = run(subject.test), run(np.ascontiguousarray(frames))
    delays, names = [], set[str]()
    for seed in range(ORDERS):
        told: list[DriftChange] = []
        monitor = DriftMonitor(bundle, window=WINDOW, notify=told.append)
        shown(monitor, subject.test, usual, WINDOW, seed)
        for step in range(2 * WINDOW // 8):
            shown(monitor, frames, answers, 8, 1000 * seed + step)
            if told:
                delays.append(8 * (step + 1))
                break
        shown(monitor, frames, answers, 2 * WINDOW, seed)
        names |= set(monitor.stats.drifted)
    delay = f"{np.median(delays):.0f} frames" if delays else "–"
    return subject.name, name, f"{len(delays)} of {ORDERS}", delay, ", ".join(sorted(names)) or "none"


def cost_us(shape: tuple[int, int, int], classes: int, bundle: Bundle) -> float:
    """Processor time of a frame, in microseconds: the least of ten rounds."""
    draw = np.random.default_rng(0)
    frame, answer = draw.integers(0, 256, shape, np.uint8), draw.normal(size=classes).astype(np.float32)
    monitor, rounds = DriftMonitor(bundle, window=WINDOW), []
    for _ in range(10):
        start = time.thread_time()
        for _ in range(500):
            monitor.observe(answer, lambda: frame)
        rounds.append(1e6 * (time.thread_time() - start) / 500)
    return min(rounds)


def main() -> int:
    arguments = parser(__doc__)
    arguments.add_argument("--frames", type=int, default=20_000)
    chosen = arguments.parse_args()
    subjects = [demo_resnet20()]
    if (chosen.shared / "data" / "cifar10-jpeg").is_dir():
        subjects.append(cifar_resnet20(chosen.shared))
    alarms, changes, costs = [], [], []
    for subject in subjects:
        with tempfile.TemporaryDirectory() as folder:
            bundle = bundle_of(subject, Path(folder))
        alarms += false_alarms(bundle, subject, float_run(subject.model)(subject.test), chosen.frames)
        changes += [row for name in CHANGES if (row := found(bundle, subject, name)) is not None]
        for shape, classes in (((28, 28, 1), 10), ((224, 224, 3), 1000)):
            if shape[2] == subject.test.shape[3]:
                costs.append(("×".join(map(str, shape)), f"{classes}", f"{cost_us(shape, classes, bundle):.0f}"))
    report(
        [
            Table("False alarms", ("network", "window", "frames", "alarms"), alarms),
            Table(f"Found, window {WINDOW}", ("network", "change", "found", "after", "numbers"), changes),
            Table("Cost", ("frame", "classes", "µs"), costs),
        ],
        chosen.json,
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
