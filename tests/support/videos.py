"""Videos for the camera's tests, made by Debian's ffmpeg from pixels that the test knows."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest


def needs(*tools: str) -> pytest.MarkDecorator:
    """Skips a test where a tool is not installed."""
    missing = [tool for tool in tools if shutil.which(tool) is None]
    return pytest.mark.skipif(bool(missing), reason=f"{', '.join(missing)} not installed: see .ci/run")


def numbered(count: int, height: int = 48, width: int = 64) -> npt.NDArray[np.uint8]:
    """Frames of noise, N×H×W×3, each with its number in the first pixel."""
    frames = np.random.default_rng(count).integers(0, 256, (count, height, width, 3), np.uint8)
    frames[:, 0, 0, 0] = np.arange(count)
    return frames


def write(path: Path, frames: npt.NDArray[np.uint8], pixels: str, *arguments: str, fps: int = 25) -> Path:
    """Has ffmpeg make a video.

    Args:
        frames: N×H×W×C, or N×1.5·H×W×1 for ``nv12``.
        pixels: ffmpeg's name of their format.
        arguments: for the output, such as its codec.
    """
    height = frames.shape[1] * 2 // 3 if pixels == "nv12" else frames.shape[1]
    size = f"{frames.shape[2]}x{height}"
    raw = ["-f", "rawvideo", "-pix_fmt", pixels, "-s", size, "-r", str(fps), "-i", "-"]
    command = ["ffmpeg", "-v", "error", "-y", *raw, *arguments, str(path)]
    subprocess.run(command, input=frames.tobytes(), check=True)
    return path
