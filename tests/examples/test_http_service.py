"""The HTTP service as a process of its own, over the loopback."""

from __future__ import annotations

import io
import json
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from http.client import HTTPConnection
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import http_service
import numpy as np
import pytest
from PIL import Image

from edge_resnet import Classifier

SCRIPT = Path(__file__).resolve().parents[2] / "examples" / "http_service.py"


def started(bundle: Path, log: Path, *flags: str) -> tuple[subprocess.Popen[str], int]:
    """The service on a free port. What it says goes to a file: a pipe that nobody reads would fill, and hold it up."""
    program = [sys.executable, str(SCRIPT), str(bundle), "--port", "0", *flags]
    with log.open("w") as file:
        process = subprocess.Popen(program, stdout=subprocess.PIPE, stderr=file, text=True)
    assert process.stdout is not None
    line = process.stdout.readline()
    assert line.startswith("http://127.0.0.1:") and line.endswith("/classify, on cpu\n"), line + log.read_text()
    return process, int(line.split(":")[2].split("/")[0])


@pytest.fixture(scope="module")
def port(quick_bundle: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[int]:
    log = tmp_path_factory.mktemp("service") / "log"
    process, number = started(quick_bundle, log)
    yield number
    process.send_signal(signal.SIGTERM)
    assert process.wait(timeout=20) == 0
    assert "Traceback" not in log.read_text()


def asked(
    port: int, method: str, path: str, body: bytes | None = None, **headers: str
) -> tuple[int, dict[str, object]]:
    connection = HTTPConnection("127.0.0.1", port, timeout=30)
    try:
        connection.request(method, path, body, headers)
        answer = connection.getresponse()
        assert answer.getheader("Content-Type") == "application/json"
        return answer.status, json.loads(answer.read())
    finally:
        connection.close()


def png(pixels: np.ndarray) -> bytes:
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG")
    return file.getvalue()


def test_sixteen_clients_at_once_get_each_its_own_answer(port: int, quick_bundle: Path, few: Path) -> None:
    paths = sorted((few / "test").rglob("*.png"))[::2][:16]
    with Classifier(quick_bundle) as classify:
        wanted = [
            [{"label": p.label, "index": p.index, "probability": p.probability} for p in classify(path).top(3)]
            for path in paths
        ]
    assert len({json.dumps(each) for each in wanted}) == 16

    def answers(path: Path) -> list[object]:
        return [asked(port, "POST", "/classify?top=3", path.read_bytes()) for _ in range(5)]

    with ThreadPoolExecutor(16) as pool:
        for results, right in zip(pool.map(answers, paths), wanted, strict=True):
            assert [(status, document["results"]) for status, document in results] == [(200, right)] * 5


def test_a_jpeg_is_one_too(port: int, quick_bundle: Path, sneaker: Path) -> None:
    file = io.BytesIO()
    Image.open(sneaker).save(file, "JPEG", quality=95)
    status, document = asked(port, "POST", "/classify", file.getvalue())
    with Classifier(quick_bundle) as classify:
        wanted = classify(Image.open(file)).top(5)
    assert status == 200
    assert [each["probability"] for each in document["results"]] == [each.probability for each in wanted]


def test_it_says_that_it_is_well(port: int) -> None:
    assert asked(port, "GET", "/health") == (200, {"status": "ok", "target": "cpu"})


@pytest.mark.parametrize(
    ("method", "path", "body", "status", "error"),
    [
        ("POST", "/classify", b"no picture", 400, "the picture is no image, or a damaged one: give one of JPEG, PNG"),
        ("POST", "/classify", b"", 400, "the picture is no image"),
        ("POST", "/classify?top=0", b"x", 400, "top is '0': give a number of classes, 1 or more"),
        ("POST", "/classify?top=", b"x", 400, "top is ''"),
        ("POST", "/classify?top=" + "9" * 5000, b"x", 400, "top is '999"),
        ("POST", "/", b"x", 404, "there is GET /health and POST /classify"),
        ("GET", "/classify", None, 404, "there is GET /health and POST /classify"),
        ("PUT", "/classify", b"x", 501, "Unsupported method ('PUT')"),
        ("POST", "/classify", bytes(20 * 2**20 + 1), 413, "20971521 bytes: send at most 20971520"),
    ],
)
def test_what_cannot_be_used_is_refused(
    port: int, method: str, path: str, body: bytes | None, status: int, error: str
) -> None:
    found, document = asked(port, method, path, body)
    assert found == status
    assert str(document["error"]).startswith(error)


def test_a_small_file_with_a_huge_picture_is_refused(port: int) -> None:
    body = png(np.zeros((5001, 10_000), np.uint8))
    assert len(body) < 100_000
    status, document = asked(port, "POST", "/classify", body)
    assert status == 400
    assert "50010000 pixels" in str(document["error"])


def test_an_upload_of_unknown_length_is_refused(port: int) -> None:
    connection = HTTPConnection("127.0.0.1", port, timeout=30)
    connection.request("POST", "/classify", iter([b"ab", b"cd"]), encode_chunked=True)
    answer = connection.getresponse()
    assert answer.status == 411
    assert json.loads(answer.read())["error"] == "send the picture as the body, with a Content-Length"
    connection.close()


def test_told_to_stop_it_answers_what_is_on_its_way(quick_bundle: Path, sneaker: Path, tmp_path: Path) -> None:
    process, port = started(quick_bundle, tmp_path / "log")
    body = sneaker.read_bytes()
    with socket.create_connection(("127.0.0.1", port), timeout=20) as connection:
        head = f"POST /classify HTTP/1.1\r\nHost: here\r\nContent-Length: {len(body)}\r\n\r\n".encode()
        connection.sendall(head + body[:50])
        time.sleep(0.3)
        process.send_signal(signal.SIGTERM)
        time.sleep(0.3)
        connection.sendall(body[50:])
        answer = b"".join(iter(lambda: connection.recv(4096), b""))
    assert answer.startswith(b"HTTP/1.1 200 OK") and b'"sneaker"' in answer
    assert process.wait(timeout=20) == 0
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", port), timeout=5)


def test_who_sends_slowly_keeps_nobody_from_the_engine(port: int, sneaker: Path) -> None:
    body = sneaker.read_bytes()
    head = f"POST /classify HTTP/1.1\r\nHost: here\r\nContent-Length: {len(body)}\r\n\r\n".encode()
    held = [socket.create_connection(("127.0.0.1", port), timeout=20) for _ in range(http_service.WAITING + 8)]
    try:
        for connection in held:
            connection.sendall(head + body[:10])
        time.sleep(0.5)
        assert asked(port, "POST", "/classify", body)[0] == 200
    finally:
        for connection in held:
            connection.close()


@pytest.fixture
def busy(monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[int, threading.Event, threading.Semaphore]]:
    """The service in this process, with two places, and an engine that works until it is told: its port, the word to go
    on, and a count of pictures that are at work.
    """
    monkeypatch.setattr(http_service, "WAITING", 2)
    goes_on, at_work = threading.Event(), threading.Semaphore(0)

    def classify(image: Image.Image) -> SimpleNamespace:
        at_work.release()
        assert goes_on.wait(20)
        return SimpleNamespace(top=lambda count: [])

    with http_service.Service(("127.0.0.1", 0), cast(Any, classify), None) as service:
        thread = threading.Thread(target=service.serve_forever)
        thread.start()
        yield service.server_address[1], goes_on, at_work
        goes_on.set()
        service.shutdown()
        thread.join()


def test_one_picture_too_many_is_told_to_come_again(
    busy: tuple[int, threading.Event, threading.Semaphore], sneaker: Path
) -> None:
    (port, goes_on, at_work), body = busy, sneaker.read_bytes()
    with ThreadPoolExecutor(2) as pool:
        first = [pool.submit(asked, port, "POST", "/classify", body) for _ in range(2)]
        assert at_work.acquire(timeout=20) and at_work.acquire(timeout=20)
        assert asked(port, "POST", "/classify", body) == (503, {"error": "2 pictures are at work: try again"})
        goes_on.set()
        assert [each.result()[0] for each in first] == [200, 200]
    assert asked(port, "POST", "/classify", body)[0] == 200


def test_an_upload_that_trickles_is_given_up(
    busy: tuple[int, threading.Event, threading.Semaphore], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(http_service, "UPLOAD_S", 0.3)
    with socket.create_connection(("127.0.0.1", busy[0]), timeout=20) as connection:
        connection.sendall(b"POST /classify HTTP/1.1\r\nHost: here\r\nContent-Length: 1000\r\n\r\n")
        for _ in range(5):
            connection.sendall(b"x")
            time.sleep(0.1)
        assert connection.recv(4096).startswith(b"HTTP/1.1 408 ")
