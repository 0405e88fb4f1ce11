"""A network in every precision, compiled by the real TensorRT-RTX: a slice of benchmarks/rtx_matrix.py."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest

from edge_resnet.calibration import SCHEMES, collect, insert_qdq
from edge_resnet.calibration.float_types import brain_typed, half_typed
from edge_resnet.calibration.qdq import QuantizedModel
from edge_resnet.engines.engine import Layer
from edge_resnet.engines.targets import target_named
from edge_resnet.engines.trt import TensorRtEngine
from edge_resnet.engines.trt_rtx import TensorRtRtxEngine
from edge_resnet.errors import EngineError, GateError
from edge_resnet.lowering import FLOAT, QUANTIZED, Lowered

TYPES = "the model contains HW-specific datatypes: "
MATRIX: dict[tuple[str, int], int | str] = {
    ("fp32", 75): "FP32 GEMM is not supported",
    ("fp32", 86): 19,
    ("fp32", 89): 19,
    ("fp16", 75): 19,
    ("fp16", 86): 19,
    ("fp16", 89): 19,
    ("bf16", 75): f"{TYPES}b16",
    ("bf16", 86): 19,
    ("bf16", 89): 19,
    ("int8", 75): 0,
    ("int8", 86): 19,
    ("int8", 89): 19,
    ("fp8", 75): f"{TYPES}fp8_e4m3",
    ("fp8", 86): f"{TYPES}fp8_e4m3",
    ("fp8", 89): 18,
}
"""Precision and SM → how many of the demo's 19 convolutions compute in it, or what the builder says."""


@pytest.fixture(scope="module")
def lowered(demo_onnx: Path) -> dict[str, Lowered]:
    """The demo's network in each precision, by ranges of noise."""
    model = onnx.load(demo_onnx)
    frames = np.random.default_rng(0).integers(0, 256, (4, 28, 28, 1), np.uint8)
    table = collect(model, [frames], method="minmax", images={}, preprocessing={})
    made = {precision: lower(model) for precision, lower in FLOAT.items()}
    quantized = {precision: insert_qdq(model, table, SCHEMES[scheme]) for precision, scheme in QUANTIZED.items()}
    return made | {precision: Lowered.quantized(each, TensorRtRtxEngine) for precision, each in quantized.items()}


@pytest.mark.parametrize(("precision", "sm"), MATRIX)
def test_what_compiles_for_which_card(lowered: dict[str, Lowered], precision: str, sm: int) -> None:
    target, wanted = replace(target_named("rtx"), sms=(sm,)), MATRIX[precision, sm]
    if isinstance(wanted, str):
        with pytest.raises(EngineError, match=wanted):
            TensorRtRtxEngine.compile(lowered[precision].compiled_from, target)
        return
    layers = TensorRtRtxEngine.compile(lowered[precision].compiled_from, target).layers
    convolutions = {node.name for node in lowered["fp32"].evaluated_as.graph.node if node.op_type == "Conv"}
    found = {name for layer in layers if layer.precision == precision for name in layer.sources}
    assert len(found & convolutions) == wanted


def test_targets_promise_what_the_matrix_shows() -> None:
    for (precision, sm), wanted in MATRIX.items():
        (name,) = (name for name, of in (("rtx-20", 75), ("rtx-30", 86), ("rtx-40", 89)) if of == sm)
        assert (precision in target_named(name).precisions) == (isinstance(wanted, int) and wanted > 0), (
            name,
            precision,
        )


def test_fp8_that_does_not_come_out_fp8_is_refused(lowered: dict[str, Lowered]) -> None:
    names = lowered["fp8"].quantized_layers
    lowered["fp8"].check_coverage("rtx-40", [Layer("fused", "fp8", names)])
    with pytest.raises(GateError, match=f"for rtx-40 did not make {names[0]} FP8: name them in "):
        lowered["fp8"].check_coverage("rtx-40", [Layer("fused", "fp8", names[1:]), Layer("other", "int8", names)])


def test_the_installed_version_decides_the_form_of_a_quantized_graph(
    lowered: dict[str, Lowered], monkeypatch: pytest.MonkeyPatch
) -> None:
    oldest = TensorRtEngine.lines[0]
    monkeypatch.setattr(TensorRtEngine, "_line_here", classmethod(lambda cls: oldest))
    quantized = QuantizedModel(lowered["int8"].evaluated_as, "tensorrt", lowered["int8"].quantized_layers, ())
    for_8 = onnx.load_from_string(Lowered.quantized(quantized, TensorRtEngine).compiled_from)
    for_rtx = onnx.load_from_string(Lowered.quantized(quantized, TensorRtRtxEngine).compiled_from)
    kinds = [
        {tensor.data_type for tensor in each.graph.initializer if len(tensor.dims) == 4} for each in (for_8, for_rtx)
    ]
    assert onnx.TensorProto.INT8 not in kinds[0] and onnx.TensorProto.FLOAT in kinds[0]
    assert onnx.TensorProto.INT8 in kinds[1] and onnx.TensorProto.FLOAT not in kinds[1]


def test_what_stands_for_each_precision_is_what_is_compiled_or_says_otherwise(lowered: dict[str, Lowered]) -> None:
    model = lowered["fp32"].evaluated_as
    assert lowered["fp16"].compiled_from == half_typed(model).SerializeToString(deterministic=True)
    assert lowered["bf16"].compiled_from == brain_typed(model).SerializeToString(deterministic=True)
    assert any(node.output[0].endswith(".rounded") for node in lowered["bf16"].evaluated_as.graph.node)
