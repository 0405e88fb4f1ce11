"""Every architecture through the line: exported, quantized, compiled by the real TensorRT-RTX builder, run on the CPU.

    python benchmarks/architectures.py                # all of them: about ten minutes
    python benchmarks/architectures.py resnet50 resnet50v2
    python benchmarks/architectures.py resnet20 resnet20:B resnet20:C     # with other shortcuts

Weights are random, with the BatchNorm statistics of a forward pass, so no accuracy is told: what is counted depends on the
layers alone. ``INT8`` are the layers that the builder's own list shows as INT8 of those that shall be; it must be all of
them. Engines are built for RTX 30 (SM 86), at batch 1 to 8.
"""

from __future__ import annotations

import time
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import onnx
from _common import Row, Table, parser, randomised, report, sqnr_db

from edge_resnet.calibration.collect import collect
from edge_resnet.calibration.qdq import insert_qdq
from edge_resnet.calibration.schemes import scheme_named
from edge_resnet.calibration.simulate import exact_session, run_frames
from edge_resnet.engines.ort import OrtEngine
from edge_resnet.engines.targets import target_named
from edge_resnet.engines.trt_rtx import TensorRtRtxEngine
from edge_resnet.export import export_onnx
from edge_resnet.lowering import Lowered
from edge_resnet.models import ARCHITECTURES, measure
from edge_resnet.onnx_file import serialise
from edge_resnet.preprocessing import Color, Crop, Interpolation, Preprocessing

TARGET = "rtx-30"
HEADER = (
    "architecture",
    "parameters",
    "GMAC",
    "FP32 MB",
    "INT8 MB",
    "Q/DQ pairs",
    "INT8",
    "kernels",
    "compiled in",
    "CPU engine",
)
FRAMES = 4


@dataclass(frozen=True)
class Compiled:
    """What the two compilers made of one network."""

    pairs: int
    int8_layers: int
    asked: int
    kernels: int
    seconds: float
    int8_mb: float
    cpu_db: float
    """Of the CPU engine's logits against its own graph, evaluated exactly."""


def compiled(name: str, model: onnx.ModelProto, frames: npt.NDArray[np.uint8]) -> Compiled:
    table = collect(model, [frames[:2], frames[2:]], method="minmax", images={}, preprocessing={})
    target = target_named(TARGET).at("int8")
    quantized = insert_qdq(model, table, scheme_named("tensorrt"))
    lowered = Lowered.quantized(quantized, TensorRtRtxEngine)
    start = time.perf_counter()
    engine = TensorRtRtxEngine.compile(lowered.compiled_from, target)
    seconds = time.perf_counter() - start
    covered = {source for layer in engine.layers if layer.precision == "int8" for source in layer.sources}
    for_cpu = insert_qdq(model, table, scheme_named("cpu")).model
    with OrtEngine(serialise(for_cpu)) as cpu:
        answers = cpu.run(frames[:1])
    return Compiled(
        pairs=sum(node.op_type == "QuantizeLinear" for node in quantized.model.graph.node),
        int8_layers=len(covered & set(quantized.quantized_layers)),
        asked=len(quantized.quantized_layers),
        kernels=len(engine.layers),
        seconds=seconds,
        int8_mb=len(serialise(quantized.model)) / 1e6,
        cpu_db=sqnr_db(run_frames(exact_session(for_cpu), frames[:1]), answers),
    )


def row(argument: str) -> Row:
    name, _, shortcut = argument.partition(":")
    network = randomised(name, shortcut or None)
    architecture = network.architecture
    side = (architecture.size, architecture.size)
    size = measure(architecture)
    spec = Preprocessing(side, None, Crop.NONE, Interpolation.BILINEAR, Color.RGB, (0.5,) * 3, (0.25,) * 3)
    model = export_onnx(network, spec)
    found = compiled(name, model, np.random.default_rng(0).integers(0, 256, (FRAMES, *side, 3), np.uint8))
    print(f"{argument}: compiled in {found.seconds:.1f} s", flush=True)
    return (
        argument,
        f"{size.parameters:,}",
        f"{size.gmac:.3f}",
        f"{len(serialise(model)) / 1e6:.1f}",
        f"{found.int8_mb:.1f}",
        str(found.pairs),
        f"{found.int8_layers} of {found.asked}",
        str(found.kernels),
        f"{found.seconds:.1f} s",
        f"{found.cpu_db:.0f} dB",
    )


def main() -> None:
    arguments = parser(__doc__)
    arguments.add_argument("names", nargs="*", metavar="NAME[:SHORTCUT]", help="by default all architectures")
    args = arguments.parse_args()
    rows = [row(name) for name in args.names or ARCHITECTURES]
    report([Table(f"Every architecture, compiled for {TARGET}", HEADER, rows)], args.json)


if __name__ == "__main__":
    main()
