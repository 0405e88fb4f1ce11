"""``edge-resnet sign``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from edge_resnet.cli._console import JsonFlag, print_json, say
from edge_resnet.cli._trust import passphrase
from edge_resnet.signing import load_key, sign_bundle
from edge_resnet.trust import SHOWN


def run(
    bundle: Annotated[Path, typer.Argument(help="A `.edge` bundle, which is signed in its place.")],
    key: Annotated[Path, typer.Option(metavar="NAME.key", help="The private key, from `edge-resnet keygen`.")],
    json: JsonFlag = False,
) -> None:
    """Signs a bundle. Its digest and members stay as they are, and other keys' signatures too: a device needs one of them.

    Example: `edge-resnet sign model.edge --key release.key`
    """
    signed = sign_bundle(bundle, load_key(key, passphrase))
    keys = [each.key for each in signed.signatures]
    if json:
        print_json({"bundle": str(bundle), "digest": signed.digest, "signed_by": keys})
    else:
        say(f"signed {bundle}: by {', '.join(each[:SHOWN] for each in keys)}")
