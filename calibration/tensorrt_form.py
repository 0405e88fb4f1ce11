"""What TensorRT refuses in a Q/DQ graph, or worse, reads otherwise than ONNX means it: found before compiling, by name.

Seen with the real parser and builder of TensorRT-RTX 1.7; the parsers of TensorRT 10 document the same. UINT8 activations
are the trap: they parse, with one warning among hundreds, and the engine cuts off every value above 127.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
from onnx import TensorProto, numpy_helper

from edge_resnet.errors import ModelError

QUANTIZERS = ("QuantizeLinear", "DequantizeLinear")
INTEGER_OPERATORS = ("QLinearConv", "QLinearMatMul", "ConvInteger", "MatMulInteger", "DynamicQuantizeLinear")
ADVICE = "quantize the FP32 network with `edge-resnet quantize`"


@dataclass(frozen=True)
class Graph:
    """A model's graph, and what its nodes read."""

    model: onnx.ModelProto

    @cached_property
    def constants(self) -> dict[str, onnx.TensorProto]:
        """Initializers and what Constant nodes give."""
        found = {tensor.name: tensor for tensor in self.model.graph.initializer}
        for node in self.model.graph.node:
            if node.op_type == "Constant":
                values = [attribute.t for attribute in node.attribute if attribute.name == "value"]
                found |= dict(zip(node.output, values, strict=False))
        return found

    @cached_property
    def producers(self) -> dict[str, onnx.NodeProto]:
        """Node by the name of what it gives."""
        return {name: node for node in self.model.graph.node for name in node.output}

    @cached_property
    def readers(self) -> dict[str, list[onnx.NodeProto]]:
        """Nodes by the name of what they read."""
        found: dict[str, list[onnx.NodeProto]] = {}
        for node in self.model.graph.node:
            for name in node.input:
                found.setdefault(name, []).append(node)
        return found

    def value(self, node: onnx.NodeProto, index: int) -> npt.NDArray[Any] | None:
        """A constant input; None where it is computed or left out."""
        name = node.input[index] if len(node.input) > index else ""
        return numpy_helper.to_array(self.constants[name]) if name in self.constants else None

    def quantized_type(self, node: onnx.NodeProto) -> int:
        """What a QuantizeLinear makes or a DequantizeLinear reads, as ONNX has it: UINT8 where nothing says more."""
        if len(node.input) > 2 and node.input[2] in self.constants:
            return self.constants[node.input[2]].data_type
        if node.op_type == "DequantizeLinear":
            stored = self.constants.get(node.input[0])
            made_by = self.producers.get(node.input[0])
            if stored is not None:
                return stored.data_type
            if made_by is not None and made_by.op_type == "QuantizeLinear":
                return self.quantized_type(made_by)
        given = [attribute.i for attribute in node.attribute if attribute.name == "output_dtype" and attribute.i]
        return int(given[0]) if given else int(TensorProto.UINT8)

    def is_weight(self, node: onnx.NodeProto) -> bool:
        """Whether a quantizer's tensor is a constant, or a constant that was quantized."""
        made_by = self.producers.get(node.input[0])
        return node.input[0] in self.constants or (
            made_by is not None and made_by.op_type == "QuantizeLinear" and made_by.input[0] in self.constants
        )


def refuse_misread(model: onnx.ModelProto) -> list[str]:
    """Refuses a Q/DQ model that TensorRT would refuse or misread.

    Returns:
        Notes on what it takes but had better not be given.

    Raises:
        ModelError: the first node that is so, what is wrong with it, and how many more there are.
    """
    graph = Graph(model)
    wrong = [f"{_named(node)} {what}" for node in model.graph.node for what in _wrong(graph, node)]
    if wrong:
        more = f" (and {len(wrong) - 1} more like it)" if len(wrong) > 1 else ""
        raise ModelError(f"TensorRT cannot be given this model: {wrong[0]}{more}; or {ADVICE}")
    return _notes(graph)


def _named(node: onnx.NodeProto) -> str:
    return f"{node.op_type} '{node.name or node.output[0]}'"


def _wrong(graph: Graph, node: onnx.NodeProto) -> Iterator[str]:
    if node.op_type in INTEGER_OPERATORS:
        yield "computes in integers by itself, which TensorRT reads as QuantizeLinear and DequantizeLinear alone"
    elif node.op_type in QUANTIZERS:
        yield from filter(None, (rule(graph, node) for rule in _RULES))


def _type(graph: Graph, node: onnx.NodeProto) -> str | None:
    return _TYPES.get(graph.quantized_type(node))


def _int4(graph: Graph, node: onnx.NodeProto) -> str | None:
    four_bits = graph.quantized_type(node) in (TensorProto.INT4, TensorProto.UINT4)
    convolved = any(reader.op_type == "Conv" for reader in graph.readers.get(node.output[0], ()))
    return "gives a convolution 4-bit weights, which are for matrix products alone" if four_bits and convolved else None


def _zero_point(graph: Graph, node: onnx.NodeProto) -> str | None:
    if len(node.input) < 3 or not node.input[2]:
        return None
    value = graph.value(node, 2)
    if value is None:
        return "has a zero point that is computed: it must be the constant 0"
    return f"has the zero point {_first(value[value != 0])}: it must be 0" if np.any(value.astype(np.float32)) else None


def _scale(graph: Graph, node: onnx.NodeProto) -> str | None:
    value = graph.value(node, 1)
    if value is None:
        return "has a scale that is computed: it must be constant"
    numbers = value.astype(np.float32)
    bad = numbers[~(np.isfinite(numbers) & (numbers > 0))]
    return f"has the scale {_first(bad)}: it must be above 0" if bad.size else None


def _one_float_type(graph: Graph, node: onnx.NodeProto) -> str | None:
    """FP32 tensors with FP16 scales build on some devices and fail on others, so scales must be of one type throughout."""
    first = next(each for each in graph.model.graph.node if each.op_type in QUANTIZERS)
    here, there = (graph.constants.get(each.input[1]) for each in (node, first))
    if here is None or there is None or here.data_type == there.data_type:
        return None
    names = [TensorProto.DataType.Name(scale.data_type) for scale in (here, there)]
    return f"has a scale of {names[0]}, and {_named(first)} one of {names[1]}: they must be of one type"


def _first(values: npt.NDArray[Any]) -> str:
    return f"{np.asarray(values.astype(np.float32)).flat[0]:g}"


_RULES: tuple[Callable[[Graph, onnx.NodeProto], str | None], ...] = (_type, _int4, _zero_point, _scale, _one_float_type)
_TYPES: dict[int, str] = {
    TensorProto.UINT8: "is UINT8, which TensorRT reads as INT8, so that all above 127 is cut off: make it INT8 with zero "
    "point 0",
    TensorProto.INT16: "has 16 bits: TensorRT has INT8 and FP8",
    TensorProto.UINT16: "has 16 bits: TensorRT has INT8 and FP8",
    TensorProto.INT32: "dequantizes INT32, as a quantized bias is: keep the bias float",
}


def _notes(graph: Graph) -> list[str]:
    channelwise = [
        node
        for node in graph.model.graph.node
        if node.op_type in QUANTIZERS and not graph.is_weight(node) and _sizes(graph, node) > 1
    ]
    if not channelwise:
        return []
    return [
        f"{_named(channelwise[0])} has a scale for each channel of an activation: TensorRT takes it, but is made for one "
        "scale a tensor there"
    ]


def _sizes(graph: Graph, node: onnx.NodeProto) -> int:
    scale = graph.value(node, 1)
    return 1 if scale is None else scale.size
