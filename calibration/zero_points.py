"""UINT8 with a zero point → INT8 with zero point 0, at the same resolution.

TensorRT takes INT8 with zero point 0 alone. A tensor behind a ReLU then uses one half of the integers, one bit less than
UINT8 gives it. But x = (q + 128 − z)·s for q in INT8: stored is x less an offset, o = (128 − z)·s, and a network can be
made to compute just that. The bias in front of the quantizer takes the offset off, and the quantizer's own saturation at
−128 stands for the ReLU. What reads x − o puts the offset back: a convolution as o·Σw in its bias, a residual Add in
the bias of the convolution beside it. Zero padding means x = 0, so a convolution that pads reads a tensor that was padded
with −o before it was quantized.

The integers are those of the UINT8 graph. With zero point 0 this is the "zero point folding" of Jacob et al.
(arXiv:1712.05877, section 2.3), moved from the kernel into the graph.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import onnx_ir as ir
from onnx_ir.passes.common import RemoveUnusedNodesPass

from edge_resnet.calibration.topology import data, load_graph, only_reader, save_graph

MIDDLE = 128
"""The zero point that UINT8 and INT8 have in common: q − 128 there is q here."""


def fold_zero_points(model: onnx.ModelProto) -> onnx.ModelProto:
    """Gives every UINT8 activation of a Q/DQ model as INT8 with zero point 0; the model is left as it is."""
    loaded = load_graph(model)
    _Folding(loaded.graph).run()
    RemoveUnusedNodesPass()(loaded)
    return save_graph(loaded)


@dataclass(frozen=True)
class _Pair:
    """A quantizer and its dequantizer."""

    q: ir.Node
    dq: ir.Node
    scale: float
    zero_point: int

    @property
    def offset(self) -> float:
        """What is taken off before quantization; INT8's own zero stands for it."""
        return (MIDDLE - self.zero_point) * self.scale


