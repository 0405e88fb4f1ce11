"""Q/DQ → a float graph and a scale for each tensor: what TensorRT's implicit INT8 (up to version 10) takes.

Explicit quantization *is* arithmetic: a layer between Q and DQ computes in INT8. Implicit quantization is a hint: TensorRT
may leave any layer float, where that is faster. Here a quantizer does more than round: its saturation at −128 stands for a
ReLU (``zero_points``). So each one leaves a Clip to its range behind, and the graph means the same whether a layer becomes
INT8 or not.

TensorRT makes a layer INT8 when the tensors on both its sides have scales, so those between two quantizers get one too.
What a quantizer will saturate may saturate before it: tensors in front of it, up to the convolution, take its scale. In
front of a residual Add, with scale s of the sum and t of the shortcut, the other branch takes s + t: where it would
saturate, the sum does so anyway, whatever the shortcut.

Weights come out as the INT8 weights say, float. TensorRT quantizes them again, with a scale of its own for each channel
(amax / 127), so its integers are these only in channels that have a weight of ±127.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import onnx
import onnx_ir as ir
from onnx_ir.passes.common import RemoveUnusedNodesPass

from edge_resnet.calibration.float_weights import dequantized_constant
from edge_resnet.calibration.topology import MOVERS, add_constant, data, is_behind, load_graph, save_graph
from edge_resnet.errors import CalibrationError

_KEEP_RANGE = (*MOVERS, "Relu", "MaxPool", "Clip")
"""Operators whose output saturates where their input does."""


@dataclass(frozen=True)
class Stripped:
    """A network without Q/DQ, and its scales."""

    model: onnx.ModelProto
    quantized: dict[str, float]
    """Scales of the tensors that were quantized; INT8 stands for multiples of it from −128 to 127."""
    between: dict[str, float]
    """Scales of those between two of them. All others stay float."""


def strip_qdq(model: onnx.ModelProto) -> Stripped:
    """Takes the Q/DQ out of a model in TensorRT's scheme; the model is left as it is.

    Raises:
        CalibrationError: there is none in it, or it is not of that scheme (zero points, scales for each channel).
    """
    loaded = load_graph(model)
    stripping = _Stripping(loaded.graph)
    stripping.run()
    RemoveUnusedNodesPass()(loaded)
    scales = {str(value.name): scale for value, scale in stripping.scales.items()}
    quantized = {name: scale for name, scale in scales.items() if name in stripping.quantized}
    between = {name: scale for name, scale in scales.items() if name not in stripping.quantized}
    return Stripped(save_graph(loaded), quantized, between)


@dataclass
class _Stripping:
    graph: ir.Graph
    scales: dict[ir.Value, float] = field(default_factory=dict)
    quantized: set[str] = field(default_factory=set)

    def run(self) -> None:
        dequantizers = [node for node in self.graph if node.op_type == "DequantizeLinear"]
        if not dequantizers:
            raise CalibrationError("the model has no Q/DQ to take out: give a Q/DQ ONNX, or an INT8 bundle")
        for node in dequantizers:
            if data(node).const_value is not None:
                self._fold_constant(node)
            else:
                self._clip(node)
        self.quantized = {str(value.name) for value in self.scales}
        for value, scale in list(self.scales.items()):
            self._spread(value, scale)

    def _fold_constant(self, dq: ir.Node) -> None:
        values = dequantized_constant(dq)
        made = add_constant(self.graph, f"{dq.outputs[0].name}.float", values)
        dq.outputs[0].replace_all_uses_with(made)

    def _clip(self, dq: ir.Node) -> None:
        """Puts a Clip in the place of a pair, unless nothing can saturate there."""
        q = data(dq).producer()
        if q is None or q.op_type != "QuantizeLinear":
            raise CalibrationError(
                f"'{dq.name}' dequantizes no quantizer's output: give a Q/DQ ONNX as `quantize` makes"
            )
        scale = _scale_of(q)
        source = data(q)
        result = source if self._within(source, scale) else self._clipped(source, scale)
        dq.outputs[0].replace_all_uses_with(result)
        known = self.scales.setdefault(result, scale)
        if known != scale:
            raise CalibrationError(
                f"tensor '{result.name}' has two scales, {known:.6g} and {scale:.6g}: no cache can say so"
            )

    def _within(self, value: ir.Value, scale: float) -> bool:
        """Whether a tensor is in the range already: no convolution before it (pixels), or clipped so and only moved."""
        producer = value.producer()
        while producer is not None and producer.op_type in MOVERS:
            value = data(producer)
            producer = value.producer()
        if producer is not None and producer.op_type == "Clip":
            return self.scales.get(value) == scale
        return not is_behind(value, ("Conv",))

    def _clipped(self, source: ir.Value, scale: float) -> ir.Value:
        name = f"{source.name}.clip_{np.float32(scale):.6g}"
        found = next((use.node for use in source.uses() if use.node.name == name), None)
        if found is not None:
            return found.outputs[0]
        bounds = [
            add_constant(self.graph, f"{name}.{side}", np.array(scale * level, np.float32))
            for side, level in (("low", -128), ("high", 127))
        ]
        clip = ir.node("Clip", [source, *bounds], name=name)
        clip.outputs[0].name = name
        clip.outputs[0].type, clip.outputs[0].shape = source.type, source.shape
        producer = source.producer()
        assert producer is not None  # behind a convolution
        self.graph.insert_after(producer, clip)
        return clip.outputs[0]

    def _spread(self, value: ir.Value, scale: float) -> None:
        """Gives scales to what lies between a quantized tensor and the convolution that makes it."""
        producer = value.producer()
        if producer is None:
            return
        if producer.op_type in _KEEP_RANGE:
            before = [(data(producer), scale)]
        elif producer.op_type == "Add":
            parts = [data(producer, index) for index in (0, 1)]
            known = [self.scales.get(part) for part in parts]
            before = [
                (part, scale + other) for part, other in zip(parts, reversed(known), strict=True) if other is not None
            ]
        else:
            return
        for part, found in before:
            if part not in self.scales and is_behind(part, ("Conv",)):
                self.scales[part] = found
                self._spread(part, found)


def _scale_of(q: ir.Node) -> float:
    scale, zero = _constant(q, 1), _constant(q, 2)
    if scale.ndim or zero.dtype != np.int8 or np.any(zero):
        raise CalibrationError(
            f"'{q.name}' has a zero point or a scale for each channel, which a calibration cache cannot say: "
            f"quantize with --scheme tensorrt"
        )
    return float(scale)


def _constant(node: ir.Node, index: int) -> np.ndarray[tuple[int, ...], np.dtype[np.generic]]:
    found = data(node, index).const_value
    if found is None:
        raise CalibrationError(
            f"'{node.name}' has a scale or zero point that is computed: give a Q/DQ ONNX with constants"
        )
    return found.numpy()
