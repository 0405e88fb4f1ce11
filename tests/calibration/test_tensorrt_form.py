"""What TensorRT would refuse or misread, each in a graph made by hand, and what its real parser does with it."""

from __future__ import annotations

import dataclasses

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from residual_network import residual_network

from edge_resnet.calibration.tensorrt_form import refuse_misread
from edge_resnet.engines.targets import target_named
from edge_resnet.engines.trt_rtx import TensorRtRtxEngine
from edge_resnet.errors import EngineError, ModelError

RTX_40 = dataclasses.replace(target_named("rtx-40"), name="rtx")


def graph(pair: str, weight: str, extra: str = "", opset: int = 21, **arrays: object) -> onnx.ModelProto:
    """uint8 N×8×8×3 → Q/DQ → a convolution of quantized weights → float N×4; ``pair`` gives x, ``weight`` gives w."""
    text = f"""<ir_version: 10, opset_import: ["": {opset}]> g (uint8[N,8,8,3] frames) => (float[N,4] logits) {{
        cast = Cast <to=1> (frames) chw = Transpose <perm=[0,3,1,2]> (cast)
        {pair} {weight} {extra}
        conv = Conv (x, w{", b" if "b =" in extra or "b" in arrays else ""})
        mean = GlobalAveragePool (conv) logits = Flatten (mean)
    }}"""
    model = onnx.parser.parse_model(text)
    for node in model.graph.node:
        node.name = node.output[0]
    random = np.random.default_rng(0)
    known = {
        "one": np.float32(1),
        "zero": np.int8(0),
        "weights": random.integers(-127, 128, (4, 3, 3, 3)).astype(np.int8),
        "scales": np.full(4, 0.01, np.float32),
        **arrays,
    }
    used = {name for node in model.graph.node for name in node.input}
    for name, value in known.items():
        if name in used:
            made = value if isinstance(value, onnx.TensorProto) else numpy_helper.from_array(np.asarray(value), name)
            model.graph.initializer.append(made)
    return model


PAIR = "q = QuantizeLinear (chw, one, zero) x = DequantizeLinear (q, one, zero)"
WEIGHT = "w = DequantizeLinear <axis=0> (weights, scales)"
NO_ZERO = "q = QuantizeLinear (chw, one) x = DequantizeLinear (q, one)"
FOUR = "w = DequantizeLinear <axis=0> (weights, scales)"
INT4 = helper.make_tensor("weights", TensorProto.INT4, (4, 3, 3, 3), np.zeros(108, np.int8))
BIAS = "b = DequantizeLinear (bias, scales)"

WRONG = {
    "uint8": (graph(PAIR, WEIGHT, zero=np.uint8(0)), "QuantizeLinear 'q' is UINT8, which TensorRT reads as INT8, so"),
    "no zero point, which is uint8": (graph(NO_ZERO, WEIGHT), "QuantizeLinear 'q' is UINT8, which TensorRT reads"),
    "uint8 with a zero point": (graph(PAIR, WEIGHT, zero=np.uint8(128)), "QuantizeLinear 'q' is UINT8"),
    "zero point": (graph(PAIR, WEIGHT, zero=np.int8(-3)), "QuantizeLinear 'q' has the zero point -3: it must be 0"),
    "int16": (graph(PAIR, WEIGHT, zero=np.int16(0)), "QuantizeLinear 'q' has 16 bits: TensorRT has INT8 and FP8"),
    "int32 bias": (
        graph(PAIR, WEIGHT, BIAS, bias=np.zeros(4, np.int32)),
        "DequantizeLinear 'b' dequantizes INT32, as a quantized bias is: keep the bias float",
    ),
    "scale 0": (graph(PAIR, WEIGHT, one=np.float32(0)), "QuantizeLinear 'q' has the scale 0: it must be above 0"),
    "one scale of many is 0": (
        graph(PAIR, WEIGHT, scales=np.float32([1, 1, 0, 1])),
        "DequantizeLinear 'w' has the scale 0: it must be above 0",
    ),
    "int4": (graph(PAIR, FOUR, weights=INT4), "DequantizeLinear 'w' gives a convolution 4-bit weights, which are for"),
    "fp16 scales beside fp32": (
        graph(
            PAIR,
            "w16 = DequantizeLinear <axis=0> (weights, half) w = Cast <to=1> (w16)",
            half=np.full(4, 0.01, np.float16),
        ),
        "DequantizeLinear 'w16' has a scale of FLOAT16, and QuantizeLinear 'q' one of FLOAT: they must be of one type",
    ),
    "QLinearConv": (
        graph(
            PAIR.replace("x =", "unused ="),
            "c = QLinearConv (q, one, zero, weights, scales, zeros, one, zero) "
            "x = DequantizeLinear (c, one, zero) w = Identity (floats)",
            zeros=np.zeros(4, np.int8),
            floats=np.zeros((4, 4, 1, 1), np.float32),
        ),
        "QLinearConv 'c' computes in integers by itself",
    ),
    "ConvInteger": (
        graph(
            "q = QuantizeLinear (chw, one, zero)",
            "c = ConvInteger (q, weights) x = Cast <to=1> (c) w = Identity (floats)",
            floats=np.zeros((4, 4, 1, 1), np.float32),
        ),
        "ConvInteger 'c' computes in integers by itself",
    ),
    "DynamicQuantizeLinear": (
        graph("q, s, z = DynamicQuantizeLinear (chw) x = Cast <to=1> (q)", WEIGHT),
        "DynamicQuantizeLinear 'q' computes in integers by itself",
    ),
}


