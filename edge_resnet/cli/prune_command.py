"""``edge-resnet prune``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from edge_resnet.cli._compression import print_compression
from edge_resnet.cli._console import BarProgress, JsonFlag, Limit, print_json, say
from edge_resnet.compression.options import SPARSITIES, PruneOptions
from edge_resnet.output import check_writable


def run(
    model: Annotated[Path, typer.Argument(metavar="F.onnx", help="An FP32 ONNX with its preprocessing inside.")],
    images: Annotated[Path, typer.Option(metavar="DIR", help="Images to fine-tune on; no labels are needed.")],
    output: Annotated[Path, typer.Option("-o", "--output", help="The smaller FP32 ONNX to write.")],
    macs: Annotated[float | None, typer.Option(help="Share of the multiply-adds to keep, such as 0.7.")] = None,
    sparsity: Annotated[
        str | None, typer.Option(metavar="|".join(SPARSITIES), help="Two of every four weights become 0.")
    ] = None,
    rounds: Annotated[int, typer.Option(help="Take channels out in so many parts.")] = PruneOptions.rounds,
    steps: Annotated[
        int, typer.Option(help="Steps of each fine-tuning, 32 images each; 0: none.")
    ] = PruneOptions.steps,
    check: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Other images, labelled, to judge each step on.")
    ] = None,
    limit: Limit = None,
    json: JsonFlag = False,
) -> None:
    """Makes a network smaller before it is calibrated: takes channels out, makes weights 2:4 sparse, and fine-tunes.

    Example: `edge-resnet prune r50.onnx --images train/ --macs 0.7 --sparsity 2:4 --check test/ -o small.onnx`
    """
    from edge_resnet.adoption import open_network
    from edge_resnet.calibration_images import labelled
    from edge_resnet.compressing import compress_network
    from edge_resnet.images import open_images
    from edge_resnet.onnx_file import save_onnx
    from edge_resnet.stage_cache import NO_CACHE
    from edge_resnet.stages import Stages

    wanted = PruneOptions(macs, sparsity, rounds, steps)
    check_writable(output, model)
    bars = BarProgress()
    network = open_network(model, None)
    evaluation = None if check is None else open_images(check)
    if evaluation is not None and network.labels is not None:
        evaluation = labelled(evaluation, network.labels, bars)
    found = compress_network(None, network, wanted, open_images(images, limit), evaluation, Stages(bars, NO_CACHE))
    save_onnx(found.network.model, output)
    if json:
        print_json({"onnx": str(output), **found.to_json(), "notes": bars.notes})
    else:
        print_compression(found)
        say(f"wrote {output}")