@dataclass
class _Folding:
    graph: ir.Graph
    carried: dict[ir.Value, float] = field(default_factory=dict)
    """Tensors that hold x less an offset already, because they only moved values that do."""

    def run(self) -> None:
        for pair in _unsigned_pairs(self.graph):
            zero = self._constant(f"{pair.q.name}.zero", np.array(0, np.int8))
            for node in (pair.q, pair.dq):
                node.replace_input_with(2, zero)
            source = data(pair.q)
            amount = pair.offset - self.carried.get(source, 0.0)
            if amount:
                pair.q.replace_input_with(0, self._less(source, amount, rectifies=pair.zero_point == 0))
            if pair.offset:
                self._restore(pair)

    # In front of the quantizer.

    def _less(self, value: ir.Value, amount: float, *, rectifies: bool) -> ir.Value:
        """A tensor that gives the same integers as ``value`` less ``amount``.

        Args:
            value: what was quantized.
            amount: the offset.
            rectifies: whether the quantizer saturates at 0, so that a ReLU changes nothing.
        """
        path = _path_to_bias(value)
        if not path or not (rectifies or all(node.op_type != "Relu" for node in path)):
            return self._subtracted(value, amount)
        self._add_to_bias(path[-1], np.float64(-amount))
        for node in path:
            if node.op_type == "Relu":
                node.outputs[0].replace_all_uses_with(data(node))
            elif node.op_type == "Pad":
                self._fill(node, -amount)
        return data(path[0]) if path[0].op_type == "Relu" else value

    def _subtracted(self, value: ir.Value, amount: float) -> ir.Value:
        producer = value.producer()
        assert producer is not None  # a frame is made of integers already
        node = ir.node("Sub", [value, self._scalar(f"{value.name}.offset", amount)], name=f"{value.name}.centre")
        node.outputs[0].name = node.name
        self.graph.insert_after(producer, node)
        return node.outputs[0]

    def _add_to_bias(self, node: ir.Node, amount: npt.NDArray[np.float64] | np.float64) -> None:
        """Adds to what a convolution or BatchNorm gives, in each channel."""
        index = _BIAS[node.op_type]
        old = node.inputs[index] if len(node.inputs) > index else None
        if old is None:
            weight = _constant_weight(node)
            assert weight is not None  # ``_has_bias`` has looked
            node.resize_inputs(index + 1)
            before = np.zeros(len(weight))
        else:
            assert old.const_value is not None
            before = old.const_value.numpy().astype(np.float64)
        bias = self._constant(f"{node.name}.centred_bias", (before + amount).astype(np.float32))
        node.replace_input_with(index, bias)

    # Behind the dequantizer.

    def _restore(self, pair: _Pair) -> None:
        for use in list(pair.dq.outputs[0].uses()):
            if not _RESTORE.get(use.node.op_type, _Folding._not_here)(self, pair, use.node, use.idx):
                self._add_back(pair, use.node, use.idx)

    def _not_here(self, pair: _Pair, reader: ir.Node, index: int) -> bool:
        return False

    def _add_back(self, pair: _Pair, reader: ir.Node, index: int) -> None:
        """X itself, for a reader that knows of no offset."""
        back = ir.node(
            "Add",
            [pair.dq.outputs[0], self._scalar(f"{reader.name}.offset", pair.offset)],
            name=f"{reader.name}.restore.{index}",
        )
        back.outputs[0].name = back.name
        self.graph.insert_before(reader, back)
        reader.replace_input_with(index, back.outputs[0])

    def _in_convolution(self, pair: _Pair, conv: ir.Node, index: int) -> bool:
        weight = _constant_weight(conv)
        if index != 0 or weight is None or not _has_bias(conv):
            return False
        self._add_to_bias(conv, pair.offset * weight.sum(axis=(1, 2, 3)))
        pads = conv.attributes["pads"].as_ints() if "pads" in conv.attributes else (0, 0, 0, 0)
        if any(pads):
            conv.replace_input_with(0, self._padded(pair, tuple(pads)))
            conv.attributes["pads"] = ir.AttrInt64s("pads", [0, 0, 0, 0])
        return True

    def _padded(self, pair: _Pair, pads: tuple[int, ...]) -> ir.Value:
        """What a pair gives, padded with the integer that stands for 0; made once for all that pad so."""
        name = f"{pair.q.name}.padded_{'_'.join(map(str, pads))}"
        found = next((node for node in self.graph if node.name == f"{name}.dequantize"), None)
        if found is not None:
            return found.outputs[0]
        top, left, bottom, right = pads
        amounts = self._constant(f"{name}.pads", np.array([0, 0, top, left, 0, 0, bottom, right], np.int64))
        pad = ir.node("Pad", [data(pair.q), amounts, self._scalar(f"{name}.fill", -pair.offset)], name=name)
        q = ir.node("QuantizeLinear", [pad.outputs[0], *pair.q.inputs[1:]], name=f"{name}.quantize")
        dq = ir.node("DequantizeLinear", [q.outputs[0], *pair.dq.inputs[1:]], name=f"{name}.dequantize")
        for node in (pad, q, dq):
            node.outputs[0].name = node.name
        self.graph.insert_after(pair.dq, [pad, q, dq])
        return dq.outputs[0]

    def _in_sum(self, pair: _Pair, add: ir.Node, index: int) -> bool:
        """A residual Add: the convolution beside takes the offset."""
        beside = data(add, 1 - index)
        producer = beside.producer()
        if producer is None or not _has_bias(producer) or only_reader(beside) is None:
            return False
        self._add_to_bias(producer, np.float64(pair.offset))
        return True

    def _in_move(self, pair: _Pair, mover: ir.Node, index: int) -> bool:
        """Slice, Pad and AveragePool, where all that reads their result quantizes it: the offset moves along."""
        moved = mover.outputs[0]
        if not all(use.node.op_type == "QuantizeLinear" for use in moved.uses()) or _averages_padding(mover):
            return False
        if mover.op_type == "Pad":
            self._fill(mover, -pair.offset)
        self.carried[moved] = pair.offset
        return True

    def _fill(self, pad: ir.Node, value: float) -> None:
        pad.resize_inputs(max(3, len(pad.inputs)))
        pad.replace_input_with(2, self._scalar(f"{pad.name}.fill", value))

    def _scalar(self, name: str, value: float) -> ir.Value:
        return self._constant(name, np.array(value, np.float32))

    def _constant(self, name: str, value: npt.NDArray[Any]) -> ir.Value:
        unique = name
        while unique in self.graph.initializers:
            unique += "_"
        made = ir.Value(name=unique, const_value=ir.tensor(value, name=unique))
        made.type, made.shape = ir.TensorType(ir.DataType.from_numpy(value.dtype)), ir.Shape(value.shape)
        self.graph.register_initializer(made)
        return made