@pytest.mark.parametrize("case", WRONG)
def test_is_refused_by_the_name_of_its_node(case: str) -> None:
    model, message = WRONG[case]
    with pytest.raises(ModelError) as caught:
        refuse_misread(model)
    assert str(caught.value).startswith(f"TensorRT cannot be given this model: {message}")
    assert "\n" not in str(caught.value)


READ = {"uint8", "no zero point, which is uint8", "uint8 with a zero point", "fp16 scales beside fp32"}
"""What the real parser does not refuse, or not for what it is."""


@pytest.mark.parametrize("case", sorted(WRONG.keys() - READ))
def test_the_real_compiler_refuses_it_too(case: str) -> None:
    with pytest.raises(EngineError, match="TensorRT-RTX cannot (read|compile) the model"):
        TensorRtRtxEngine.compile(WRONG[case][0].SerializeToString(), RTX_40)


@pytest.mark.parametrize("case", ["uint8", "no zero point, which is uint8"])
def test_uint8_is_the_trap_that_the_real_compiler_walks_into(case: str) -> None:
    compiled = TensorRtRtxEngine.compile(WRONG[case][0].SerializeToString(), RTX_40)
    assert "int8" in {layer.precision for layer in compiled.layers if "conv" in layer.sources}


def test_as_many_as_there_are_are_counted() -> None:
    model, _ = WRONG["uint8 with a zero point"]
    with pytest.raises(ModelError, match=r"\(and 3 more like it\); or quantize the FP32 network with `edge-resnet"):
        refuse_misread(model)


@pytest.mark.parametrize(
    "zero", [np.int8(0), onnx.helper.make_tensor("zero", TensorProto.FLOAT8E4M3FN, (), b"\0", raw=True)]
)
def test_what_tensorrt_takes_is_let_through(zero: object) -> None:
    assert refuse_misread(graph(PAIR, WEIGHT, zero=zero, b=np.zeros(4, np.float32))) == []


@pytest.mark.parametrize("precision", ["fp32", "fp16"])
def test_our_own_is_let_through(precision: str) -> None:
    assert refuse_misread(onnx.load_from_string(residual_network(precision))) == []


def test_a_type_that_only_an_attribute_tells_is_seen() -> None:
    pair = "q = QuantizeLinear <output_dtype=3> (chw, one) x = DequantizeLinear (q, one)"
    assert refuse_misread(graph(pair, WEIGHT)) == []


def test_scales_for_channels_of_an_activation_are_noted() -> None:
    pair = "q = QuantizeLinear <axis=1> (chw, three, zeros) x = DequantizeLinear <axis=1> (q, three, zeros)"
    model = graph(pair, WEIGHT, three=np.ones(3, np.float32), zeros=np.zeros(3, np.int8))
    (note,) = refuse_misread(model)
    assert note.startswith("QuantizeLinear 'q' has a scale for each channel of an activation: TensorRT takes it")
    assert TensorRtRtxEngine.compile(model.SerializeToString(), RTX_40).layers
