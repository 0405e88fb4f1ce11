"""Jobs for workers of a cluster, in a module that they can import."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from edge_resnet.errors import CalibrationError


@dataclass(frozen=True)
class Squares:
    """Squares numbers, the even ones later than the odd ones; refuses those below 0."""

    begun: Path
    """Takes a line for each process that begins the job."""

    def begin(self) -> Callable[[int], int]:
        with self.begun.open("a", encoding="ascii") as file:
            file.write(f"{os.getpid()}\n")
        return self._square

    def _square(self, number: int) -> int:
        if number < 0:
            raise CalibrationError(f"{number} is below 0: give another")
        time.sleep(0 if number % 2 else 0.05)
        return number**2


@dataclass(frozen=True)
class Deadly:
    """Kills the process of whoever does it, as a crash or a lack of memory would."""

    def begin(self) -> Callable[[int], int]:
        os.kill(os.getpid(), signal.SIGKILL)
        raise AssertionError


@dataclass(frozen=True)
class Broken:
    """Has a bug."""

    def begin(self) -> Callable[[int], int]:
        return lambda number: 1 // 0
