"""A real Ray cluster of node processes of this machine, which listen on the loopback interface alone."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

IP = "127.0.0.1"
os.environ["RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"] = "0"  # its name for: a node's address may be 127.0.0.1
os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
os.environ["RAY_DEDUP_LOGS_SKIP_REGEX"] = "."  # as edge_resnet.cluster.connection does, where Ray is not imported yet


@contextmanager
def ray_cluster(*nodes: Mapping[str, float]) -> Iterator[Any]:
    """A cluster whose head runs no tasks, with one node of one CPU for each mapping of its own resources.

    ``cluster.address`` is what ``--ray`` takes; ``cluster.list_all_nodes()`` has the nodes, and
    ``cluster.remove_node(node, allow_graceful=False)`` kills one.
    """
    from ray.cluster_utils import Cluster

    known = os.environ.get("PYTHONPATH")
    os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, (str(Path(__file__).parent), known)))  # jobs of tests
    config = {"health_check_period_ms": 500}  # a death is noticed at the fifth missing answer
    head = {"num_cpus": 0, "node_ip_address": IP, "include_dashboard": False, "_system_config": config}
    cluster = Cluster(initialize_head=True, head_node_args=head)
    try:
        for resources in nodes:
            cluster.add_node(wait=False, num_cpus=1, node_ip_address=IP, resources=dict(resources))
        cluster.wait_for_nodes()
        yield cluster
    finally:
        cluster.shutdown()
        os.environ.pop("PYTHONPATH")
        if known is not None:
            os.environ["PYTHONPATH"] = known
