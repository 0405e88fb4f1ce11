"""``edge-resnet compile``."""

from __future__ import annotations

import shlex
import time
from pathlib import Path
from typing import Annotated

import typer

from edge_resnet.cli._console import BarProgress, JsonFlag, print_json, print_table, say
from edge_resnet.cli._handover import Jetpack
from edge_resnet.errors import EngineError
from edge_resnet.output import check_writable


def run(
    source: Annotated[Path, typer.Argument(metavar="Q.onnx|BUNDLE", help="Q/DQ or FP32 ONNX, or a bundle.")],
    target: Annotated[str, typer.Option(help="The device; see `edge-resnet devices`.")],
    output: Annotated[Path | None, typer.Option("-o", "--output", help="The engine to write.")] = None,
    explain: Annotated[
        bool, typer.Option("--explain", help="Print the trtexec line that compiles the same, and compile nothing.")
    ] = False,
    jetpack: Jetpack = None,
    json: JsonFlag = False,
) -> None:
    """Compiles an engine for a device. A bundle is not edited: the engine is written beside it, with a record.

    Example: `edge-resnet compile model.edge --target jetson-orin-nano`
    """
    from edge_resnet.compiling import compile_source, default_output, write_engine

    if explain and output is not None:
        raise EngineError("--explain writes nothing: leave -o out")
    if jetpack is not None and not explain:
        raise EngineError("--jetpack is for --explain: what compiles here is the TensorRT that is installed")
    if explain:
        _explain(source, target, jetpack, json)
        return
    place = output or default_output(source, target)
    check_writable(place, source)
    bars, start = BarProgress(), time.perf_counter()
    with bars.stage(f"compile for {target}"):
        made = compile_source(source, target, bars.update_phase)
    seconds = time.perf_counter() - start
    write_engine(made, place)
    layers = [{"name": layer.name, "precision": layer.precision} for layer in made.compiled.layers]
    if json:
        print_json({"engine": str(place), "kind": made.compiled.kind, "seconds": seconds, "layers": layers})
        return
    counts: dict[str, int] = {}
    for layer in made.compiled.layers:
        counts[layer.precision] = counts.get(layer.precision, 0) + 1
    print_table(f"Layers of {place}", ("precision", "layers"), sorted(counts.items()))
    say(f"wrote {place}: {len(made.compiled.data) / 1e6:.1f} MB in {seconds:.1f} s")


def _explain(source: Path, target: str, jetpack: str | None, json: bool) -> None:
    from edge_resnet.handover import HandoverOrder, hand_over

    made = hand_over(HandoverOrder(source, target, jetpack))
    makes = (
        f"edge-resnet export-trtexec {source} --target {made.target.name} --jetpack {made.jetpack.version} -o FOLDER"
    )
    if json:
        print_json({**made.to_json(), "files_from": makes})
        return
    say(shlex.join(made.command))
    say(f"for TensorRT {made.jetpack.tensorrt} (JetPack {made.jetpack.version}); `{makes}` writes model.onnx")
