"""A small HTTP service: POST a JPEG or PNG, get its classes as JSON.

    python examples/http_service.py model.edge
    curl --data-binary @photo.jpg 'http://127.0.0.1:8000/classify?top=3'
    {"results": [{"label": "sneaker", "index": 7, "probability": 0.98}, …], "milliseconds": 12.3}

``GET /health`` answers while the service runs; with ``--metrics``, ``GET /metrics`` is for Prometheus: what became of the
requests, drift watch and shadow mode. What cannot be used is refused with 4xx and ``{"error": …}``; an engine that fails is
a 500. It needs no package beyond edge-resnet, with ``--metrics`` its extra ``monitor``. There is no login and no TLS: it
listens on 127.0.0.1, and whoever opens it to a network (``--host``) puts both in front of it.
"""

from __future__ import annotations

import argparse
import json
import signal
import sys
import threading
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

from PIL import Image

import edge_resnet
from edge_resnet.errors import ImageError
from edge_resnet.images import decode_image

LARGEST = 20 * 2**20
"""Bytes of an upload."""
MOST_PIXELS = 50_000_000
"""Of a picture: a small file can hold a huge one."""
WAITING = 32
"""Pictures that may be at work or wait for the engine at once; the next is told to come again."""
UPLOADS = 128
"""Pictures that may be on their way at once, each up to ``LARGEST``: a slow one takes memory for long."""
PATIENCE = 10.0
"""Seconds that a client may take between two pieces of its upload."""
UPLOAD_S = 60.0
"""Seconds for all of an upload: one that trickles keeps its thread no longer."""


class RefusedError(Exception):
    """A request that gets no answer but this."""

    def __init__(self, status: HTTPStatus, reason: str) -> None:
        super().__init__(reason)
        self.status = status


@contextmanager
def a_place(places: threading.BoundedSemaphore, full: str) -> Iterator[None]:
    """Takes one of some places; where none is free, the request is refused."""
    if not places.acquire(blocking=False):
        raise RefusedError(HTTPStatus.SERVICE_UNAVAILABLE, full)
    try:
        yield
    finally:
        places.release()


class Service(ThreadingHTTPServer):
    """Has a thread for each connection and one engine for all; ends when those at work have their answers."""

    daemon_threads = False
    request_queue_size = 128

    def __init__(
        self, address: tuple[str, int], classify: edge_resnet.Classifier, metrics: Callable[[], bytes] | None
    ) -> None:
        super().__init__(address, Handler)
        self.classify, self.metrics = classify, metrics
        self.uploads, self.places = threading.BoundedSemaphore(UPLOADS), threading.BoundedSemaphore(WAITING)

    def handle_error(self, request: object, client_address: object) -> None:
        """Says what went wrong in a thread; a client that has gone is nothing wrong."""
        if not isinstance(sys.exc_info()[1], ConnectionError):
            super().handle_error(request, client_address)


