"""The operators that a network may have, after constants, BatchNorm and pads are folded and shapes are known."""

from __future__ import annotations

import numpy as np
import onnx
import onnx_ir as ir

from edge_resnet.errors import ModelError

OPERATORS: dict[str, str] = {
    # With weights.
    "Conv": "INT8",
    "Gemm": "float",
    "MatMul": "float",
    "BatchNormalization": "float, where no convolution can take it in",
    # Sums and arithmetic.
    "Add": "float; INT8 as the end of a residual branch",
    "Sub": "float",
    "Mul": "float",
    "Div": "float",
    # Activations.
    "Relu": "into the convolution",
    "Clip": "float",
    "LeakyRelu": "float",
    "PRelu": "float",
    "Elu": "float",
    "Selu": "float",
    "Sigmoid": "float",
    "HardSigmoid": "float",
    "HardSwish": "float",
    "Tanh": "float",
    "Softplus": "float",
    "Softmax": "float; a closing one is removed",
    # Pooling.
    "MaxPool": "as its input",
    "AveragePool": "float",
    "GlobalAveragePool": "float",
    "GlobalMaxPool": "float",
    "LRN": "float",
    # Shapes.
    "Concat": "float",
    "Split": "float",
    "Slice": "as its input",
    "Pad": "as its input",
    "Transpose": "float",
    "Reshape": "float",
    "Flatten": "float",
    "Squeeze": "float",
    "Unsqueeze": "float",
}
"""Operator → what it computes in. Each of them is compiled for TensorRT and for the CPU in the tests."""

_QUANTIZED = frozenset({"QuantizeLinear", "DequantizeLinear", "DynamicQuantizeLinear", "ConvInteger", "MatMulInteger"})
_ADVICE = "export a network without it, or replace it with operators that docs/onnx.md lists"


def check_source(model: onnx.ModelProto, name: str) -> None:
    """Refuses what no folding could make a plain FP32 network.

    Raises:
        ModelError: quantized already, in training mode, an operator of another domain, control flow, or model-local
            functions.
    """
    if model.functions:
        raise ModelError(
            f"{name} has model-local functions ('{model.functions[0].name}'): inline them, as onnx.inliner does"
        )
    if model.graph.sparse_initializer:
        raise ModelError(f"{name} has sparse weights: export dense ones")
    for node in model.graph.node:
        if node.op_type in _QUANTIZED or node.op_type.startswith("QLinear"):
            raise ModelError(f"{name} is quantized already: give the FP32 ONNX that it was made from")
        if node.domain not in ("", "ai.onnx"):
            raise ModelError(
                f"{name}: node '{called(node)}' is {node.op_type} of the domain '{node.domain}', which only some tools "
                f"know: export with standard operators, before any runtime's own optimiser"
            )
        if node.op_type == "BatchNormalization" and any(a.name == "training_mode" and a.i for a in node.attribute):
            raise ModelError(
                f"{name}: node '{called(node)}' (BatchNormalization) is in training mode: export in eval mode"
            )
        if any(attribute.HasField("g") or attribute.graphs for attribute in node.attribute):
            raise ModelError(f"{name}: node '{called(node)}' is control flow ({node.op_type}): {_ADVICE}")


def called(node: onnx.NodeProto) -> str:
    """What a message calls a node: its name, or that of its output."""
    return str(node.name or node.output[0])


def check_operators(graph: ir.Graph, name: str) -> None:
    """Refuses operators that the line does not take, and convolutions that it cannot quantize.

    Raises:
        ModelError: one is there; operator and node are named.
    """
    for node in graph:
        if node.op_type not in OPERATORS or node.domain not in ("", "ai.onnx"):
            raise ModelError(f"{name}: node '{node.name}' is of the operator {node.op_type}, not supported: {_ADVICE}")
        if node.op_type == "Conv":
            _check_convolution(node, name)
        if node.op_type == "Pad":
            _check_pad(node, name)
        for value in node.inputs:
            if value is not None and value.dtype == ir.DataType.DOUBLE:
                raise ModelError(f"{name}: node '{node.name}' ({node.op_type}) computes in float64: export float32")
    if not any(node.op_type == "Conv" for node in graph):
        raise ModelError(f"{name} has no convolution: edge-resnet takes convolutional classifiers")


def check_shapes(graph: ir.Graph, name: str) -> None:
    """Refuses a node of a network of fixed input whose result has no known shape: nothing could be made of it.

    Raises:
        ModelError: such a node; it is named.
    """
    for node in graph:
        for output in node.outputs:
            if output.shape is None or not all(isinstance(dim, int) for dim in output.shape):
                raise ModelError(
                    f"{name}: the shape of what node '{node.name}' ({node.op_type}) gives is not known: "
                    f"export with fixed height and width"
                )


def _check_pad(node: ir.Node, name: str) -> None:
    value = node.inputs[2] if len(node.inputs) > 2 else None
    if value is not None and (value.const_value is None or np.any(value.const_value.numpy() != 0)):
        raise ModelError(f"{name}: node '{node.name}' (Pad) pads with another value than 0: only zeros are taken")


def _check_convolution(node: ir.Node, name: str) -> None:
    weight = node.inputs[1]
    if weight is None or weight.const_value is None:
        raise ModelError(f"{name}: the weights of node '{node.name}' (Conv) are computed: only constant ones are taken")
    if len(weight.const_value.shape) != 4:
        raise ModelError(
            f"{name}: node '{node.name}' is a Conv over {len(weight.const_value.shape) - 2} axes: "
            f"only those over height and width are taken"
        )
