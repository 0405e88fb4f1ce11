"""Shadow mode: against FP32 run by hand, without holding up an answer, and what it says when the two part."""

from __future__ import annotations

import math
import time
from dataclasses import replace
from pathlib import Path
from threading import Event
from typing import Any

import numpy as np
import onnxruntime
import pytest
from PIL import Image

from edge_resnet import Classifier, demo
from edge_resnet.bundle import FP32_MEMBER, Bundle, open_bundle, write_bundle
from edge_resnet.engines.ort import OrtEngine, SideOrtEngine
from edge_resnet.errors import BundleError
from edge_resnet.shadow import Shadow, ShadowStats, wilson


@pytest.fixture(scope="module")
def frames() -> np.ndarray:
    paths = [path for folder in sorted(demo.TEST.iterdir()) for path in sorted(folder.iterdir())[:20]]
    return np.random.default_rng(0).permutation(np.stack([np.asarray(Image.open(path))[..., None] for path in paths]))


@pytest.fixture(scope="module")
def bundle(quick_bundle: Path) -> Bundle:
    return open_bundle(quick_bundle)


@pytest.mark.parametrize(
    ("hits", "trials", "low", "high"),
    [(81, 100, 0.7222, 0.8749), (10, 10, 0.7225, 1.0), (0, 20, 0.0, 0.1611), (1980, 2000, 0.9846, 0.9935)],
)
def test_the_interval_is_wilsons(hits: int, trials: int, low: float, high: float) -> None:
    """Both ends solve |share − p| = z·√(p(1 − p)/n), the score test that defines them."""
    found = wilson(hits, trials)
    assert found == pytest.approx((low, high), abs=1e-4)
    for end in found:
        if 0 < end < 1:
            assert abs(hits / trials - end) == pytest.approx(1.959964 * math.sqrt(end * (1 - end) / trials), abs=1e-7)


def test_agreement_and_noise_are_those_of_fp32_by_hand(quick_bundle: Path, bundle: Bundle, frames: np.ndarray) -> None:
    with Classifier(quick_bundle, target="cpu") as classify, Shadow(bundle, every=2, queue=200) as shadow:
        classify.watch(shadow)
        found = np.stack([classify(frame).logits for frame in frames])
        assert shadow.drain(30)
        stats = shadow.stats
    wanted = onnxruntime.InferenceSession(bundle.read(FP32_MEMBER)).run(None, {"frames": frames})[0]
    one, other = wanted[::2].astype(float), found[::2]
    assert stats.agreement == (one.argmax(1) == other.argmax(1)).mean()
    assert stats.sqnr_db == pytest.approx(10 * np.log10((one**2).sum() / ((one - other) ** 2).sum()), abs=1e-3)
    assert (stats.frames, stats.compared, stats.skipped, stats.failed) == (200, 100, 0, 0)
    assert stats.interval == wilson(round(stats.agreement * 100), 100)
    assert not stats.diverging


def test_when_the_two_part_it_is_told_once_and_so_is_the_return(bundle: Bundle, frames: np.ndarray) -> None:
    told: list[ShadowStats] = []
    engine = OrtEngine(bundle.read(FP32_MEMBER))
    right = engine.run(frames)
    wrong = np.roll(right, 1, axis=1)
    with Shadow(bundle, every=1, window=100, queue=1000, notify=told.append) as shadow:
        for answers in (right[:150], wrong[:150], right[:150]):
            for answer, frame in zip(answers, frames, strict=False):
                shadow.observe(answer, lambda frame=frame: frame)
            assert shadow.drain(30)
    assert [each.diverging for each in told] == [True, False]
    first, last = told
    assert first.interval is not None and first.interval[1] < 0.9 <= last.agreement  # type: ignore[operator]


def test_a_notification_that_fails_costs_no_comparison(
    bundle: Bundle, frames: np.ndarray, caplog: pytest.LogCaptureFixture
) -> None:
    wrong = np.roll(OrtEngine(bundle.read(FP32_MEMBER)).run(frames), 1, axis=1)[:100]

    def fail(stats: ShadowStats) -> None:
        raise RuntimeError("nobody listens")

    with Shadow(bundle, every=1, window=100, queue=1000, notify=fail) as shadow:
        for answer, frame in zip(wrong, frames, strict=False):
            shadow.observe(answer, lambda frame=frame: frame)
        wrong[:] = 0  # the caller's own array: what waits must not change with it
        assert shadow.drain(30)
        stats = shadow.stats
    assert (stats.compared, stats.failed, stats.diverging) == (100, 0, True)
    assert "nobody listens" in caplog.text and "shadow mode failed on a frame" not in caplog.text


def test_an_answer_never_waits_and_what_was_skipped_is_counted(
    bundle: Bundle, frames: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    hold, run = Event(), SideOrtEngine._run

    def slow(self: SideOrtEngine, *given: Any) -> Any:
        assert hold.wait(20)
        return run(self, *given)

    monkeypatch.setattr(SideOrtEngine, "_run", slow)
    with Shadow(bundle, every=1, queue=4) as shadow:
        start = time.monotonic()
        for frame in frames[:100]:
            shadow.observe(np.zeros(10, np.float32), lambda frame=frame: frame)
        assert time.monotonic() - start < 5
        assert shadow.stats.skipped >= 95
        hold.set()
        assert shadow.drain(20)
        stats = shadow.stats
        assert stats.compared + stats.skipped == stats.frames == 100


def test_a_shadow_that_fails_is_counted_and_goes_on(
    bundle: Bundle, frames: np.ndarray, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    run = SideOrtEngine._run
    with Shadow(bundle, every=1) as shadow:
        monkeypatch.setattr(SideOrtEngine, "_run", lambda self, *given: 1 / 0)
        shadow.observe(np.zeros(10, np.float32), lambda: frames[0])
        assert shadow.drain(20)
        monkeypatch.setattr(SideOrtEngine, "_run", run)
        shadow.observe(np.zeros(10, np.float32), lambda: frames[0])
        shadow.observe(np.zeros(10, np.float32), lambda: None)
        assert shadow.drain(20)
        stats = shadow.stats
    assert (stats.compared, stats.failed, stats.skipped) == (1, 1, 1)
    assert "shadow mode failed on a frame" in caplog.text


def test_closing_ends_the_thread_and_frees_the_network(bundle: Bundle, frames: np.ndarray) -> None:
    shadow = Shadow(bundle, every=1)
    thread = shadow._thread
    shadow.close()
    shadow.close()
    shadow.observe(np.zeros(10, np.float32), lambda: frames[0])
    assert not thread.is_alive()
    assert (shadow.stats.frames, shadow.stats.compared, shadow.stats.agreement) == (1, 0, None)


def test_what_cannot_be_compared_is_refused(bundle: Bundle, tmp_path: Path) -> None:
    with pytest.raises(
        BundleError, match="every is 0, window 1000, queue 4, least 0.9: give every and queue of 1 or more"
    ):
        Shadow(bundle, every=0)
    features = replace(bundle.manifest, labels=None)
    write_bundle(tmp_path / "f.edge", features, {name: bundle.read(name) for name in bundle.names})
    with pytest.raises(BundleError, match="bundle 'model' gives features: shadow mode compares classes"):
        Shadow(open_bundle(tmp_path / "f.edge"))
