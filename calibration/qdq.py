"""FP32 ONNX + ranges + scheme → ONNX with explicit QuantizeLinear / DequantizeLinear pairs (Q/DQ)."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import onnx_ir as ir
from onnx_ir.passes.common import RemoveUnusedNodesPass

from edge_resnet.calibration.affine import QuantParams, quantize
from edge_resnet.calibration.schemes import Scheme
from edge_resnet.calibration.table import CalibrationTable
from edge_resnet.calibration.topology import add_constant, convolutions, data, load_graph, own_constants, save_graph
from edge_resnet.errors import CalibrationError


@dataclass(frozen=True)
class QuantizedModel:
    """A Q/DQ model and what became of each layer."""

    model: onnx.ModelProto
    scheme: str
    quantized_layers: tuple[str, ...]
    """Convolutions with INT8 inputs and weights, in order."""
    kept_float: tuple[str, ...]
    """Layers with weights that stay float."""


class _Editor:
    """Adds constants and Q/DQ nodes to a graph."""

    def __init__(self, graph: ir.Graph) -> None:
        self.graph = graph

    def constant(self, name: str, value: npt.NDArray[Any]) -> ir.Value:
        return add_constant(self.graph, name, value)

    def params(self, name: str, params: QuantParams) -> list[ir.Value]:
        zero_points = np.full(params.scale.shape, params.zero_point, params.dtype)
        return [self.constant(f"{name}.scale", params.scale), self.constant(f"{name}.zero_point", zero_points)]

    def pair(self, value: ir.Value, params: QuantParams) -> tuple[list[ir.Node], ir.Value]:
        """Q and DQ of an activation; the second is the tensor to read."""
        constants = self.params(str(value.name), params)
        q = ir.node("QuantizeLinear", [value, *constants], name=f"{value.name}.quantize")
        q.outputs[0].name = f"{value.name}.quantized"
        dq = ir.node("DequantizeLinear", [q.outputs[0], *constants], name=f"{value.name}.dequantize")
        dq.outputs[0].name = f"{value.name}.dequantized"
        return [q, dq], dq.outputs[0]

    def quantized_constant(self, value: ir.Value, params: QuantParams) -> tuple[ir.Node, ir.Value]:
        """An integer constant and its DQ, in the place of a float constant."""
        assert value.const_value is not None
        integers = self.constant(f"{value.name}.quantized", quantize(value.const_value.numpy(), params))
        attributes = {} if params.axis is None else {"axis": params.axis}
        constants = self.params(str(value.name), params)
        dq = ir.node("DequantizeLinear", [integers, *constants], attributes, name=f"{value.name}.dequantize")
        dq.outputs[0].name = f"{value.name}.dequantized"
        return dq, dq.outputs[0]


def insert_qdq(
    model: onnx.ModelProto, table: CalibrationTable, scheme: Scheme, keep_float: Collection[str] = ()
) -> QuantizedModel:
    """Quantizes every convolution of a model, but those named in ``keep_float``, in the form that engines take.

    Args and errors are those of ``place_qdq``.
    """
    placed = place_qdq(model, table, scheme, keep_float)
    return replace(placed, model=scheme.finish(placed.model))


def place_qdq(
    model: onnx.ModelProto, table: CalibrationTable, scheme: Scheme, keep_float: Collection[str] = ()
) -> QuantizedModel:
    """Quantizes a model with zero points as they are: every tensor but the quantized ones means what it did.

    Args:
        model: FP32 ONNX; left as it is.
        table: ranges of this model.
        scheme: where the pairs go and what they are.
        keep_float: names of nodes that stay float: convolutions, or residual Adds whose shortcut shall not be quantized.

    Raises:
        CalibrationError: the table belongs to another model or lacks a tensor; a name in ``keep_float`` is unknown.
    """
    table.check_fits(model)
    loaded = load_graph(model)
    if loaded.opset_imports[""] < scheme.opset:
        loaded.opset_imports[""], loaded.ir_version = scheme.opset, scheme.ir_version
    graph = loaded.graph
    own_constants(graph)
    keep_float = (*keep_float, *scheme.left_float(graph))
    names = {str(node.name) for node in graph}
    for name in keep_float:
        if name not in names:
            raise CalibrationError(f"keep_float names '{name}', which is no node of this model: see `edge-resnet info`")
    quantized = [conv for conv in convolutions(graph) if conv.name not in keep_float]
    floats = [str(node.name) for node in graph if node.op_type in ("Conv", "Gemm") and node not in quantized]
    editor = _Editor(graph)
    activations: dict[ir.Node, QuantParams] = {}
    reads = scheme.reads(graph, keep_float)
    chosen = {value: scheme.activation_params(table[scheme.range_name(value)]) for value in reads}
    for value, params in chosen.items():
        nodes, result = editor.pair(value, params)
        producer = value.producer()
        if producer is None:
            graph.insert_before(graph[0], nodes)
        else:
            graph.insert_after(producer, nodes)
        for reader, index in reads[value]:
            reader.replace_input_with(index, result)
            if reader.op_type == "Conv":
                activations[reader] = params
    for conv in quantized:
        known = table.weight_scales.get(str(data(conv, 1).name))
        _quantize_constants(editor, conv, scheme, activations[conv], known)
    RemoveUnusedNodesPass()(loaded)
    made = save_graph(loaded)
    return QuantizedModel(made, scheme.name, tuple(str(conv.name) for conv in quantized), tuple(floats))


def _quantize_constants(
    editor: _Editor, conv: ir.Node, scheme: Scheme, activation: QuantParams, known: tuple[float, ...] | None
) -> None:
    weight = data(conv, 1)
    assert weight.const_value is not None
    bias = conv.inputs[2] if len(conv.inputs) > 2 else None
    shift = None if bias is None or bias.const_value is None else bias.const_value.numpy()
    params = (
        scheme.weight_params(weight.const_value.numpy(), shift, activation)
        if known is None
        else QuantParams(np.asarray(known, np.float32), 0, np.int8, axis=0)
    )
    bias_params = None if bias is None else scheme.bias_params(activation, params)
    dq, result = editor.quantized_constant(weight, params)
    editor.graph.insert_before(conv, dq)
    conv.replace_input_with(1, result)
    if bias is not None and bias_params is not None:
        dq, result = editor.quantized_constant(bias, bias_params)
        editor.graph.insert_before(conv, dq)
        conv.replace_input_with(2, result)


def is_fp8(model: onnx.ModelProto) -> bool:
    """Whether a Q/DQ model is quantized to FP8."""
    return any(constant.data_type == onnx.TensorProto.FLOAT8E4M3FN for constant in model.graph.initializer)


def quantized_convolutions(model: onnx.ModelProto) -> tuple[str, ...]:
    """The convolutions of a Q/DQ model that read a dequantized tensor."""
    by_output = {output: node.op_type for node in model.graph.node for output in node.output}
    return tuple(
        node.name
        for node in model.graph.node
        if node.op_type == "Conv" and by_output.get(node.input[0]) == "DequantizeLinear"
    )
