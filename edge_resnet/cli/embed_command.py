"""``edge-resnet embed``."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Annotated

import numpy as np
import typer

from edge_resnet.cli._console import JsonFlag, print_json, say
from edge_resnet.cli._trust import Trust
from edge_resnet.embedder import Embedder
from edge_resnet.images import image_files
from edge_resnet.output import check_writable, write_atomically


def run(
    bundle: Annotated[Path, typer.Argument(help="A `.edge` bundle of a network without its classifier.")],
    images: Annotated[list[Path], typer.Argument(metavar="IMAGE…", help="Image files, or folders of them.")],
    output: Annotated[
        Path, typer.Option("-o", "--output", help="The `.npy` file to write: float32, one row an image.")
    ],
    target: Annotated[str | None, typer.Option(help="Which engine; by default the fastest that runs here.")] = None,
    trust: Trust = None,
    json: JsonFlag = False,
) -> None:
    """Turns images into features with a bundle.

    Example: `edge-resnet embed backbone.edge photos/*.jpg -o features.npy`
    """
    check_writable(output, bundle)
    paths = image_files(images)
    with Embedder(bundle, target=target, trust=trust) as embed:
        features = np.stack([embed(path) for path in paths])
        engine = embed.target
    buffer = io.BytesIO()
    np.save(buffer, features, allow_pickle=False)
    write_atomically(output, buffer.getvalue())
    if json:
        print_json({"output": str(output), "images": [str(path) for path in paths], "shape": list(features.shape)})
    else:
        say(f"wrote {output}: {'×'.join(map(str, features.shape))} float32, one row an image; engine: {engine}")
