"""What a quantizer must know of a graph: where convolutions, activations and shortcuts are."""

from __future__ import annotations

import math
from collections.abc import Collection
from typing import Any

import numpy.typing as npt
import onnx
import onnx_ir as ir

from edge_resnet.errors import ModelError

MOVERS = ("Slice", "Pad")
"""Operators that move values and make none but zeros: their output is quantized as their input is."""


def load_graph(model: onnx.ModelProto) -> ir.Model:
    """Reads a model for editing, nodes in topological order."""
    loaded = ir.from_proto(model)
    loaded.graph.sort()
    return loaded


def save_graph(model: ir.Model) -> onnx.ModelProto:
    """Writes an edited model, checked."""
    proto = ir.to_proto(model)
    onnx.checker.check_model(proto, full_check=True)
    return proto


def data(node: ir.Node, index: int = 0) -> ir.Value:
    """The node's input that must be there."""
    value = node.inputs[index]
    if value is None:
        raise ModelError(f"node '{node.name}' ({node.op_type}) has no input {index}")
    return value


def add_constant(graph: ir.Graph, name: str, value: npt.NDArray[Any]) -> ir.Value:
    """A new initializer, by a name that the graph does not have yet."""
    made = ir.Value(name=name, const_value=ir.tensor(value, name=name))
    made.type, made.shape = ir.TensorType(ir.DataType.from_numpy(value.dtype)), ir.Shape(value.shape)
    graph.register_initializer(made)
    return made


def is_behind(value: ir.Value, operators: Collection[str]) -> bool:
    """Whether a node of one of these operators makes the tensor, however far back."""
    waiting, seen = [value], set[ir.Node]()
    while waiting:
        producer = waiting.pop().producer()
        if producer is None or producer in seen:
            continue
        if producer.op_type in operators:
            return True
        seen.add(producer)
        waiting += [each for each in producer.inputs if each is not None]
    return False


def own_constants(graph: ir.Graph) -> None:
    """Gives each reader of a constant one of its own, so that it can be changed for that reader alone."""
    for constant in list(graph.initializers.values()):
        first, *others = [*constant.uses(), None]
        for use in others:
            if use is not None and first is not None and constant.const_value is not None:
                name = f"{constant.name}.{use.node.name}.{use.idx}"
                copy = ir.tensor(constant.const_value.numpy(), name=name)  # the tensor itself is the loaded model's own
                made = ir.Value(name=name, const_value=copy)
                made.type, made.shape = constant.type, constant.shape
                graph.register_initializer(made)
                use.node.replace_input_with(use.idx, made)


def multiply_adds(layer: ir.Node) -> int:
    """Of one frame, in a convolution or a linear layer with constant weights; shapes must have been inferred.

    Raises:
        ModelError: the size of what a convolution gives is not fixed.
    """
    weight = layer.inputs[1]
    assert weight is not None and weight.const_value is not None
    sides = [side for side in tuple(layer.outputs[0].shape or ())[2:] if isinstance(side, int)]
    if layer.op_type != "Conv":
        return weight.const_value.size
    if len(sides) != 2:
        raise ModelError(f"node '{layer.name}' gives maps of a size that is not fixed: export it for one input size")
    return weight.const_value.size * math.prod(sides)


def convolutions(graph: ir.Graph) -> list[ir.Node]:
    """Convolutions with constant weights, in topological order."""
    return [node for node in graph if node.op_type == "Conv" and data(node, 1).const_value is not None]


def residual_adds(graph: ir.Graph) -> list[ir.Node]:
    """Adds of two computed tensors."""
    return [
        node
        for node in graph
        if node.op_type == "Add" and all(v is not None and v.const_value is None for v in node.inputs)
    ]


def quantized_sums(graph: ir.Graph) -> list[ir.Node]:
    """Residual Adds that take quantized tensors: all but those whose sum BatchNorm reads.

    In pre-activated networks (ResNet V2) the sums are one trunk through the whole network, which nothing normalises and
    whose noise every block would add to; BatchNorm reads it in float anyway. TensorRT makes as many kernels without.
    """
    return [add for add in residual_adds(graph) if not any(_normalises(use.node) for use in add.outputs[0].uses())]


def _normalises(node: ir.Node) -> bool:
    """Whether a node is a BatchNorm, or one half of it, a product with a constant."""
    constant = any(value is not None and value.const_value is not None for value in node.inputs)
    return node.op_type == "BatchNormalization" or (node.op_type == "Mul" and constant)


def convolution_depths(graph: ir.Graph) -> dict[ir.Value, int]:
    """For each tensor, the most convolutions on a path to it from the input."""
    depths: dict[ir.Value, int] = {}
    for node in graph:
        before = max((depths.get(v, 0) for v in node.inputs if v is not None), default=0)
        for output in node.outputs:
            depths[output] = before + (node.op_type == "Conv")
    return depths


def shortcut_index(add: ir.Node, depths: dict[ir.Value, int]) -> int:
    """Which input of a residual Add is its shortcut: the one that passed fewer convolutions."""
    return min((0, 1), key=lambda index: depths.get(data(add, index), 0))


def activated(node: ir.Node) -> ir.Value:
    """The node's output behind its ReLU, where a ReLU is all that reads it; else the output itself."""
    output = node.outputs[0]
    reader = only_reader(output)
    return reader.outputs[0] if reader is not None and reader.op_type == "Relu" else output


def rectified_tensors(graph: ir.Graph) -> set[str]:
    """Names of the tensors whose values a ReLU made, behind any max pooling: none of them is negative."""
    return {str(value.name) for node in graph for value in node.outputs if _rectified(value)}


def _rectified(value: ir.Value) -> bool:
    producer = value.producer()
    while producer is not None and producer.op_type == "MaxPool":
        producer = data(producer).producer()
    return producer is not None and producer.op_type == "Relu"


def only_reader(value: ir.Value) -> ir.Node | None:
    """The node that reads a tensor, where there is exactly one."""
    readers = [use.node for use in value.uses()]
    return readers[0] if len(readers) == 1 else None


def reader_behind_moves(node: ir.Node) -> ir.Node:
    """The node that reads what this one gives, behind any Slice and Pad; a node that moves nothing is its own."""
    while node.op_type in MOVERS and (reader := only_reader(node.outputs[0])) is not None:
        node = reader
    return node


def source_of_moves(value: ir.Value) -> ir.Value:
    """The tensor whose values this one holds, behind any Slice and Pad."""
    producer = value.producer()
    while producer is not None and producer.op_type in MOVERS:
        value = data(producer)
        producer = value.producer()
    return value
