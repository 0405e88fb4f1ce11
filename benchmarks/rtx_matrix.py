"""Every family of networks in every precision for every SM, compiled by the real TensorRT-RTX builder; no GPU is needed.

    python benchmarks/rtx_matrix.py                      # all of it: a few minutes
    python benchmarks/rtx_matrix.py resnet50 resnext50   # two families

Of each architecture the blocks are what counts here, not how many there are: every stage has one. Weights are random, at
64×64 pixels. A cell tells of how many convolutions the builder's own layer list shows in that precision, of those that
shall be; a letter stands for what the builder says where it refuses. The second table counts the kernels of an engine for
SM 89: those of INT8 are more than those of FP16 where scaling, bias and activation are not fused.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from string import ascii_lowercase

import numpy as np
import onnx
import torch
from _common import Row, Table, parser, report
from torch import nn

from edge_resnet.calibration.collect import collect
from edge_resnet.calibration.qdq import insert_qdq
from edge_resnet.calibration.schemes import scheme_named
from edge_resnet.calibration.table import CalibrationTable
from edge_resnet.engines.engine import CompiledEngine
from edge_resnet.engines.targets import target_named
from edge_resnet.engines.trt_rtx import TensorRtRtxEngine
from edge_resnet.errors import EngineError
from edge_resnet.export import export_onnx
from edge_resnet.lowering import FLOAT, QUANTIZED, Lowered
from edge_resnet.models import ARCHITECTURES, ResNet
from edge_resnet.preprocessing import Color, Crop, Interpolation, Preprocessing

FAMILIES = ("resnet20", "plain20", "resnet8", "resnet18", "resnet50", "resnet50v2", "resnext50", "resnet50d")
PRECISIONS = ("fp32", "fp16", "bf16", "int8", "fp8")
SMS = (75, 80, 86, 89, 120)
COUNTED = 89
SIDE = 64


@dataclass(frozen=True)
class Network:
    """One family's, ready for every precision."""

    name: str
    model: onnx.ModelProto
    table: CalibrationTable

    def lowered(self, precision: str) -> Lowered:
        """As the compiler takes it."""
        if precision in FLOAT:
            return FLOAT[precision](self.model)
        scheme = scheme_named(QUANTIZED[precision])
        return Lowered.quantized(insert_qdq(self.model, self.table, scheme), TensorRtRtxEngine)


def network(name: str, side: int = SIDE) -> Network:
    """The architecture with one block a stage, 10 classes and the BatchNorm statistics of a forward pass."""
    torch.manual_seed(0)
    architecture = ARCHITECTURES[name]
    architecture = replace(architecture, depths=(1,) * len(architecture.depths), size=side)
    made = ResNet(architecture, classes=10)
    for module in made.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.momentum = None  # the plain mean of what it sees
    with torch.no_grad():
        made.train()(torch.randn(4, 3, side, side))
    half = (0.5,) * 3
    spec = Preprocessing((side, side), None, Crop.NONE, Interpolation.BILINEAR, Color.RGB, half, half)
    model = export_onnx(made.eval(), spec)
    frames = np.random.default_rng(0).integers(0, 256, (2, side, side, 3), np.uint8)
    return Network(name, model, collect(model, [frames], method="minmax", images={}, preprocessing={}))


def compiled(lowered: Lowered, sm: int) -> CompiledEngine | str:
    """The engine, or what the builder says."""
    target = replace(target_named("rtx"), name=f"SM {sm}", sms=(sm,))
    try:
        return TensorRtRtxEngine.compile(lowered.compiled_from, target)
    except EngineError as error:
        return str(error).removeprefix(f"TensorRT-RTX cannot compile the model for SM {sm}: ")


def covered(network: Network, lowered: Lowered, engine: CompiledEngine) -> str:
    """How many of the convolutions that shall be of the precision are."""
    convolutions = {node.name for node in network.model.graph.node if node.op_type == "Conv"}
    asked = set(lowered.quantized_layers) or convolutions
    found = {name for layer in engine.layers if layer.precision == lowered.precision for name in layer.sources}
    return f"{len(asked & found)} of {len(asked)}"


def main() -> None:
    arguments = parser(__doc__)
    arguments.add_argument("names", nargs="*", metavar="NAME", help=f"by default {' '.join(FAMILIES)}")
    args = arguments.parse_args()
    said: dict[str, str] = {}
    coverage: list[Row] = []
    kernels: list[Row] = []
    for family in map(network, args.names or FAMILIES):
        counts: dict[str, str] = {}
        for precision in PRECISIONS:
            lowered, cells = family.lowered(precision), []
            for sm in SMS:
                made = compiled(lowered, sm)
                if isinstance(made, str):
                    cells.append(said.setdefault(_general(made), ascii_lowercase[len(said) % 26]))
                    continue
                cells.append(covered(family, lowered, made))
                if sm == COUNTED:
                    counts[precision] = str(len(made.layers))
            coverage.append((family.name, precision, *cells))
            print(f"{family.name} {precision}: {', '.join(cells)}", flush=True)
        kernels.append((family.name, *(counts.get(precision, "–") for precision in PRECISIONS)))
    tables = [
        Table("Convolutions in the precision", ("family", "precision", *(f"SM {sm}" for sm in SMS)), coverage),
        Table(f"Kernels for SM {COUNTED}", ("family", *PRECISIONS), kernels),
        Table("What the builder says", ("", "words"), [(letter, words) for words, letter in said.items()]),
    ]
    report(tables, args.json)


def _general(words: str) -> str:
    """Words without what differs from build to build: quoted names, the SM, and the place in the builder's source."""
    parts = words.split("'")
    return re.sub(r"\bsm\d+", "sm…", "'…'".join(parts[::2])).partition(" In compileGraph at ")[0]


if __name__ == "__main__":
    main()
