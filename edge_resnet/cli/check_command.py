"""``edge-resnet check``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from edge_resnet.cli._accuracy import print_accuracy
from edge_resnet.cli._console import BarProgress, Images, JsonFlag, Limit, print_json
from edge_resnet.cli._trust import Trust
from edge_resnet.cli._workforce import Ray, working
from edge_resnet.images import open_images


def run(
    source: Annotated[Path, typer.Argument(metavar="BUNDLE|Q.onnx", help="What to judge.")],
    images: Images,
    reference: Annotated[Path | None, typer.Option(metavar="F.onnx", help="FP32; a bundle holds its own.")] = None,
    target: Annotated[str | None, typer.Option(help="Which engine of a bundle; by default its first.")] = None,
    max_drop: Annotated[
        float, typer.Option(metavar="P", min=0, max=100, help="Points of top-1 that may be lost.")
    ] = 1.0,
    strict: Annotated[bool, typer.Option(help="Fail when there are too few images to be sure.")] = False,
    limit: Limit = None,
    trust: Trust = None,
    ray: Ray = None,
    json: JsonFlag = False,
) -> None:
    """Runs FP32 and the engine on the same images: accuracy, agreement, and whether the drop is small enough.

    Where the engine's device is missing, its Q/DQ graph is evaluated exactly in its place: `predicted`.

    Example: `edge-resnet check model.edge --images test/ --max-drop 0.5`
    """
    from edge_resnet.check import Gate, require_passed
    from edge_resnet.checking import Judged, check_file

    chosen, bars = open_images(images, limit), BarProgress()
    with working(ray, bars) as workforce, bars.stage("check", len(chosen)):
        report = check_file(Judged(source, reference, target, trust), chosen, Gate(max_drop, strict), bars, workforce)
    if json:
        print_json({**report.to_json(), "notes": bars.notes})
    else:
        print_accuracy(report)
    require_passed(report)
