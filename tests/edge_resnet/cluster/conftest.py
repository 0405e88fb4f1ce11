"""One cluster of two workers for a module's tests."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from ray_nodes import ray_cluster  # before ray: it reads its settings when it is imported


@pytest.fixture(scope="module")
def address() -> Iterator[str]:
    """Of a cluster with a head, and two nodes of one CPU each."""
    pytest.importorskip("ray", reason="spreading work needs the extra 'ray'")
    with ray_cluster({}, {}) as cluster:
        yield cluster.address
