"""Where a foreign network begins and ends: one image input, one output of class scores or features."""

from __future__ import annotations

from dataclasses import dataclass

import onnx
import onnx_ir as ir
from onnx import TensorProto

from edge_resnet.errors import ModelError
from edge_resnet.onnx_file import type_name
from edge_resnet.preprocessing import Preprocessing

_FLOATS = {TensorProto.FLOAT: "float32", TensorProto.FLOAT16: "float16"}
_PASSED = ("Identity", "Flatten", "Reshape", "Squeeze", "Unsqueeze")
"""Operators between a closing Softmax and the output that change no value."""


@dataclass(frozen=True)
class Image:
    """The network's input."""

    name: str
    channels_last: bool
    """N×H×W×C, as TensorFlow has it."""
    batch: int | None
    """None: any."""

    def shape(self, batch: int, preprocessing: Preprocessing) -> list[int]:
        """The input's shape for a batch of frames."""
        (height, width), channels = preprocessing.size, preprocessing.channels
        return [batch, height, width, channels] if self.channels_last else [batch, channels, height, width]


def image_input(model: onnx.ModelProto, preprocessing: Preprocessing, name: str) -> Image:
    """Finds the input and holds it against the preprocessing.

    Raises:
        ModelError: there is not one float image input, or its channels, height or width are not those of the
            preprocessing (both are named).
    """
    constants = {constant.name for constant in model.graph.initializer}
    inputs = [source for source in model.graph.input if source.name not in constants]
    if len(inputs) != 1:
        names = ", ".join(f"'{source.name}'" for source in inputs) or "none"
        raise ModelError(f"{name} has {len(inputs)} inputs ({names}): a classifier takes one image")
    (source,) = inputs
    kind = source.type.tensor_type.elem_type
    if kind == TensorProto.UINT8:
        raise ModelError(
            f"{name} takes uint8 and does not say what it makes of the pixels: export it without its preprocessing, so "
            f"that it takes normalised floats"
        )
    if kind not in _FLOATS:
        held = type_name(kind)
        raise ModelError(f"{name}: input '{source.name}' is {held}: export a network that takes a float32 image")
    dims = [dim.dim_value or None for dim in source.type.tensor_type.shape.dim]
    if len(dims) != 4:
        raise ModelError(f"{name}: input '{source.name}' has {len(dims)} axes: an image has 4, N×C×H×W or N×H×W×C")
    return _fitting(source.name, dims, _channels_last(model, source.name, dims), preprocessing, name)


def _channels_last(model: onnx.ModelProto, source: str, dims: list[int | None]) -> bool:
    """By the number of channels; where that is open, by whether a Transpose brings them to the front."""
    first, last = (dims[index] in (1, 3) for index in (1, 3))
    if first != last:
        return last
    readers = [node for node in model.graph.node if source in node.input]
    return any(
        node.op_type == "Transpose" and attribute.name == "perm" and list(attribute.ints) == [0, 3, 1, 2]
        for node in readers
        for attribute in node.attribute
    )


def _fitting(
    source: str, dims: list[int | None], channels_last: bool, preprocessing: Preprocessing, name: str
) -> Image:
    batch, *rest = dims
    height, width, channels = rest if channels_last else (*rest[1:], rest[0])
    if channels not in (None, preprocessing.channels):
        raise ModelError(
            f"{name} takes {channels} channels, the preprocessing makes {preprocessing.channels}: give the mean, std and "
            f"color that the model was trained with; only 1 (grey) and 3 (colour) are supported"
        )
    wanted = preprocessing.size
    if height not in (None, wanted[0]) or width not in (None, wanted[1]):
        held = "×".join("any" if side is None else str(side) for side in (height, width))
        raise ModelError(f"{name} takes {held} pixels, the preprocessing makes {wanted[0]}×{wanted[1]}: give its size")
    return Image(source, channels_last, batch)


def cut_closing_softmax(graph: ir.Graph, name: str) -> str | None:
    """Removes the Softmax that a network ends with, and anything that only renames it.

    Returns:
        The Softmax's name; None where there is none.

    Raises:
        ModelError: there is not one output, or it ends in a Sigmoid: scores of labels that do not exclude each other.
    """
    if len(graph.outputs) != 1:
        names = ", ".join(f"'{value.name}'" for value in graph.outputs) or "none"
        raise ModelError(f"{name} has {len(graph.outputs)} outputs ({names}): export the class scores alone")
    node = graph.outputs[0].producer()
    while node is not None and (node.op_type in _PASSED or _to_float(node)):
        node = None if node.inputs[0] is None else node.inputs[0].producer()
    if node is None:
        return None
    if node.op_type == "Sigmoid":
        raise ModelError(
            f"{name} ends in the Sigmoid '{node.name}': its labels do not exclude each other, while a classifier gives "
            f"one class a picture"
        )
    if node.op_type not in ("Softmax", "LogSoftmax"):
        return None
    removed, scores = node.outputs[0], node.inputs[0]
    assert scores is not None
    scores.type, scores.shape = removed.type, removed.shape
    removed.replace_all_uses_with(scores, replace_graph_outputs=True)
    graph.remove(node, safe=True)
    return str(node.name)


def _to_float(node: ir.Node) -> bool:
    return node.op_type == "Cast" and node.attributes["to"].as_int() in _FLOATS


def is_map(graph: ir.Graph) -> bool:
    """Whether the output is a feature map N×C×h×w of more than one pixel, which no classifier gives."""
    shape = graph.outputs[0].shape
    return shape is not None and len(shape) == 4 and list(shape)[2:] != [1, 1]


def flat_answer(graph: ir.Graph, name: str) -> None:
    """Makes the output N×C, where it is N×C×1×1; feature maps stay.

    Raises:
        ModelError: it has another shape.
    """
    answer = graph.outputs[0]
    dims = [] if answer.shape is None else list(answer.shape)
    if answer.dtype != ir.DataType.FLOAT:
        raise ModelError(f"{name}: output '{answer.name}' is {answer.dtype}: export the class scores as float32")
    if is_map(graph):
        return
    if len(dims) == 4:
        flatten = ir.node("Flatten", [answer], name="answer.flatten")
        flatten.outputs[0].name = "answer.flat"
        flatten.outputs[0].type, flatten.outputs[0].shape = answer.type, ir.Shape(dims[:2])
        graph.append(flatten)
        graph.outputs[0] = flatten.outputs[0]
    elif len(dims) != 2:
        shown = "×".join(map(str, dims))
        raise ModelError(
            f"{name}: output '{answer.name}' is {shown}: a classifier gives N×classes, a feature extractor N×C or N×C×h×w"
        )
