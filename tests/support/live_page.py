"""A live classification with its page, for tests: a camera that a test pulls out and plugs in again."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from edge_resnet.camera import Camera, Retry, Shot, Source
from edge_resnet.classifier import Classifier
from edge_resnet.errors import CameraUnavailableError
from edge_resnet.frames import FrameColor
from edge_resnet.live import watch
from edge_resnet.web.board import Board, Status
from edge_resnet.web.server import Address, serving

ANYWHERE = Address(port=0)


class Plugged(Source):
    """Frames again and again, 50 a second, as long as it is plugged in; or once, where it is not live."""

    colors = tuple(FrameColor)

    def __init__(
        self, frames: npt.NDArray[np.uint8], color: FrameColor = FrameColor.GRAY, *, live: bool = True
    ) -> None:
        self.name, self.color, self.live = "camera 'test <b>'", color, live  # type: ignore[misc]
        self.plugged = threading.Event()
        self.plugged.set()
        self._frames = frames

    @classmethod
    def parse(cls, address: str, color: FrameColor) -> Source:
        raise NotImplementedError

    @contextmanager
    def connect(self) -> Iterator[Iterator[Shot]]:
        if not self.plugged.is_set():
            raise CameraUnavailableError(f"{self.name} is not there")
        yield self._shots()

    def _shots(self) -> Iterator[Shot]:
        index = 0
        while self.live or index < len(self._frames):
            if not self.plugged.is_set():
                raise CameraUnavailableError(f"{self.name} was pulled out")
            yield Shot(self._frames[index % len(self._frames)])
            index += 1
            time.sleep(0.02)


@dataclass(frozen=True)
class Running:
    """A classification that goes on."""

    url: str
    board: Board
    camera: Camera


@contextmanager
def live_page(bundle: Path, source: Source, address: Address = ANYWHERE) -> Iterator[Running]:
    """Classifies a source with its page, on the CPU, in a thread, until the block ends."""
    with (
        Classifier(bundle, target="cpu") as classify,
        Camera(source, latest=source.live, retry=Retry(first_wait_s=0.05, longest_wait_s=0.1)) as camera,
        Board(classify, camera) as board,
        serving(board, address) as url,
    ):

        def loop() -> None:
            for view in watch(classify, camera):
                board.put(view)
            board.end(Status.ENDED)

        thread = threading.Thread(target=loop)
        thread.start()
        try:
            yield Running(url, board, camera)
        finally:
            camera.close()
            thread.join()


def until(true: object, seconds: float = 10.0) -> None:
    """Waits until a function says yes."""
    assert callable(true)
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end, "it never came"
        time.sleep(0.01)
