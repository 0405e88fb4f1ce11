"""Multiply-adds and zeros of a network, counted from its graph."""

from __future__ import annotations

import numpy as np
import onnx

from edge_resnet.calibration.topology import load_graph, multiply_adds

_WEIGHTED = ("Conv", "Gemm", "MatMul")


def macs_of(model: onnx.ModelProto) -> dict[str, int]:
    """Multiply-adds for one frame of every convolution and linear layer, by its node's name.

    Raises:
        ModelError: a layer's size is not fixed.
    """
    found = {}
    for node in load_graph(onnx.shape_inference.infer_shapes(model)).graph:
        weight = node.inputs[1] if node.op_type in _WEIGHTED else None
        if weight is not None and weight.const_value is not None:
            found[str(node.name)] = multiply_adds(node)
    return found


def zero_share(model: onnx.ModelProto) -> float:
    """Share of the weights of convolutions and linear layers that are 0."""
    graph = load_graph(model).graph
    weights = [node.inputs[1] for node in graph if node.op_type in _WEIGHTED]
    arrays = [each.const_value.numpy() for each in weights if each is not None and each.const_value is not None]
    return 1 - sum(np.count_nonzero(each) for each in arrays) / max(1, sum(each.size for each in arrays))
