"""CSI cameras: the pipeline as text, and the process it runs in, for real, with a test pattern in the camera's place."""

from __future__ import annotations

import itertools
import signal
import time

import numpy as np
import pytest
from videos import needs

from edge_resnet.camera import Camera, Retry, open_camera
from edge_resnet.camera.csi import PipelineSource, csi_pipeline
from edge_resnet.errors import CameraError, CameraUnavailableError, UnavailableError
from edge_resnet.frames import FrameColor, FrameFormat, to_rgb

QUICK = Retry(connect_s=5, stall_s=0.5, first_wait_s=0.05, longest_wait_s=0.1)


def pattern(color: FrameColor, caps: str, source: str = "videotestsrc pattern=red") -> PipelineSource:
    """64×48 of red, or what else."""
    pipeline = f"{source} ! video/x-raw,format={caps},width=64,height=48,framerate=50/1"
    return PipelineSource("pattern", pipeline, FrameFormat(48, 64, color))


def test_nv12_comes_straight_out_of_the_cameras_memory() -> None:
    assert csi_pipeline(1, FrameFormat(1080, 1920, FrameColor.NV12), fps=30, flip=0) == (
        "nvarguscamerasrc sensor-id=1 ! video/x-raw(memory:NVMM),width=1920,height=1080,format=NV12,framerate=30/1 ! "
        "nvvidconv flip-method=0 ! video/x-raw,width=1920,height=1080,format=NV12"
    )


def test_three_bytes_a_pixel_need_the_cpu_and_a_quarter_turn_swaps_the_sides() -> None:
    assert csi_pipeline(0, FrameFormat(1280, 720, FrameColor.BGR), fps=60, flip=1) == (
        "nvarguscamerasrc sensor-id=0 ! video/x-raw(memory:NVMM),width=1280,height=720,format=NV12,framerate=60/1 ! "
        "nvvidconv flip-method=1 ! video/x-raw,width=720,height=1280,format=RGBA ! "
        "videoconvert ! video/x-raw,format=BGR"
    )


@needs("gst-launch-1.0")
@pytest.mark.parametrize(
    ("color", "caps"), [("rgb", "RGB"), ("bgr", "BGR"), ("rgba", "RGBA"), ("nv12", "NV12"), ("gray", "GRAY8")]
)
def test_frames_of_each_colour_are_cut_where_they_end(color: str, caps: str) -> None:
    red = "videotestsrc pattern=red num-buffers=5 ! video/x-raw,format=RGBA ! videoconvert"
    source = pattern(FrameColor(color), caps, red)
    with Camera(source, latest=False, retry=QUICK) as camera:
        frames = list(itertools.islice(camera, 5))
    for frame in frames:
        assert frame.pixels.shape == FrameFormat(48, 64, FrameColor(color)).shape
        found = to_rgb(frame.pixels, FrameColor(color)).reshape(-1, 1 if color == "gray" else 3)
        wanted = [77] if color == "gray" else [255, 0, 0]  # 0.299 of 255 is 76.2, through 8-bit luma
        np.testing.assert_allclose(found, np.broadcast_to(wanted, found.shape), atol=2)


@needs("gst-launch-1.0")
def test_a_pipeline_that_ends_is_started_again() -> None:
    source = pattern(FrameColor.RGB, "RGB", "videotestsrc num-buffers=10")
    with Camera(source, latest=False, retry=QUICK) as camera:
        assert [frame.index for frame in itertools.islice(camera, 25)] == list(range(25))
        assert camera.stats.reconnects == 2
        assert camera.stats.last_error == "pattern gives no frames: the pipeline ended"


@needs("gst-launch-1.0")
def test_a_pipeline_that_falls_silent_is_killed_and_started_again() -> None:
    source = pattern(FrameColor.RGB, "RGB", "videotestsrc is-live=true")
    with Camera(source, latest=True, retry=QUICK) as camera:
        next(camera)
        process = source._process
        assert process is not None
        process.send_signal(signal.SIGSTOP)  # it lives, and gives nothing
        deadline = time.monotonic() + 10
        while camera.stats.stalled == 0 and time.monotonic() < deadline:
            next(camera)
        assert process.wait(2) < 0, "the silent process is gone"
        assert next(camera).pixels.shape == (48, 64, 3)
    assert source._process is not None
    assert source._process.wait(2) < 0, "closing ends the process"


@needs("gst-launch-1.0")
def test_where_there_is_no_such_camera_gstreamer_says_so() -> None:
    with pytest.raises(CameraUnavailableError, match="camera 'csi://0' gives no frames: .*nvarguscamerasrc") as told:
        open_camera("csi://0")
    assert (told.value.exit_code, "\n" in str(told.value)) == (4, False)
    assert str(told.value).endswith(
        ": a Jetson has it, from JetPack's nvidia-l4t-gstreamer; a USB camera is v4l2:///dev/video0"
    )


def test_gstreamer_that_is_missing_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")
    with pytest.raises(UnavailableError, match="gst-launch-1.0 is not installed: apt install gstreamer1.0-tools"):
        open_camera("csi://0")


def test_frames_that_gstreamer_would_pad_are_refused() -> None:
    with pytest.raises(CameraError, match="frames are 50 wide: GStreamer packs multiples of 4 alone"):
        PipelineSource("odd", "videotestsrc", FrameFormat(48, 50, FrameColor.RGB))
