"""What the commands of a registry share."""

from __future__ import annotations

from typing import Annotated

import typer

Place = Annotated[
    str, typer.Argument(metavar="REGISTRY", help="A folder, or a URL that fsspec knows, such as s3://bucket/models.")
]
Name = Annotated[str, typer.Argument(metavar="NAME[:TAG]", help="Its name there; without a tag, `latest`.")]
