"""Runs the nodes of an ONNX graph in torch, so that errors can be followed back to tensors and constants.

Every operator that ``adoption`` takes, as the ONNX specification defines it at the opset that models have here. The one
module of ``calibration`` that imports torch; whoever needs gradients imports it in the function that needs them.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import onnx
import torch
from onnx import helper, numpy_helper
from torch import Tensor
from torch.nn import functional

from edge_resnet.errors import CalibrationError

Attributes = Mapping[str, Any]
Inputs = Sequence[Any]
"""A node's inputs; None where an optional one is left out."""
Operator = Callable[[Attributes, Inputs], Any]


def constants_of(model: onnx.ModelProto) -> dict[str, Tensor]:
    """A model's initializers by name."""
    return {one.name: torch.from_numpy(numpy_helper.to_array(one).copy()) for one in model.graph.initializer}


def run_nodes(
    nodes: Iterable[onnx.NodeProto], tensors: dict[str, Tensor], operators: Mapping[str, Operator] | None = None
) -> None:
    """Runs nodes in order and adds what they give.

    Args:
        nodes: sorted topologically.
        tensors: every tensor that the nodes read, by name.
        operators: ``OPERATORS``, or others.

    Raises:
        CalibrationError: a node's operator is not among ``OPERATORS``.
    """
    known = OPERATORS if operators is None else operators
    for node in nodes:
        if node.op_type not in known:
            raise CalibrationError(f"node '{node.name}' ({node.op_type}) has no gradient here: leave learned steps out")
        attributes = {one.name: helper.get_attribute_value(one) for one in node.attribute}
        made = known[node.op_type](attributes, [tensors[name] if name else None for name in node.input])
        for name, tensor in zip(node.output, made if isinstance(made, tuple) else (made,), strict=False):
            tensors[name] = tensor


def _input(inputs: Inputs, index: int) -> Any:
    return inputs[index] if len(inputs) > index else None


# --- with weights -----------------------------------------------------------------------------------------------------


def _sides(pads: Sequence[int]) -> tuple[int, int, int, int]:
    """ONNX's top, left, bottom, right as torch's left, right, top, bottom."""
    top, left, bottom, right = pads
    return left, right, top, bottom


def _conv(attributes: Attributes, inputs: Inputs) -> Tensor:
    x, weight, bias = inputs[0], inputs[1], _input(inputs, 2)
    pads = attributes.get("pads", (0, 0, 0, 0))
    return functional.conv2d(
        functional.pad(x, _sides(pads)) if any(pads) else x,
        weight,
        bias,
        attributes.get("strides", 1),
        0,
        attributes.get("dilations", 1),
        attributes.get("group", 1),
    )


def _gemm(attributes: Attributes, inputs: Inputs) -> Tensor:
    a, b = (t.T if attributes.get(name) else t for t, name in zip(inputs, ("transA", "transB"), strict=False))
    made: Tensor = attributes.get("alpha", 1.0) * (a @ b)
    added = _input(inputs, 2)
    return made if added is None else made + attributes.get("beta", 1.0) * added


def _batch_norm(attributes: Attributes, inputs: Inputs) -> Tensor:
    x, gain, bias, mean, variance = inputs
    return functional.batch_norm(x, mean, variance, gain, bias, False, 0.0, attributes.get("epsilon", 1e-5))


# --- activations ------------------------------------------------------------------------------------------------------


def _clip(attributes: Attributes, inputs: Inputs) -> Tensor:
    low, high = _input(inputs, 1), _input(inputs, 2)
    made: Tensor = inputs[0] if low is None and high is None else inputs[0].clamp(low, high)
    return made


def _hard_sigmoid(attributes: Attributes, inputs: Inputs) -> Tensor:
    slope: float = attributes.get("alpha", 0.2)
    return torch.clamp(slope * inputs[0] + attributes.get("beta", 0.5), 0, 1)


