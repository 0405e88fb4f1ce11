"""Addresses: which source they mean, and what is said of those that mean none."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edge_resnet.camera import SOURCES, open_camera
from edge_resnet.camera.address import shown, without_secrets
from edge_resnet.camera.registry import source_of
from edge_resnet.errors import CameraError
from edge_resnet.frames import FrameColor


@pytest.mark.parametrize(
    ("address", "kind", "name"),
    [
        ("rtsp://robot:secret@10.0.0.7:8554/live?key=1", "rtsp", "rtsp://10.0.0.7:8554/live"),
        ("rtsps://10.0.0.7/live#transport=udp", "rtsps", "rtsps://10.0.0.7/live"),
        ("v4l2:///dev/video2?size=640x480&fps=30", "v4l2", "camera '/dev/video2'"),
        ("csi://1?flip=2", "csi", "camera 'csi://1'"),
        ("a clip.mp4", "file", "video 'a clip.mp4'"),
        ("file:///data/a%20clip.mp4", "file", "video '/data/a clip.mp4'"),
        (Path("clip#1?.mp4"), "file", "video 'clip#1?.mp4'"),
    ],
)
def test_the_scheme_says_which_source(address: str | Path, kind: str, name: str) -> None:
    source = source_of(address, FrameColor.RGB)
    assert (type(source), source.name) == (SOURCES[kind], name)


def test_a_folder_is_told_from_a_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert isinstance(source_of(str(tmp_path), FrameColor.RGB), SOURCES["folder"])
    (tmp_path / "7").mkdir()  # a class folder's name, and no camera's number
    monkeypatch.chdir(tmp_path)
    assert isinstance(source_of("7", FrameColor.RGB), SOURCES["folder"])


@pytest.mark.parametrize(
    ("address", "message"),
    [
        ("http://camera/", "camera 'http://…' has an unknown scheme: give one of csi://, file://, folder://, rtsp://"),
        ("rtsp:///live", "'rtsp:///live' names no host: give rtsp://HOST/PATH"),
        ("rtsp://h/live#transport=pigeon", "rtsp://h/live: transport is 'pigeon': give tcp or udp"),
        ("rtsp://h/live#speed=2", "rtsp://h/live has no option 'speed': give transport"),
        ("v4l2://video0", "'v4l2://video0' names no device: give v4l2:///dev/video0"),
        ("v4l2:///dev/video0?size=720p", "camera '/dev/video0': size is '720p': give WIDTHxHEIGHT, such as 1280x720"),
        ("v4l2:///dev/video0?fps=fast", "camera '/dev/video0': fps is 'fast': give a whole number"),
        ("v4l2:///dev/video0?format=-", "camera '/dev/video0': format is '-': give FFmpeg's name"),
        ("v4l2:///dev/video0?fps=1&fps=2", "camera '/dev/video0': option 'fps' needs one value"),
        ("csi://front", "camera 'csi://front': the sensor is 'front': give a whole number"),
        ("csi://0?flip=8", "camera 'csi://0': fps is 30 and flip 8: give 1 or more, and 0 to 7"),
        ("csi://0?size=1278x720", "camera 'csi://0': frames are 1278 wide: GStreamer packs multiples of 4 alone"),
        ("missing.mp4", "video 'missing.mp4' does not exist: give a video file, a folder of images or an address"),
        (None, "camera is a NoneType: give an address, a path or an iterable of arrays"),
        (3, "camera '3' is no address: give v4l2:///dev/video3, or csi://3"),
        ("0", "camera '0' is no address: give v4l2:///dev/video0, or csi://0"),
        ("/dev/video1", "camera '/dev/video1' is no address: give v4l2:///dev/video1, or csi://1"),
    ],
)
def test_what_means_nothing_is_refused_as_wrong_input(address: Any, message: str) -> None:
    with pytest.raises(CameraError) as told:
        open_camera(address)
    assert message in str(told.value)
    assert (told.value.exit_code, "\n" in str(told.value)) == (2, False)


def test_colours_are_those_of_frames() -> None:
    with pytest.raises(CameraError, match="color is 'yuv': give one of rgb, bgr, rgba, bgra, gray, nv12,"):
        open_camera("clip.mp4", color="yuv")
    with pytest.raises(
        CameraError, match=r"folder:// camera cannot give color 'nv12': give one of rgb, bgr, rgba, gray"
    ):
        open_camera(Path(__file__).parent, color="nv12")


@pytest.mark.parametrize("address", ["csi://0", "v4l2:///dev/video0", "rtsp://user:secret@host/a", "clip.mp4"])
def test_a_colour_that_a_source_cannot_give_is_refused_before_it_is_opened(address: str) -> None:
    """As arrays of one's own and as an engine's frames there is YUYV; nothing that is decoded is brought to it."""
    with pytest.raises(CameraError, match=r":// camera cannot give color 'yuyv': give one of rgb, bgr, rgba,") as told:
        open_camera(address, color="yuyv")
    assert "secret" not in str(told.value)
    with open_camera([np.zeros((4, 6, 2), np.uint8)], color="yuyv") as camera:
        assert [frame.pixels.shape for frame in camera] == [(4, 6, 2)]


def test_what_is_shown_of_an_address_holds_no_password() -> None:
    assert shown("rtsp://user:p@ss@host:554/a?token=b") == "rtsp://host:554/a"
    assert without_secrets("rtsp://user:secret@host/a") == "rtsp://host/a"
    assert without_secrets("videos/at@12.mp4") == "videos/at@12.mp4"


@pytest.mark.parametrize("address", ["rtsp://me:sec/ret@host/a", "rtsp://me:sec#ret@host/a", "rtsp://me:sec?ret@host"])
def test_a_password_that_ends_the_host_too_early_is_told_and_not_shown(address: str) -> None:
    with pytest.raises(CameraError, match="has a port that is no number: .* write %2F for /") as told:
        open_camera(address)
    assert "sec" not in str(told.value)


def test_nor_does_an_address_that_was_mistyped_show_it() -> None:
    with pytest.raises(CameraError, match="video 'host/a' does not exist"):
        open_camera("rtsp:/me:sec@ret@host/a")
