"""``edge-resnet classify``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from edge_resnet.classifier import Classifier
from edge_resnet.cli._console import JsonFlag, print_json, print_table, say
from edge_resnet.cli._trust import Trust
from edge_resnet.images import image_files


def run(
    bundle: Annotated[Path, typer.Argument(help="A `.edge` bundle.")],
    images: Annotated[list[Path], typer.Argument(metavar="IMAGE…", help="Image files, or folders of them.")],
    target: Annotated[str | None, typer.Option(help="Which engine; by default the fastest that runs here.")] = None,
    top: Annotated[int, typer.Option(min=1, help="How many classes to show.")] = 5,
    trust: Trust = None,
    json: JsonFlag = False,
) -> None:
    """Classifies images with a bundle.

    Example: `edge-resnet classify model.edge photo.jpg --top 3`
    """
    paths = image_files(images)
    with Classifier(bundle, target=target, trust=trust) as classify:
        found = [(path, classify(path).top(top)) for path in paths]
        engine = classify.target
    if json:
        print_json(
            [
                {
                    "image": str(path),
                    "predictions": [
                        {"label": p.label, "index": p.index, "probability": p.probability} for p in predictions
                    ],
                }
                for path, predictions in found
            ]
        )
        return
    rows = [
        (path, p.label, f"{100 * p.probability:.1f} %", "█" * round(20 * p.probability))
        for path, predictions in found
        for p in predictions
    ]
    print_table(None, ("image", "label", "probability", ""), rows)
    say(f"engine: {engine}")
