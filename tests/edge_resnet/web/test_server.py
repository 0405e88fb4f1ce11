"""The page's server, by a real client on loopback: what it answers, to whom, and what becomes of browsers that go."""

from __future__ import annotations

import http.client
import io
import json
import socket
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import numpy as np
import numpy.typing as npt
import pytest
from live_page import Plugged, Running, live_page, until
from PIL import Image

from edge_resnet.errors import UnavailableError
from edge_resnet.frames import FrameColor
from edge_resnet.web.access import HEADERS
from edge_resnet.web.document import document
from edge_resnet.web.server import Address

Frames = npt.NDArray[np.uint8]


@pytest.fixture(scope="module")
def running(quick_bundle: Path, ten_frames: Frames) -> Iterator[Running]:
    with live_page(quick_bundle, Plugged(ten_frames)) as found:
        yield found


def connection(url: str) -> http.client.HTTPConnection:
    return http.client.HTTPConnection(urlsplit(url).netloc, timeout=10)


def get(url: str, path: str = "/", **headers: str) -> http.client.HTTPResponse:
    asked = connection(url)
    asked.request("GET", path, headers=headers)
    return asked.getresponse()


def events(response: http.client.HTTPResponse) -> Iterator[tuple[str, dict[str, Any]]]:
    while line := response.readline().decode():
        name, data = line.removeprefix("event: ").strip(), response.readline().decode()
        response.readline()
        yield name, json.loads(data.removeprefix("data: "))


def test_the_page_is_one_document_that_may_only_ask_this_server(running: Running) -> None:
    response = get(running.url)
    assert response.status == 200
    assert response.read().decode() == document().html
    assert "http" not in document().html.replace("http://www.w3.org/2000/svg", "").replace("open it as http", "")
    for name, value in HEADERS.items():
        assert response.headers[name] == (document().policy if name == "content-security-policy" else value)
    assert "unsafe" not in document().policy
    assert response.headers["server"] is None


def test_moments_come_as_events_with_both_answers_to_one_frame(running: Running, ten_frames: Frames) -> None:
    response = get(running.url, "/events")
    assert response.headers["content-type"].startswith("text/event-stream")
    found = events(response)
    name, hello = next(found)
    assert (name, hello["target"], hello["precision"], hello["fp32"]) == ("hello", "cpu", "INT8", True)
    moments = [moment for _, moment in (next(found) for _ in range(25))]
    response.close()
    last = moments[-1]
    assert last["status"] == "live" and last["view"]["per_second"] > 0
    assert last["captured"] >= last["view"]["answered"] > moments[0]["view"]["answered"]
    numbers = [step[0] for moment in moments for step in moment["steps"]]
    assert len(set(numbers)) == len(numbers) and numbers == sorted(numbers), "each step is told once"
    both = last["compared"]
    assert both["compared"] >= both["agreed"] > 0
    assert len(both["given"]["top"]) == len(both["fp32"]["top"]) == 5
    assert both["given"]["top"][0][1] in hello["labels"]


def test_the_video_is_pictures_of_the_frames(running: Running, ten_frames: Frames) -> None:
    response = get(running.url, "/video")
    kind, _, boundary = response.headers["content-type"].partition("; boundary=")
    assert kind == "multipart/x-mixed-replace"
    assert response.readline() == f"--{boundary}\r\n".encode()
    for _ in range(5):
        assert response.readline() == b"Content-Type: image/jpeg\r\n"
        length = int(response.readline().removeprefix(b"Content-Length: "))
        assert response.readline() == b"\r\n"
        picture = np.asarray(Image.open(io.BytesIO(response.read(length)))).astype(int)
        assert min(np.abs(picture - frame[:, :, 0]).mean() for frame in ten_frames) < 8
        assert response.read(2) == b"\r\n" and response.readline() == f"--{boundary}\r\n".encode()
    response.close()


def test_browsers_that_go_are_noticed_and_one_that_does_not_read_holds_nobody_up(running: Running) -> None:
    until(lambda: running.board.pictures.watchers == 0)
    stuck = socket.create_connection((urlsplit(running.url).hostname, urlsplit(running.url).port))
    stuck.sendall(b"GET /video HTTP/1.1\r\nHost: localhost\r\n\r\n")
    until(lambda: running.board.pictures.watchers == 1)
    before, start = running.board.moment()["view"]["answered"], time.monotonic()
    time.sleep(1)
    assert running.board.moment()["view"]["answered"] - before > 10 * (time.monotonic() - start)
    assert get(running.url).status == 200
    stuck.close()
    until(lambda: running.board.pictures.watchers == 0)


