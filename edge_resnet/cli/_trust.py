"""Keys on the command line: whom to trust, what to sign with, and its passphrase, which is never an argument."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Annotated

import typer

from edge_resnet.errors import EdgeResnetError
from edge_resnet.signing import PASSPHRASE


def given_keys(text: str) -> Path:
    """A path, which is never empty text, as a lost variable gives it: that would be the current folder."""
    if not text:
        raise typer.BadParameter("it is empty: give a folder of `.pub` files, or one, or leave --trust out")
    return Path(text)


Trust = Annotated[
    Path | None,
    typer.Option(
        "--trust",
        parser=given_keys,
        metavar="KEYS",
        help="Take only bundles signed by one of these: a folder of `.pub` files, or one. EDGE_RESNET_TRUST always does.",
    ),
]
SignWith = Annotated[
    Path | None,
    typer.Option("--sign-with", metavar="NAME.key", help="Sign the engine, for a device that trusts this key."),
]


def new_passphrase(wanted: bool) -> str | None:
    """That of a key to be made: the environment's, else typed twice if it is wanted, else none."""
    given = os.environ.get(PASSPHRASE)
    if given is not None or not wanted:
        return given
    return _typed(twice=True)


def passphrase() -> str:
    """That of a key to be opened, typed."""
    return _typed(twice=False)


def _typed(*, twice: bool) -> str:
    if not sys.stdin.isatty():
        raise EdgeResnetError(f"the key needs a passphrase, and nobody is there to type it: set {PASSPHRASE}")
    return str(typer.prompt("Passphrase", hide_input=True, confirmation_prompt=twice, err=True))
