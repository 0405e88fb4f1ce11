"""``spread``: order, errors, and workers that die."""

from __future__ import annotations

import os
import platform
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
from ray_nodes import ray_cluster

from edge_resnet.cluster import work
from edge_resnet.cluster.connection import connected
from edge_resnet.cluster.crew import CalibrationJob, Crew
from edge_resnet.cluster.work import Libraries, spread
from edge_resnet.errors import CalibrationError, ModelError, UnavailableError
from edge_resnet.images import open_images
from edge_resnet.onnx_file import load_onnx
from edge_resnet.preprocessing import NAMED
from edge_resnet.workforce import THIS_MACHINE

pytestmark = pytest.mark.slow


@dataclass(frozen=True)
class Squares:
    """Squares numbers, the even ones later, and notes in a file which process began it."""

    begun: Path
    killed_at: int | None = None
    """Whoever squares it the first time kills its own process."""

    def begin(self) -> Callable[[int], int]:
        with self.begun.open("a") as file:
            file.write(f"{os.getpid()}\n")
        return self._square

    def _square(self, number: int) -> int:
        if number == self.killed_at and not self.begun.with_suffix(".killed").exists():
            self.begun.with_suffix(".killed").touch()
            os.kill(os.getpid(), signal.SIGKILL)
        if number < 0:
            raise CalibrationError(f"{number} is below 0: give another")
        time.sleep(0 if number % 2 else 0.05)
        return number**2


class Lost(Squares):
    """Kills whoever does it, again and again."""

    def _square(self, number: int) -> int:
        os.kill(os.getpid(), signal.SIGKILL)
        return 0
