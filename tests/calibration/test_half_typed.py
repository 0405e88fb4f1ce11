"""Q/DQ networks in other forms: FP16 in the place of FP32, as TensorRT types its layers by the graph; float weights."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import pytest
from onnx import TensorProto, numpy_helper

from edge_resnet.calibration import SCHEMES, QuantizedModel, collect, half_typed, insert_qdq
from edge_resnet.calibration.simulate import exact_session, run_frames
from edge_resnet.errors import CalibrationError


def constants(model: onnx.ModelProto) -> dict[str, npt.NDArray[Any]]:
    return {tensor.name: numpy_helper.to_array(tensor) for tensor in model.graph.initializer}


@pytest.fixture(scope="module")
def pair(
    network: Callable[..., onnx.ModelProto], random_frames: Callable[..., Any]
) -> tuple[QuantizedModel, onnx.ModelProto]:
    """A quantized network, and its form in FP16."""
    model = network("resnet20", 32)
    table = collect(model, [random_frames(4, 32)], method="minmax", images={}, preprocessing={})
    made = insert_qdq(model, table, SCHEMES["tensorrt"])
    return made, half_typed(made.model)


class TestHalfTyped:
    def test_is_opset_19_with_no_float32_but_the_logits(self, pair: tuple[QuantizedModel, onnx.ModelProto]) -> None:
        _, half = pair
        assert half.opset_import[0].version == 19
        onnx.checker.check_model(half, full_check=True)
        inferred = onnx.shape_inference.infer_shapes(half, strict_mode=True)
        types = {value.name: value.type.tensor_type.elem_type for value in inferred.graph.value_info}
        assert types["conv1"] == TensorProto.FLOAT16
        assert TensorProto.FLOAT not in types.values()
        assert TensorProto.FLOAT not in [tensor.data_type for tensor in half.graph.initializer]
        assert half.graph.input[0].type.tensor_type.elem_type == TensorProto.UINT8
        assert half.graph.output[0].type.tensor_type.elem_type == TensorProto.FLOAT

    def test_integers_and_scales_are_the_same(self, pair: tuple[QuantizedModel, onnx.ModelProto]) -> None:
        made, half = pair
        before, after = constants(made.model), constants(half)
        quantizers = ("QuantizeLinear", "DequantizeLinear")
        scales = {node.input[1] for node in made.model.graph.node if node.op_type in quantizers}
        assert before.keys() == after.keys()
        for name, value in before.items():
            same = after[name]
            if name in scales:
                np.testing.assert_array_equal(same.astype(np.float32), value)
            elif value.dtype == np.float32:
                np.testing.assert_array_equal(same, value.astype(np.float16), strict=True)
            else:
                np.testing.assert_array_equal(same, value, strict=True)

    def test_leaves_the_original_alone(self, pair: tuple[QuantizedModel, onnx.ModelProto]) -> None:
        made, _ = pair
        before = made.model.SerializeToString(deterministic=True)
        half_typed(made.model)
        assert made.model.SerializeToString(deterministic=True) == before

    def test_answers_nearly_the_same(
        self,
        pair: tuple[QuantizedModel, onnx.ModelProto],
        random_frames: Callable[..., Any],
        sqnr: Callable[..., float],
    ) -> None:
        made, half = pair
        frames = random_frames(4, 32)
        wanted, actual = (run_frames(exact_session(model), frames) for model in (made.model, half))
        assert actual.dtype == np.float32
        assert sqnr(wanted, actual) > 30

    def test_without_q_dq_the_opset_stays_as_it_is(self, network: Callable[..., onnx.ModelProto]) -> None:
        model = network("resnet20", 32)
        half = half_typed(model)
        assert (half.opset_import[0].version, half.ir_version) == (model.opset_import[0].version, model.ir_version)
        onnx.checker.check_model(half, full_check=True)

    def test_refuses_a_value_that_fp16_cannot_hold(self, network: Callable[..., onnx.ModelProto]) -> None:
        model = onnx.ModelProto()
        model.CopyFrom(network("resnet20", 32))
        (bias,) = [tensor for tensor in model.graph.initializer if tensor.name == "fc.bias"]
        bias.CopyFrom(numpy_helper.from_array(np.full(10, -70_000, np.float32), "fc.bias"))
        with pytest.raises(CalibrationError, match="^'fc.bias' has values beyond 65504.*build fp32$"):
            half_typed(model)
