"""``edge-resnet sensitivity``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from edge_resnet.cli._console import BarProgress, JsonFlag, print_json, print_table, say


def run(
    model: Annotated[Path, typer.Argument(metavar="F.onnx", help="The FP32 ONNX that was calibrated.")],
    table: Annotated[Path, typer.Option(help="Calibration table from `edge-resnet calibrate`.")],
    images: Annotated[
        Path | None, typer.Option(metavar="DIR", help="The calibration images, where they have moved.")
    ] = None,
    limit: Annotated[int, typer.Option("--limit", metavar="N", min=1, help="Images to measure on.")] = 64,
    scheme: Annotated[str, typer.Option(metavar="tensorrt|cpu", help="The family of engines.")] = "tensorrt",
    sqnr: Annotated[
        float | None, typer.Option(metavar="DB", help="Name the layers to leave float to reach this logit SQNR.")
    ] = None,
    json: JsonFlag = False,
) -> None:
    """Quantizes each layer alone and shows what it costs: which layers to leave float, if any.

    The input is exact, as `quantize` makes it; its other refinements are left out here.

    Example: `edge-resnet sensitivity r50.onnx --table r50.table.json --sqnr 30`
    """
    from edge_resnet.calibration.refine import exact_input
    from edge_resnet.calibration.schemes import scheme_named
    from edge_resnet.calibration.sensitivity import float_layers, sensitivities
    from edge_resnet.quantize_files import open_calibrated, open_table, refinement_frames

    ranges, wanted = open_table(table), scheme_named(scheme)
    network = open_calibrated(model, ranges)
    frames = refinement_frames(ranges, table.parent, images, limit)
    bars = BarProgress()
    with bars.stage("sensitivity"):
        found = sensitivities(exact_input(network.model, ranges), wanted, frames, bars.update_phase)
    total = sum(each.macs for each in found)
    mixed = None if sqnr is None else float_layers(found, sqnr)
    if json:
        layers = [
            {"layer": e.layer, "macs": e.macs, "noise": e.noise, "sqnr_db": e.sqnr_db if e.noise > 0 else None}
            for e in found
        ]
        chosen = None if mixed is None else {"layers": list(mixed.keep_float), "macs_share": mixed.macs_share}
        print_json({"images": len(frames), "scheme": scheme, "layers": layers, "keep_float": chosen})
        return
    rows = [
        (each.layer, f"{100 * each.macs / total:.1f} %", f"{each.sqnr_db:.1f} dB")
        for each in sorted(found, key=lambda each: -each.noise)
    ]
    print_table(f"Each layer of {model} in INT8 alone", ("layer", "of all MACs", "logit SQNR"), rows)
    if mixed is not None:
        layers_text = " ".join(f"--keep-float {name}" for name in mixed.keep_float) or "none"
        say(f"to reach {sqnr:g} dB leave float, {100 * mixed.macs_share:.1f} % of MACs: {layers_text}")
