"""Video files, whatever FFmpeg reads."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import AbstractContextManager
from urllib.parse import unquote

from edge_resnet.camera.address import without_secrets
from edge_resnet.camera.decoding import DECODED, Input, decoded
from edge_resnet.camera.source import Shot, Source
from edge_resnet.errors import CameraError
from edge_resnet.frames import FrameColor


class FileSource(Source):
    """The first video stream of a file, once; a rotation that its metadata asks for is not carried out."""

    colors = DECODED
    live = False

    def __init__(self, path: str, color: FrameColor) -> None:
        self.name, self.color, self._path = f"video '{without_secrets(path)}'", color, path

    @classmethod
    def parse(cls, address: str, color: FrameColor) -> Source:
        return cls(unquote(address.partition("://")[2]) if "://" in address else address, color)

    def connect(self) -> AbstractContextManager[Iterator[Shot]]:
        if not os.path.isfile(self._path):
            raise CameraError(f"{self.name} does not exist: give a video file, a folder of images or an address")
        # "file:" keeps FFmpeg from taking a name with a colon for a protocol.
        return decoded(Input(f"file:{self._path}", self.name, CameraError, live=False), self.color)
