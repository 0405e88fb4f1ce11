"""``edge-resnet registry``."""

from __future__ import annotations

from edge_resnet.cli._console import JsonFlag, print_json, print_table
from edge_resnet.cli._registry import Place


def run(registry: Place, json: JsonFlag = False) -> None:
    """Lists the bundles of a registry: names, tags, sizes, and the digest that each bundle is known by.

    Example: `edge-resnet registry s3://robots/models`
    """
    from edge_resnet.registry import open_registry
    from edge_resnet.registry.store import as_json

    opened = open_registry(registry)
    rows = [as_json(reference, opened.describe(file)) for reference, file in opened.tags()]
    if json:
        print_json(rows)
        return
    columns = ("name", "tag", "MB", "bundle")
    print_table(None, columns, [(r["name"], r["tag"], round(r["bytes"] / 1e6, 1), r["digest"][:16]) for r in rows])
