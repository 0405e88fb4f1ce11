"""``edge-resnet quantize``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from edge_resnet.cli._console import BarProgress, JsonFlag, Limit, print_json, say
from edge_resnet.errors import CalibrationError
from edge_resnet.output import check_writable


def run(
    model: Annotated[Path, typer.Argument(metavar="F.onnx", help="The FP32 ONNX that was calibrated.")],
    table: Annotated[Path, typer.Option(help="Calibration table from `edge-resnet calibrate`.")],
    output: Annotated[Path, typer.Option("-o", "--output", help="The Q/DQ ONNX to write.")],
    scheme: Annotated[str, typer.Option(metavar="tensorrt|cpu", help="The family of engines.")] = "tensorrt",
    images: Annotated[
        Path | None, typer.Option(metavar="DIR", help="The calibration images; refinement looks at them again.")
    ] = None,
    limit: Limit = None,
    effort: Annotated[str, typer.Option(metavar="fast|standard|best", help="How far to refine.")] = "standard",
    keep_float: Annotated[list[str] | None, typer.Option(help="A layer to leave float; may be repeated.")] = None,
    json: JsonFlag = False,
) -> None:
    """Refines a network and inserts Q/DQ: the INT8 ONNX that engines are compiled from.

    Example: `edge-resnet quantize r50.onnx --table r50.table.json --images train/ -o r50.qdq.onnx`
    """
    from edge_resnet.adoption import open_network
    from edge_resnet.calibration.quantize import frames_wanted, quantize
    from edge_resnet.calibration.schemes import scheme_named
    from edge_resnet.calibration.table import CalibrationTable
    from edge_resnet.onnx_file import save_onnx
    from edge_resnet.quantize_files import refinement_frames, table_preprocessing, with_provenance

    check_writable(output)
    if not table.is_file():
        raise CalibrationError(f"no calibration table at {table}: make one with `edge-resnet calibrate`")
    ranges, wanted = CalibrationTable.from_json(table.read_bytes(), str(table)), scheme_named(scheme)
    network = open_network(model, table_preprocessing(ranges))
    loaded = network.model
    ranges.check_fits(loaded)
    bars = BarProgress()
    with bars.stage("quantize"):
        count = frames_wanted(effort, (*network.preprocessing.size, network.preprocessing.channels))
        frames = refinement_frames(ranges, table.parent, images, min(count, limit or count)) if count else None
        made = quantize(loaded, ranges, wanted, frames, tuple(keep_float or ()))
    save_onnx(with_provenance(made.model, ranges), output)
    if json:
        print_json(
            {
                "onnx": str(output),
                "scheme": made.scheme,
                "quantized_layers": list(made.quantized_layers),
                "kept_float": list(made.kept_float),
            }
        )
    else:
        say(f"wrote {output}: {len(made.quantized_layers)} layers INT8, float: {', '.join(made.kept_float) or 'none'}")
