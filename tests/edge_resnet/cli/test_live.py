"""``live``: a bundle in the camera's place, an end by the clock, and a page."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
import sys
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from edge_resnet import Classifier, demo
from edge_resnet.camera import Camera, open_camera
from edge_resnet.errors import CameraError
from edge_resnet.frames import FrameColor, FrameFormat

Refused = Callable[..., str]
EDGE_RESNET = Path(sys.executable).with_name("edge-resnet")


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        ("m.edge", "'m.edge' is a bundle, not a camera: write `edge-resnet live SOURCE --bundle m.edge`"),
        ("m.edge csi://0", "'m.edge' is a bundle, not a camera: write `edge-resnet live csi://0 --bundle m.edge`"),
        (
            "m.edge --bundle csi://0",
            "'m.edge' is a bundle, not a camera: write `edge-resnet live csi://0 --bundle m.edge`",
        ),
        ("csi://0 m.edge", "give one source, and a --bundle: write `edge-resnet live csi://0 --bundle m.edge`"),
        ("csi://0", "give one source, and a --bundle: write `edge-resnet live csi://0 --bundle model.edge`"),
        (
            "rtsp://me:secret@h/x m.edge",
            "give one source, and a --bundle: write `edge-resnet live SOURCE --bundle m.edge`",
        ),
    ],
)
def test_arguments_out_of_place_are_told_their_place(arguments: str, line: str, refused: Refused) -> None:
    assert refused(2, "live", *arguments.split()) == line


def test_a_camera_gives_the_colour_that_the_engine_was_compiled_for(
    quick_bundle: Path, refused: Refused, monkeypatch: pytest.MonkeyPatch
) -> None:
    flags = ("live", "csi://0", "--bundle", quick_bundle, "--target", "cpu")
    for frames, color in ((None, FrameColor.RGB), (FrameFormat(720, 1280, FrameColor.NV12), FrameColor.NV12)):

        def opened(source: str, *, latest: bool, color: FrameColor) -> None:
            raise CameraError(f"{source} in {color.value}")

        monkeypatch.setattr("edge_resnet.camera.open_camera", opened)
        monkeypatch.setattr(Classifier, "frames", property(lambda _, found=frames: found, lambda _, given: None), False)
        assert refused(2, *flags) == f"csi://0 in {color.value}"


def test_the_document_names_a_camera_without_its_password(
    quick_bundle: Path, cli_json: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    def folder(source: str, *, latest: bool, color: FrameColor) -> Camera:
        return open_camera(demo.TEST / "bag", latest=False, color=color)

    monkeypatch.setattr("edge_resnet.camera.open_camera", folder)
    document = cli_json("live", "rtsp://me:secret@host/a?key=b", "--bundle", quick_bundle, "--target", "cpu")
    assert (document["source"], document["answered"]) == ("rtsp://host/a", len(list((demo.TEST / "bag").iterdir())))


def test_a_page_has_options_that_a_terminal_has_not(refused: Refused) -> None:
    for option in (("--port", 8000), ("--host", "0.0.0.0")):
        assert "give --web too" in refused(2, "live", "csi://0", "--bundle", "m.edge", *option)


def test_a_taken_port_is_one_line(quick_bundle: Path, refused: Refused) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        line = refused(4, "live", demo.TEST, "--bundle", quick_bundle, "--web", "--port", port)
    assert re.fullmatch(f"cannot listen on 127.0.0.1:{port} .*in use.*give another --port, .*", line)


def test_without_the_extra_it_says_what_to_install(
    quick_bundle: Path, refused: Refused, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in [name for name in sys.modules if name.startswith("edge_resnet.web.")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "uvicorn", None)
    line = refused(4, "live", demo.TEST, "--bundle", quick_bundle, "--web")
    assert line == "this command needs uvicorn, which is not installed: pip install 'edge-resnet[web]'"


@contextmanager
def started(*arguments: str | Path) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """The command in a process of its own, and the URL that it prints first."""
    process = subprocess.Popen(
        [EDGE_RESNET, "live", *arguments, "--target", "cpu", "--web", "--port", "0", "--json"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        assert process.stderr is not None
        url, elsewhere, ending = (process.stderr.readline().strip() for _ in range(3))
        port = url.rpartition(":")[2].strip("/")
        assert f"ssh -L {port}:localhost:{port}" in elsewhere and ending == "Ctrl-C ends it"
        yield process, url
    finally:
        process.kill()
        process.wait()


def test_ctrl_c_ends_the_page_and_its_numbers_are_printed(quick_bundle: Path) -> None:
    with started(demo.TEST / "sneaker", "--bundle", quick_bundle) as (process, url):
        assert b"<title>edge-resnet live" in urllib.request.urlopen(url, timeout=10).read()
        watching = urllib.request.urlopen(url + "events", timeout=10)  # and Ctrl-C ends it although somebody watches
        while b'"status":"ended"' not in watching.readline():
            pass
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=15)
    assert process.returncode == 0
    assert json.loads(out)["answered"] == len(list((demo.TEST / "sneaker").iterdir()))
    assert err == "the source has ended; the page stays until Ctrl-C\n"


def test_the_clock_ends_a_page_whose_source_has_ended(quick_bundle: Path) -> None:
    with started(demo.TEST / "sneaker", "--bundle", quick_bundle, "--seconds", "1") as (process, _):
        out, err = process.communicate(timeout=15)
    assert process.returncode == 0, err
    assert json.loads(out)["answered"] > 0


def test_the_clock_ends_a_camera_that_gives_no_frame(quick_bundle: Path, tmp_path: Path) -> None:
    """A process in the camera's place that gives one frame, and then is silent."""
    (tmp_path / "gst-launch-1.0").write_text("#!/bin/sh\nhead -c 2764800 /dev/zero\nexec sleep 60\n")
    (tmp_path / "gst-launch-1.0").chmod(0o755)
    done = subprocess.run(
        [EDGE_RESNET, "live", "csi://0", "--bundle", quick_bundle, "--target", "cpu", "--seconds", "1", "--json"],
        env={**os.environ, "PATH": f"{tmp_path}{os.pathsep}{os.environ['PATH']}"},
        timeout=20,
        capture_output=True,
        text=True,
        check=True,
    )
    document = json.loads(done.stdout)
    assert (document["answered"], document["captured"]) == (1, 1), "and none of a second connection, after 5 s"