def test_a_browser_that_takes_nothing_any_more_has_gone(quick_bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As that of a laptop whose lid was shut: its connection stands, and nobody reads."""
    monkeypatch.setattr("edge_resnet.web.server.GONE_MS", 500)
    noise = np.random.default_rng(0).integers(0, 256, (3, 720, 1280, 3), np.uint8)  # large pictures
    with live_page(quick_bundle, Plugged(noise, FrameColor.RGB)) as found:
        here = urlsplit(found.url)
        with socket.create_connection((here.hostname, here.port)) as stuck:
            stuck.sendall(b"GET /video HTTP/1.1\r\nHost: localhost\r\n\r\n")
            until(lambda: found.board.pictures.watchers == 1)
            until(lambda: found.board.pictures.watchers == 0, 20)


def test_a_head_of_what_has_no_end_is_all_there_is(running: Running) -> None:
    for path in ("/video", "/events"):
        asked = connection(running.url)
        asked.request("HEAD", path)
        assert asked.getresponse().status == 200
    assert running.board.pictures.watchers == 0


@pytest.mark.parametrize("host", ["localhost", "127.0.0.1", "localhost:9999", "[::1]:80", "LOCALHOST"])
def test_on_this_machine_its_own_names_are_let_in(running: Running, host: str) -> None:
    assert get(running.url, Host=host).status == 200


@pytest.mark.parametrize(
    "host", ["evil.example", "evil.example:8000", "127.0.0.1.evil.example", "localhost@evil", "", "["]
)
@pytest.mark.parametrize("path", ["/", "/events", "/video"])
def test_a_name_that_somebody_else_may_own_is_not(running: Running, path: str, host: str) -> None:
    response = get(running.url, path, Host=host)
    assert response.status in (400, 403)
    assert response.status == 400 or response.headers["content-security-policy"] == HEADERS["content-security-policy"]


def test_beyond_this_machine_only_the_token_lets_in(quick_bundle: Path, ten_frames: Frames) -> None:
    with live_page(quick_bundle, Plugged(ten_frames), Address("0.0.0.0", 0)) as found:
        port, query = urlsplit(found.url).port, urlsplit(found.url).query
        token = query.removeprefix("token=")
        assert len(token) == 32 and "0.0.0.0" not in found.url
        here = f"http://127.0.0.1:{port}"
        for path in ("/", "/events", "/video", "/?token=", f"/?token={token[:-1]}", f"/?token={token}x", "/nowhere"):
            refused = get(here, path)
            assert (refused.status, token in refused.read().decode()) == (403, False)
        for cookie in ("", f"edge_resnet_{port}=x", f"edge_resnet={token}", "=;", "[]={}"):
            assert get(here, "/", Cookie=cookie).status == 403
        welcome = get(here, f"/?{query}", Host="anything.example")
        assert (welcome.status, welcome.headers["location"]) == (303, "/"), "the address bar does not keep it"
        cookie = welcome.headers["set-cookie"]
        assert "HttpOnly" in cookie and "SameSite=lax" in cookie
        assert get(here, "/", Cookie=cookie.split(";")[0]).read().decode() == document().html
        assert get(here, "/", Authorization=f"Bearer {token}").status == 200
        assert next(events(get(here, f"/events?{query}")))[0] == "hello"


def test_a_port_that_is_taken_is_one_line(quick_bundle: Path, ten_frames: Frames, running: Running) -> None:
    taken = Address(port=urlsplit(running.url).port or 0)
    with (
        pytest.raises(UnavailableError, match=f"cannot listen on 127.0.0.1:{taken.port} .*in use.*give another --port"),
        live_page(quick_bundle, Plugged(ten_frames), taken),
    ):
        pass


@pytest.mark.parametrize("host", ["", "no.such.host.invalid", "192.0.2.1", "a..b", "x" * 80])
def test_a_host_that_is_not_here_is_one_line(host: str, quick_bundle: Path, ten_frames: Frames) -> None:
    with (
        pytest.raises(UnavailableError, match="--host of a network"),
        live_page(quick_bundle, Plugged(ten_frames), Address(host, 0)),
    ):
        pass


def test_which_hosts_are_this_machine_alone() -> None:
    assert all(Address(host).is_loopback for host in ("127.0.0.1", "127.9.9.9", "::1", "localhost"))
    assert not any(
        Address(host).is_loopback for host in ("0.0.0.0", "::", "192.168.1.2", "localhost.example", "jetson")
    )


def test_a_lost_camera_is_told_and_a_folders_end_too(quick_bundle: Path, ten_frames: Frames) -> None:
    source = Plugged(ten_frames)
    with live_page(quick_bundle, source) as found:
        until(lambda: found.board.moment()["status"] == "live")
        source.plugged.clear()
        until(lambda: found.board.moment()["status"] == "lost")
        assert "test <b>" in found.board.moment()["error"]
        source.plugged.set()
        until(lambda: found.board.moment()["status"] == "live" and found.board.moment()["reconnects"] == 1)
    assert found.board.moment()["status"] == "stopped"
    with live_page(quick_bundle, Plugged(ten_frames, live=False)) as found:
        until(lambda: found.board.moment()["status"] == "ended")
        assert found.board.moment()["view"]["answered"] == len(ten_frames)


def test_whoever_watches_learns_of_the_end(quick_bundle: Path, ten_frames: Frames) -> None:
    with live_page(quick_bundle, Plugged(ten_frames)) as found:
        watching = events(get(found.url, "/events"))
        next(watching)
    assert [moment["status"] for _, moment in watching][-1] == "stopped"


def test_beside_fp32_there_is_nothing(fp32_bundle: Path, ten_frames: Frames) -> None:
    with live_page(fp32_bundle, Plugged(ten_frames)) as found:
        until(lambda: found.board.moment()["view"] is not None)
        assert (found.board.hello()["fp32"], found.board.moment()["compared"]) == (False, None)
