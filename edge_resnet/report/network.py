"""The network as a report draws it: its layers in rows that end at residual sums, each with its precision."""

from __future__ import annotations

from dataclasses import dataclass

import onnx
import onnx_ir as ir

from edge_resnet.calibration.topology import data, load_graph

_WEIGHTED = {"Conv": "conv", "Gemm": "linear", "MatMul": "linear"}
_OTHERS = {"MaxPool": "max pool", "AveragePool": "average pool", "GlobalAveragePool": "average pool"}


@dataclass(frozen=True)
class Layer:
    """One layer that a person knows by name."""

    name: str
    kind: str
    precision: str
    """``quantized`` or ``float``; a residual sum is ``quantized`` when it reads its shortcut so."""
    detail: str
    """Of what size it is, where that is known."""


def rows_of(model: onnx.ModelProto) -> tuple[tuple[Layer, ...], ...]:
    """The layers in order; a residual sum ends a row, so that a block is one."""
    rows: list[list[Layer]] = [[]]
    for node in load_graph(model).graph:
        layer = _layer(node)
        if layer is None:
            continue
        if not layer.kind.startswith(("conv", "sum")) and rows[-1]:
            rows.append([])
        rows[-1].append(layer)
        if not layer.kind.startswith("conv"):
            rows.append([])
    return tuple(tuple(row) for row in rows if row)


def _layer(node: ir.Node) -> Layer | None:
    name = str(node.name or node.outputs[0].name)
    if node.op_type in _WEIGHTED:
        return Layer(name, _WEIGHTED[node.op_type], _precision(node, (0, 1)), _size(node))
    if node.op_type in _OTHERS:
        return Layer(name, _OTHERS[node.op_type], _precision(node, (0,)), "")
    if node.op_type == "Add" and all(each is not None and each.const_value is None for each in node.inputs):
        return Layer(name, "sum", "quantized" if any(map(_is_quantized, node.inputs)) else "float", "")
    return None


def _precision(node: ir.Node, inputs: tuple[int, ...]) -> str:
    return "quantized" if all(_is_quantized(node.inputs[index]) for index in inputs) else "float"


def _is_quantized(value: ir.Value | None) -> bool:
    producer = None if value is None else value.producer()
    return producer is not None and producer.op_type == "DequantizeLinear"


def _size(node: ir.Node) -> str:
    weight = data(node, 1)
    producer = weight.producer()
    held = (weight if producer is None else data(producer)).const_value
    if held is None:
        return ""
    shape = held.numpy().shape
    if node.op_type == "Conv":
        return f"{shape[2]}×{shape[3]}, {shape[1]} → {shape[0]}"
    return " → ".join(map(str, sorted(shape, reverse=True)))
