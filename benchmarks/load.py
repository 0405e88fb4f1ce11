"""Many threads through one Classifier, many clients through the HTTP service: no wrong answer, and no memory that grows.

    python benchmarks/load.py [--bundle model.edge] [--threads 8] [--requests 10000] [--clients 64] [--each 500]

The demo's bundle on the CPU, unless another is given, and pictures of the demo. Each answer is compared with the one that
the picture got alone, before: logits bit by bit, the service's JSON value by value. Resident memory is read off ``/proc`` a
hundred times while the load lasts; the slope is that of a straight line through all readings but the first tenth. The
service is ``examples/http_service.py`` in a process of its own; what it refuses with 503 is asked again.

Exits with 1 when an answer is wrong, memory grows by 1 MB or more for 10,000 requests, or the service does not end well.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from http.client import HTTPConnection
from itertools import count
from pathlib import Path
from threading import Event, Thread

import numpy as np
from PIL import Image

import edge_resnet
from edge_resnet.demo import TEST

SERVICE = Path(__file__).resolve().parents[1] / "examples" / "http_service.py"
LIMIT_MB = 1.0
"""For 10,000 requests."""
READINGS = 100
PATIENCE_S = 60.0


@dataclass(frozen=True)
class LoadResult:
    """What a load gave."""

    requests: int
    wrong: int
    seconds: float
    refused: int
    """Of the service: told to come again, and answered later."""
    memory: tuple[tuple[int, float], ...]
    """Requests answered so far, and MB resident."""
    ended_well: bool
    """Every thread, or the service's process with code 0 and nothing to complain of."""

    @property
    def mb_for_10000(self) -> float:
        """Slope of the memory, in MB."""
        settled = self.memory[len(self.memory) // 10 :]
        return 1e4 * float(np.polyfit(*zip(*settled, strict=True), 1)[0]) if len(settled) > 1 else 0.0

    @property
    def passed(self) -> bool:
        return self.wrong == 0 and self.mb_for_10000 < LIMIT_MB and self.ended_well


def photos(limit: int = 100) -> list[Path]:
    """Pictures of the demo, as many of each class."""
    each = -(-limit // len(list(TEST.iterdir())))
    return [path for folder in sorted(TEST.iterdir()) for path in sorted(folder.iterdir())[:each]][:limit]


def through_one_classifier(bundle: Path, threads: int, requests: int) -> LoadResult:
    """So many threads, each with so many requests."""
    frames = [np.asarray(Image.open(path)) for path in photos()]
    done, wrong = count(), count()
    with edge_resnet.Classifier(bundle) as classify:
        golden = [classify(frame).logits for frame in frames]

        def work(thread: int) -> None:
            order = np.random.default_rng(thread).integers(0, len(frames), requests)
            for index in order.tolist():
                if not np.array_equal(classify(frames[index]).logits, golden[index]):
                    next(wrong)
                next(done)

        with measured(os.getpid(), lambda: _reached(done)) as memory:
            start = time.perf_counter()
            with ThreadPoolExecutor(threads) as pool:
                list(pool.map(work, range(threads)))
            seconds = time.perf_counter() - start
        ended = classify.stats.answered == threads * requests + len(frames)
    return LoadResult(_reached(done), _reached(wrong), seconds, 0, tuple(memory), ended)


def through_the_service(bundle: Path, clients: int, requests: int) -> LoadResult:
    """So many clients on the loopback, each with so many requests."""
    paths = photos()
    done, wrong, refused = count(), count(), count()
    with edge_resnet.Classifier(bundle) as classify:
        golden = [
            [{"label": p.label, "index": p.index, "probability": p.probability} for p in classify(path).top(3)]
            for path in paths
        ]
    bodies = [path.read_bytes() for path in paths]
    with tempfile.TemporaryFile("w+") as log:
        command = [sys.executable, str(SERVICE), str(bundle), "--port", "0"]
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=log, text=True)
        try:
            assert process.stdout is not None
            port = int(process.stdout.readline().split(":")[2].split("/")[0])

            def work(client: int) -> None:
                order = np.random.default_rng(client).integers(0, len(paths), requests)
                for index in order.tolist():
                    if _asked(port, bodies[index], refused) != golden[index]:
                        next(wrong)
                    next(done)

            with measured(process.pid, lambda: _reached(done)) as memory:
                start = time.perf_counter()
                with ThreadPoolExecutor(clients) as pool:
                    list(pool.map(work, range(clients)))
                seconds = time.perf_counter() - start
            process.send_signal(signal.SIGTERM)
            ended = process.wait(PATIENCE_S) == 0
        finally:
            process.kill()
        log.seek(0)
        ended = ended and "Traceback" not in log.read()
    return LoadResult(_reached(done), _reached(wrong), seconds, _reached(refused), tuple(memory), ended)


def _asked(port: int, body: bytes, refused: count[int]) -> object:
    """The service's three classes of a picture; asks again while it is told to."""
    while True:
        connection = HTTPConnection("127.0.0.1", port, timeout=PATIENCE_S)
        try:
            connection.request("POST", "/classify?top=3", body)
            answer = connection.getresponse()
            document = json.loads(answer.read())
        finally:
            connection.close()
        if answer.status != 503:
            return document.get("results", document)
        next(refused)
        time.sleep(0.02)


@contextmanager
def measured(process: int, reached: Callable[[], int]) -> Iterator[list[tuple[int, float]]]:
    """Reads a process's resident memory while the block lasts, more and more rarely, so that about 100 are kept."""
    readings, over = [(reached(), resident_mb(process))], Event()

    def read() -> None:
        pause = 0.05
        while not over.wait(pause):
            readings.append((reached(), resident_mb(process)))
            if len(readings) >= 2 * READINGS:
                del readings[1::2]
                pause *= 2

    thread = Thread(target=read)
    thread.start()
    try:
        yield readings
    finally:
        over.set()
        thread.join()


def resident_mb(process: int) -> float:
    pages = int(Path(f"/proc/{process}/statm").read_text(encoding="ascii").split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 1e6


def _reached(counter: count[int]) -> int:
    """What a counter has counted to; ``count`` is the one that threads may share without a lock."""
    return int(repr(counter)[len("count(") : -1])


def main() -> int:
    from _common import Table, parser, report  # which needs torch: not so the two functions above

    arguments = parser(__doc__)
    arguments.add_argument("--bundle", type=Path)
    arguments.add_argument("--threads", type=int, default=8)
    arguments.add_argument("--requests", type=int, default=10_000, help="of each thread")
    arguments.add_argument("--clients", type=int, default=64)
    arguments.add_argument("--each", type=int, default=500, help="requests of each client")
    chosen = arguments.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        bundle = chosen.bundle or _demo(Path(folder) / "demo.edge")
        found = {
            f"{chosen.threads} threads, one Classifier": through_one_classifier(
                bundle, chosen.threads, chosen.requests
            ),
            f"{chosen.clients} clients, HTTP": through_the_service(bundle, chosen.clients, chosen.each),
        }
    rows = [
        (
            name,
            f"{each.requests:,}",
            f"{each.wrong}",
            f"{each.refused:,}",
            f"{each.requests / each.seconds:.0f}",
            f"{max(mb for _, mb in each.memory):.0f}",
            f"{each.mb_for_10000:+.3f}",
            "yes" if each.ended_well else "NO",
        )
        for name, each in found.items()
    ]
    header = ("load", "requests", "wrong", "asked again", "per second", "most MB", "MB for 10,000", "ended well")
    figures = {name: {**asdict(each), "memory": None, "slope": each.mb_for_10000} for name, each in found.items()}
    report([Table("Load", header, rows)], chosen.json, **figures)
    return int(not all(each.passed for each in found.values()))


def _demo(path: Path) -> Path:
    from edge_resnet.demo import demo_recipe

    recipe = demo_recipe()
    build = replace(recipe.build, targets=("cpu",), output=path)
    edge_resnet.build(replace(recipe, build=build, accuracy=replace(recipe.accuracy, images=None)))
    return path


if __name__ == "__main__":
    sys.exit(main())
