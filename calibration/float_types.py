"""The same network with another type in the place of FP32: TensorRT types its layers by the graph's types.

BF16 has FP32's range with 8 bits of mantissa. No CPU kernel computes in it, so what stands for such an engine is the FP32
network with every tensor rounded to BF16, which is how tensor cores compute: products of BF16 summed in FP32.
"""

from __future__ import annotations

from dataclasses import dataclass

import ml_dtypes
import numpy as np
import numpy.typing as npt
import onnx
from onnx import TensorProto, helper, numpy_helper

from edge_resnet.errors import CalibrationError


@dataclass(frozen=True)
class Opset:
    """A version of ONNX's operators, and that of the file format which it came with."""

    version: int
    ir_version: int


@dataclass(frozen=True)
class FloatType:
    """A type that may stand in FP32's place."""

    name: str
    code: int
    """In ONNX."""
    dtype: npt.DTypeLike
    limit: float
    """The largest number that it holds."""
    needs: Opset
    """The first in which the operators of these networks take it."""
    quantized_needs: Opset
    """The first in which QuantizeLinear does."""


FP16 = FloatType(
    "FP16",
    TensorProto.FLOAT16,
    np.float16,
    float(np.finfo(np.float16).max),
    needs=Opset(13, 7),
    quantized_needs=Opset(19, 9),
)
"""Old parsers (TensorRT 8.6's) need not meet a newer opset than the network has, but for Q/DQ, which they get in FP32."""
BF16 = FloatType(
    "BF16",
    TensorProto.BFLOAT16,
    ml_dtypes.bfloat16,
    float.fromhex("0x1.fep127"),
    needs=Opset(22, 10),
    quantized_needs=Opset(22, 10),
)
"""Conv and the pooling operators take it from opset 22 on."""


def half_typed(model: onnx.ModelProto) -> onnx.ModelProto:
    """The same model in FP16, the output still float32.

    Scales are numbers that FP16 holds (see ``affine.half_scale``), so that integers do not change; weights and biases that
    stay float are rounded.
    """
    return _retyped(model, FP16)


def brain_typed(model: onnx.ModelProto) -> onnx.ModelProto:
    """The same model in BF16, the output still float32."""
    return _retyped(model, BF16)


def _retyped(model: onnx.ModelProto, wanted: FloatType) -> onnx.ModelProto:
    made = onnx.ModelProto()
    made.CopyFrom(model)
    graph = made.graph
    answer = graph.output[0].name
    for constant in graph.initializer:
        if constant.data_type == TensorProto.FLOAT:
            constant.CopyFrom(_constant(constant, wanted))
    for node in graph.node:
        if node.op_type == "Cast":
            for attribute in node.attribute:
                attribute.i = wanted.code if attribute.i == TensorProto.FLOAT else attribute.i
        for names in (node.input, node.output):
            names[:] = [f"{name}.half" if name == answer else name for name in names]
    graph.node.append(
        helper.make_node("Cast", [f"{answer}.half"], [answer], name=f"{answer}.cast", to=TensorProto.FLOAT)
    )
    del graph.value_info[:]
    quantized = any(node.op_type == "QuantizeLinear" for node in graph.node)
    needed = wanted.quantized_needs if quantized else wanted.needs
    made.ir_version = max(made.ir_version, needed.ir_version)
    made.opset_import[0].version = max(made.opset_import[0].version, needed.version)
    onnx.checker.check_model(made, full_check=True)
    return made


def _constant(constant: onnx.TensorProto, wanted: FloatType) -> onnx.TensorProto:
    value = numpy_helper.to_array(constant)
    if np.abs(value).max(initial=0) > wanted.limit:
        raise CalibrationError(
            f"'{constant.name}' has values beyond {wanted.limit:.0f}, the largest of {wanted.name}: build fp32"
        )
    rounded = value.astype(wanted.dtype)
    return helper.make_tensor(constant.name, wanted.code, rounded.shape, rounded.tobytes(), raw=True)


def brain_rounded(model: onnx.ModelProto) -> onnx.ModelProto:
    """The FP32 model that computes as the BF16 one does: every constant and every tensor is a number that BF16 holds.

    An engine may keep FP32 between layers that it fuses, and then rounds less often.
    """
    made = onnx.ModelProto()
    made.CopyFrom(model)
    graph = made.graph
    for constant in graph.initializer:
        if constant.data_type == TensorProto.FLOAT:
            value = numpy_helper.to_array(constant).astype(BF16.dtype).astype(np.float32)
            constant.CopyFrom(numpy_helper.from_array(value, constant.name))
    inferred = onnx.shape_inference.infer_shapes(model, strict_mode=True, data_prop=True).graph
    floats = {v.name for v in inferred.value_info if v.type.tensor_type.elem_type == TensorProto.FLOAT}
    nodes = list(graph.node)
    del graph.node[:]
    for node in nodes:
        graph.node.append(node)
        for name in [name for name in node.output if name in floats]:
            graph.node.append(helper.make_node("Cast", [name], [f"{name}.bf16"], to=BF16.code))
            graph.node.append(helper.make_node("Cast", [f"{name}.bf16"], [f"{name}.rounded"], to=TensorProto.FLOAT))
    for node in _own_nodes(graph):
        node.input[:] = [f"{name}.rounded" if name in floats else name for name in node.input]
    del graph.value_info[:]
    onnx.checker.check_model(made, full_check=True)
    return made


def _own_nodes(graph: onnx.GraphProto) -> list[onnx.NodeProto]:
    """The graph's nodes but those that round."""
    return [node for node in graph.node if not any(name.endswith((".bf16", ".rounded")) for name in node.output)]
