"""``edge-resnet export-trtexec``."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Annotated

import typer

from edge_resnet.cli._console import JsonFlag, print_json, say
from edge_resnet.cli._engine import Batch, Compatible, Dla, Flags, Hardware, Level, Refit, Strip, Tf32, Workspace
from edge_resnet.cli._handover import Jetpack
from edge_resnet.cli._trust import Trust
from edge_resnet.engines.options import DEFAULTS
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
    batch: Batch = None,
    workspace: Workspace = None,
    optimization_level: Level = None,
    tf32: Tf32 = None,
    version_compatible: Compatible = None,
    hardware_compatible: Hardware = None,
    refit: Refit = None,
    strip_weights: Strip = None,
    dla: Dla = None,
    trust: Trust = None,
    json: JsonFlag = False,
) -> None:
    """Hands a network to a Jetson that compiles it with NVIDIA's trtexec: JetPack 5, or DLA. No Python is needed there.

    The folder has the ONNX, build.sh with the trtexec line, labels, preprocessing as JSON and a README.

    Example: `edge-resnet export-trtexec model.edge --target jetson-xavier-nx -o xavier`
    """
    from edge_resnet.handover import HandoverOrder, hand_over

    check_new(output)
    given = Flags(
        batch, workspace, optimization_level, tf32, version_compatible, hardware_compatible, refit, strip_weights, dla
    )
    made = hand_over(HandoverOrder(source, target, jetpack, implicit, table, given.over(DEFAULTS), trust))
    write_folder(output, made.files)
    if json:
        print_json({"folder": str(output), **made.to_json(), "files": sorted(made.files)})
        return
    say(f"wrote {output}: {', '.join(sorted(made.files))}")
    say(f"copy it to a {made.target.description} with JetPack {made.jetpack.version} and run there: sh build.sh")
    say(shlex.join(made.command))
