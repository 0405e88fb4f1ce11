"""``edge-resnet push``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from edge_resnet.cli._console import BarProgress, JsonFlag, print_json, say
from edge_resnet.cli._registry import Name, Place
from edge_resnet.cli._trust import Trust


def run(
    bundle: Annotated[Path, typer.Argument(metavar="F.edge", help="The bundle to send.")],
    registry: Place,
    name: Name = None,
    trust: Trust = None,
    json: JsonFlag = False,
) -> None:
    """Sends a bundle to a registry under a name. What is there already is not sent again, so a broken push goes on.

    Example: `edge-resnet push model.edge s3://robots/models shelf-camera:v3`
    """
    from edge_resnet.registry import located, push

    done = push(bundle, *located(registry, name), BarProgress(), trust)
    if json:
        print_json(done.to_json())
    else:
        say(f"{done.reference} is {bundle}, {done.bytes / 1e6:.1f} MB, of which {done.sent / 1e6:.1f} MB were sent")
