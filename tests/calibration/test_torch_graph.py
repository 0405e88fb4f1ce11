"""Every operator in torch, against ONNX's own reference evaluator."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import pytest
import torch
from onnx.reference import ReferenceEvaluator

from edge_resnet.adoption.operators import OPERATORS as TAKEN
from edge_resnet.calibration.torch_graph import OPERATORS, constants_of, run_nodes
from edge_resnet.errors import CalibrationError

RANDOM = np.random.default_rng(3)
X = RANDOM.normal(size=(4, 4, 7, 6)).astype(np.float32)
"""As many images as channels: the evaluator's LRN takes one for the other."""
FLAT = RANDOM.normal(size=(3, 5)).astype(np.float32)


def ints(*values: int) -> Any:
    return np.array(values, np.int64)


def floats(*shape: int) -> Any:
    return RANDOM.normal(size=shape).astype(np.float32)


CASES: dict[str, list[tuple[str, dict[str, Any]]]] = {
    "Conv": [
        (
            "Conv <pads=[1,0,2,1], strides=[2,1], dilations=[1,2], group=2> (x, w, b)",
            {"w": floats(6, 2, 3, 2), "b": floats(6)},
        ),
        ("Conv (x, w)", {"w": floats(3, 4, 1, 1)}),
    ],
    "Gemm": [
        ("Gemm <alpha=0.5, beta=2.0, transB=1> (flat, w, b)", {"w": floats(4, 5), "b": floats(4)}),
        ("Gemm <transA=1> (flat, w)", {"w": floats(3, 2)}),
    ],
    "MatMul": [("MatMul (flat, w)", {"w": floats(5, 2)})],
    "BatchNormalization": [
        (
            "BatchNormalization <epsilon=0.01> (x, g, b, m, v)",
            {"g": floats(4), "b": floats(4), "m": floats(4), "v": np.abs(floats(4))},
        )
    ],
    "Add": [("Add (x, c)", {"c": floats(4, 1, 1)})],
    "Sub": [("Sub (c, x)", {"c": floats(4, 1, 1)})],
    "Mul": [("Mul (x, c)", {"c": floats(1)})],
    "Div": [("Div (x, c)", {"c": floats(4, 1, 1)})],
    "Relu": [("Relu (x)", {})],
    "Clip": [
        ("Clip (x, low, high)", {"low": np.float32(-0.5), "high": np.float32(0.25)}),
        ("Clip (x, , high)", {"high": np.float32(0.25)}),
        ("Clip (x)", {}),
    ],
    "LeakyRelu": [("LeakyRelu <alpha=0.2> (x)", {}), ("LeakyRelu (x)", {})],
    "PRelu": [("PRelu (x, s)", {"s": floats(4, 1, 1)})],
    "Elu": [("Elu <alpha=0.7> (x)", {})],
    "Selu": [("Selu (x)", {})],
    "Sigmoid": [("Sigmoid (x)", {})],
    "HardSigmoid": [("HardSigmoid <alpha=0.3, beta=0.4> (x)", {}), ("HardSigmoid (x)", {})],
    "HardSwish": [("HardSwish (x)", {})],
    "Tanh": [("Tanh (x)", {})],
    "Softplus": [("Softplus (x)", {})],
    "Softmax": [("Softmax <axis=1> (x)", {}), ("Softmax (flat)", {})],
    "MaxPool": [
        ("MaxPool <kernel_shape=[3,2], strides=[2,2], pads=[1,0,1,1]> (x)", {}),
        ("MaxPool <kernel_shape=[2,2], strides=[2,2], ceil_mode=1> (x)", {}),
    ],
    "AveragePool": [
        ("AveragePool <kernel_shape=[3,3], strides=[2,2], pads=[1,1,1,1]> (x)", {}),
        ("AveragePool <kernel_shape=[3,3], strides=[2,2], pads=[1,0,0,1], count_include_pad=1> (x)", {}),
        ("AveragePool <kernel_shape=[1,1], strides=[3,3]> (x)", {}),
    ],
    "GlobalAveragePool": [("GlobalAveragePool (x)", {})],
    "GlobalMaxPool": [("GlobalMaxPool (x)", {})],
    "LRN": [("LRN <size=3, alpha=0.5, beta=0.6, bias=1.5> (x)", {})],
    "Concat": [("Concat <axis=1> (x, c)", {"c": floats(4, 3, 7, 6)})],
    "Split": [("Split <axis=1> (x, sizes)", {"sizes": ints(1, 3)}), ("Split <axis=2, num_outputs=2> (x)", {})],
    "Slice": [
        ("Slice (x, s, e, a, t)", {"s": ints(1, -1), "e": ints(6, -7), "a": ints(2, 3), "t": ints(2, -2)}),
        ("Slice (x, s, e)", {"s": ints(0, 1), "e": ints(3, 9)}),
    ],
    "Pad": [
        ("Pad (x, p, v)", {"p": ints(0, 1, 2, 0, 0, 3, 1, 1), "v": np.float32(0.5)}),
        ("Pad (x, p, , a)", {"p": ints(2, 1), "a": ints(1)}),
    ],
    "Transpose": [("Transpose <perm=[0,2,3,1]> (x)", {})],
    "Reshape": [("Reshape (x, s)", {"s": ints(0, -1, 2)})],
    "Flatten": [("Flatten (x)", {}), ("Flatten <axis=2> (x)", {})],
    "Squeeze": [("Squeeze (c, a)", {"c": floats(2, 1, 3, 1), "a": ints(1, 3)})],
    "Unsqueeze": [("Unsqueeze (flat, a)", {"a": ints(0, 3)})],
    "Cast": [("Cast <to=1> (c)", {"c": np.arange(6, dtype=np.uint8)})],
    "Identity": [("Identity (x)", {})],
}


def model_of(call: str, constants: dict[str, Any]) -> onnx.ModelProto:
    outputs = "y, z" if call.startswith("Split") else "y"
    model = onnx.parser.parse_model(
        f"""<ir_version: 9, opset_import: ["": 18]> one (float[N,4,7,6] x, float[M,5] flat) => (float[K] y) {{
            {outputs} = {call} }}"""
    )
    model.graph.initializer.extend(
        onnx.numpy_helper.from_array(np.asarray(value), name) for name, value in constants.items()
    )
    return model


@pytest.mark.parametrize(("call", "constants"), [case for cases in CASES.values() for case in cases])
def test_computes_what_the_specification_says(call: str, constants: dict[str, Any]) -> None:
    model = model_of(call, constants)
    tensors = {**constants_of(model), "x": torch.from_numpy(X), "flat": torch.from_numpy(FLAT)}
    run_nodes(model.graph.node, tensors)
    wanted = ReferenceEvaluator(model).run(list(model.graph.node[0].output), {"x": X, "flat": FLAT})
    for name, value in zip(model.graph.node[0].output, wanted, strict=True):
        assert tuple(tensors[name].shape) == np.shape(value)
        np.testing.assert_allclose(tensors[name].numpy(), value, rtol=1e-5, atol=1e-5)


def test_every_operator_that_is_taken_is_here_and_in_the_cases() -> None:
    quantizers = {
        "QuantizeLinear",
        "DequantizeLinear",
    }  # no network has them; test_learned holds them against the engines'
    assert set(TAKEN) <= set(OPERATORS) - quantizers == set(CASES)


def test_another_operator_is_named_with_its_node() -> None:
    model = model_of("Erf (x)", {})
    model.graph.node[0].name = "odd"
    with pytest.raises(CalibrationError, match=r"'odd' \(Erf\)"):
        run_nodes(model.graph.node, {"x": torch.from_numpy(X)})
