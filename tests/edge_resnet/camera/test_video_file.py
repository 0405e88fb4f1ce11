"""Video files that Debian's ffmpeg made, read back by the FFmpeg of PyAV: every frame, its pixels, its time."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from videos import needs, numbered, write

from edge_resnet.camera import open_camera
from edge_resnet.errors import CameraError, UnavailableError
from edge_resnet.frames import FrameColor, to_rgb

pytest.importorskip("av", reason="PyAV is not installed: pip install 'edge-resnet[camera]'")
pytestmark = needs("ffmpeg")
COUNT = 40


@pytest.fixture(scope="module")
def lossless(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """``numbered(COUNT)`` as they are: FFV1 in RGB, 25 a second."""
    path = tmp_path_factory.mktemp("video") / "numbered.mkv"
    return write(path, numbered(COUNT), "rgb24", "-c:v", "ffv1", "-pix_fmt", "bgr0")


def yuv(path: Path, *tags: str, height: int = 34, width: int = 50) -> npt.NDArray[np.uint8]:
    """A lossless video of random luma and of one chroma a frame, with what it says of itself; its frames as NV12."""
    random = np.random.default_rng(0)
    frames = np.empty((3, height * 3 // 2, width, 1), np.uint8)
    frames[:, :height] = random.integers(16, 236, (3, height, width, 1))
    frames[:, height:, 0::2] = random.integers(64, 192, (3, 1, 1, 1))
    frames[:, height:, 1::2] = random.integers(64, 192, (3, 1, 1, 1))
    write(path, frames, "nv12", "-c:v", "ffv1", "-pix_fmt", "yuv420p", *tags)
    return frames


@pytest.mark.parametrize("color", ["rgb", "bgr", "rgba", "bgra"])
def test_every_frame_comes_once_in_order_and_exact(lossless: Path, color: str) -> None:
    with open_camera(lossless, color=color) as camera:
        frames = list(camera)
    given = np.stack([to_rgb(frame.pixels, frame.color) for frame in frames])
    np.testing.assert_array_equal(given, numbered(COUNT))
    assert [frame.index for frame in frames] == list(range(COUNT))
    assert (np.diff([frame.captured for frame in frames]) >= 0).all()
    assert {frame.color for frame in frames} == {FrameColor(color)}
    assert (camera.stats.captured, camera.stats.delivered, camera.stats.dropped) == (COUNT, COUNT, 0)


def test_a_widely_used_codec_loses_no_frame_either(tmp_path: Path) -> None:
    """H.264 with frames that refer to later ones, which decoders give out late; the number is in the brightness."""
    frames = np.repeat(np.arange(16, 216, 4, np.uint8), 64 * 64 * 3).reshape(50, 64, 64, 3)
    write(tmp_path / "clip.mp4", frames, "rgb24", "-c:v", "libx264", "-bf", "3", "-pix_fmt", "yuv420p")
    with open_camera(tmp_path / "clip.mp4") as camera:
        means = [frame.pixels.mean() for frame in camera]
    np.testing.assert_allclose(means, frames.mean((1, 2, 3)), atol=2)


def test_under_the_latest_policy_it_plays_at_its_own_speed(lossless: Path) -> None:
    began = time.monotonic()
    with open_camera(lossless, latest=True) as camera:
        numbers = []
        for frame in camera:
            assert frame.pixels[0, 0, 0] == frame.index, "another frame than was counted"
            numbers.append(frame.index)
            time.sleep(0.15)
    assert time.monotonic() - began > (COUNT - 1) / 25
    assert (np.diff(numbers) > 0).all() and 2 <= len(numbers) <= 12
    assert camera.stats.captured == COUNT == camera.stats.delivered + camera.stats.dropped


@pytest.mark.parametrize(
    ("tags", "color"),
    [
        ((), FrameColor.NV12),
        (("-colorspace", "smpte170m"), FrameColor.NV12),
        (("-colorspace", "bt709"), FrameColor.NV12_BT709),
    ],
)
def test_nv12_is_what_the_stream_holds_and_rgb_follows_its_tags(
    tmp_path: Path, tags: tuple[str, ...], color: FrameColor
) -> None:
    frames = yuv(tmp_path / "a.mkv", *tags)
    with open_camera(tmp_path / "a.mkv", color=color) as camera:
        np.testing.assert_array_equal([frame.pixels for frame in camera], frames)
    with open_camera(tmp_path / "a.mkv") as camera:
        for frame, held in zip(camera, frames, strict=True):
            assert abs(frame.pixels.astype(int) - to_rgb(held, color)).max() <= 3, "docs/camera.md says so"


def test_grey_is_luma_stretched_to_all_256_values(tmp_path: Path) -> None:
    frames = yuv(tmp_path / "a.mkv")
    wanted = np.clip((frames[:, :34].astype(float) - 16) * 255 / 219, 0, 255)
    with open_camera(tmp_path / "a.mkv", color="gray") as camera:
        np.testing.assert_allclose([frame.pixels for frame in camera], wanted, atol=1)


@pytest.mark.parametrize(
    ("tags", "color", "message"),
    [
        (("-colorspace", "bt709"), "nv12", "says that its colours are not those of 'nv12': declare color='nv12-bt709'"),
        (("-colorspace", "smpte170m"), "nv12-bt709", "not those of 'nv12-bt709': declare color='nv12'"),
        (("-color_range", "pc"), "nv12", "full range, which 'nv12' would change: open it with color='rgb'"),
    ],
)
def test_a_stream_that_says_otherwise_is_not_taken_for_what_was_declared(
    tmp_path: Path, tags: tuple[str, ...], color: str, message: str
) -> None:
    yuv(tmp_path / "a.mkv", *tags)
    with open_camera(tmp_path / "a.mkv", color=color) as camera, pytest.raises(CameraError, match=message):
        next(camera)


def test_rgb_in_a_file_is_not_made_nv12(lossless: Path) -> None:
    with open_camera(lossless, color="nv12") as camera, pytest.raises(CameraError, match="would change: open it with"):
        next(camera)


def test_files_that_cannot_be_read_are_wrong_input(lossless: Path, tmp_path: Path) -> None:
    (tmp_path / "text.mp4").write_text("no video")
    with pytest.raises(CameraError, match="text.mp4' cannot be read: Invalid data found") as told:
        open_camera(tmp_path / "text.mp4")
    assert told.value.exit_code == 2
    sound = ["ffmpeg", "-v", "error", "-f", "lavfi", "-i", "sine=duration=0.1", str(tmp_path / "sound.wav")]
    subprocess.run(sound, check=True)
    with pytest.raises(CameraError, match="sound.wav' has no video in it"):
        open_camera(tmp_path / "sound.wav")


def test_pyav_that_is_missing_is_named_with_its_extra(lossless: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "av", None)
    with pytest.raises(UnavailableError, match=r"PyAV is not installed: pip install 'edge-resnet\[camera\]'") as told:
        open_camera(lossless)
    assert told.value.exit_code == 4


def test_a_colon_in_a_name_is_no_protocol(lossless: Path, tmp_path: Path) -> None:
    (tmp_path / "http:clip.mkv").write_bytes(lossless.read_bytes())
    with open_camera(tmp_path / "http:clip.mkv") as camera:
        assert next(camera).index == 0
