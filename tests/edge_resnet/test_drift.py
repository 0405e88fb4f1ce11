"""Drift: the index against its formula, what is found and what is not, and that the watch harms no answer."""

from __future__ import annotations

import logging
import math
import tracemalloc
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageFilter

from edge_resnet import Classifier, demo
from edge_resnet.bundle import Bundle, open_bundle, write_bundle
from edge_resnet.drift import BACK, ENTER, STEP, DriftChange, DriftMonitor
from edge_resnet.drift_reference import MEMBER, Reference, answer_numbers, frame_numbers
from edge_resnet.engines.ort import OrtEngine
from edge_resnet.errors import BundleError

Frames = np.ndarray


@pytest.fixture(scope="module")
def frames() -> Frames:
    """The demo's test images, a hundred of each class, in no order."""
    paths = [path for folder in sorted(demo.TEST.iterdir()) for path in sorted(folder.iterdir())[:40]]
    return np.random.default_rng(0).permutation(np.stack([np.asarray(Image.open(path))[..., None] for path in paths]))


@pytest.fixture(scope="module")
def bundle(quick_bundle: Path, tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    """One whose reference is of many images, as a real one's is."""
    opened = open_bundle(quick_bundle)
    paths = [path for folder in sorted(demo.CALIBRATION.iterdir()) for path in sorted(folder.iterdir())[:25]]
    many = np.stack([np.asarray(Image.open(path))[..., None] for path in paths])
    with OrtEngine(opened.read("engines/cpu.onnx")) as engine:
        reference = Reference.of([many], engine.run)
    path = tmp_path_factory.mktemp("drift") / "model.edge"
    members = {name: opened.read(name) for name in opened.names if name != MEMBER}
    write_bundle(path, opened.manifest, members | reference.member())
    return open_bundle(path)


@pytest.fixture(scope="module")
def run(bundle: Bundle) -> Callable[[Frames], np.ndarray]:
    return OrtEngine(bundle.read("engines/cpu.onnx")).run


def shown(monitor: DriftMonitor, frames: Frames, answers: np.ndarray) -> None:
    for frame, answer in zip(frames, answers, strict=True):
        monitor.observe(answer, lambda frame=frame: frame)


def psi_by_hand(bundle: Bundle, name: str, values: list[float]) -> float:
    """Σ (p − q) ln(p / q), half a frame added to each bin, less the mean that chance gives."""
    reference = Reference.of_bundle(bundle)
    usual = reference.distributions[name]
    total = 0.0
    for index, share in enumerate(usual.shares):
        low = -math.inf if index == 0 else usual.edges[index - 1]
        high = math.inf if index == len(usual.edges) else usual.edges[index]
        bins = len(usual.shares)
        p = (sum(low <= value < high for value in values) + 0.5) / (len(values) + 0.5 * bins)
        q = (share * reference.images + 0.5) / (reference.images + 0.5 * bins)
        total += (p - q) * math.log(p / q)
    return max(0.0, total - (len(usual.shares) - 1) * (1 / len(values) + 1 / reference.images))


def test_the_index_is_that_of_the_last_frames(
    bundle: Bundle, run: Callable[[Frames], np.ndarray], frames: Frames
) -> None:
    darker = (frames[:200] * 0.8).astype(np.uint8)
    answers = run(darker)
    monitor = DriftMonitor(bundle, window=128)
    shown(monitor, darker[:127], answers[:127])
    assert monitor.stats.readings["contrast"].psi is None
    shown(monitor, darker[127:], answers[127:])
    for name in ("brightness", "contrast", "confidence"):
        values = [
            (frame_numbers(f) | answer_numbers(a))[name] for f, a in zip(darker[-128:], answers[-128:], strict=True)
        ]
        reading = monitor.stats.readings[name]
        assert reading.psi == pytest.approx(psi_by_hand(bundle, name, values), abs=1e-9)
        assert reading.mean == pytest.approx(np.mean(values))


def blurred(frames: Frames) -> Frames:
    return np.stack(
        [np.asarray(Image.fromarray(f[..., 0]).filter(ImageFilter.GaussianBlur(1)))[..., None] for f in frames]
    )


CHANGES: dict[str, tuple[Callable[[Frames], Frames], set[str]]] = {
    "darker": (lambda frames: (frames * 0.7).astype(np.uint8), {"brightness", "contrast"}),
    "blurred": (blurred, {"sharpness"}),
    "noisy": (
        lambda f: np.clip(f + np.random.default_rng(0).normal(0, 20, f.shape), 0, 255).astype(np.uint8),
        {"sharpness", "confidence"},
    ),
    "inverted": (lambda frames: 255 - frames, {"brightness", "confidence"}),
}


@pytest.mark.parametrize("change", CHANGES)
def test_what_changes_is_named_and_told_once(
    change: str, bundle: Bundle, run: Callable[[Frames], np.ndarray], frames: Frames
) -> None:
    changed, names = CHANGES[change]
    told: list[DriftChange] = []
    monitor = DriftMonitor(bundle, window=128, notify=told.append)
    shown(monitor, frames, run(frames))
    assert (told, monitor.stats.drifted, monitor.stats.alarms) == ([], (), 0)
    others = changed(frames[:256])
    shown(monitor, others, run(others))
    assert names <= set(monitor.stats.drifted)
    assert len(told) == len({each.name for each in told}) == monitor.stats.alarms
    assert "has drifted: " in str(told[0]) and "in the build (PSI 0." in str(told[0])
    shown(monitor, frames[:256], run(frames[:256]))
    assert monitor.stats.drifted == ()
    assert str(told[-1]).split(":")[0].endswith("is as usual again")


def test_a_number_at_the_limit_does_not_come_and_go(bundle: Bundle, frames: Frames) -> None:
    """Between the two thresholds it stays what it was."""
    monitor = DriftMonitor(bundle, window=128)
    window = monitor._windows["brightness"]
    for part, drifted in ((0.8, False), (1, True), (0.8, True), (BACK, True), (0.39, False), (0.99, False)):
        window.psi = lambda part=part: part * window.enter  # type: ignore[method-assign]
        window.changed()
        assert window.drifted is drifted


def test_of_few_images_only_a_large_shift_is_certain(bundle: Bundle, quick_bundle: Path) -> None:
    """Six standard deviations of chi-squared of nine degrees, √18, over n and m; else 0.25."""
    few, many = open_bundle(quick_bundle), DriftMonitor(bundle, window=512)
    assert many._windows["brightness"].enter == ENTER
    small = DriftMonitor(few, window=64)._windows["brightness"]
    assert small.enter == pytest.approx(6 * math.sqrt(18) * (1 / 64 + 1 / 30))


def test_a_window_of_one_scene_is_no_sample(
    bundle: Bundle, run: Callable[[Frames], np.ndarray], frames: Frames
) -> None:
    """Why ``every`` exists: one scene for the whole window is told as drift, scenes in turns are not."""
    scenes = np.repeat(frames[:256], 16, axis=0)
    answers = np.repeat(run(frames[:256]), 16, axis=0)
    close, far = DriftMonitor(bundle, window=128), DriftMonitor(bundle, window=128, every=16)
    for monitor in (close, far):
        shown(monitor, scenes, answers)
    assert close.stats.alarms > 0
    assert far.stats.alarms == 0
    assert (far.stats.frames, far.stats.watched) == (4096, 256)


def test_a_classifier_shows_every_answer_and_a_watcher_that_fails_harms_none(
    quick_bundle: Path, frames: Frames, caplog: pytest.LogCaptureFixture
) -> None:
    class Failing:
        def observe(self, answer: object, pixels: object) -> None:
            raise RuntimeError("no disk")

    caplog.set_level(logging.DEBUG, "edge_resnet.runtime")
    drift = DriftMonitor(open_bundle(quick_bundle), window=64)
    with Classifier(quick_bundle, target="cpu") as classify:
        wanted = [each.index for each in classify(list(frames[:70]))]
        classify.watch(Failing(), drift)
        with classify.stream(frames[:70], latest=False) as predictions:
            assert [each.index for each in predictions] == wanted
        with ThreadPoolExecutor(4) as pool:
            assert [each.index for each in pool.map(classify, frames[:70])] == wanted
    assert drift.stats.frames == drift.stats.watched == 140
    told = [each.levelno for each in caplog.records if each.message == "a watcher failed, and missed frames: Failing"]
    assert told == [logging.ERROR] + 139 * [logging.DEBUG], "a disk is not filled by one fault"


def test_a_frame_that_is_not_here_leaves_its_numbers_out(bundle: Bundle) -> None:
    monitor = DriftMonitor(bundle, window=64)
    for _ in range(2 * STEP):
        monitor.observe(np.zeros(10, np.float32), lambda: None)
    readings = monitor.stats.readings
    assert readings["brightness"].mean is None
    assert readings["confidence"].mean == pytest.approx(0.1)


def test_memory_is_constant(bundle: Bundle, frames: Frames) -> None:
    monitor, answer = DriftMonitor(bundle, window=64), np.zeros(10, np.float32)
    for _ in range(200):
        monitor.observe(answer, lambda: frames[0])
    tracemalloc.start()
    before, _ = tracemalloc.get_traced_memory()
    for _ in range(2000):
        monitor.observe(answer, lambda: frames[0])
    after, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert after - before < 2048


def test_a_window_that_is_no_sample_is_refused(bundle: Bundle) -> None:
    with pytest.raises(
        BundleError, match="window is 10 and every 1: give a window of 64 or more, and every of 1 or more"
    ):
        DriftMonitor(bundle, window=10)
    with pytest.raises(BundleError, match="window is 256 and every 0"):
        DriftMonitor(bundle, every=0)
