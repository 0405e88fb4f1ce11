"""The connection to a Ray cluster, for as long as a command takes."""

from __future__ import annotations

import logging
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import metadata
from typing import Any

from edge_resnet.errors import UnavailableError

LOCAL = "local"
"""The address of a cluster that is this machine alone, begun and ended with the command."""
SECONDS = 5.0
"""Within which a cluster's head must answer."""
_LOOPBACK = ("127.0.0.1", "localhost", "[::1]")


@contextmanager
def connected(address: str) -> Iterator[None]:
    """Connects to a cluster, and leaves it afterwards.

    Args:
        address: ``host:port`` of its head, or ``local``.

    Raises:
        UnavailableError: Ray is not installed, nothing answers there, or its version is another one.
    """
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # it would report to its makers
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")  # leaves CUDA_VISIBLE_DEVICES alone
    os.environ.setdefault("RAY_DEDUP_LOGS_SKIP_REGEX", ".")  # it prints a dead node's log on stdout, amid our JSON
    try:
        import ray
    except ImportError as error:
        raise UnavailableError("--ray needs Ray: pip install 'edge-resnet[ray]'") from error
    logging.getLogger("ray").setLevel(logging.ERROR)  # its advice would stand before our one line
    if address != LOCAL:
        _require_listener(address, ray.util.get_node_ip_address())  # type: ignore[no-untyped-call]
    own: dict[str, Any] = {"include_dashboard": False, "_node_ip_address": "127.0.0.1"} if address == LOCAL else {}
    try:
        ray.init(address=address, log_to_driver=False, logging_level=logging.ERROR, configure_logging=False, **own)
    except (ConnectionError, RuntimeError, ValueError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise UnavailableError(
            f"the Ray cluster at {address} refuses us ({reason}): it needs Ray {metadata.version('ray')} and our token"
        ) from error
    try:
        yield
    finally:
        ray.shutdown()


def _require_listener(address: str, own: str) -> None:
    """Ray itself would wait for minutes where nothing listens, and print meanwhile.

    Args:
        address: where to connect.
        own: this machine's address, which Ray takes for each of its names.
    """
    host, _, port = address.rpartition(":")
    if not host or not port.isdecimal():
        raise UnavailableError(f"--ray is '{address}': give HOST:PORT of a Ray cluster's head, or {LOCAL}")
    meant = own if host in _LOOPBACK else host.strip("[]")
    try:
        socket.create_connection((meant, int(port)), SECONDS).close()
    except (OSError, OverflowError) as error:
        where = address if meant == host.strip("[]") else f"{address}, which is {meant} to Ray"
        raise UnavailableError(f"no Ray cluster at {where} ({error}): start one with `ray start --head`") from error
