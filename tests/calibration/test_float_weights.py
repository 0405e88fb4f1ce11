"""Weights of a Q/DQ graph float behind a quantizer, for TensorRT 8: the integers, and so the answers, stay."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import numpy.typing as npt
import onnx
from onnx import numpy_helper

from edge_resnet.calibration import SCHEMES, collect, insert_qdq
from edge_resnet.calibration.float_weights import float_weights
from edge_resnet.calibration.simulate import exact_session, run_frames

Network = Callable[..., onnx.ModelProto]
Frames = Callable[..., npt.NDArray[np.uint8]]


def test_the_integers_stay(network: Network, random_frames: Frames) -> None:
    model = network("resnet20", 32)
    table = collect(model, [random_frames(4, 32)], method="mse", images={}, preprocessing={})
    before = insert_qdq(model, table, SCHEMES["tensorrt"]).model
    kept = before.SerializeToString(deterministic=True)
    after = float_weights(before)
    assert before.SerializeToString(deterministic=True) == kept
    held = {tensor.name: numpy_helper.to_array(tensor) for tensor in after.graph.initializer}
    assert all(array.ndim <= 1 for array in held.values() if array.dtype == np.int8), "zero points alone are INT8"
    weights = {
        node.output[0]: np.clip(np.rint(held[node.input[0]] / held[node.input[1]].reshape(-1, 1, 1, 1)), -128, 127)
        for node in after.graph.node
        if node.op_type == "QuantizeLinear" and node.input[0] in held
    }
    wanted = [numpy_helper.to_array(tensor) for tensor in before.graph.initializer]
    wanted = [array for array in wanted if array.dtype == np.int8 and array.ndim == 4]
    assert len(weights) == len(wanted) == 19
    for found, integers in zip(weights.values(), wanted, strict=True):
        assert np.array_equal(found, integers)
    frames = random_frames(8, 32)
    assert np.array_equal(run_frames(exact_session(after), frames), run_frames(exact_session(before), frames))
