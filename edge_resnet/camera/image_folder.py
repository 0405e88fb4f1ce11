"""A folder of images as a camera: each once, by name."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import unquote

import numpy as np

from edge_resnet.camera.address import split
from edge_resnet.camera.source import Shot, Source
from edge_resnet.errors import CameraError, ImageError
from edge_resnet.frames import FrameColor

MODES = {FrameColor.RGB: "RGB", FrameColor.BGR: "RGB", FrameColor.RGBA: "RGBA", FrameColor.GRAY: "L"}
"""Colours that image files can give → Pillow's mode."""


class FolderSource(Source):
    """The images that ``open_images`` finds: a flat folder, or one folder a class, in sorted order."""

    colors = tuple(MODES)
    live = False

    def __init__(self, folder: Path, color: FrameColor) -> None:
        self.name, self.color, self._folder = f"folder '{folder}'", color, folder

    @classmethod
    def parse(cls, address: str, color: FrameColor) -> Source:
        return cls(Path(unquote(split(address)[0]) if "://" in address else address), color)

    @contextmanager
    def connect(self) -> Iterator[Iterator[Shot]]:
        from edge_resnet.images import open_images, read_image  # brings Pillow

        try:
            paths = open_images(self._folder).paths
        except ImageError as error:
            raise CameraError(str(error)) from error

        def shots() -> Iterator[Shot]:
            for path in paths:
                try:
                    pixels = np.asarray(read_image(path).convert(MODES[self.color]))
                except ImageError as error:
                    raise CameraError(str(error)) from error
                pixels = pixels if pixels.ndim == 3 else pixels[:, :, np.newaxis]
                yield Shot(pixels[:, :, ::-1] if self.color is FrameColor.BGR else pixels)

        yield shots()
