"""What each quantizer of a finished Q/DQ graph does: its noise, its share of the answers' error, and what it clips.

One graph with a switch at every tensor: where it is off, the tensor passes as it is, but for the saturation, which stands
for a ReLU (``zero_points``). So one session measures all of them, and needs neither the network nor the table that the
graph was made from. Weights stay as they are: theirs is another error, and the smaller one.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import onnx_ir as ir

from edge_resnet.calibration.simulate import exact_session
from edge_resnet.calibration.topology import add_constant, data, is_behind, load_graph
from edge_resnet.errors import CalibrationError

LOWEST, HIGHEST = -128, 127
WIDEST = 256
"""Steps of the scale that a histogram reaches to on both sides; what lies beyond is in its outermost bins."""
STEPS_A_BIN = 8
SWITCHES = "rounded"
"""The graph's input that says which tensors are rounded."""

Frames = npt.NDArray[np.uint8]
Array = npt.NDArray[np.float32]


@dataclass(frozen=True)
class QuantizedTensor:
    """One tensor of the graph, quantized once or more with one scale."""

    name: str
    """Of the layer that makes it, or of the activation behind that."""
    scale: float
    noise: float
    """Σ(z − ẑ)² / Σz² of the answers when this tensor alone is rounded."""
    sqnr_db: float | None
    """Of the tensor itself when it and all before it are rounded, its mean aside; None where nothing changes."""
    histogram: tuple[int, ...]
    """Values in ``STEPS_A_BIN`` steps of the scale a bin, from −``WIDEST`` on."""
    below: float
    """Share of values under −128 steps: behind a ReLU, what that makes zero."""
    above: float
    """Share of values over 127 steps: clipped."""


@dataclass(frozen=True)
class _Switch:
    """Where the graph can leave a tensor unrounded."""

    name: str
    scale: float
    source: ir.Value
    pairs: tuple[tuple[ir.Node, ir.Node], ...]
    """Its quantizers and their dequantizers."""


def quantizer_noise(model: onnx.ModelProto, frames: Frames) -> tuple[QuantizedTensor, ...]:
    """Measures every quantized activation of a Q/DQ graph in INT8 with zero point 0, in the graph's order.

    Args:
        model: as ``quantize`` makes it in the ``tensorrt`` scheme.
        frames: N×H×W×C; each is run as often as there are tensors.

    Raises:
        CalibrationError: there is nothing quantized in it, or it is quantized in another way.
    """
    switched, switches = _switched(model)
    session = exact_session(switched)
    everything, nothing = np.ones(len(switches), np.bool_), np.zeros(len(switches), np.bool_)
    names = [output.name for output in session.get_outputs()]

    def run(rounded: npt.NDArray[np.bool_], wanted: list[str]) -> list[list[Array]]:
        """Each frame's outputs."""
        fed = session.get_inputs()[0].name
        return [session.run(wanted, {fed: frame[np.newaxis], SWITCHES: rounded}) for frame in frames]

    plain, noisy = run(nothing, names), run(everything, names)
    found = []
    for index, switch in enumerate(switches):
        alone = nothing.copy()
        alone[index] = True
        changed = [each[0] for each in run(alone, names[:1])]
        noise = _ratio(changed, [each[0] for each in plain])
        before, after = ([each[1 + index] / switch.scale for each in runs] for runs in (plain, noisy))
        kept = [_saturated(each) for each in before]
        own = _ratio([_saturated(np.rint(each)) for each in after], kept, float(np.mean(kept)))
        found.append(_described(switch, noise, own, np.concatenate([each.ravel() for each in before])))
    return tuple(found)


def _described(switch: _Switch, noise: float, own: float, steps: Array) -> QuantizedTensor:
    edges = np.arange(-WIDEST, WIDEST + 1, STEPS_A_BIN)
    counts, _ = np.histogram(np.clip(steps, -WIDEST, WIDEST - 1), edges)
    return QuantizedTensor(
        switch.name,
        switch.scale,
        noise,
        -10 * math.log10(own) if own > 0 else None,
        tuple(counts.tolist()),
        float(np.mean(steps < LOWEST)),
        float(np.mean(steps > HIGHEST)),
    )