class Handler(BaseHTTPRequestHandler):
    """One request; the connection ends with it."""

    server: Service
    protocol_version = "HTTP/1.1"
    timeout = PATIENCE
    error_content_type = "application/json"  # of what http.server refuses by itself, such as other methods
    error_message_format = '{"error": "%(message)s"}'

    def do_GET(self) -> None:
        if urlsplit(self.path).path == "/metrics" and self.server.metrics is not None:
            return self._send_bytes(HTTPStatus.OK, self.server.metrics(), "text/plain; version=0.0.4; charset=utf-8")
        if urlsplit(self.path).path != "/health":
            return self._refuse(RefusedError(HTTPStatus.NOT_FOUND, "there is GET /health and POST /classify"))
        return self._send(HTTPStatus.OK, {"status": "ok", "target": self.server.classify.target})

    def do_POST(self) -> None:
        try:
            top = self._wanted()
            with a_place(self.server.uploads, f"{UPLOADS} pictures are on their way: try again"):
                data = self._body()
            return self._send(HTTPStatus.OK, self._classified(top, data))
        except RefusedError as refused:
            return self._refuse(refused)
        except TimeoutError:
            return self._refuse(RefusedError(HTTPStatus.REQUEST_TIMEOUT, f"nothing came for {PATIENCE:.0f} s"))

    def _wanted(self) -> int:
        """How many classes are asked for."""
        url = urlsplit(self.path)
        if url.path != "/classify":
            raise RefusedError(HTTPStatus.NOT_FOUND, "there is GET /health and POST /classify")
        wanted = parse_qs(url.query, keep_blank_values=True).get("top", ["5"])[-1]
        top = _number(wanted)
        if not top:
            raise RefusedError(HTTPStatus.BAD_REQUEST, f"top is '{wanted}': give a number of classes, 1 or more")
        return top

    def _classified(self, top: int, data: bytes) -> dict[str, object]:
        """Takes a place only now that the picture is there: who sends slowly keeps nobody from the engine."""
        start = time.perf_counter()
        try:
            with a_place(self.server.places, f"{WAITING} pictures are at work: try again"):
                predictions = self.server.classify(decode_image(data, "the picture")).top(top)
        except ImageError as error:
            raise RefusedError(HTTPStatus.BAD_REQUEST, str(error)) from error
        except edge_resnet.EdgeResnetError as error:
            raise RefusedError(HTTPStatus.INTERNAL_SERVER_ERROR, str(error)) from error
        results = [{"label": p.label, "index": p.index, "probability": p.probability} for p in predictions]
        return {"results": results, "milliseconds": 1e3 * (time.perf_counter() - start)}

    def _body(self) -> bytes:
        length = _number(self.headers.get("Content-Length", ""))
        if length is None:
            raise RefusedError(HTTPStatus.LENGTH_REQUIRED, "send the picture as the body, with a Content-Length")
        if length > LARGEST:
            raise RefusedError(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, f"{length} bytes: send at most {LARGEST}")
        data, end = bytearray(), time.monotonic() + UPLOAD_S
        while len(data) < length:
            piece = self.rfile.read1(min(length - len(data), 2**16))
            if not piece:
                raise RefusedError(HTTPStatus.BAD_REQUEST, f"{len(data)} bytes came of the {length} announced")
            data += piece
            if time.monotonic() > end:
                raise RefusedError(HTTPStatus.REQUEST_TIMEOUT, f"the picture took longer than {UPLOAD_S:.0f} s")
        return bytes(data)

    def _refuse(self, refused: RefusedError) -> None:
        self._send(refused.status, {"error": str(refused)})
        self._drain()

    def _send(self, status: HTTPStatus, document: dict[str, object]) -> None:
        self._send_bytes(status, json.dumps(document).encode(), "application/json")

    def _send_bytes(self, status: HTTPStatus, body: bytes, kind: str) -> None:
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.send_header("Connection", "close")  # an idle connection would hold up the end of the service
        if status == HTTPStatus.SERVICE_UNAVAILABLE:
            self.send_header("Retry-After", "1")
        self.end_headers()
        self.wfile.write(body)

    def _drain(self) -> None:
        """Reads what is still coming, for a while: a client that is cut off while it sends never sees the reason."""
        end = time.monotonic() + 1.0
        self.connection.settimeout(0.2)
        try:
            while time.monotonic() < end and self.connection.recv(2**16):
                pass
        except OSError:
            pass


def _number(text: str) -> int | None:
    """A whole number of at most 15 digits; None for anything else."""
    return int(text) if text.isascii() and text.isdecimal() and len(text) <= 15 else None


@contextmanager
def watched(classify: edge_resnet.Classifier) -> Iterator[Callable[[], bytes]]:
    """Watches for drift, runs every hundredth request through FP32 too, and gives the page for Prometheus."""
    from prometheus_client import CollectorRegistry, generate_latest

    from edge_resnet.drift import DriftMonitor
    from edge_resnet.prometheus import Sources, export
    from edge_resnet.shadow import Shadow

    opened, registry = classify.reopen(), CollectorRegistry()
    with Shadow(opened, every=100) as shadow:
        drift = DriftMonitor(opened)
        classify.watch(drift, shadow)
        export(registry, Sources(classify, drift, shadow))
        yield lambda: generate_latest(registry)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("bundle", type=Path)
    parser.add_argument("--host", default="127.0.0.1", help="where to listen")
    parser.add_argument("--port", type=int, default=8000, help="0 takes a free one")
    parser.add_argument("--metrics", action="store_true", help="serve GET /metrics")
    args = parser.parse_args()

    Image.MAX_IMAGE_PIXELS = MOST_PIXELS
    warnings.simplefilter("error", Image.DecompressionBombWarning)  # Pillow itself refuses only twice as many
    with ExitStack() as opened:
        classify = opened.enter_context(edge_resnet.Classifier(args.bundle))
        metrics = opened.enter_context(watched(classify)) if args.metrics else None
        service = opened.enter_context(Service((args.host, args.port), classify, metrics))

        def stop(number: int, frame: object) -> None:
            threading.Thread(target=service.shutdown).start()  # it waits for the loop, which this handler interrupts

        signal.signal(signal.SIGTERM, stop)
        signal.signal(signal.SIGINT, stop)
        host, port = service.server_address[:2]
        print(f"http://{host}:{port}/classify, on {classify.target}", flush=True)
        service.serve_forever()


if __name__ == "__main__":
    main()
