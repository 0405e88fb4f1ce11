"""``edge-resnet sensitivity``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from edge_resnet.cli._console import BarProgress, JsonFlag, check_picture, print_json, print_table, say
from edge_resnet.cli._workforce import Ray, working
from edge_resnet.errors import RecipeError
from edge_resnet.output import write_atomically

if TYPE_CHECKING:
    from edge_resnet.calibration.sensitivity import MixedPrecision, Sensitivity


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
    max_drop: Annotated[
        float | None,
        typer.Option(
            metavar="P", help="In the place of --sqnr: points of top-1 that may be lost, were each change one."
        ),
    ] = None,
    plot: Annotated[Path | None, typer.Option(metavar="F.png", help="Draw it; needs the extra `plots`.")] = None,
    ray: Ray = None,
    json: JsonFlag = False,
) -> None:
    """Quantizes each layer alone and shows what it costs: which layers to leave float, if any.

    The input is exact, as `quantize` makes it; its other refinements are left out here.

    Example: `edge-resnet sensitivity r50.onnx --table r50.table.json --max-drop 0.5 --plot r50.png`
    """
    from edge_resnet.calibration.refine import exact_input
    from edge_resnet.calibration.schemes import scheme_named
    from edge_resnet.calibration.sensitivity import float_layers
    from edge_resnet.quantize_files import open_calibrated, open_table, refinement_frames

    least = _least_sqnr(sqnr, max_drop)
    if plot is not None:
        check_picture(plot, model, table)
    ranges, wanted = open_table(table), scheme_named(scheme)
    network = open_calibrated(model, ranges)
    frames = refinement_frames(ranges, table.parent, images, limit)
    bars = BarProgress()
    refined = exact_input(network.model, ranges)
    with working(ray, bars) as workforce, bars.stage("sensitivity"):
        found = workforce.sensitivities(refined, wanted, frames, bars.update_phase)
    mixed = None if least is None else float_layers(found, least)
    if plot is not None:
        _draw(plot, f"{model.name}: each layer in INT8 alone ({scheme}, {len(frames)} images)", found, mixed)
    if json:
        layers = [_row(each, ours=network.architecture is not None) for each in found]
        chosen = None if mixed is None else {"layers": list(mixed.keep_float), "macs_share": mixed.macs_share}
        drawn = None if plot is None else str(plot)
        print_json({"images": len(frames), "scheme": scheme, "layers": layers, "keep_float": chosen, "plot": drawn})
        return
    _show(model, found)
    if mixed is not None:
        layers_text = " ".join(f"--keep-float {name}" for name in mixed.keep_float) or "none"
        say(f"to reach {least:.4g} dB leave float, {100 * mixed.macs_share:.1f} % of MACs: {layers_text}")
    if plot is not None:
        say(f"wrote {plot}")


def _least_sqnr(sqnr: float | None, max_drop: float | None) -> float | None:
    from edge_resnet.calibration.sensitivity import sqnr_for_drop

    if sqnr is not None and max_drop is not None:
        raise RecipeError("--sqnr and --max-drop ask for the same thing: give one of them")
    return sqnr if max_drop is None else sqnr_for_drop(max_drop)


def _draw(plot: Path, title: str, found: tuple[Sensitivity, ...], mixed: MixedPrecision | None) -> None:
    from edge_resnet.sensitivity_plot import sensitivity_png

    write_atomically(plot, sensitivity_png(found, () if mixed is None else mixed.keep_float, title))


def _row(layer: Sensitivity, *, ours: bool) -> dict[str, object]:
    """An element of ``layers`` in the JSON. Our exporter names nodes by their torch modules; others name as they like."""
    return {
        "layer": layer.layer,
        "module": layer.layer if ours else None,
        "macs": layer.macs,
        "noise": layer.noise,
        "sqnr_db": layer.sqnr_db if layer.noise > 0 else None,
    }


def _show(model: Path, found: tuple[Sensitivity, ...]) -> None:
    total = sum(each.macs for each in found)
    rows = [
        (each.layer, f"{100 * each.macs / total:.1f} %", f"{each.sqnr_db:.1f} dB")
        for each in sorted(found, key=lambda each: -each.noise)
    ]
    print_table(f"Each layer of {model} in INT8 alone", ("layer", "of all MACs", "logit SQNR"), rows)
