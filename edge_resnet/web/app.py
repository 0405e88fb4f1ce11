"""The page's three addresses: itself, its data, and its video."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator, Mapping
from typing import Any

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import HTMLResponse, Response, StreamingResponse
from starlette.routing import Route

from edge_resnet.web.board import PICTURES, Board
from edge_resnet.web.document import document

MOMENTS = 10
"""A second."""
AGAIN_S = 2.0
"""After which a picture is sent again where no new one comes: else nobody would notice that a browser has gone."""
BOUNDARY = "edge-resnet-frame"


def application(board: Board) -> Starlette:
    """The page of a board as an ASGI application; who may see it is decided in front of it."""

    async def page(request: Request) -> Response:
        return HTMLResponse(document().html, headers={"content-security-policy": document().policy})

    async def events(request: Request) -> Response:
        return _stream(request, _events(board), "text/event-stream")

    async def video(request: Request) -> Response:
        return _stream(request, _video(board), f"multipart/x-mixed-replace; boundary={BOUNDARY}")

    return Starlette(routes=[Route("/", page), Route("/events", events), Route("/video", video)])


def _stream(request: Request, parts: AsyncIterator[str] | AsyncIterator[bytes], kind: str) -> Response:
    """A response without end; of its head alone there is one, and nothing behind it would ever be over."""
    return Response(media_type=kind) if request.method == "HEAD" else StreamingResponse(parts, media_type=kind)


async def _events(board: Board) -> AsyncIterator[str]:
    """What stays, then moment after moment (WHATWG HTML, server-sent events), the last one with the status ``stopped``."""
    with board.watched():
        yield _event("hello", board.hello())
        last, stopped = -1, False
        while not stopped:
            stopped = board.stopped
            moment = board.moment(last)
            last = moment["steps"][-1][0] if moment["steps"] else last
            yield _event("moment", moment)
            await asyncio.sleep(1 / MOMENTS)


def _event(name: str, document: Mapping[str, Any]) -> str:
    return f"event: {name}\ndata: {json.dumps(document, allow_nan=False, separators=(',', ':'))}\n\n"


async def _video(board: Board) -> AsyncIterator[bytes]:
    """The newest picture whenever there is one, as parts of a response that never ends (RFC 2046, section 5.1).

    A browser that is slow gets fewer. The boundary stands behind each picture: browsers show one when they see its end.
    """
    with board.pictures.watched():
        yield f"--{BOUNDARY}\r\n".encode()
        sent, at = None, 0.0
        while not board.stopped:
            found = board.pictures.result
            if found is not None and (found is not sent or time.monotonic() - at > AGAIN_S):
                sent, at = found, time.monotonic()
                head = f"Content-Type: image/jpeg\r\nContent-Length: {len(found.jpeg)}\r\n\r\n"
                yield head.encode() + found.jpeg + f"\r\n--{BOUNDARY}\r\n".encode()
            await asyncio.sleep(1 / (2 * PICTURES))
