"""``edge-resnet pull``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from edge_resnet.cli._console import BarProgress, JsonFlag, print_json, say
from edge_resnet.cli._registry import Name, Place
from edge_resnet.cli._trust import Trust


def run(
    registry: Place,
    output: Annotated[Path, typer.Option("-o", "--output", help="The bundle to write.")],
    name: Name = None,
    trust: Trust = None,
    json: JsonFlag = False,
) -> None:
    """Fetches a bundle from a registry, whole and trusted or not at all; a broken pull goes on where it was.

    Example: `edge-resnet pull s3://robots/models shelf-camera:v3 -o model.edge --trust keys/`
    """
    from edge_resnet.registry import located, pull

    done = pull(*located(registry, name), output, BarProgress(), trust)
    if json:
        print_json(done.to_json())
    else:
        say(
            f"wrote {output}: {done.reference}, {done.bytes / 1e6:.1f} MB, of which {done.fetched / 1e6:.1f} MB came now"
        )
