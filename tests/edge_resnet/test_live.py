"""Live classification: real frames of a folder, through the command line, and the sums of the last seconds."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from rich.console import Console
from videos import needs, numbered, write

from edge_resnet import demo
from edge_resnet.camera import CameraStats
from edge_resnet.classifier import Prediction
from edge_resnet.cli._live_display import drawn
from edge_resnet.live import LiveWindow
from edge_resnet.runtime import Timing

LABELS = ("a shoe", "a bag", "a coat")
STATS = CameraStats(9, 8, 1, reconnects=2, stalled=0, connected=True, last_error=None)


def prediction(logits: tuple[float, ...], run_ms: float, age_ms: float) -> Prediction:
    return Prediction.of(np.array(logits, np.float32), LABELS, Timing(1.0, run_ms, age_ms))


def test_rates_and_latencies_are_those_of_the_last_seconds() -> None:
    clock = iter([0.0, 10.0, 10.5, 11.0, 12.0])
    window = LiveWindow(LABELS, lambda: next(clock))
    for run_ms, age_ms in ((100.0, 900.0), (1.0, 10.0), (2.0, 20.0), (3.0, 30.0), (4.0, 40.0)):
        view = window.view(prediction((3.0, 0.0, 0.0), run_ms, age_ms), 7, STATS)
    assert (view.answered, view.dropped) == (5, 7)
    assert view.per_second == pytest.approx(3 / 2)  # the first frame is more than five seconds ago
    assert (view.run_ms, view.age_ms) == (2.5, 25.0)
    assert view.age_p99_ms == pytest.approx(39.7)


def test_probabilities_are_smoothed_so_that_bars_can_be_read() -> None:
    clock = iter(range(10))
    window = LiveWindow(LABELS, lambda: next(clock))
    far = prediction((50.0, 0.0, 0.0), 1, 1), prediction((0.0, 50.0, 0.0), 1, 1)
    window.view(far[0], 0, STATS)
    view = window.view(far[1], 0, STATS)
    assert view.prediction.label == "a bag"
    assert [label for label, _ in view.smoothed] == ["a shoe", "a bag", "a coat"]
    assert [value for _, value in view.smoothed] == pytest.approx([0.7, 0.3, 0.0], abs=1e-6)
    console = Console(width=100, record=True, file=open("/dev/null", "w"))  # noqa: SIM115
    console.print(drawn(view))
    text = console.export_text()
    assert "a shoe" in text and "70.0%" in text and "2 reconnects" in text and "1 dropped for newer ones" in text


def test_a_folder_is_classified_live(
    demo_bundle: Path, cli_json: Callable[..., Any], cli: Callable[..., subprocess.CompletedProcess[str]]
) -> None:
    source = demo.TEST / "sneaker"
    document = cli_json("live", source, "--bundle", demo_bundle, "--target", "cpu")
    assert document["answered"] == document["captured"] == len(list(source.iterdir()))
    assert document["dropped"] == 0
    assert document["age_ms"]["p50"] > 0
    assert document["last"]["label"] in json.dumps(demo.FOLDER.joinpath("labels.txt").read_text())
    shown = cli("live", source, "--bundle", demo_bundle, "--target", "cpu").stdout
    assert ", the first frame, age" in shown and shown.endswith(" frames answered, 0 dropped for newer ones\n")


@needs("ffmpeg")
def test_a_video_plays_at_its_own_speed(demo_bundle: Path, cli_json: Callable[..., Any], tmp_path: Path) -> None:
    video = write(tmp_path / "a.mkv", numbered(40), "rgb24", "-c:v", "ffv1", "-pix_fmt", "bgr0")
    document = cli_json("live", video, "--bundle", demo_bundle, "--target", "cpu")
    assert document["captured"] == 40
    assert document["per_second"] < 30, "25 frames a second, however fast they are decoded"


def test_a_camera_that_is_not_there(demo_bundle: Path, refused: Callable[..., str]) -> None:
    line = refused(4, "live", "v4l2:///dev/video99", "--bundle", demo_bundle, "--target", "cpu")
    assert "/dev/video99" in line
