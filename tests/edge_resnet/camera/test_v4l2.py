"""V4L2: what FFmpeg asks of a device, its loss, and what is said where there is none.

No test has a device: a loopback one is a kernel module. Instead a library is preloaded that answers FFmpeg's ioctls as a
driver would (``v4l2_double.c``).
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from videos import needs

from edge_resnet.camera import open_camera
from edge_resnet.camera.v4l2 import device_options
from edge_resnet.errors import CameraUnavailableError

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


LOOP = """
import itertools, json, logging, sys
import av.logging
from edge_resnet.camera import Retry, open_camera

logging.basicConfig()
av.logging.set_level(av.logging.WARNING)
address, color, count = sys.argv[1:]
retry = Retry(stall_s=0.4, first_wait_s=0.05, longest_wait_s=0.1)
with open_camera(address, latest=False, color=color, retry=retry) as camera:
    frames = list(itertools.islice(camera, int(count)))
print(json.dumps({
    "shapes": sorted({frame.pixels.shape for frame in frames}),
    "luma": [int(frame.pixels[0, 0, 0]) for frame in frames],
    "flat": all(int(frame.pixels[: frame.pixels.shape[0] * 2 // 3].std()) == 0 for frame in frames),
    "span_s": frames[9].captured - frames[0].captured,
    "reconnects": camera.stats.reconnects,
    "stalled": camera.stats.stalled,
    "last_error": camera.stats.last_error,
}))
"""


@pytest.fixture(scope="module")
def double(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """``v4l2_double.c``, compiled."""
    library = tmp_path_factory.mktemp("v4l2") / "v4l2_double.so"
    source = Path(__file__).parents[2] / "support" / "v4l2_double.c"
    subprocess.run(["cc", "-shared", "-fPIC", "-o", str(library), str(source), "-ldl"], check=True)
    return library


def loop(double: Path, device: Path, end: str, query: str, color: str, count: int) -> subprocess.CompletedProcess[str]:
    """Runs a loop over the device; after 10 frames it is unplugged or falls silent, and is there again."""
    device.touch()
    double_of = {"V4L2_DOUBLE": str(device), "V4L2_FRAMES": "10", "V4L2_END": end, "LD_PRELOAD": str(double)}
    command = [sys.executable, "-c", LOOP, f"v4l2://{device}{query}", color, str(count)]
    environment = {**os.environ, **double_of}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=30, check=False)
    assert "still owned" not in done.stderr, "FFmpeg's complaint of a frame that outlives the memory it lies in"
    return done


def seen_by(done: subprocess.CompletedProcess[str]) -> dict[str, Any]:
    assert done.returncode == 0, done.stderr
    return dict(json.loads(done.stdout))


@needs("cc")
def test_a_device_that_is_unplugged_comes_back(double: Path, tmp_path: Path) -> None:
    query = "?size=64x48&fps=50&format=yuyv422"
    seen = seen_by(loop(double, tmp_path / "video0", "unplug", query, "nv12", 25))
    assert seen["shapes"] == [[72, 64, 1]]
    assert seen["luma"] == [*range(20, 30), *range(20, 30), *range(20, 25)], "no frame lost, none twice"
    assert seen["flat"] is True
    assert 0.08 < seen["span_s"] < 2, "9 frames at 50 a second, of which a busy machine fetches the first late"
    assert (seen["reconnects"], seen["stalled"]) == (2, 0)
    assert seen["last_error"] == f"camera '{tmp_path}/video0' cannot be read: No such device"


@needs("cc")
def test_a_device_that_falls_silent_is_let_go_and_opened_again(double: Path, tmp_path: Path) -> None:
    """The double is busy for a second user, as drivers are: the thread that waits must have closed it."""
    seen = seen_by(loop(double, tmp_path / "video0", "silent", "?fps=50", "rgb", 15))
    assert seen["shapes"] == [[480, 640, 3]], "the size that the driver had"
    wanted = [round((16 + 4 + number - 16) * 255 / 219) for number in [*range(10), *range(5)]]
    assert max(abs(found - value) for found, value in zip(seen["luma"], wanted, strict=True)) <= 3
    assert (seen["reconnects"], seen["stalled"]) == (1, 1)
    assert seen["last_error"] == f"camera '{tmp_path}/video0' gave no frame for 0.4 s"


@needs("cc")
def test_an_error_keeps_no_frame_of_a_device_that_is_closed(double: Path, tmp_path: Path) -> None:
    done = loop(double, tmp_path / "video0", "silent", "?size=64x47", "nv12", 15)
    assert done.returncode == 1, done.stderr
    assert done.stderr.endswith(
        f"CameraError: camera '{tmp_path}/video0' is 64x47: 'nv12' has even sides only: open it with color='rgb'\n"
    )