# --- pooling ----------------------------------------------------------------------------------------------------------


def _max_pool(attributes: Attributes, inputs: Inputs) -> Tensor:
    padded = functional.pad(inputs[0], _sides(attributes.get("pads", (0, 0, 0, 0))), value=-math.inf)
    kernel, dilations = attributes["kernel_shape"], attributes.get("dilations", 1)
    return functional.max_pool2d(
        padded, kernel, attributes.get("strides", 1), 0, dilations, bool(attributes.get("ceil_mode", 0))
    )


def _average_pool(attributes: Attributes, inputs: Inputs) -> Tensor:
    (x,), pads = inputs, attributes.get("pads", (0, 0, 0, 0))
    window = attributes["kernel_shape"], attributes.get("strides", 1), 0, bool(attributes.get("ceil_mode", 0))
    total = functional.avg_pool2d(functional.pad(x, _sides(pads)), *window)
    if not any(pads) or attributes.get("count_include_pad", 0):
        return total
    return total / functional.avg_pool2d(functional.pad(torch.ones_like(x[:1, :1]), _sides(pads)), *window)


def _lrn(attributes: Attributes, inputs: Inputs) -> Tensor:
    alpha, beta, bias = (
        attributes.get(name, default) for name, default in (("alpha", 1e-4), ("beta", 0.75), ("bias", 1))
    )
    return functional.local_response_norm(inputs[0], attributes["size"], alpha, beta, bias)


# --- shapes -----------------------------------------------------------------------------------------------------------


def _split(attributes: Attributes, inputs: Inputs) -> tuple[Tensor, ...]:
    axis, sizes = attributes.get("axis", 0), _input(inputs, 1)
    if sizes is not None:
        return tuple(torch.split(inputs[0], sizes.tolist(), axis))
    return tuple(torch.split(inputs[0], math.ceil(inputs[0].shape[axis] / attributes["num_outputs"]), axis))


def _slice(attributes: Attributes, inputs: Inputs) -> Tensor:
    x: Tensor = inputs[0]
    starts, ends = inputs[1:3]
    axes, steps = _input(inputs, 3), _input(inputs, 4)
    for index, (start, end) in enumerate(zip(starts.tolist(), ends.tolist(), strict=True)):
        axis = index if axes is None else int(axes[index])
        part = slice(start, end, None if steps is None else int(steps[index]))
        x = x.index_select(axis, torch.arange(*part.indices(x.shape[axis])))
    return x


def _pad(attributes: Attributes, inputs: Inputs) -> Tensor:
    amounts, fill, axes = inputs[1].tolist(), _input(inputs, 2), _input(inputs, 3)
    named = list(range(inputs[0].ndim)) if axes is None else axes.tolist()
    ends = {axis: (amounts[index], amounts[index + len(named)]) for index, axis in enumerate(named)}
    backwards = [size for axis in reversed(range(inputs[0].ndim)) for size in ends.get(axis, (0, 0))]
    return functional.pad(inputs[0], backwards, value=0.0 if fill is None else float(fill))


def _reshape(attributes: Attributes, inputs: Inputs) -> Tensor:
    sizes = [inputs[0].shape[axis] if size == 0 else size for axis, size in enumerate(inputs[1].tolist())]
    return torch.reshape(inputs[0], sizes)


def _flatten(attributes: Attributes, inputs: Inputs) -> Tensor:
    return torch.reshape(inputs[0], (math.prod(inputs[0].shape[: attributes.get("axis", 1)]), -1))


def _squeeze(attributes: Attributes, inputs: Inputs) -> Tensor:
    axes = _input(inputs, 1)
    return torch.squeeze(inputs[0]) if axes is None else torch.squeeze(inputs[0], tuple(axes.tolist()))


def _unsqueeze(attributes: Attributes, inputs: Inputs) -> Tensor:
    x: Tensor = inputs[0]
    axes = inputs[1].tolist()
    for axis in sorted(int(axis) % (x.ndim + len(axes)) for axis in axes):
        x = x.unsqueeze(axis)
    return x


