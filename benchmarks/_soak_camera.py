"""A network camera that is killed again and again, on a machine whose disk is full.

The server is that of the tests, run by the system's Python: Debian's ``python3-gi gir1.2-gst-rtsp-server-1.0
gir1.2-gst-plugins-base-1.0 gstreamer1.0-plugins-good gstreamer1.0-plugins-ugly``, as ``.ci/run`` installs them.
"""

from __future__ import annotations

import logging
import resource
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import edge_resnet
from edge_resnet.camera import Retry, open_camera

SERVER = Path(__file__).resolve().parents[1] / "tests" / "support" / "rtsp_server.py"
RETRY = Retry(connect_s=5, stall_s=2, first_wait_s=0.1, longest_wait_s=0.5)
BETWEEN = 30
"""Answers from one kill to the next: about a second."""
PATIENCE_S = 60.0
"""In which the camera must be found again."""


@dataclass(frozen=True)
class Survival:
    """What became of the frames of a camera that was killed."""

    kills: int
    reconnects: int
    captured: int
    answered: int
    dropped: int
    """For a newer one, by the camera or by the stream, or on their way when all was closed."""
    unaccounted: int
    failed_writes: int
    """Lines of the log that found no room."""

    def to_json(self) -> dict[str, int]:
        return asdict(self)

    def __str__(self) -> str:
        return (
            f"kills of the camera: {self.kills}, found again: {self.reconnects}; {self.captured} frames: {self.answered} "
            f"answered, {self.dropped} dropped, {self.unaccounted} unaccounted for; {self.failed_writes} lines of the log "
            f"found no room"
        )


class FullLog(logging.FileHandler):
    """A log on a full disk; counts what was not written, and is quiet about it."""

    def __init__(self) -> None:
        super().__init__("/dev/full")
        self.failed = 0

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802 - logging's name
        self.failed += 1


@contextmanager
def full_disk() -> Iterator[FullLog]:
    """No file takes a byte more, which Python is told as an error; ``edge_resnet`` logs where there is no room."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    log, logger = FullLog(), logging.getLogger("edge_resnet")
    logger.addHandler(log)
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, hard))
    try:
        yield log
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        logger.removeHandler(log)


def serve(port: int) -> subprocess.Popen[str]:
    """Starts the server, and waits until it listens."""
    command = ["/usr/bin/python3", str(SERVER), str(port), "red"]
    started = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, restore_signals=False)  # SIGXFSZ kills
    assert started.stdout is not None
    if started.stdout.readline() != "ready\n":
        raise SystemExit(f"soak: no RTSP server here: {__doc__.split('Debian')[1].strip()}, or give --kills 0")
    return started


def survive(classify: edge_resnet.Classifier, kills: int) -> Survival:
    """Classifies a camera that is killed and started again so many times.

    Raises:
        SystemExit: the server's packages are missing, or the camera was not found again.
    """
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    server, done, since, start = serve(port), 0, 0, time.monotonic()
    address = f"rtsp://127.0.0.1:{port}/live"
    try:
        with (
            full_disk() as log,
            open_camera(address, latest=True, retry=RETRY) as camera,
            classify.stream(camera, latest=True) as stream,
        ):
            for _ in stream:
                since += camera.stats.reconnects == done
                if since >= BETWEEN and done == kills:
                    break
                if since >= BETWEEN:
                    server.kill()
                    server.wait()
                    server, done, since, start = serve(port), done + 1, 0, time.monotonic()
                if time.monotonic() - start > PATIENCE_S:
                    raise SystemExit(f"soak: the camera was not found again: {camera.stats}")
        return _accounted(kills, camera.stats, stream.stats, log.failed)
    finally:
        server.kill()
        server.wait()


def _accounted(kills: int, camera: Any, stream: edge_resnet.StreamStats, failed: int) -> Survival:
    on_their_way = camera.delivered - stream.answered - stream.dropped  # one waits for the engine, one is prepared
    dropped = camera.dropped + stream.dropped + on_their_way
    lost = camera.captured - camera.delivered - camera.dropped
    if not 0 <= on_their_way <= 2:
        lost, dropped = lost + abs(on_their_way), dropped - on_their_way
    return Survival(kills, camera.reconnects, camera.captured, stream.answered, dropped, lost, failed)
