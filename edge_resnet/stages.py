"""Times the stages of a build, and shows them."""

from __future__ import annotations

import resource
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from edge_resnet.progress import Progress


@dataclass(frozen=True)
class Stage:
    """What one stage took."""

    name: str
    seconds: float
    peak_mb: float
    """The process's peak resident memory up to the end of this stage, in MB (10⁶ bytes)."""


class Stages:
    """A clock for stages that follow each other."""

    def __init__(self, progress: Progress) -> None:
        self.progress = progress
        self.done: list[Stage] = []

    @contextmanager
    def stage(self, name: str, total: int | None = None) -> Iterator[None]:
        """Times what happens while the context is open; ``total`` steps, where that is known."""
        start = time.perf_counter()
        with self.progress.stage(name, total):
            yield
        self.done.append(Stage(name, time.perf_counter() - start, peak_mb()))


def peak_mb() -> float:
    """The process's peak resident memory so far, in MB (10⁶ bytes)."""
    unit = 1 if sys.platform == "darwin" else 1024  # bytes on macOS, KiB on Linux (getrusage(2))
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 1e6
