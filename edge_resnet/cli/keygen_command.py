"""``edge-resnet keygen``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from edge_resnet.cli._console import JsonFlag, print_json, say
from edge_resnet.cli._trust import new_passphrase
from edge_resnet.signing import make_keys


def run(
    name: Annotated[Path, typer.Argument(help="Of both files, without suffix.")],
    passphrase: Annotated[
        bool, typer.Option("--passphrase", help="Ask for one; EDGE_RESNET_PASSPHRASE gives it where nobody can type.")
    ] = False,
    json: JsonFlag = False,
) -> None:
    """Makes a key: `NAME.key` signs and stays secret, `NAME.pub` goes to whoever shall trust it. Neither is ever replaced.

    Example: `edge-resnet keygen release --passphrase`
    """
    made = make_keys(name, new_passphrase(passphrase))
    if json:
        print_json({"private": str(made.private), "public": str(made.public), "key": made.key})
    else:
        say(f"wrote {made.private}, which signs: keep it secret")
        say(f"wrote {made.public}: put it into the folder of keys that a device trusts")