def _saturated(steps: Array) -> Array:
    return np.clip(steps, LOWEST, HIGHEST)


def _ratio(changed: list[Array], wanted: list[Array], middle: float = 0.0) -> float:
    """Σ(z − ẑ)² / Σ(z − middle)² over all."""
    signal = sum(float(np.square(each.astype(np.float64) - middle).sum()) for each in wanted)
    noise = sum(
        float(np.square(one.astype(np.float64) - other).sum()) for one, other in zip(changed, wanted, strict=True)
    )
    return noise / signal if signal > 0 else 0.0


def _switched(model: onnx.ModelProto) -> tuple[onnx.ModelProto, list[_Switch]]:
    """The graph with the switches as an input, and each switch's tensor, before rounding, as an output."""
    loaded = load_graph(model)
    graph = loaded.graph
    switches = _switches(graph)
    if not switches:
        raise CalibrationError("no activation of the graph is quantized: give a Q/DQ ONNX, as `quantize` makes it")
    rounded = ir.Value(name=SWITCHES, type=ir.TensorType(ir.DataType.BOOL), shape=ir.Shape([len(switches)]))
    graph.inputs.append(rounded)
    for index, switch in enumerate(switches):
        on = ir.node("Gather", [rounded, add_constant(graph, f"switch.{index}", np.array(index, np.int64))])
        graph.insert_before(switch.pairs[0][0], on)
        for q, dq in switch.pairs:
            _leave_a_way_round(graph, on.outputs[0], q, dq, switch.scale)
        graph.outputs.append(switch.source)
    graph.sort()
    return ir.to_proto(loaded), switches


def _switches(graph: ir.Graph) -> list[_Switch]:
    """Quantizers that share a scale are those of one tensor, padded or not. Pixels are whole numbers: nothing to round."""
    found: dict[str, _Switch] = {}
    for q in (node for node in graph if node.op_type == "QuantizeLinear"):
        scale, zero = _number(q, 1), _number(q, 2)
        if zero != 0 or zero.dtype != np.int8:
            raise CalibrationError(
                f"'{q.outputs[0].name}' has a zero point or another type: give a graph of the tensorrt scheme"
            )
        source = data(q)
        maker = source.producer()
        if maker is not None and maker.op_type == "Pad":
            source = data(maker)
        name = str(data(q, 1).name).removesuffix(".scale")
        if not is_behind(source, ("Conv", "Gemm")):
            continue
        dqs = [use.node for use in q.outputs[0].uses() if use.node.op_type == "DequantizeLinear"]
        before = found.get(name) or _Switch(name, float(scale), source, ())
        found[name] = replace(before, pairs=(*before.pairs, *((q, dq) for dq in dqs)))
    return list(found.values())


def _leave_a_way_round(graph: ir.Graph, on: ir.Value, q: ir.Node, dq: ir.Node, scale: float) -> None:
    rounded = dq.outputs[0]
    readers = list(rounded.uses())
    bounds = [
        add_constant(graph, f"{rounded.name}.{side}", np.array(steps * scale, np.float32))
        for side, steps in (("lowest", LOWEST), ("highest", HIGHEST))
    ]
    clip = ir.node("Clip", [data(q), *bounds])
    choice = ir.node("Where", [on, rounded, clip.outputs[0]])
    graph.insert_after(dq, [clip, choice])
    for reader, index in readers:
        reader.replace_input_with(index, choice.outputs[0])


def _number(node: ir.Node, index: int) -> npt.NDArray[Any]:
    held = data(node, index).const_value
    if held is None or held.numpy().ndim:
        raise CalibrationError(
            f"'{node.name}' has no scale and zero point of its own: give a graph that `quantize` made"
        )
    return held.numpy()
