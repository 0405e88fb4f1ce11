"""GStreamer's own test pictures through the example, where GStreamer and its Python binding are installed."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

from edge_resnet.frames import FrameColor, to_rgb

DEBIAN = "/usr/lib/python3/dist-packages"
"""Where Debian's packages for Python are; those of another version of Python do not load."""


@pytest.fixture(scope="module")
def gstreamer() -> Iterator[ModuleType]:
    sys.path.append(DEBIAN)
    try:
        import gstreamer

        yield gstreamer
    except (ImportError, ValueError) as error:
        pytest.skip(f"GStreamer or its Python binding is not installed for this Python: {error}")
    finally:
        sys.path.remove(DEBIAN)


@pytest.mark.parametrize(
    ("caps", "color"),
    [
        ("width=320,height=240", FrameColor.NV12),
        ("width=322,height=242", FrameColor.NV12),  # rows of 324 bytes
        ("width=1280,height=720,colorimetry=bt709", FrameColor.NV12_BT709),
        ("format=I420,width=320,height=240,colorimetry=1:4:0:0", FrameColor.NV12),  # JPEG's: 0 to 255
        ("format=RGB,width=322,height=242", FrameColor.NV12),
    ],
)
@pytest.mark.parametrize(("pattern", "rgb"), [("red", (255, 0, 0)), ("green", (0, 255, 0)), ("blue", (0, 0, 255))])
def test_colours_are_those_that_were_drawn(
    gstreamer: ModuleType, caps: str, color: FrameColor, pattern: str, rgb: tuple[int, int, int]
) -> None:
    found = list(gstreamer.frames(f"videotestsrc pattern={pattern} num-buffers=2 ! video/x-raw,{caps}"))
    assert found[-1].color is color
    sides = [int(part.split("=")[1]) for part in caps.split(",") if part.startswith(("height", "width"))]
    picture = to_rgb(found[-1].pixels, found[-1].color)
    assert picture.shape == (sides[1], sides[0], 3)
    assert np.abs(picture.astype(int) - rgb).max() <= 3


def test_what_does_not_run_is_said(gstreamer: ModuleType) -> None:
    with pytest.raises(gstreamer.PipelineError, match="'nosuchthing' is no pipeline .*: try it with gst-launch-1.0"):
        list(gstreamer.frames("nosuchthing"))
    with pytest.raises(gstreamer.PipelineError, match="'filesrc location=/none ! decodebin' failed: "):
        list(gstreamer.frames("filesrc location=/none ! decodebin"))


def test_a_camera_that_stands_still_is_noticed(gstreamer: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gstreamer, "PATIENCE", 0.3)
    with pytest.raises(gstreamer.PipelineError, match="gave no frame for 0 s: check the camera"):
        list(gstreamer.frames("videotestsrc is-live=true ! valve drop=true"))


def test_it_runs_as_its_first_lines_say(
    gstreamer: ModuleType, quick_bundle: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["gstreamer.py", str(quick_bundle), "--source", "videotestsrc num-buffers=5"])
    gstreamer.main()
    assert capsys.readouterr().out.splitlines()[0].startswith("    0 ")
