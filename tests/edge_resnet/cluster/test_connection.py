"""cluster/connection.py: what is refused at once, where Ray would wait for minutes."""

from __future__ import annotations

import socket
from collections.abc import Iterator

import pytest

from edge_resnet.cluster.connection import connected
from edge_resnet.errors import UnavailableError

ray = pytest.importorskip("ray", reason="spreading work needs the extra 'ray'")


@pytest.fixture
def port() -> Iterator[int]:
    """Of a listener at 127.0.0.1 alone."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield int(server.getsockname()[1])


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost"])
def test_ray_takes_a_loopback_name_for_this_machines_address(
    host: str, port: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A head that listens elsewhere, or at the loopback address alone, is not where Ray would look for it."""
    monkeypatch.setattr(ray.util, "get_node_ip_address", lambda: "127.0.0.9")
    message = (
        f"^no Ray cluster at {host}:{port}, which is 127.0.0.9 to Ray .*refused.*: start one with `ray start --head`$"
    )
    with pytest.raises(UnavailableError, match=message), connected(f"{host}:{port}"):
        pass


@pytest.mark.parametrize("address", ["auto", "6379", ":6379", "host:", "host:port", "ray://host:6379x"])
def test_what_is_no_address(address: str) -> None:
    with pytest.raises(UnavailableError, match=f"^--ray is '{address}': give HOST:PORT"), connected(address):
        pass


def test_a_port_that_cannot_be() -> None:
    with pytest.raises(UnavailableError, match="^no Ray cluster at 127.0.0.1:99999 "), connected("127.0.0.1:99999"):
        pass
