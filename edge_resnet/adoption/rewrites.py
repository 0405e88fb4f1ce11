"""Edits that make a folded network what calibration, TensorRT and a dynamic batch need. Each keeps the function."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import onnx_ir as ir

from edge_resnet.errors import ModelError
from edge_resnet.graph_writer import OPSET

_GLOBAL = {"ReduceMean": "GlobalAveragePool", "ReduceMax": "GlobalMaxPool"}


def name_nodes(graph: ir.Graph) -> None:
    """Gives every node a name of its own: the name it has, or its output's."""
    taken: set[str] = set()
    for node in graph:
        name = node.name or str(node.outputs[0].name)
        while name in taken:
            name += "_"
        taken.add(name)
        node.name = name


def single_precision(model: ir.Model) -> bool:
    """Turns float16 into float32, which holds all its values; returns whether there was any."""
    changed = False
    graph = model.graph
    for constant in graph.initializers.values():
        if constant.dtype == ir.DataType.FLOAT16 and constant.const_value is not None:
            _set(constant, constant.const_value.numpy().astype(np.float32))
            changed = True
    for node in graph:
        for attribute in node.attributes.values():
            if attribute.type == ir.AttributeType.TENSOR and attribute.value.dtype == ir.DataType.FLOAT16:
                node.attributes[attribute.name] = ir.AttrTensor(
                    attribute.name, ir.tensor(attribute.value.numpy().astype(np.float32))
                )
                changed = True
            if node.op_type == "Cast" and attribute.value == ir.DataType.FLOAT16:
                node.attributes["to"] = ir.AttrInt64("to", int(ir.DataType.FLOAT))
                changed = True
    for value in (*graph.inputs, *graph.outputs):
        if value.dtype == ir.DataType.FLOAT16:
            value.type = ir.TensorType(ir.DataType.FLOAT)
            changed = True
    return changed


def _set(constant: ir.Value, value: npt.NDArray[Any]) -> None:
    constant.const_value = ir.tensor(value, name=constant.name)
    constant.type, constant.shape = ir.TensorType(ir.DataType.from_numpy(value.dtype)), ir.Shape(value.shape)


def _constant(graph: ir.Graph, name: str, value: npt.NDArray[Any]) -> ir.Value:
    while name in graph.initializers:
        name += "_"
    made = ir.Value(name=name)
    _set(made, value)
    graph.register_initializer(made)
    return made


def _ints(node: ir.Node, name: str, default: Sequence[int]) -> list[int]:
    return list(node.attributes[name].as_ints()) if name in node.attributes else list(default)


def valid_pads(graph: ir.Graph) -> None:
    """Drops an ``auto_pad`` that says there is no padding, or none but ``pads``: ONNX Runtime folds no Pad into it."""
    for node in graph:
        if "auto_pad" in node.attributes and node.attributes["auto_pad"].as_string() in ("VALID", "NOTSET"):
            del node.attributes["auto_pad"]


def explicit_pads(graph: ir.Graph) -> None:
    """Replaces ``auto_pad`` by the numbers it stands for (ONNX, Conv: SAME_UPPER, SAME_LOWER)."""
    valid_pads(graph)
    for node in graph:
        if "auto_pad" in node.attributes:
            mode = node.attributes.pop("auto_pad").as_string()
            node.attributes["pads"] = ir.AttrInt64s("pads", _same(node, upper=mode == "SAME_UPPER"))


def _same(node: ir.Node, *, upper: bool) -> list[int]:
    sides, results = _dims(node.inputs[0])[2:], _dims(node.outputs[0])[2:]
    kernel = _ints(node, "kernel_shape", () if node.op_type != "Conv" else _dims(node.inputs[1])[2:])
    strides, dilations = _ints(node, "strides", [1] * len(kernel)), _ints(node, "dilations", [1] * len(kernel))
    before, after = [], []
    for side, result, k, stride, dilation in zip(sides, results, kernel, strides, dilations, strict=True):
        total = max((result - 1) * stride + (k - 1) * dilation + 1 - side, 0)
        less, more = total // 2, total - total // 2
        before.append(less if upper else more)
        after.append(more if upper else less)
    return before + after


def _dims(value: ir.Value | None) -> list[int]:
    assert value is not None and value.shape is not None  # shapes are inferred and checked before any rewrite
    return [dim if isinstance(dim, int) else -1 for dim in value.shape]


def additions(graph: ir.Graph) -> None:
    """X − constant becomes x + (−constant), which ONNX Runtime folds into a convolution."""
    for node in [node for node in graph if node.op_type == "Sub"]:
        taken = node.inputs[1]
        if taken is not None and taken.const_value is not None and taken.dtype == ir.DataType.FLOAT:
            less = _constant(graph, f"{node.name}.negative", -taken.const_value.numpy())
            added = ir.node("Add", [node.inputs[0], less], name=node.name)
            _take_place(graph, node, [added], added.outputs[0])


def bare_pads(graph: ir.Graph) -> None:
    """Drops the empty inputs at the end of a Pad, with which ONNX Runtime folds none into a convolution."""
    for node in graph:
        while node.op_type == "Pad" and node.inputs[-1] is None:
            node.resize_inputs(len(node.inputs) - 1)


def no_casts(graph: ir.Graph) -> None:
    """Removes Casts of float32 to float32."""
    for node in [node for node in graph if node.op_type == "Cast"]:
        source = node.inputs[0]
        if source is not None and source.dtype == ir.DataType.FLOAT == node.attributes["to"].as_int():
            node.outputs[0].replace_all_uses_with(source, replace_graph_outputs=True)
            graph.remove(node, safe=True)


