"""``edge-resnet export-trtexec``."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Annotated

import typer

from edge_resnet.cli._console import JsonFlag, print_json, say
from edge_resnet.cli._handover import Jetpack
from edge_resnet.output import check_new, write_folder


def run(
    source: Annotated[
        Path, typer.Argument(metavar="BUNDLE|Q.onnx|F.onnx", help="A bundle, or ONNX; with --table, FP32 ONNX.")
    ],
    target: Annotated[str, typer.Option(help="The Jetson; see `edge-resnet devices`.")],
    output: Annotated[Path, typer.Option("-o", "--output", metavar="FOLDER", help="The folder to write.")],
    jetpack: Jetpack = None,
    implicit: Annotated[
        bool,
        typer.Option("--calibration-cache", help="INT8 by TensorRT's calibration cache, in the place of Q/DQ."),
    ] = False,
    table: Annotated[
        Path | None,
        typer.Option(metavar="T.json", help="A calibration table of F.onnx, to be that cache; DLA needs it so."),
    ] = None,
    max_batch: Annotated[int | None, typer.Option(metavar="N", min=1, help="The largest batch; 8 by default.")] = None,
    opt_batch: Annotated[
        int | None, typer.Option(metavar="N", min=1, help="The batch to choose kernels for; 1 by default.")
    ] = None,
    dla_core: Annotated[
        int | None, typer.Option(metavar="N", min=0, help="Run on this DLA, with batches of --opt-batch alone.")
    ] = None,
    workspace: Annotated[
        int | None, typer.Option(metavar="MIB", min=1, help="Scratch memory that kernels may take.")
    ] = None,
    json: JsonFlag = False,
) -> None:
    """Hands a network to a Jetson that compiles it with NVIDIA's trtexec: JetPack 5, or DLA. No Python is needed there.

    The folder has the ONNX, build.sh with the trtexec line, labels, preprocessing as JSON and a README.

    Example: `edge-resnet export-trtexec model.edge --target jetson-xavier-nx -o xavier`
    """
    from edge_resnet.handover import HandoverOrder, hand_over, trtexec_options

    check_new(output)
    options = trtexec_options(max_batch, opt_batch, dla_core, workspace)
    made = hand_over(HandoverOrder(source, target, jetpack, implicit, table, options))
    write_folder(output, made.files)
    if json:
        print_json({"folder": str(output), **made.to_json(), "files": sorted(made.files)})
        return
    say(f"wrote {output}: {', '.join(sorted(made.files))}")
    say(f"copy it to a {made.target.description} with JetPack {made.jetpack.version} and run there: sh build.sh")
    say(shlex.join(made.command))