_RESTORE: dict[str, Callable[[_Folding, _Pair, ir.Node, int], bool]] = {
    "Conv": _Folding._in_convolution,
    "Add": _Folding._in_sum,
    "Slice": _Folding._in_move,
    "Pad": _Folding._in_move,
    "AveragePool": _Folding._in_move,
}
_BIAS = {"Conv": 2, "BatchNormalization": 2}
"""Where these nodes have what they add to each channel."""
_THROUGH = ("Relu", "MaxPool", "Pad")
"""What the bias of a tensor passes through: the greatest of x − o is that of x less o."""


def _unsigned_pairs(graph: ir.Graph) -> list[_Pair]:
    found = []
    for q in graph:
        zero_point = q.inputs[2].const_value if q.op_type == "QuantizeLinear" and q.inputs[2] is not None else None
        scale = data(q, 1).const_value if zero_point is not None else None
        if zero_point is not None and scale is not None and zero_point.dtype == ir.DataType.UINT8:
            dq = only_reader(q.outputs[0])
            assert dq is not None  # ``insert_qdq`` makes pairs
            found.append(_Pair(q, dq, float(scale.numpy()), int(zero_point.numpy())))
    return found


def _path_to_bias(value: ir.Value) -> list[ir.Node]:
    """The nodes from a tensor up to the convolution or BatchNorm whose bias moves this tensor and no other; or none."""
    producer = value.producer()
    if producer is None or only_reader(value) is None or value.is_graph_output():
        return []
    if _has_bias(producer):
        return [producer]
    if producer.op_type == "Add":
        beyond = [_path_to_bias(data(producer, index)) for index in (0, 1)]
        return next(([producer, *path] for path in beyond if len(path) == 1), [])
    beyond = [_path_to_bias(data(producer))] if producer.op_type in _THROUGH else []
    return next(([producer, *path] for path in beyond if path), [])


def _has_bias(node: ir.Node) -> bool:
    """Whether a node adds a float constant to each channel, or could."""
    if node.op_type not in _BIAS:
        return False
    bias = node.inputs[_BIAS[node.op_type]] if len(node.inputs) > _BIAS[node.op_type] else None
    return _constant_weight(node) is not None if bias is None else bias.const_value is not None


def _constant_weight(conv: ir.Node) -> npt.NDArray[np.float64] | None:
    """A convolution's weights M×C×kH×kW, dequantized; None where they are computed."""
    weight = data(conv, 1)
    producer = weight.producer()
    if producer is None:
        return None if weight.const_value is None else weight.const_value.numpy().astype(np.float64)
    integers, scale = (data(producer, index).const_value for index in (0, 1))
    if producer.op_type != "DequantizeLinear" or integers is None or scale is None:
        return None
    steps = scale.numpy().astype(np.float64).reshape(-1, 1, 1, 1)
    return np.asarray(integers.numpy() * steps, np.float64)


def _averages_padding(node: ir.Node) -> bool:
    """Whether an average pooling counts zeros that it padded."""
    included = node.attributes.get("count_include_pad")
    return node.op_type == "AveragePool" and included is not None and bool(included.as_int()) and _pads(node)


def _pads(node: ir.Node) -> bool:
    return "pads" in node.attributes and any(node.attributes["pads"].as_ints())
