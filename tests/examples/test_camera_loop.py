"""The camera loop on a video of the demo's images, made by Debian's ffmpeg without loss."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from videos import needs, write

import edge_resnet

EXAMPLE = Path(__file__).resolve().parents[2] / "examples" / "camera_loop.py"


@needs("ffmpeg")
def test_the_answers_are_those_of_the_images(
    demo_bundle: Path, ten_frames: npt.NDArray[np.uint8], tmp_path: Path
) -> None:
    pytest.importorskip("av", reason="PyAV is not installed: pip install 'edge-resnet[camera]'")
    frames = ten_frames.repeat(3, axis=3)
    video = write(tmp_path / "clothes.mkv", frames, "rgb24", "-c:v", "ffv1", "-pix_fmt", "bgr0")
    command = [sys.executable, str(EXAMPLE), str(demo_bundle), str(video)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    with edge_resnet.Classifier(demo_bundle) as classify:
        wanted = [(f"{index}", each.label) for index, each in enumerate(classify(list(frames)))]
    assert re.findall(r"^ +(\d+)  (\S+)", done.stdout, re.MULTILINE) == wanted
    assert "captured=10, delivered=10, dropped=0" in done.stdout


def test_a_camera_that_is_not_there_is_one_line(demo_bundle: Path) -> None:
    command = [sys.executable, str(EXAMPLE), str(demo_bundle), "v4l2:///dev/video97"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert done.stderr == (
        "CameraUnavailableError: camera '/dev/video97' is not there: plug it in; `ls /dev/video*` lists what is\n"
    )
