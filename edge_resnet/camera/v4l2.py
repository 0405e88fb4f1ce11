"""USB and other cameras under Linux: Video4Linux2."""

from __future__ import annotations

import os
import re
import threading
from collections.abc import Iterator
from contextlib import AbstractContextManager

from edge_resnet.camera.address import options, size, split, whole
from edge_resnet.camera.decoding import DECODED, Input, decoded
from edge_resnet.camera.source import Shot, Source
from edge_resnet.errors import CameraError, CameraUnavailableError
from edge_resnet.frames import FrameColor

OPTIONS = ("size", "fps", "format")
NONBLOCK = "+4"
"""AVFMT_FLAG_NONBLOCK, which has no name among FFmpeg's ``fflags``: a thread that hung in the driver could never let go of
a device that fell silent, and no new connection would get it."""
TIMEOUT_S = (5.0, 5.0)
"""To open and find the format, which takes a first frame; and between two answers of the driver, which come at once."""


class V4l2Source(Source):
    """``v4l2:///dev/video0[?size=1280x720&fps=30&format=mjpeg]``; what is not given is the driver's own choice.

    ``format`` is FFmpeg's name of a codec or pixel format: ``mjpeg``, ``h264``, ``yuyv422``, ``nv12``, …
    """

    colors = DECODED
    live = True

    def __init__(self, device: str, color: FrameColor, wanted: dict[str, str] | None = None) -> None:
        self.name, self.color, self._device = f"camera '{device}'", color, device
        self._options = {"fflags": NONBLOCK, **device_options(wanted or {}, self.name)}
        self._given_up = threading.Event()

    @classmethod
    def parse(cls, address: str, color: FrameColor) -> Source:
        device, query, _ = split(address)
        if not device.startswith("/"):
            raise CameraError(f"'{address}' names no device: give v4l2:///dev/video0")
        return cls(device, color, options(query, OPTIONS, f"camera '{device}'"))

    def connect(self) -> AbstractContextManager[Iterator[Shot]]:
        if not os.path.exists(self._device):
            raise CameraUnavailableError(f"{self.name} is not there: plug it in; `ls /dev/video*` lists what is")
        if not os.access(self._device, os.R_OK | os.W_OK):
            raise CameraUnavailableError(f"{self.name} may not be opened: add the user to the group 'video'")
        self._given_up = threading.Event()
        source = Input(
            *(self._device, self.name, CameraUnavailableError),
            format="v4l2",
            options=self._options,
            timeout_s=TIMEOUT_S,
            given_up=self._given_up,
        )
        return decoded(source, self.color)

    def interrupt(self) -> None:
        self._given_up.set()


def device_options(wanted: dict[str, str], name: str) -> dict[str, str]:
    """Options of an address as FFmpeg's ``video4linux2`` input has them (its documentation, section 3.21).

    Raises:
        CameraError: a value is none.
    """
    found = {}
    if "size" in wanted:
        found["video_size"] = "{}x{}".format(*size(wanted["size"], name))
    if "fps" in wanted:
        found["framerate"] = str(whole(wanted["fps"], "fps", name))
    if "format" in wanted:
        if not re.fullmatch(r"[a-z0-9_]+", wanted["format"]):
            raise CameraError(f"{name}: format is '{wanted['format']}': give FFmpeg's name, such as mjpeg or yuyv422")
        found["input_format"] = wanted["format"]
    return found
