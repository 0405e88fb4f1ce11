"""``edge-resnet report``."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Annotated

import typer

from edge_resnet.cli._console import BarProgress, JsonFlag, print_json, say
from edge_resnet.cli._trust import Trust
from edge_resnet.output import check_writable


def run(
    first: Annotated[Path, typer.Argument(metavar="A.edge", help="A bundle.")],
    second: Annotated[Path | None, typer.Argument(metavar="B.edge", help="Another, to stand beside it.")] = None,
    images: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="Evaluation images: which answers changed, with pictures. `build` has them."),
    ] = None,
    limit: Annotated[int | None, typer.Option(metavar="N", min=1, help="Draw N images, evenly over classes.")] = None,
    output: Annotated[
        Path | None, typer.Option("-o", "--output", help="The page; by default A.report.html beside A.edge.")
    ] = None,
    trust: Trust = None,
    json: JsonFlag = False,
) -> None:
    """Writes one HTML file about a bundle: verdict, changed answers, noise and range of every layer, speed, sources.

    It holds all that it shows and runs no script. Latency is measured here and now, for the engines that run here.

    Example: `edge-resnet report model.edge --images test/ -o report.html`
    """
    from edge_resnet.images import open_images
    from edge_resnet.report.making import write_report
    from edge_resnet.report.page import report_path

    place = output or report_path(first)
    bundles = [path for path in (first, second) if path is not None]
    check_writable(place, *bundles)
    start = time.perf_counter()
    found = None if images is None else open_images(images, limit)
    written = write_report(bundles, place, found, BarProgress(), trust)
    seconds = time.perf_counter() - start
    if json:
        print_json({"report": str(place), "bytes": written, "seconds": seconds})
    else:
        say(f"wrote {place}: {written / 1e6:.2f} MB")
