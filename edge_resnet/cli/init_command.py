"""``edge-resnet init``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from edge_resnet.cli._console import JsonFlag, print_json, say
from edge_resnet.recipe import write_recipe_template


def run(
    folder: Annotated[Path, typer.Argument(metavar="[DIR]", help="Where; it must exist.")] = Path(),
    json: JsonFlag = False,
) -> None:
    """Writes a commented `edge-resnet.toml` to fill in.

    Example: `edge-resnet init my-robot`
    """
    path = write_recipe_template(folder)
    if json:
        print_json({"recipe": str(path)})
    else:
        say(f"wrote {path}: fill in the paths, then run `edge-resnet build {path} --precision int8`")
