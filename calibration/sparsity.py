"""2:4 sparsity: of every four weights that are summed together, at least two are 0, and Ampere's tensor cores skip them.

TensorRT takes a convolution's kernel M×C×kH×kW for 2:4 sparse when, for each output channel and at each place of the
kernel, every four consecutive input channels have two zeros or more, C a multiple of 4 (NVIDIA TensorRT documentation,
"I/O Formats and Sparsity", Structured Sparsity; Mishra et al., "Accelerating Sparse Deep Neural Networks",
arXiv:2104.08378).
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import onnx_ir as ir

from edge_resnet.calibration.topology import load_graph

GROUP, KEPT = 4, 2
"""Of so many consecutive input channels, so many weights may be other than 0."""
_BEFORE_WEIGHTS = ("DequantizeLinear", "QuantizeLinear", "Cast", "Identity")
"""What may stand between a convolution and its stored weights; all of it keeps 0."""

Weights = npt.NDArray[Any]


def can_be_sparse(weight: Weights, groups: int) -> bool:
    """Whether a convolution's weights M×C×kH×kW may be 2:4: all channels together, and a multiple of four of them."""
    return groups == 1 and weight.ndim == 4 and weight.shape[1] % GROUP == 0


def is_sparse(weight: Weights) -> bool:
    """Whether weights M×C×kH×kW are 2:4 sparse, by TensorRT's own rule."""
    if weight.ndim != 4 or weight.shape[1] % GROUP:
        return False
    return bool((np.count_nonzero(_fours(weight), axis=2) <= KEPT).all())


def two_four(importance: Weights) -> npt.NDArray[np.bool_]:
    """Which weights stay: the two most important of each four; of equals, the first.

    Args:
        importance: M×C×kH×kW, C a multiple of 4.
    """
    fours = _fours(importance)
    order = np.argsort(-fours, axis=2, kind="stable")
    stay = np.zeros(fours.shape, bool)
    np.put_along_axis(stay, order[:, :, :KEPT], True, axis=2)
    return stay.reshape(importance.shape)


def sparse_convolutions(model: onnx.ModelProto) -> tuple[str, ...]:
    """Names of the convolutions whose stored weights are 2:4 sparse, whether floats or integers."""
    found = []
    for node in load_graph(model).graph:
        weight = _stored(node) if node.op_type == "Conv" else None
        if weight is not None and can_be_sparse(weight, groups_of(node)) and is_sparse(weight):
            found.append(str(node.name))
    return tuple(found)


def groups_of(conv: ir.Node) -> int:
    """How many groups a convolution has."""
    return conv.attributes["group"].as_int() if "group" in conv.attributes else 1


def _fours(weight: Weights) -> Weights:
    """M × C/4 × 4 × kH × kW."""
    outputs, inputs, *kernel = weight.shape
    return weight.reshape(outputs, inputs // GROUP, GROUP, *kernel)


def _stored(conv: ir.Node) -> Weights | None:
    value = conv.inputs[1]
    while value is not None and (producer := value.producer()) is not None and producer.op_type in _BEFORE_WEIGHTS:
        value = producer.inputs[0]
    return None if value is None or value.const_value is None else np.asarray(value.const_value.numpy())
