"""``edge-resnet registry``."""

from __future__ import annotations

from typing import Annotated

import typer

from edge_resnet.cli._console import JsonFlag, print_json, print_table
from edge_resnet.cli._registry import Place


def run(
    registry: Place,
    name: Annotated[str | None, typer.Argument(metavar="[NAME]", help="Only the tags of this name.")] = None,
    json: JsonFlag = False,
) -> None:
    """Lists the bundles of a registry: names, tags, sizes, and the digest that each bundle is known by.

    Example: `edge-resnet registry s3://robots/models`
    """
    from edge_resnet.registry import Reference, open_registry
    from edge_resnet.registry.content import as_json

    wanted = None if name is None else Reference.parse(name).name
    rows = [as_json(reference, kept) for reference, kept in open_registry(registry).listing(wanted)]
    if json:
        print_json(rows)
        return
    columns = ("name", "tag", "MB", "bundle")
    print_table(None, columns, [(r["name"], r["tag"], round(r["bytes"] / 1e6, 1), r["digest"][:16]) for r in rows])
