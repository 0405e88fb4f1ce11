"""Serves a board's page from a thread of its own."""

from __future__ import annotations

import ipaddress
import secrets
import socket
import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass

import uvicorn

from edge_resnet.errors import UnavailableError
from edge_resnet.web.access import Guarded, Loopback, Token
from edge_resnet.web.app import application
from edge_resnet.web.board import Board

CONNECTIONS = 64
"""At once; a browser has two. The next are told to come again."""
SEND_BUFFER = 128 * 1024
"""Bytes on their way to one browser: more would only make a slow one's picture older."""
GONE_MS = 10_000
"""After which a browser that takes nothing is one that has gone, such as that of a laptop whose lid was shut."""
GOODBYE_S = 2


@dataclass(frozen=True)
class Address:
    """Where to listen."""

    host: str = "127.0.0.1"
    port: int = 8000
    """0 takes a free one."""

    @property
    def is_loopback(self) -> bool:
        """Whether only this machine can reach it."""
        try:
            return self.host.lower() == "localhost" or ipaddress.ip_address(self.host).is_loopback
        except ValueError:
            return False


@contextmanager
def serving(board: Board, address: Address) -> Iterator[str]:
    """Serves a board's page as long as the block lasts; gives its URL, with a token in it where others can reach it.

    Raises:
        UnavailableError: nobody can listen at this address, or somebody does already.
    """
    with closing(_listening(address)) as listener:
        port = listener.getsockname()[1]
        token = None if address.is_loopback else secrets.token_urlsafe(24)
        names = frozenset({"localhost", "127.0.0.1", "::1", address.host.lower()})
        rule = Loopback(names) if token is None else Token(token, f"edge_resnet_{port}")
        config = uvicorn.Config(
            Guarded(application(board), rule),
            lifespan="off",
            ws="none",
            log_config=None,
            access_log=False,  # it would write the token down
            server_header=False,
            proxy_headers=False,
            limit_concurrency=CONNECTIONS,
            timeout_graceful_shutdown=GOODBYE_S,
        )
        server = uvicorn.Server(config)
        thread = threading.Thread(target=server.run, args=([listener],), name="edge-resnet-web", daemon=True)
        thread.start()
        try:
            query = "" if token is None else f"?token={token}"
            yield f"http://{_shown(address.host, listener.family)}:{port}/{query}"
        finally:
            board.close()
            server.should_exit = True
            thread.join()


def _listening(address: Address) -> socket.socket:
    try:
        if not address.host:
            raise OSError("no host is given")
        found = socket.getaddrinfo(address.host, address.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
        family, *_, place = found[0]
        listener = socket.create_server(place, family=family, backlog=CONNECTIONS)
    except (OSError, UnicodeError) as error:
        reason = error.strerror if isinstance(error, OSError) and error.strerror else error
        raise UnavailableError(
            f"cannot listen on {address.host}:{address.port} ({reason}): give another --port, or the --host of a network "
            f"that this machine is in"
        ) from error
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, SEND_BUFFER)  # each connection inherits both
    listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, GONE_MS)
    return listener


def _shown(host: str, family: int) -> str:
    """The host as others write it; one that stands for all of this machine's addresses is replaced by one of them."""
    try:
        if ipaddress.ip_address(host).is_unspecified:
            host = _own_address(family)
    except ValueError:
        return host
    return f"[{host}]" if ":" in host else host


def _own_address(family: int) -> str:
    """The address that this machine has in its network; nothing is sent to the other one, which is for documentation."""
    with socket.socket(family, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect(("2001:db8::1" if family == socket.AF_INET6 else "192.0.2.1", 9))
            return str(probe.getsockname()[0])
        except OSError:
            return socket.gethostname()
