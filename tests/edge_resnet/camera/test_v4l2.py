"""V4L2 up to where a device is needed: what FFmpeg is asked, and what is said where there is none.

No test has a device: a loopback one is a kernel module. A double stands for FFmpeg's answer of a device without a frame.
"""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from videos import needs

from edge_resnet.camera import decoding, open_camera
from edge_resnet.camera.v4l2 import V4l2Source, device_options
from edge_resnet.errors import CameraUnavailableError
from edge_resnet.frames import FrameColor

av = pytest.importorskip("av", reason="PyAV is not installed: pip install 'edge-resnet[camera]'")


def test_options_of_an_address_become_ffmpegs() -> None:
    wanted = {"size": "1280x720", "fps": "30", "format": "mjpeg"}
    assert device_options(wanted, "") == {"video_size": "1280x720", "framerate": "30", "input_format": "mjpeg"}
    assert device_options({}, "") == {}, "what is not given is the driver's choice"


@needs("ffmpeg")
def test_ffmpeg_knows_these_options() -> None:
    shown = subprocess.run(["ffmpeg", "-hide_banner", "-h", "demuxer=v4l2"], capture_output=True, text=True, check=True)
    known = set(re.findall(r"^ +-(\w+)", shown.stdout, re.MULTILINE))
    assert set(device_options({"size": "2x2", "fps": "1", "format": "mjpeg"}, "")) <= known


def test_pyavs_own_ffmpeg_has_the_input() -> None:
    assert av.ContainerFormat("v4l2", "r").is_input


def test_a_device_that_is_not_there() -> None:
    with pytest.raises(CameraUnavailableError, match="camera '/dev/video97' is not there: plug it in") as told:
        open_camera("v4l2:///dev/video97?size=640x480")
    assert told.value.exit_code == 4


def test_what_is_no_camera_is_refused_by_the_driver(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(CameraUnavailableError, match="file' cannot be read: In(valid argument|appropriate ioctl)"):
        open_camera(f"v4l2://{tmp_path / 'file'}")


def test_a_device_that_may_not_be_opened(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "access", lambda *_: False)
    (tmp_path / "file").touch()
    with pytest.raises(CameraUnavailableError, match="may not be opened: add the user to the group 'video'"):
        open_camera(f"v4l2://{tmp_path / 'file'}")


def test_a_device_without_a_frame_yet_is_asked_again() -> None:
    """Opened with ``nonblock``, it answers EAGAIN, and PyAV's iterator is then spent."""
    assert V4l2Source("/dev/video0", FrameColor.RGB)._options == {"fflags": "nonblock"}
    frame = av.VideoFrame(4, 2, "rgb24")
    answers = iter([None, None, frame, None, frame, None])
    asked = []

    def demux(_: Any) -> Iterator[Any]:
        asked.append(1)
        for answer in answers:
            if answer is None and len(asked) < 4:
                raise av.error.BlockingIOError(11, "again")
            if answer is not None:
                yield SimpleNamespace(decode=lambda answer=answer: [answer])

    container = SimpleNamespace(streams=SimpleNamespace(video=[None]), demux=demux)
    source = decoding.Input("/dev/video0", "camera", CameraUnavailableError)
    shots = list(decoding._shots(av, container, source, FrameColor.RGB))
    assert [shot.pixels.shape for shot in shots] == [(2, 4, 3)] * 2
    assert len(asked) == 4
