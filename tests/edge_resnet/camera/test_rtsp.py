"""RTSP against a real server, Debian's, on loopback: killed and started again, stopped in the middle, not there."""

from __future__ import annotations

import signal
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

from edge_resnet.camera import Camera, Retry, open_camera
from edge_resnet.errors import CameraError, CameraUnavailableError

pytest.importorskip("av", reason="PyAV is not installed: pip install 'edge-resnet[camera]'")
SYSTEM_PYTHON = "/usr/bin/python3"
SCRIPT = Path(__file__).parents[2] / "support" / "rtsp_server.py"
QUICK = Retry(connect_s=1.2, stall_s=0.6, first_wait_s=0.1, longest_wait_s=0.4)
PATIENT = Retry(connect_s=15, stall_s=15)
"""Where nothing is lost: a busy machine is no lost camera."""
RED, BLUE = (254, 0, 0), (0, 0, 254)
Server = Callable[..., "subprocess.Popen[str]"]


def _serves() -> bool:
    check = "import gi; gi.require_version('GstRtspServer', '1.0'); from gi.repository import GstRtspServer"
    try:
        return subprocess.run([SYSTEM_PYTHON, "-c", check], capture_output=True, check=False).returncode == 0
    except FileNotFoundError:
        return False


pytestmark = pytest.mark.skipif(not _serves(), reason="gst-rtsp-server and python3-gi not installed: see .ci/run")


@pytest.fixture
def port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


@pytest.fixture
def serve(port: int) -> Iterator[Server]:
    """Starts a server of a pattern on the port, by one transport where it is named; ends all in the end."""
    started: list[subprocess.Popen[str]] = []

    def start(*arguments: str) -> subprocess.Popen[str]:
        command = [SYSTEM_PYTHON, str(SCRIPT), str(port), *arguments]
        process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        started.append(process)
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        return process

    yield start
    for process in started:
        process.kill()
        with process:
            pass


def goes_on_until(camera: Camera, color: tuple[int, int, int]) -> int:
    """Takes frames until one is all of a colour; its index."""
    deadline = time.monotonic() + 15
    for frame in camera:
        if abs(frame.pixels.astype(int) - color).max() < 8:
            return frame.index
        assert time.monotonic() < deadline, camera.stats
    raise AssertionError("a live source ended")


@pytest.mark.parametrize(("transport", "option"), [("tcp", ""), ("udp", "#transport=udp")])
def test_frames_come_as_they_are_sent(serve: Server, port: int, transport: str, option: str) -> None:
    serve("red", transport)
    address = f"rtsp://127.0.0.1:{port}/live{option}"
    # A busy machine may break the rhythm of one connection; a backlog would be there in each.
    assert any(1 / 60 < sent_as_they_are(address) < 1 / 20 for _ in range(3)), "30 a second, no backlog of connecting"


def sent_as_they_are(address: str) -> float:
    """Connects, checks fifteen frames, and gives the seconds from one to the next."""
    with open_camera(address, latest=False, retry=PATIENT) as camera:
        frames = [next(camera) for _ in range(15)]
    assert {frame.pixels.shape for frame in frames} == {(240, 320, 3)}
    assert max(abs(frame.pixels.astype(int) - RED).max() for frame in frames) < 8
    assert [frame.index for frame in frames] == list(range(15))
    times = np.array([frame.captured for frame in frames])
    assert (np.diff(times) > 0).all()
    return float(np.median(np.diff(times)))


def test_a_server_killed_in_the_middle_is_found_again(serve: Server, port: int) -> None:
    server = serve("red")
    with open_camera(f"rtsp://127.0.0.1:{port}/live", latest=True, retry=QUICK) as camera:
        before = goes_on_until(camera, RED)
        server.kill()
        server.wait()
        threading.Timer(0.3, serve, ["blue"]).start()
        after = goes_on_until(camera, BLUE)
        stats = camera.stats
    assert after > before
    assert stats.reconnects == 1
    assert stats.captured >= stats.delivered + stats.dropped
    assert camera.stats.captured == camera.stats.delivered + camera.stats.dropped


def test_a_server_that_falls_silent_is_noticed_and_found_again(serve: Server, port: int) -> None:
    """Stopped, not killed: the connection stands, and nothing comes; nor does an answer to a new connection."""
    server = serve("blue")
    with open_camera(f"rtsp://127.0.0.1:{port}/live", latest=True, retry=QUICK) as camera:
        goes_on_until(camera, BLUE)
        server.send_signal(signal.SIGSTOP)
        deadline = time.monotonic() + 10
        while camera.stats.last_error != f"rtsp://127.0.0.1:{port}/live did not answer within 1.2 s":
            time.sleep(0.02)
            assert time.monotonic() < deadline, camera.stats
        assert camera.stats.stalled == 1
        server.send_signal(signal.SIGCONT)
        goes_on_until(camera, BLUE)
        while camera.stats.reconnects == 0:
            next(camera)


def test_closing_while_a_frame_is_waited_for_is_quick(serve: Server, port: int) -> None:
    server = serve("red")
    camera = open_camera(f"rtsp://127.0.0.1:{port}/live", retry=Retry(stall_s=60))
    next(camera)
    server.send_signal(signal.SIGSTOP)
    threading.Timer(0.3, camera.close).start()
    began = time.monotonic()
    for _ in camera:
        pass
    assert time.monotonic() - began < 1.5
    server.send_signal(signal.SIGCONT)


def test_a_camera_that_is_not_there_and_a_path_that_it_has_not(serve: Server, port: int) -> None:
    address = f"rtsp://user:secret@127.0.0.1:{port}"
    with pytest.raises(CameraUnavailableError, match=f"^rtsp://127.0.0.1:{port}/live cannot be read: Connection ref"):
        open_camera(f"{address}/live")
    serve("red")
    with pytest.raises(CameraUnavailableError, match="/other cannot be read: Server returned 404 Not Found") as told:
        open_camera(f"{address}/other")
    assert told.value.exit_code == 4


def test_an_ordinary_network_stream_gives_its_planes_as_nv12(serve: Server, port: int) -> None:
    serve("red")
    with open_camera(f"rtsp://127.0.0.1:{port}/live", color="nv12", retry=QUICK) as camera:
        pixels = next(camera).pixels
    assert pixels.shape == (360, 320, 1)
    # Red in BT.601: Y = 16 + 65.5, Cb = 128 − 37.8, Cr = 128 + 112
    np.testing.assert_allclose(pixels[:240].mean(), 81.5, atol=2)
    np.testing.assert_allclose(pixels[240:, 0::2].mean(), 90.2, atol=2)
    np.testing.assert_allclose(pixels[240:, 1::2].mean(), 240, atol=2)


def test_a_wrong_colour_is_an_error_for_the_loop_and_not_tried_again(serve: Server, port: int) -> None:
    serve("red")
    with open_camera(f"rtsp://127.0.0.1:{port}/live", color="nv12-bt709", retry=QUICK) as camera:
        with pytest.raises(CameraError, match="declare color='nv12'"):
            next(camera)
        assert camera.stats.reconnects == 0