def _cast(attributes: Attributes, inputs: Inputs) -> Tensor:
    kind = torch.from_numpy(np.zeros(0, helper.tensor_dtype_to_np_dtype(attributes["to"]))).dtype
    made: Tensor = inputs[0].to(kind)
    return made


# --- quantization -----------------------------------------------------------------------------------------------------


def straight_rounded(x: Tensor) -> Tensor:
    """Rounded to the nearest even, with the gradient of x itself (straight-through estimator, arXiv:1308.3432)."""
    return x + (torch.round(x) - x).detach()


def _along(scale: Tensor, x: Tensor, axis: int) -> Tensor:
    return scale if scale.ndim == 0 else scale.reshape([-1 if each == axis else 1 for each in range(x.ndim)])


def _quantize(attributes: Attributes, inputs: Inputs) -> Tensor:
    """Integers as float32; the gradient passes where nothing is clipped, to the scale as well (LSQ, arXiv:1902.08153)."""
    x, scale, zero_point = inputs
    levels, axis = torch.iinfo(zero_point.dtype), attributes.get("axis", 1)
    steps = straight_rounded(x / _along(scale, x, axis)) + _along(zero_point, x, axis)
    return steps.clamp(levels.min, levels.max)


def _dequantize(attributes: Attributes, inputs: Inputs) -> Tensor:
    q, scale, zero_point = inputs
    axis = attributes.get("axis", 1)
    made: Tensor = (q.float() - _along(zero_point, q, axis)) * _along(scale, q, axis)
    return made


OPERATORS: dict[str, Operator] = {
    "QuantizeLinear": _quantize,
    "DequantizeLinear": _dequantize,
    "Conv": _conv,
    "Gemm": _gemm,
    "MatMul": lambda _, x: x[0] @ x[1],
    "BatchNormalization": _batch_norm,
    "Add": lambda _, x: x[0] + x[1],
    "Sub": lambda _, x: x[0] - x[1],
    "Mul": lambda _, x: x[0] * x[1],
    "Div": lambda _, x: x[0] / x[1],
    "Relu": lambda _, x: functional.relu(x[0]),
    "Clip": _clip,
    "LeakyRelu": lambda a, x: functional.leaky_relu(x[0], a.get("alpha", 0.01)),
    "PRelu": lambda _, x: torch.where(x[0] < 0, x[0] * x[1], x[0]),
    "Elu": lambda a, x: functional.elu(x[0], a.get("alpha", 1.0)),
    "Selu": lambda _, x: functional.selu(x[0]),
    "Sigmoid": lambda _, x: torch.sigmoid(x[0]),
    "HardSigmoid": _hard_sigmoid,
    "HardSwish": lambda _, x: functional.hardswish(x[0]),
    "Tanh": lambda _, x: torch.tanh(x[0]),
    "Softplus": lambda _, x: functional.softplus(x[0]),
    "Softmax": lambda a, x: torch.softmax(x[0], a.get("axis", -1)),
    "MaxPool": _max_pool,
    "AveragePool": _average_pool,
    "GlobalAveragePool": lambda _, x: x[0].mean((2, 3), keepdim=True),
    "GlobalMaxPool": lambda _, x: x[0].amax((2, 3), keepdim=True),
    "LRN": _lrn,
    "Concat": lambda a, x: torch.cat(list(x), a["axis"]),
    "Split": _split,
    "Slice": _slice,
    "Pad": _pad,
    "Transpose": lambda a, x: x[0].permute(a["perm"]),
    "Reshape": _reshape,
    "Flatten": _flatten,
    "Squeeze": _squeeze,
    "Unsqueeze": _unsqueeze,
    "Cast": _cast,
    "Identity": lambda _, x: x[0],
}
"""ONNX's operator → what it computes, from its attributes and inputs."""
