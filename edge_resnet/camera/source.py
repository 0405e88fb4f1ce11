"""What a source of frames is: something that is connected to, gives frames one after the other, and may be lost."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import numpy.typing as npt

from edge_resnet.frames import FrameColor


@dataclass(frozen=True, eq=False)
class Shot:
    """One frame out of a source."""

    pixels: npt.NDArray[np.uint8]
    """As ``FrameFormat.shape`` says for the source's colour; never written again."""
    at_s: float | None = None
    """Its place in a recording, in seconds from the first frame; ``None`` where there is none."""


class Source(ABC):
    """One place that frames come from. ``Camera`` runs it in a thread of its own, and connects again where it is lost.

    A new source is a subclass and a line in ``registry.SOURCES``.
    """

    colors: ClassVar[Sequence[FrameColor]] = tuple(FrameColor)
    """That it can give."""
    live: ClassVar[bool]
    """It goes on for ever, and what it gave is gone: to end, fail or fall silent is to be lost."""
    name: str
    """For messages: its address, without a password."""
    color: FrameColor
    """Of its frames, as it was declared."""

    @classmethod
    @abstractmethod
    def parse(cls, address: str, color: FrameColor) -> Source:
        """Makes the source that an address of its scheme means.

        Raises:
            CameraError: the address says something else.
        """

    @abstractmethod
    def connect(self) -> AbstractContextManager[Iterator[Shot]]:
        """Opens it; inside the context are its frames.

        Raises:
            CameraUnavailableError: it is not there, or (also out of the frames) was lost; worth another try.
            CameraError: what it gives cannot be used.
            UnavailableError: a package or tool is not installed.
        """

    def interrupt(self) -> None:  # noqa: B027 - most sources end by themselves
        """Makes a connection that waits for a frame give up, from another thread, where the source can."""
