"""Cross-layer equalization: channels of one tensor are brought nearer to each other, and the network's function is kept.

A tensor has one scale for all its channels, so a channel that stays small has few integers. But a channel may be scaled by
any positive number if what makes it and what reads it follow: a ReLU passes the number on, a convolution takes it into its
weights on both sides (Nagel et al., "Data-Free Quantization Through Weight Equalization and Bias Correction",
arXiv:1906.04721, section 4.1; Meller et al., arXiv:1902.01917). Here that goes along the whole residual trunk too: what is
added must be scaled alike, so each channel of a stage has one number, through its shortcuts and poolings.

The larger the share by which channels are brought together, the better for activations and the worse for the weights that
must follow; ``POWER`` is where ``benchmarks/refinement.py`` finds the least error.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import onnx_ir as ir
from onnx import TensorProto, helper

from edge_resnet.calibration.collect import collect
from edge_resnet.calibration.observers import OBSERVERS
from edge_resnet.calibration.refine import EXACT_PIXELS, Refined, replace_constant
from edge_resnet.calibration.schemes import Scheme
from edge_resnet.calibration.simulate import fast_session
from edge_resnet.calibration.topology import data, load_graph, own_constants, save_graph

POWER = 0.25
"""A channel of peak a is scaled by a^−POWER; 1 would make all peaks equal."""
BATCH = 4
Vector = npt.NDArray[np.float64]
Keys = npt.NDArray[np.int64]
"""For each channel of a tensor the key of the number that scales it."""


def equalize(
    refined: Refined, scheme: Scheme, frames: npt.NDArray[np.uint8], keep_float: tuple[str, ...] = ()
) -> Refined:
    """Scales channels by their peaks over some frames, and collects the ranges of the network that results.

    Ranges that no observer of ours chose, such as those of a calibration cache, cannot be chosen again: then the network
    stays as it is.

    Args:
        refined: the network and its ranges, which say by which method ranges are chosen.
        scheme: tells which tensors are quantized.
        frames: calibration frames N×H×W×C.
        keep_float: nodes that stay float.
    """
    loaded = load_graph(refined.model)
    channels = _Channels.of(loaded.graph)
    read = {scheme.range_name(value) for value in scheme.reads(loaded.graph, keep_float)}
    quantized = [value for value in channels.keys if str(value.name) in read]
    if not quantized or refined.table.method not in OBSERVERS:
        return refined
    peaks = _peaks(refined.model, [str(value.name) for value in quantized], frames)
    _apply(loaded.graph, channels, channels.scales(dict(zip(quantized, peaks, strict=True))))
    made = save_graph(loaded)
    table = collect(
        made,
        _batches(frames),
        method=refined.table.method,
        images=refined.table.images,
        preprocessing=refined.table.preprocessing,
    )
    kept = {EXACT_PIXELS: refined.table[EXACT_PIXELS]} if EXACT_PIXELS in refined.table.ranges else {}
    return Refined(made, table.with_ranges(made, kept))


def _batches(frames: npt.NDArray[np.uint8]) -> Iterator[npt.NDArray[np.uint8]]:
    return (frames[start : start + BATCH] for start in range(0, len(frames), BATCH))


def _peaks(model: onnx.ModelProto, names: list[str], frames: npt.NDArray[np.uint8]) -> list[Vector]:
    """The largest magnitude in each channel of some tensors N×C×H×W."""
    shown = onnx.ModelProto()
    shown.CopyFrom(model)
    del shown.graph.output[:]
    for index, name in enumerate(names):
        shown.graph.node.append(helper.make_node("Abs", [name], [f"peak.{index}.abs"]))
        shown.graph.node.append(helper.make_node("GlobalMaxPool", [f"peak.{index}.abs"], [f"peak.{index}"]))
        shown.graph.output.append(helper.make_tensor_value_info(f"peak.{index}", TensorProto.FLOAT, None))
    session = fast_session(shown)
    source = session.get_inputs()[0].name
    found: list[Any] = []
    for batch in _batches(frames):
        peaks = [result.max(axis=(0, 2, 3)) for result in session.run(None, {source: batch})]
        found = [np.maximum(*pair) for pair in zip(found, peaks, strict=True)] if found else peaks
    return [np.asarray(peak, np.float64) for peak in found]


@dataclass
class _Channels:
    """Which channels of which tensors must be scaled by the same number: a union-find over keys."""

    parents: list[int] = field(default_factory=lambda: [0])
    """Key 0 is the number 1: of channels that something reads which cannot follow."""
    keys: dict[ir.Value, Keys] = field(default_factory=dict)

    @classmethod
    def of(cls, graph: ir.Graph) -> _Channels:
        found = cls()
        for node in graph:
            _FOLLOWS.get(node.op_type, _Channels._pin)(found, node)
        for output in graph.outputs:
            found._fix(output)
        return found

    def fresh(self, count: int) -> Keys:
        start = len(self.parents)
        self.parents.extend(range(start, start + count))
        return np.arange(start, start + count)

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

    def scales(self, peaks: dict[ir.Value, Vector]) -> Vector:
        """The number for each key, from the peaks of the channels that have it."""
        roots = np.array([self.root(key) for key in range(len(self.parents))])
        highest = np.zeros(len(roots))
        for value, found in peaks.items():
            np.maximum.at(highest, roots[self.keys[value]], found)
        numbers = np.where(highest > 0, np.where(highest > 0, highest, 1) ** -POWER, 1)
        numbers[0] = 1
        return np.asarray(numbers[roots], np.float64)


_FOLLOWS: dict[str, Callable[[_Channels, ir.Node], None]] = {
    "Conv": _Channels._make,
    "BatchNormalization": _Channels._make,
    "Gemm": _Channels._read,
    "Relu": _Channels._pass_on,
    "MaxPool": _Channels._pass_on,
    "AveragePool": _Channels._pass_on,
    "GlobalAveragePool": _Channels._pass_on,
    "Flatten": _Channels._pass_on,
    "Add": _Channels._add,
    "Pad": _Channels._pad,
    "Slice": _Channels._slice,
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


def _apply(graph: ir.Graph, channels: _Channels, numbers: Vector) -> None:
    """Brings the numbers into every node's constants."""
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
