"""``edge-resnet calibrate``."""

from __future__ import annotations

import os
import time
from dataclasses import replace
from pathlib import Path
from typing import Annotated

import typer

from edge_resnet.cli._console import BarProgress, Images, JsonFlag, Limit, print_json, say
from edge_resnet.cli._preprocessing import Mean, Resize, Side, Spec, Std, network_of, preprocessing_of
from edge_resnet.cli._workforce import Ray, working
from edge_resnet.images import open_images
from edge_resnet.output import check_writable, write_atomically
from edge_resnet.recipe import METHODS
from edge_resnet.stages import peak_mb


def run(
    model: Annotated[Path, typer.Argument(metavar="F.onnx", help="FP32 ONNX, from `edge-resnet export` or elsewhere.")],
    images: Images,
    output: Annotated[Path, typer.Option("-o", "--output", help="The calibration table to write.")],
    method: Annotated[str, typer.Option(metavar="|".join(METHODS), help="How a range is chosen.")] = "mse",
    limit: Limit = None,
    preprocessing: Spec = None,
    size: Side = None,
    resize: Resize = None,
    mean: Mean = None,
    std: Std = None,
    ray: Ray = None,
    json: JsonFlag = False,
) -> None:
    """Collects the range of every tensor over images, in constant memory.

    Example: `edge-resnet calibrate r50.onnx --images train/ --limit 512 -o r50.table.json`
    """
    from edge_resnet.calibration_images import coverage_note

    check_writable(output, model)
    given = preprocessing_of(preprocessing, None if size is None else (size, size), resize, mean, std)
    network = network_of(model, given)
    chosen, bars, start = open_images(images, limit), BarProgress(), time.perf_counter()
    with working(ray, bars) as workforce, bars.stage("calibrate", len(chosen)):
        made = workforce.calibrate(network.model, chosen, network.preprocessing, method, bars.advance)
    table = replace(made, images={**made.images, "path": os.path.relpath(images, output.parent)})
    write_atomically(output, table.to_json().encode())
    for note in (*network.changes, coverage_note(chosen, network)):
        if note is not None:
            bars.note(note)
    seconds = time.perf_counter() - start
    if json:
        print_json(
            {
                "table": str(output),
                "method": method,
                "images": len(chosen),
                "seconds": seconds,
                "peak_mb": peak_mb(),
                "notes": bars.notes,
            }
        )
    else:
        say(
            f"wrote {output}: {len(table.ranges)} tensors over {len(chosen)} images in {seconds:.1f} s, {peak_mb():.0f} MB"
        )
