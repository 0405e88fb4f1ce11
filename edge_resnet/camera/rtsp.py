"""Network cameras that speak RTSP."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager

from edge_resnet.camera.address import options, shown
from edge_resnet.camera.decoding import DECODED, Input, decoded
from edge_resnet.camera.source import Shot, Source
from edge_resnet.errors import CameraError, CameraUnavailableError
from edge_resnet.frames import FrameColor

TRANSPORTS = ("tcp", "udp")
TIMEOUT_S = (15.0, 15.0)
"""After which a thread that was left behind ends: FFmpeg is not to be woken otherwise. Longer than most patience."""


class RtspSource(Source):
    """``rtsp://[USER:PASSWORD@]HOST[:PORT]/PATH[?…][#transport=udp]``.

    The query belongs to the camera, so the option stands behind ``#``. By default the frames come over TCP, where none
    arrives torn; UDP is for networks where one that is late is worse than one that is missing.
    """

    colors = DECODED
    live = True

    def __init__(self, url: str, color: FrameColor, transport: str = "tcp") -> None:
        if transport not in TRANSPORTS:
            raise CameraError(f"{shown(url)}: transport is '{transport}': give {' or '.join(TRANSPORTS)}")
        self.name, self.color = shown(url), color
        # No look at the stream beforehand (half a second, which would then lie in front of the newest frame), and no
        # "nobuffer", which throws away what was looked at: a key frame, and the next may be seconds off.
        low_delay = {"probesize": "32", "flags": "low_delay"}
        self._input = Input(
            url,
            self.name,
            CameraUnavailableError,
            options={"rtsp_transport": transport, "allowed_media_types": "video", **low_delay},
            timeout_s=TIMEOUT_S,
        )

    @classmethod
    def parse(cls, address: str, color: FrameColor) -> Source:
        url, _, fragment = address.partition("#")
        if not shown(url).partition("://")[2].partition("/")[0]:
            raise CameraError(f"'{shown(url)}' names no host: give rtsp://HOST/PATH")
        return cls(url, color, **options(fragment, ("transport",), shown(url)))

    def connect(self) -> AbstractContextManager[Iterator[Shot]]:
        return decoded(self._input, self.color)
