"""Where the time of a camera's frame goes, from the camera to the answer."""

from __future__ import annotations

import itertools
import time
from collections.abc import Generator
from contextlib import closing
from dataclasses import asdict, dataclass

import numpy as np
import numpy.typing as npt

from edge_resnet.camera.address import without_secrets
from edge_resnet.camera.registry import source_of
from edge_resnet.classifier import Prediction
from edge_resnet.errors import CameraError
from edge_resnet.frames import FrameColor, FrameFormat
from edge_resnet.runtime import Runtime

CAMERA = FrameFormat(1080, 1920, FrameColor.RGB)
"""The frames that a breakdown prepares, where neither a source nor the engine's own camera says."""
_RUNS = 50


@dataclass(frozen=True)
class Breakdown:
    """Where the time of one camera frame goes: medians, in milliseconds. None where there is no such part."""

    capture: float | None
    """Until the source has given the frame: of a file its decoding, of a live camera the wait for it too."""
    prepare: float
    copy_in: float | None
    execute: float
    copy_out: float | None
    postprocess: float
    """Of the answer to a prediction; 0 for features."""

    def to_json(self) -> dict[str, float | None]:
        """The breakdown as values that JSON knows."""
        return asdict(self)


def measure_breakdown(runtime: Runtime, source: str | None = None) -> Breakdown:
    """Measures each part by itself, one frame after the other.

    Args:
        runtime: an opened bundle.
        source: a camera's address, a video or a folder, of which up to 50 frames are taken; None prepares one random
            frame again and again, 1080×1920 RGB or what the engine's own camera gives, and captures nothing.

    Raises:
        CameraError: the source cannot be opened, or gives no frame.
        ImageError: the engine was compiled for other frames.
    """
    color = runtime.camera_color
    frames = _random(runtime.frames or CAMERA) if source is None else _captured(source, color)
    captured, prepared, phases, finished = [], [], [], []
    with closing(frames):
        for pixels, capture_ms in itertools.islice(frames, _RUNS):
            captured.append(capture_ms)
            ready = runtime.ready(pixels, color)
            prepared.append(ready.prepare_ms)
            assert isinstance(ready.pixels, np.ndarray)  # the frame is on the host
            phases.append(runtime.engine.timed(ready.pixels[np.newaxis]))
            start = time.perf_counter()
            if runtime.labels is not None:
                Prediction.of(np.zeros(len(runtime.labels), np.float32), runtime.labels)
            finished.append(1e3 * (time.perf_counter() - start))
    if not phases:
        assert source is not None  # made-up frames do not end
        raise CameraError(f"{without_secrets(source)} gives no frame: give a camera, a video or a folder of images")
    return Breakdown(
        _median(captured),
        float(np.median(prepared)),
        _median([phase.copy_in_ms for phase in phases]),
        float(np.median([phase.execute_ms for phase in phases])),
        _median([phase.copy_out_ms for phase in phases]),
        float(np.median(finished)),
    )


Captured = tuple[npt.NDArray[np.uint8], float | None]
"""A frame, and the milliseconds that it took; None for one that nothing took."""


def _random(camera: FrameFormat) -> Generator[Captured, None, None]:
    yield from itertools.repeat((np.random.default_rng(0).integers(0, 256, camera.shape, np.uint8), None))


def _captured(source: str, color: FrameColor) -> Generator[Captured, None, None]:
    """Each frame when it is asked for. A ``Camera`` would decode ahead, in the time that the engine takes."""
    with source_of(source, color).connect() as shots:
        while True:
            start = time.perf_counter()
            shot = next(shots, None)
            if shot is None:
                return
            yield shot.pixels, 1e3 * (time.perf_counter() - start)


def _median(times: list[float | None]) -> float | None:
    known = [each for each in times if each is not None]
    return float(np.median(known)) if known else None
