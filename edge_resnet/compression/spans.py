"""Where channels can be taken out of a network, and taking them out.

A span begins at a convolution whose output is read by nothing but other convolutions, through operators that treat every
channel alone. In a residual network these are the inner channels of the blocks: the output of the first convolution of a
basic block, of the first two of a bottleneck. What a residual sum adds up, the trunk, keeps its width, so shortcuts, the
last layer and every tensor between blocks stay as they are.

A unit is what goes as a whole: one channel or, where a grouped convolution lies in the span, one of its groups with its
inputs and outputs.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt
import onnx
import onnx_ir as ir

from edge_resnet.calibration.sparsity import groups_of
from edge_resnet.calibration.topology import convolutions, data, load_graph, own_constants, save_graph

ALONE = (
    "Relu",
    "Clip",
    "LeakyRelu",
    "Elu",
    "Selu",
    "Sigmoid",
    "HardSigmoid",
    "HardSwish",
    "Tanh",
    "Softplus",
    "Identity",
    "MaxPool",
    "AveragePool",
    "GlobalAveragePool",
    "GlobalMaxPool",
)
"""Operators that compute each channel of N×C×H×W from the same channel alone, with no constants of a channel's own."""
WITH_CONSTANTS = ("BatchNormalization", "Add", "Sub", "Mul", "Div", "PRelu")
"""The same with constants, one a channel or one for all."""

Kept = npt.NDArray[np.int64]
"""Units that stay, rising."""
Importance = npt.NDArray[np.float64]
"""What each unit of a span is worth."""


@dataclass(frozen=True)
class Slot:
    """A constant that loses what belongs to the units that go."""

    constant: str
    axis: int
    size: int
    """Entries on that axis, the units one after another."""


@dataclass(frozen=True)
class Span:
    """Units that may go."""

    name: str
    """Of the convolution that makes them."""
    units: int
    slots: tuple[Slot, ...]
    grouped: tuple[str, ...]
    """Convolutions whose groups are the units."""
    reads: tuple[str, ...]
    """Tensors that the span's readers read: without a unit, its channels are as if they were 0 there."""

    @cached_property
    def channels_a_unit(self) -> int:
        """The fewest of any tensor."""
        return min(slot.size for slot in self.slots) // self.units


def prepared(model: onnx.ModelProto) -> onnx.ModelProto:
    """The network with a constant of its own for each reader: what ``spans_of`` and ``taken_out`` work on."""
    loaded = load_graph(model)
    own_constants(loaded.graph)
    return save_graph(loaded)


def spans_of(model: onnx.ModelProto) -> tuple[Span, ...]:
    """Every span of a prepared network, in order."""
    graph = load_graph(model).graph
    outputs = set(graph.outputs)
    found = (_Walk(outputs).from_convolution(conv) for conv in convolutions(graph) if groups_of(conv) == 1)
    return tuple(span for span in found if span is not None)


def taken_out(model: onnx.ModelProto, kept: Mapping[str, Kept]) -> onnx.ModelProto:
    """The network without the other units.

    Args:
        model: prepared.
        kept: by span; of a span that is not named, all stay.
    """
    loaded = load_graph(model)
    spans = {span.name: span for span in spans_of(model)}
    for name, units in kept.items():
        span = spans[name]
        for slot in span.slots:
            _slice(loaded.graph.initializers[slot.constant], slot, span.units, units)
        for conv in (node for node in loaded.graph if node.name in span.grouped):
            groups = groups_of(conv) * len(units) // span.units
            conv.attributes["group"] = ir.AttrInt64("group", groups)
    for value in (value for node in loaded.graph for value in node.outputs):
        if value not in loaded.graph.outputs:
            value.shape = None  # what inference found before is no more true
    return save_graph(loaded)


def _slice(constant: ir.Value, slot: Slot, units: int, kept: Kept) -> None:
    assert constant.const_value is not None
    each = slot.size // units
    entries = (kept[:, None] * each + np.arange(each)).ravel()
    left = np.ascontiguousarray(np.take(constant.const_value.numpy(), entries, axis=slot.axis))
    constant.const_value = ir.tensor(left, name=constant.name)
    constant.shape = ir.Shape(left.shape)


class _Walk:
    """Follows one convolution's channels to where they are read."""

    def __init__(self, outputs: set[ir.Value]) -> None:
        self._outputs = outputs
        self._slots: list[Slot] = []
        self._reads: dict[str, None] = {}
        self._groups: dict[str, int] = {}

    def from_convolution(self, conv: ir.Node) -> Span | None:
        """The span that a convolution begins; None where something else reads its channels."""
        channels = self._makes(conv)
        if not self._follow(conv.outputs[0], channels) or not self._reads:
            return None
        units = min((channels, *self._groups.values()))
        if any(size % units for size in (*self._groups.values(), *(slot.size for slot in self._slots))):
            return None
        return Span(str(conv.name), units, tuple(self._slots), tuple(self._groups), tuple(self._reads))

    def _makes(self, conv: ir.Node) -> int:
        """Notes what a convolution makes its output channels of; how many they are."""
        weight = data(conv, 1)
        assert weight.const_value is not None
        channels = int(weight.const_value.shape[0])  # type: ignore[arg-type]  # a constant's sizes are numbers
        self._slots.append(Slot(str(weight.name), 0, channels))
        if len(conv.inputs) > 2 and conv.inputs[2] is not None:
            self._slots.append(Slot(str(conv.inputs[2].name), 0, channels))
        return channels

    def _follow(self, value: ir.Value, channels: int) -> bool:
        if value in self._outputs or not value.uses():
            return False
        return all(self._passes(use.node, use.idx, value, channels) for use in value.uses())

    def _passes(self, node: ir.Node, index: int, value: ir.Value, channels: int) -> bool:
        if node.op_type == "Conv":
            return index == 0 and self._enters(node, value, channels)
        if node.op_type in ALONE:
            return index == 0 and len(node.outputs) == 1 and self._follow(node.outputs[0], channels)
        if node.op_type in WITH_CONSTANTS:
            constants = [each for each in node.inputs if each is not value and each is not None]
            slots = [self._slot(each, node, channels) for each in constants]
            if any(each is False for each in slots):
                return False
            self._slots += [each for each in slots if isinstance(each, Slot)]
            return self._follow(node.outputs[0], channels)
        return False

    def _enters(self, conv: ir.Node, value: ir.Value, channels: int) -> bool:
        """A convolution of all channels ends the span; one of groups passes them on."""
        weight = data(conv, 1)
        if weight.const_value is None:
            return False
        groups = groups_of(conv)
        if groups > 1:
            self._groups[str(conv.name)] = groups
            return self._follow(conv.outputs[0], self._makes(conv))
        self._slots.append(Slot(str(weight.name), 1, channels))
        self._reads[str(value.name)] = None
        return True

    def _slot(self, constant: ir.Value, node: ir.Node, channels: int) -> Slot | bool:
        """What a constant loses; True: nothing, it is one number for all channels. False: it cannot be told."""
        if constant.const_value is None:
            return False
        shape = tuple(int(size) for size in constant.const_value.shape)  # type: ignore[arg-type]
        if node.op_type == "BatchNormalization":
            return Slot(str(constant.name), 0, channels)
        if all(size == 1 for size in shape):
            return True
        axis = len(shape) - 3
        if axis < 0 or shape[axis] != channels or any(s != 1 for i, s in enumerate(shape) if i != axis):
            return False
        return Slot(str(constant.name), axis, channels)
