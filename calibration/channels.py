"""Which channels of a network can be scaled by one number together, so that its function stays.

A channel may be scaled by any positive number if what makes it and what reads it follow: a ReLU passes the number on, a
convolution takes it into its weights on both sides (Nagel et al., "Data-Free Quantization Through Weight Equalization and
Bias Correction", arXiv:1906.04721, section 4.1; Meller et al., arXiv:1902.01917). Here that goes along the whole residual
trunk too: what is added must be scaled alike, so each channel of a stage has one number, through shortcuts and poolings.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from edge_resnet.calibration.refine import replace_constant
from edge_resnet.calibration.topology import data, own_constants

Vector = npt.NDArray[np.float64]
Keys = npt.NDArray[np.int64]
"""For each channel of a tensor the key of the number that scales it."""


@dataclass
class Channels:
    """Which channels of which tensors must be scaled by the same number: a union-find over keys."""

    parents: list[int] = field(default_factory=lambda: [0])
    """Key 0 is the number 1: of channels that something reads which cannot follow."""
    keys: dict[ir.Value, Keys] = field(default_factory=dict)

    @classmethod
    def of(cls, graph: ir.Graph) -> Channels:
        found = cls()
        for node in graph:
            _FOLLOWS.get(node.op_type, Channels._pin)(found, node)
        for output in graph.outputs:
            found._fix(output)
        return found

    def fresh(self, count: int) -> Keys:
        start = len(self.parents)
        self.parents.extend(range(start, start + count))
        return np.arange(start, start + count)

    @property
    def roots(self) -> Keys:
        """For each key the one that stands for all that must be scaled alike."""
        return np.array([self.root(key) for key in range(len(self.parents))])

    def root(self, key: int) -> int:
        while self.parents[key] != key:
            self.parents[key] = self.parents[self.parents[key]]
            key = self.parents[key]
        return key

    def join(self, some: Keys, others: Keys) -> None:
        for one, other in zip(some, others, strict=True):
            first, second = sorted((self.root(int(one)), self.root(int(other))))
            self.parents[second] = first

    def _fix(self, value: ir.Value) -> None:
        if value in self.keys:
            self.join(self.keys[value], np.zeros_like(self.keys[value]))

    def _pin(self, node: ir.Node) -> None:
        """A node that cannot follow: its inputs stay as they are."""
        for value in node.inputs:
            if value is not None:
                self._fix(value)

    def _pass_on(self, node: ir.Node) -> None:
        if data(node) in self.keys:
            self.keys[node.outputs[0]] = self.keys[data(node)]

    def _make(self, node: ir.Node) -> None:
        """A convolution or BatchNorm: any scale goes into its constants."""
        constants = [data(node, index).const_value for index in _CONSTANTS[node.op_type]]
        if any(constant is None for constant in constants):
            self._pin(node)
        elif constants[0] is not None:
            self.keys[node.outputs[0]] = self.fresh(constants[0].shape[0])  # type: ignore[arg-type]  # of a constant

    def _read(self, node: ir.Node) -> None:
        weight, keys = data(node, 1).const_value, self.keys.get(data(node), ())
        if weight is None or _is_set(node, "transA") or weight.shape[_reading_axis(node)] != len(keys):
            self._pin(node)

    def _add(self, node: ir.Node) -> None:
        some, others = (self.keys.get(data(node, index)) for index in (0, 1))
        if some is None or others is None or len(some) != len(others):
            self._pin(node)
        else:
            self.join(some, others)
            self.keys[node.outputs[0]] = some

    def _pad(self, node: ir.Node) -> None:
        """Channels of zeros may have any scale."""
        keys, amounts = self.keys.get(data(node)), data(node, 1).const_value
        if keys is None or amounts is None or not _pads_zeros(node):
            self._pin(node)
            return
        before, after = int(amounts.numpy()[1]), int(amounts.numpy()[5])
        self.keys[node.outputs[0]] = np.concatenate([self.fresh(before), keys, self.fresh(after)])

    def _slice(self, node: ir.Node) -> None:
        axes = node.inputs[3].const_value if len(node.inputs) > 3 and node.inputs[3] is not None else None
        if axes is None or 1 in axes.numpy():
            self._pin(node)
        else:
            self._pass_on(node)


_FOLLOWS: dict[str, Callable[[Channels, ir.Node], None]] = {
    "Conv": Channels._make,
    "BatchNormalization": Channels._make,
    "Gemm": Channels._read,
    "Relu": Channels._pass_on,
    "MaxPool": Channels._pass_on,
    "AveragePool": Channels._pass_on,
    "GlobalAveragePool": Channels._pass_on,
    "Flatten": Channels._pass_on,
    "Add": Channels._add,
    "Pad": Channels._pad,
    "Slice": Channels._slice,
}
_CONSTANTS = {"Conv": (1,), "BatchNormalization": (1, 2, 3, 4)}


def _is_set(gemm: ir.Node, name: str) -> bool:
    return name in gemm.attributes and bool(gemm.attributes[name].as_int())


def _reading_axis(gemm: ir.Node) -> int:
    """The axis of its weights along which it reads a channel each."""
    return 1 if _is_set(gemm, "transB") else 0


def _pads_zeros(pad: ir.Node) -> bool:
    fill = pad.inputs[2] if len(pad.inputs) > 2 else None
    return fill is None or (fill.const_value is not None and not fill.const_value.numpy().any())


def scale_channels(graph: ir.Graph, channels: Channels, numbers: Vector) -> None:
    """Brings a number for each key into every node's constants; the network's function stays."""
    own_constants(graph)

    def of(value: ir.Value, count: int) -> Vector:
        return numbers[channels.keys[value]] if value in channels.keys else np.ones(count)

    for node in graph:
        if node.op_type in _SCALE and all(data(node, i).const_value is not None for i in _WEIGHTS[node.op_type]):
            _SCALE[node.op_type](node, of)


Of = Callable[[ir.Value, int], Vector]


def _times(node: ir.Node, index: int, factor: Vector) -> None:
    constant = node.inputs[index] if len(node.inputs) > index else None
    if constant is not None and constant.const_value is not None:
        value = constant.const_value.numpy().astype(np.float64) * factor
        replace_constant(constant, value.astype(np.float32))


def _scale_conv(node: ir.Node, of: Of) -> None:
    weight = data(node, 1).const_value
    assert weight is not None
    outputs, inputs = (int(size) for size in weight.shape[:2])  # type: ignore[arg-type]  # of a constant
    groups = node.attributes["group"].as_int() if "group" in node.attributes else 1
    made, read = of(node.outputs[0], outputs), of(data(node), inputs * groups)
    of_each = np.repeat(read.reshape(groups, inputs), outputs // groups, axis=0)
    _times(node, 1, (made[:, None] / of_each)[:, :, None, None])
    _times(node, 2, made)


def _scale_batch_norm(node: ir.Node, of: Of) -> None:
    gain = data(node, 1).const_value
    assert gain is not None
    made, read = (of(value, gain.size) for value in (node.outputs[0], data(node)))
    _times(node, 1, made / read)
    _times(node, 2, made)
    _times(node, 3, read)
    # The variance stays, with epsilon: (x·s − μ·s) · (γ/s) is what it was.


def _scale_gemm(node: ir.Node, of: Of) -> None:
    weight = data(node, 1).const_value
    assert weight is not None
    axis = _reading_axis(node)
    factor = 1 / of(data(node), int(weight.shape[axis]))  # type: ignore[arg-type]  # of a constant
    _times(node, 1, factor[None, :] if axis else factor[:, None])


_SCALE: dict[str, Callable[[ir.Node, Of], None]] = {
    "Conv": _scale_conv,
    "BatchNormalization": _scale_batch_norm,
    "Gemm": _scale_gemm,
}
_WEIGHTS = {"Conv": (1,), "BatchNormalization": (1, 2, 3, 4), "Gemm": (1,)}
