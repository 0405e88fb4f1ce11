"""Options that `compile --explain` and `export-trtexec` share."""

from __future__ import annotations

from typing import Annotated

import typer

Jetpack = Annotated[
    str | None,
    typer.Option(
        "--jetpack", metavar="VERSION", help="On the device, as 6.2; by default this device's, or the newest."
    ),
]
