"""Frames out of Python: a list, a generator, somebody else's camera."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager

import numpy as np
import numpy.typing as npt

from edge_resnet.camera.source import Shot, Source
from edge_resnet.errors import CameraError
from edge_resnet.frames import SUBSAMPLED, FrameColor, FrameFormat


class IterableSource(Source):
    """Anything that gives arrays. It is run through once, in another thread, and each array is copied.

    The copy is because many cameras give one buffer again and again.
    """

    live = False

    def __init__(self, arrays: Iterable[npt.NDArray[np.uint8]], color: FrameColor) -> None:
        if not isinstance(arrays, Iterable):
            raise CameraError(f"camera is a {type(arrays).__name__}: give an address, a path or an iterable of arrays")
        self.name, self.color = f"iterable '{type(arrays).__name__}'", color
        self._arrays = arrays

    @classmethod
    def parse(cls, address: str, color: FrameColor) -> Source:
        raise CameraError(f"'{address}' is no iterable")

    @contextmanager
    def connect(self) -> Iterator[Iterator[Shot]]:
        yield (Shot(checked(array, self.color, self.name)) for array in self._arrays)


def checked(array: npt.NDArray[np.uint8], color: FrameColor, name: str) -> npt.NDArray[np.uint8]:
    """A copy of an array, contiguous, as ``FrameFormat.shape`` has it for its colour.

    Raises:
        CameraError: it is not of that colour.
    """
    pixels = np.array(array, order="C")
    if pixels.ndim == 2:
        pixels = pixels[:, :, np.newaxis]
    rows = pixels.shape[0] if pixels.ndim == 3 else 0
    height = rows * 2 // 3 if color in SUBSAMPLED else rows
    wanted = FrameFormat(height, pixels.shape[1], color).shape if rows else None
    if pixels.dtype != np.uint8 or pixels.shape != wanted:
        raise CameraError(
            f"{name} gave {pixels.dtype} {array.shape}, declared as '{color.value}': "
            "give uint8 frames, and their own color"
        )
    return pixels
