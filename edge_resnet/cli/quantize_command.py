"""``edge-resnet quantize``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from edge_resnet.cli._console import BarProgress, JsonFlag, Limit, print_json, say
from edge_resnet.output import check_writable

if TYPE_CHECKING:
    from edge_resnet.calibration.qdq import QuantizedModel


def run(
    model: Annotated[Path, typer.Argument(metavar="F.onnx", help="The FP32 ONNX that was calibrated.")],
    table: Annotated[Path, typer.Option(help="Calibration table from `edge-resnet calibrate`.")],
    output: Annotated[Path, typer.Option("-o", "--output", help="The Q/DQ ONNX to write.")],
    scheme: Annotated[str, typer.Option(metavar="tensorrt|fp8|cpu", help="The family of engines.")] = "tensorrt",
    images: Annotated[
        Path | None, typer.Option(metavar="DIR", help="The calibration images; refinement looks at them again.")
    ] = None,
    limit: Limit = None,
    effort: Annotated[
        str, typer.Option(metavar="fast|standard|best", help="Refine with 0, 256 or 512 images.")
    ] = "standard",
    refine: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME", help="Apply this refinement (docs/int8.md) in the place of the usual ones; may be repeated."
        ),
    ] = None,
    keep_float: Annotated[list[str] | None, typer.Option(help="A layer to leave float; may be repeated.")] = None,
    json: JsonFlag = False,
) -> None:
    """Refines a network and inserts Q/DQ: the INT8 ONNX that engines are compiled from.

    Example: `edge-resnet quantize r50.onnx --table r50.table.json --images train/ -o r50.qdq.onnx`
    """
    from edge_resnet.calibration.quantize import chain_wanted, frames_wanted, quantize
    from edge_resnet.calibration.schemes import scheme_named
    from edge_resnet.onnx_file import save_onnx
    from edge_resnet.quantize_files import open_calibrated, open_table, refinement_frames, with_provenance

    wanted = scheme_named(scheme)
    chain = chain_wanted(effort, tuple(refine) if refine else None, wanted)
    count = frames_wanted(effort, chain)
    check_writable(output, model, table)
    ranges = open_table(table)
    loaded = open_calibrated(model, ranges).model
    bars = BarProgress()
    with bars.stage("quantize"):
        frames = refinement_frames(ranges, table.parent, images, min(count, limit or count)) if count else None
        made = quantize(
            loaded,
            ranges,
            wanted,
            frames,
            chain=chain,
            keep_float=tuple(keep_float or ()),
            progress=bars.update_phase,
        )
    save_onnx(with_provenance(made.model, ranges), output)
    if json:
        print_json(_document(made, chain, output))
    else:
        kind, left = wanted.precision.upper(), ", ".join(made.kept_float) or "none"
        say(f"wrote {output}: {len(made.quantized_layers)} layers {kind}, float: {left}")


def _document(made: QuantizedModel, chain: tuple[str, ...], output: Path) -> dict[str, object]:
    return {
        "onnx": str(output),
        "scheme": made.scheme,
        "refinements": list(chain),
        "quantized_layers": list(made.quantized_layers),
        "kept_float": list(made.kept_float),
    }
