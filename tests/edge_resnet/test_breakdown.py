"""Where a frame's time goes: the parts that a bench with a camera names, against sources whose times are known."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edge_resnet import demo
from edge_resnet.breakdown import measure_breakdown
from edge_resnet.camera import Shot, Source
from edge_resnet.errors import CameraError
from edge_resnet.frames import FrameColor
from edge_resnet.runtime import Runtime


@pytest.fixture(scope="module")
def runtime(demo_bundle: Path) -> Iterator[Runtime]:
    with closing(Runtime(demo_bundle, target="cpu")) as opened:
        yield opened


class Slow(Source):
    """Takes 30 ms a frame, 28×28, and counts those that it gave."""

    live = True
    color = FrameColor.RGB
    name = "slow"

    def __init__(self, count: int) -> None:
        self.count, self.given, self.closed = count, 0, False

    @contextmanager
    def connect(self) -> Iterator[Iterator[Shot]]:
        def shots() -> Iterator[Shot]:
            for _ in range(self.count):
                time.sleep(0.03)
                self.given += 1
                yield Shot(np.zeros((28, 28, 3), np.uint8))

        try:
            yield shots()
        finally:
            self.closed = True

    @classmethod
    def parse(cls, address: str, color: FrameColor) -> Source:
        raise AssertionError


@pytest.mark.parametrize(("count", "taken"), [(3, 3), (80, 50)])
def test_capture_is_the_time_until_the_source_has_given_the_frame(
    count: int, taken: int, runtime: Runtime, monkeypatch: pytest.MonkeyPatch
) -> None:
    slow = Slow(count)
    monkeypatch.setattr("edge_resnet.breakdown.source_of", lambda source, color: slow)
    found = measure_breakdown(runtime, "slow")
    assert found.capture is not None and found.capture >= 30
    assert found.prepare < found.capture, "capturing is no part of it"
    assert (slow.given, slow.closed) == (taken, True)


def test_a_source_without_frames_is_told(runtime: Runtime, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("edge_resnet.breakdown.source_of", lambda source, color: Slow(0))
    with pytest.raises(CameraError, match="slow gives no frame: give a camera, a video or a folder of images"):
        measure_breakdown(runtime, "slow")


def test_bench_names_every_part(
    demo_bundle: Path, cli_json: Callable[..., Any], cli: Callable[..., Any], refused: Callable[..., str]
) -> None:
    flags = ("bench", demo_bundle, "--target", "cpu", "--runs", "2")
    parts = cli_json(*flags, "--source", demo.TEST)["breakdown_ms"]
    assert list(parts) == ["capture", "prepare", "copy_in", "execute", "copy_out", "postprocess"]
    assert parts["capture"] > 0 and parts["prepare"] > 0
    assert "capture" in cli(*flags, "--source", demo.TEST).stdout
    assert "capture" not in cli(*flags).stdout
    assert refused(2, *flags, "--source", "no.mp4").startswith("video 'no.mp4' does not exist")