def global_pools(graph: ir.Graph) -> None:
    """ReduceMean and ReduceMax over height and width become GlobalAveragePool and GlobalMaxPool, and a Flatten.

    One over N×H×W×C that keeps no axes gets a Transpose in front, which folding cancels with another.
    """
    for node in [node for node in graph if node.op_type in _GLOBAL]:
        source, axes = node.inputs[0], _axes(node)
        if source is None or source.shape is None or len(source.shape) != 4 or not axes:
            continue
        keep = node.attributes["keepdims"].as_int() if "keepdims" in node.attributes else 1
        pooled, made = sorted(axis % 4 for axis in axes), []
        if pooled == [1, 2] and not keep:
            transpose = ir.node("Transpose", [source], {"perm": [0, 3, 1, 2]}, name=f"{node.name}.transpose")
            source, pooled, made = transpose.outputs[0], [2, 3], [transpose]
            source.name = f"{node.outputs[0].name}.transposed"
        if pooled != [2, 3]:
            continue
        made.append(ir.node(_GLOBAL[node.op_type], [source], name=node.name))
        if not keep:
            made[-1].outputs[0].name = f"{node.outputs[0].name}.pooled"
            made.append(ir.node("Flatten", [made[-1].outputs[0]], name=f"{node.name}.flatten"))
        _take_place(graph, node, made, made[-1].outputs[0])


def _axes(node: ir.Node) -> list[int] | None:
    """The axes that a Reduce operator names; None where it names none, or they are computed."""
    if len(node.inputs) > 1:
        axes = node.inputs[1]
        return None if axes is None or axes.const_value is None else [int(a) for a in axes.const_value.numpy()]
    return _ints(node, "axes", ()) or None


def _take_place(graph: ir.Graph, old: ir.Node, made: list[ir.Node], last: ir.Value) -> None:
    """Puts nodes where another stood; the last result keeps the old one's name."""
    result = old.outputs[0]
    name = result.name
    last.type, last.shape = result.type, result.shape
    graph.insert_before(old, made)
    result.replace_all_uses_with(last, replace_graph_outputs=True)
    graph.remove(old, safe=True)
    last.name = name


def free_batch(graph: ir.Graph, batch: int) -> None:
    """Lets each Reshape to a constant shape that begins with the batch take it from its input (0, ONNX Reshape)."""
    for node in graph:
        shape = node.inputs[1] if node.op_type == "Reshape" and len(node.inputs) > 1 else None
        if shape is None or shape.const_value is None or node.inputs[0] is None or node.inputs[0].shape is None:
            continue
        wanted, held = shape.const_value.numpy().copy(), _dims(node.inputs[0])
        if len(wanted) and wanted[0] == batch and held and held[0] == batch:
            wanted[0] = 0
            node.attributes.pop("allowzero", None)  # with it, 0 would mean an empty axis; there is none here
            node.replace_input_with(1, _constant(graph, f"{node.name}.shape", wanted))


def own_constants(graph: ir.Graph) -> None:
    """Gives each layer its own weights and bias: quantization and refinement change them one layer at a time."""
    for constant in list(graph.initializers.values()):
        uses = [use for use in constant.uses() if use.node.op_type in ("Conv", "Gemm", "MatMul")]
        for use in uses[1 if len(uses) == len(constant.uses()) else 0 :]:
            assert constant.const_value is not None
            part = ("input", "weight", "bias")[use.idx]
            copied = _constant(graph, f"{use.node.name}.{part}", constant.const_value.numpy())
            use.node.replace_input_with(use.idx, copied)


def explicit_splits(graph: ir.Graph) -> None:
    """Replaces ``num_outputs`` of Split (opset 18) by the sizes it stands for."""
    for node in graph:
        if node.op_type == "Split" and "num_outputs" in node.attributes:
            del node.attributes["num_outputs"]
            axis = node.attributes["axis"].as_int() if "axis" in node.attributes else 0
            sizes = np.array([_dims(output)[axis] for output in node.outputs], np.int64)
            split = _constant(graph, f"{node.name}.split", sizes)
            node.resize_inputs(2)
            node.replace_input_with(1, split)


def lower_opset(model: ir.Model, name: str) -> None:
    """Brings a model of a later opset down, where each node means the same there: attributes that are new may only
    have their defaults, and inputs that are new may only be absent. The comparison with the original has the last word.

    Raises:
        ModelError: a node needs the later opset.
    """
    held = model.graph.opset_imports[""]
    if held <= OPSET:
        return
    for node in model.graph:
        try:
            then = onnx.defs.get_schema(node.op_type, OPSET)
        except onnx.defs.SchemaError as error:
            raise ModelError(_too_new(node, name, held)) from error
        now = onnx.defs.get_schema(node.op_type, held)
        for key in [key for key in node.attributes if key not in then.attributes]:
            if node.attributes[key].value != onnx.helper.get_attribute_value(now.attributes[key].default_value):
                raise ModelError(_too_new(node, name, held))
            del node.attributes[key]
        if len(node.inputs) > then.max_input:
            raise ModelError(_too_new(node, name, held))
    model.graph.opset_imports[""] = OPSET


def _too_new(node: ir.Node, name: str, held: int) -> str:
    return (
        f"{name}: node '{node.name}' ({node.op_type}) has no equal in opset {OPSET}, which TensorRT reads everywhere: "
        f"export with opset {OPSET} instead of {held}"
    )
