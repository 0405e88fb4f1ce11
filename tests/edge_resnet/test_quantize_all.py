"""Every family in INT8: compiled by the real TensorRT-RTX builder, and run by the CPU engine.

Ranges are of a few random frames: where Q/DQ goes, and what the compilers make of it, does not depend on them.
"""

from __future__ import annotations

import numpy as np
import onnx
import pytest
import torch
from torch import nn

from edge_resnet.calibration import CalibrationTable, collect, insert_qdq
from edge_resnet.calibration.schemes import scheme_named
from edge_resnet.calibration.simulate import exact_session, run_frames
from edge_resnet.engines.ort import OrtEngine
from edge_resnet.engines.targets import target_named
from edge_resnet.engines.trt_rtx import TensorRtRtxEngine
from edge_resnet.export import export_onnx
from edge_resnet.golden import TOLERANCE_DB
from edge_resnet.lowering import Lowered
from edge_resnet.models import create_model
from edge_resnet.onnx_file import serialise
from edge_resnet.preprocessing import Color, Crop, Interpolation, Preprocessing

QUICK = ("resnet18", "resnet50v1", "resnet50v2", "resnetv2-18", "resnet8", "plain20", "resnext50", "resnet18d")
"""One of each family."""
SLOW = ("resnet50", "plain34", "resnetv2-50", "resnet50d")
LONG = ("resnet152", "resnet110", "resnet101v2", "wide-resnet50")
"""Wider and deeper ones; those that are left differ from these in depth alone, and benchmarks/architectures.py has all."""
SIZE = 32
FRAMES = np.random.default_rng(0).integers(0, 256, (4, SIZE, SIZE, 3), np.uint8)
every_family = pytest.mark.parametrize(
    "name",
    [
        *QUICK,
        *(pytest.param(name, marks=pytest.mark.slow) for name in SLOW),
        *(pytest.param(name, marks=pytest.mark.long) for name in LONG),
    ],
)


def exported(name: str) -> onnx.ModelProto:
    """Random weights whose BatchNorm statistics are those of a forward pass: values stay in range however deep.

    Most values are positive, and branches count half, or a rounding at the start would grow into another answer at the end.
    """
    with torch.random.fork_rng(), torch.no_grad():
        torch.manual_seed(0)
        model = create_model(name, classes=10).train()
        for module in model.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.momentum = None
                nn.init.constant_(module.weight, 0.5)
                nn.init.constant_(module.bias, 0.5)
        model(torch.randn(8, 3, 2 * SIZE, 2 * SIZE))
    spec = Preprocessing((SIZE, SIZE), None, Crop.NONE, Interpolation.BILINEAR, Color.RGB, (0.5,) * 3, (0.25,) * 3)
    return export_onnx(model.eval(), spec)


def ranges(model: onnx.ModelProto) -> CalibrationTable:
    return collect(model, [FRAMES], method="minmax", images={}, preprocessing={})


@every_family
def test_both_engines_take_it(name: str) -> None:
    model = exported(name)
    table = ranges(model)
    convolutions = [node.name for node in model.graph.node if node.op_type == "Conv"]
    quantized = insert_qdq(model, table, scheme_named("tensorrt"))
    assert list(quantized.quantized_layers) == convolutions
    assert quantized.kept_float == ("fc",)
    lowered = Lowered.quantized(quantized, TensorRtRtxEngine)
    engine = TensorRtRtxEngine.compile(lowered.compiled_from, target_named("rtx-30").at("int8"))
    int8 = {source for layer in engine.layers if layer.precision == "int8" for source in layer.sources}
    assert set(convolutions) <= int8
    for_cpu = insert_qdq(model, table, scheme_named("cpu")).model
    compiled = OrtEngine.compile(serialise(for_cpu), target_named("cpu"))
    integer = {layer.name for layer in compiled.layers if layer.precision == "int8"}
    assert set(convolutions) <= integer
    wanted = run_frames(exact_session(for_cpu), FRAMES).astype(np.float64)
    with OrtEngine(compiled.data) as cpu:
        noise = np.square(cpu.run(FRAMES) - wanted).sum()
    assert 10 * np.log10(np.square(wanted).sum() / max(noise, 1e-30)) > TOLERANCE_DB


def test_a_pre_activated_trunk_needs_no_kernel_of_its_own() -> None:
    """The builder puts the sum, the next BatchNorm, padding, and the quantization that saturates in the ReLU's place
    into one kernel, that of the convolution's own scale and bias.
    """
    model = exported("resnet34v2")
    lowered = Lowered.quantized(insert_qdq(model, ranges(model), scheme_named("tensorrt")), TensorRtRtxEngine)
    layers = TensorRtRtxEngine.compile(lowered.compiled_from, target_named("rtx-30").at("int8")).layers
    together = {"layer2.1.add", "layer2.2.bn1", "layer2.2.relu1.quantize.padded_1_1_1_1.quantize"}
    assert [layer for layer in layers if together <= set(layer.sources)]
    assert len([layer for layer in layers if "layer2.1.add" in layer.sources]) == 1


def test_an_option_a_shortcut_moves_as_int8_in_the_kernel_of_its_sum() -> None:
    model = exported("resnet20")
    lowered = Lowered.quantized(insert_qdq(model, ranges(model), scheme_named("tensorrt")), TensorRtRtxEngine)
    layers = TensorRtRtxEngine.compile(lowered.compiled_from, target_named("rtx-30").at("int8")).layers
    moves = [layer for layer in layers if "layer2.0.downsample" in layer.sources]
    assert moves and all("layer2.0.add" in layer.sources or layer.precision == "int8" for layer in moves)
