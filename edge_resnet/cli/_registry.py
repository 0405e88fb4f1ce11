"""What the commands of a registry share."""

from __future__ import annotations

from typing import Annotated

import typer

Place = Annotated[
    str,
    typer.Argument(
        metavar="REGISTRY",
        help="A folder, a URL that fsspec knows, such as s3://bucket/models, or an OCI registry: oci://HOST/models.",
    ),
]
Name = Annotated[
    str | None,
    typer.Argument(
        metavar="[NAME[:TAG]]",
        help="Its name there, without a tag `latest`; left out, it is the last part of REGISTRY, as in oci://HOST/models/NAME:TAG.",
    ),
]
