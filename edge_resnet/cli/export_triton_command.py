"""``edge-resnet export-triton``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from edge_resnet.cli._console import JsonFlag, print_json, say
from edge_resnet.cli._trust import Trust
from edge_resnet.errors import EngineError


def run(
    bundle: Annotated[Path, typer.Argument(metavar="BUNDLE", help="The bundle; compiled engines lie beside it.")],
    output: Annotated[
        Path, typer.Option("-o", "--output", metavar="REPOSITORY", help="Triton's model repository, new or not.")
    ],
    target: Annotated[str | None, typer.Option(help="Whose engine: a device with TensorRT, or cpu.")] = None,
    onnx: Annotated[bool, typer.Option("--onnx", help="FP32 ONNX, for ONNX Runtime on the GPU, instead.")] = False,
    name: Annotated[str | None, typer.Option(help="The model's name; by default the bundle's.")] = None,
    version: Annotated[int, typer.Option(metavar="N", min=1, help="The model's version.")] = 1,
    max_batch: Annotated[int, typer.Option(metavar="N", min=1, help="As large as the engine takes.")] = 8,
    queue_delay: Annotated[
        int, typer.Option("--queue-delay-us", metavar="N", min=0, help="How long a request may wait for others.")
    ] = 100,
    trust: Trust = None,
    json: JsonFlag = False,
) -> None:
    """Writes a model for NVIDIA's Triton Inference Server: engine, configuration with dynamic batching, labels.

    Requests bring uint8 frames N×H×W×C, ready for the network; the configuration's parameter `preprocessing` says how a
    picture becomes one. The engine must have been compiled by the TensorRT that Triton has, on the same kind of GPU.

    Example: `edge-resnet export-triton model.edge --target jetson-agx-orin -o models`
    """
    from edge_resnet.triton import Batching, triton_model, write_triton

    if (target is None) != onnx:
        raise EngineError("give either --target, whose engine Triton shall run, or --onnx")
    model = triton_model(bundle, target, Batching(max_batch, queue_delay), name, trust)
    place = write_triton(output, model, version)
    if json:
        file = place / model.backend.file
        print_json({"model": model.name, "version": version, "platform": model.backend.platform, "file": str(file)})
        return
    say(f"wrote {place / model.backend.file} ({model.backend.platform}, batches up to {max_batch})")
    say(f"run `tritonserver --model-repository={output.absolute()}`")
