"""``edge-resnet verify``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from edge_resnet.cli._console import JsonFlag, print_json, say
from edge_resnet.cli._trust import Trust
from edge_resnet.errors import TrustError
from edge_resnet.verification import verify_file


def run(
    bundle: Annotated[Path, typer.Argument(help="A `.edge` bundle.")], trust: Trust = None, json: JsonFlag = False
) -> None:
    """Whether a trusted key has signed a bundle and the engines beside it. Nothing is run; `info --verify` runs them.

    Example: `edge-resnet verify model.edge --trust keys/`
    """
    found = verify_file(bundle, trust)
    if json:
        print_json(found.to_json())
    if found.why is not None:
        raise TrustError(found.why)
    if not json:
        beside = f", and so are its engines for {', '.join(found.engines)}" if found.engines else ""
        say(f"{bundle} is signed by {', '.join(found.signed_by)}{beside}")
