"""BF16 in the place of FP32, and what stands for it on a CPU. (FP16 is in ``test_half_typed``.)"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import ml_dtypes
import numpy as np
import onnx
import pytest
from onnx import TensorProto, numpy_helper

from edge_resnet.calibration.float_types import brain_rounded, brain_typed
from edge_resnet.calibration.simulate import exact_session, run_frames


@pytest.fixture(scope="module")
def model(network: Callable[..., onnx.ModelProto]) -> onnx.ModelProto:
    return network("resnet20", 32)


def test_bf16_is_opset_22_with_no_float32_but_the_logits(model: onnx.ModelProto) -> None:
    made = brain_typed(model)
    assert (made.opset_import[0].version, made.ir_version) == (22, 10)
    inferred = onnx.shape_inference.infer_shapes(made, strict_mode=True)
    types = {value.name: value.type.tensor_type.elem_type for value in inferred.graph.value_info}
    assert types["conv1"] == TensorProto.BFLOAT16 and TensorProto.FLOAT not in types.values()
    before = {tensor.name: numpy_helper.to_array(tensor) for tensor in model.graph.initializer}
    for tensor in made.graph.initializer:
        if tensor.data_type == TensorProto.BFLOAT16:
            rounded = before[tensor.name].astype(ml_dtypes.bfloat16)
            assert tensor.raw_data == rounded.tobytes() and tuple(tensor.dims) == rounded.shape
    assert TensorProto.FLOAT not in [tensor.data_type for tensor in made.graph.initializer]


def test_what_stands_for_bf16_is_near_fp32_and_every_tensor_is_a_bf16_number(
    model: onnx.ModelProto, random_frames: Callable[..., Any], sqnr: Callable[..., float]
) -> None:
    rounded, frames = brain_rounded(model), random_frames(2, 32)
    shown = onnx.ModelProto()
    shown.CopyFrom(rounded)
    names = [name for node in rounded.graph.node for name in node.output if name.endswith(".rounded")]
    shown.graph.output.extend(onnx.helper.make_empty_tensor_value_info(name) for name in names)
    assert len(names) > 40
    session = exact_session(shown)
    for value in session.run(names, {session.get_inputs()[0].name: frames}):
        np.testing.assert_array_equal(value, value.astype(ml_dtypes.bfloat16).astype(np.float32))
    exact, actual = (run_frames(exact_session(each), frames) for each in (model, rounded))
    assert 25 < sqnr(exact, actual) < 60, "8 bits of mantissa: about 6 dB a bit, less what the layers add"


def test_sums_are_those_of_bf16_arithmetic() -> None:
    text = """<ir_version: 9, opset_import: ["": 17]> g (uint8[N,1,1,4] frames) => (float[N,1,1,4] y) {
        x = Cast <to=1> (frames) scaled = Mul (x, third) shifted = Add (scaled, third) y = Identity (shifted)
    }"""
    model = onnx.parser.parse_model(text)
    model.graph.initializer.append(numpy_helper.from_array(np.float32([1 / 3]), "third"))
    frames = np.arange(256, dtype=np.uint8).reshape(-1, 1, 1, 4)
    third = np.float32(1 / 3).astype(ml_dtypes.bfloat16)
    wanted = frames.astype(ml_dtypes.bfloat16) * third + third
    found = run_frames(exact_session(brain_rounded(model)), frames)
    np.testing.assert_array_equal(found, wanted.astype(np.float32))
