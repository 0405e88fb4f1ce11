"""Which source an address means: a dictionary from its scheme to a class."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import numpy.typing as npt

from edge_resnet.camera.csi import CsiSource
from edge_resnet.camera.image_folder import FolderSource
from edge_resnet.camera.iterable import IterableSource
from edge_resnet.camera.rtsp import RtspSource
from edge_resnet.camera.source import Source
from edge_resnet.camera.v4l2 import V4l2Source
from edge_resnet.camera.video_file import FileSource
from edge_resnet.errors import CameraError
from edge_resnet.frames import FrameColor

SOURCES: dict[str, type[Source]] = {
    "csi": CsiSource,
    "file": FileSource,
    "folder": FolderSource,
    "rtsp": RtspSource,
    "rtsps": RtspSource,
    "v4l2": V4l2Source,
}
"""Scheme → source. A path without a scheme is ``folder`` or ``file``, whichever it is."""


def source_of(given: str | Path | Iterable[npt.NDArray[np.uint8]], color: FrameColor) -> Source:
    """The source that an address, path or iterable means.

    Raises:
        CameraError: its scheme is not known, or the address or colour is one that this source does not have.
    """
    if not isinstance(given, str | Path | int):
        return IterableSource(given, color)
    device = re.fullmatch(r"(?:/dev/video)?(\d+)", str(given), re.ASCII)
    if device is not None and not (os.path.isdir(str(given)) or os.path.isfile(str(given))):
        raise CameraError(f"camera '{given}' is no address: give v4l2:///dev/video{device[1]}, or csi://{device[1]}")
    scheme, found, _ = str(given).partition("://")
    kind = scheme.lower() if found else "folder" if os.path.isdir(given) else "file"
    if kind not in SOURCES:
        known = ", ".join(f"{each}://" for each in SOURCES)
        raise CameraError(f"camera '{scheme}://…' has an unknown scheme: give one of {known}, or a path")
    if color not in SOURCES[kind].colors:
        known = ", ".join(each.value for each in SOURCES[kind].colors)
        raise CameraError(f"a {kind}:// camera cannot give color '{color.value}': give one of {known}")
    return SOURCES[kind].parse(str(given), color)
