"""FP8: its arithmetic against hand-worked numbers and against ONNX Runtime's, and where the scheme puts it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import ml_dtypes
import numpy as np
import onnx
import pytest

from edge_resnet.calibration import SCHEMES, collect, half_typed, insert_qdq
from edge_resnet.calibration.affine import FP8, QuantParams, dequantize, floating, quantize
from edge_resnet.calibration.qdq import is_fp8, quantized_convolutions
from edge_resnet.calibration.quantize import chain_wanted
from edge_resnet.calibration.simulate import exact_session, run_frames
from edge_resnet.errors import CalibrationError

ONE = QuantParams(np.float32(1), 0, FP8)
BY_HAND = {
    # Between 16 and 32 the steps are 2, and a tie goes to the even mantissa.
    16.0: 16.0,
    17.0: 16.0,
    19.0: 20.0,
    18.1: 18.0,
    # The largest is 448 = 1.75 · 256; what is beyond it stays there, and is not NaN.
    448.0: 448.0,
    465.0: 448.0,
    1e30: 448.0,
    -1e30: -448.0,
    # The smallest is 2⁻⁹; half of it is a tie with 0, which is even.
    2.0**-9: 2.0**-9,
    2.0**-10: 0.0,
    1.5 * 2.0**-10: 2.0**-9,
}


@pytest.mark.parametrize(("value", "wanted"), BY_HAND.items())
def test_rounds_as_by_hand(value: float, wanted: float) -> None:
    assert float(quantize(np.float32(value), ONE)) == wanted


def test_quantizes_as_onnx_runtime_does() -> None:
    text = """<ir_version: 9, opset_import: ["": 19]> g (float[N] x, float s, float8e4m3fn z) => (float[N] y) {
        q = QuantizeLinear (x, s, z) y = DequantizeLinear (q, s, z)
    }"""
    model = onnx.parser.parse_model(text)
    del model.graph.input[2]
    model.graph.initializer.append(onnx.helper.make_tensor("z", onnx.TensorProto.FLOAT8E4M3FN, (), b"\0", raw=True))
    x = (np.random.default_rng(0).standard_normal(20_000) * np.geomspace(1e-4, 10, 20_000)).astype(np.float32)
    params = floating(np.abs(x).max())
    (found,) = exact_session(model).run(None, {"x": x, "s": params.scale})
    np.testing.assert_array_equal(dequantize(quantize(x, params), params), found)
    relative = np.abs(found - x)[np.abs(x) > 2.0**-6 * params.scale] / np.abs(x)[np.abs(x) > 2.0**-6 * params.scale]
    assert relative.max() <= 2.0**-4 * 1.001, "3 bits of mantissa: half a step of an eighth"


def test_the_largest_value_becomes_the_largest_number() -> None:
    params = floating(7.0)
    assert float(params.scale) == pytest.approx(7 / 448, rel=2**-11) and params.axis is None
    assert params.scale == params.scale.astype(np.float16), "FP16 engines have the same scale"
    assert float(quantize(np.float32(7), params)) == 448


@pytest.fixture(scope="module")
def made(network: Callable[..., onnx.ModelProto], random_frames: Callable[..., Any]) -> Any:
    model = network("resnet20", 32)
    table = collect(model, [random_frames(4, 32)], method="mse", images={}, preprocessing={})
    return model, table, insert_qdq(model, table, SCHEMES["fp8"])


def test_every_convolution_but_the_first_reads_fp8(made: Any) -> None:
    model, table, quantized = made
    convolutions = [node.name for node in model.graph.node if node.op_type == "Conv"]
    assert quantized.quantized_layers == quantized_convolutions(quantized.model) == tuple(convolutions[1:])
    assert convolutions[0] in quantized.kept_float
    assert is_fp8(quantized.model) and not is_fp8(model)
    constants = {tensor.name: tensor for tensor in quantized.model.graph.initializer}
    by_output = {output: node for node in quantized.model.graph.node for output in node.output}
    for node in quantized.model.graph.node:
        if node.op_type == "Conv" and node.name != convolutions[0]:
            weight = by_output[node.input[1]]
            assert constants[weight.input[0]].data_type == onnx.TensorProto.FLOAT8E4M3FN
            assert tuple(constants[weight.input[1]].dims) == (), "one scale a tensor"
            scale = onnx.numpy_helper.to_array(constants[by_output[node.input[0]].input[1]])
            source = by_output[by_output[node.input[0]].input[0]].input[0]
            found = table[source]
            assert float(scale) == pytest.approx(max(abs(found.minimum), abs(found.maximum)) / 448, rel=2**-11)


def test_is_evaluated_exactly_and_its_fp16_form_too(
    made: Any, random_frames: Callable[..., Any], sqnr: Callable[..., float]
) -> None:
    model, _, quantized = made
    frames = random_frames(4, 32)
    wanted, plain, half = (
        run_frames(exact_session(each), frames) for each in (model, quantized.model, half_typed(quantized.model))
    )
    assert sqnr(wanted, plain) > 15
    assert sqnr(plain, half) > 20
    assert ml_dtypes.float8_e4m3fn is FP8.type


def test_refinements_for_integers_are_not_for_fp8() -> None:
    fp8 = SCHEMES["fp8"]
    assert chain_wanted("standard", None, fp8) == ("bias",)
    assert chain_wanted("fast", None, fp8) == ()
    with pytest.raises(CalibrationError, match="^refinement 'round' is not for fp8: choose of bias$"):
        chain_wanted("standard", ("round", "bias"), fp8)
