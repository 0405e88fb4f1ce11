"""Refinement: FP32 ONNX + table → a new FP32 ONNX with its own table, which loses less when quantized.

Here is the exact input, which keeps the FP32 function; ``bias`` has the correction that moves it by what quantization
will take away.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt
import onnx
import onnx_ir as ir
from onnx_ir.passes.common import RemoveUnusedNodesPass

from edge_resnet.calibration.observers import TensorRange
from edge_resnet.calibration.table import CalibrationTable
from edge_resnet.calibration.topology import add_constant, convolutions, data, load_graph, save_graph
from edge_resnet.engines.engine import Progress

EXACT_PIXELS = "preprocessing.pixels"
"""The tensor that holds pixel − 128, an integer."""
EXACT_RANGE = TensorRange(minimum=-128.0, maximum=127.0, amax=127.0, low=-128.0, high=127.0)
"""Scale 1 in both forms: no pixel is rounded, none is clipped."""

_Item = TypeVar("_Item")


@dataclass(frozen=True)
class Refined:
    """A network that is ready to be quantized, and its ranges."""

    model: onnx.ModelProto
    table: CalibrationTable
    before: onnx.ModelProto | None = None
    """The network before weights were rounded and biases moved, where they were."""

    @property
    def target(self) -> onnx.ModelProto:
        """FP32 network whose tensors are those of ``model``, free of any error: what later steps steer towards."""
        return self.model if self.before is None else self.before


def silent(phase: str, done: int, total: int) -> None:
    """The progress of work that nobody watches."""


def reported(items: Sequence[_Item], phase: str, progress: Progress) -> Iterator[_Item]:
    """Gives one item after another; each is done when the next is asked for."""
    progress(phase, 0, len(items))
    for done, item in enumerate(items, 1):
        yield item
        progress(phase, done, len(items))


def exact_input(model: onnx.ModelProto, table: CalibrationTable) -> Refined:
    """Makes the quantized input exact: the first convolution reads ``pixel − 128``, which INT8 holds without error.

    Scale and shift of the preprocessing, x = (pixel − m) · s a channel, go into the first convolution's weights. Its
    zero padding meant x = 0, pixel m; so the frame is padded with m, rounded to the nearest pixel, and the convolution
    pads no more. The FP32 function changes by that rounding at the border alone.

    A model whose input is not built by Sub and Mul of constants, straight into one convolution, is returned as it is.
    """
    loaded = load_graph(model)
    graph = loaded.graph
    first = next(iter(convolutions(graph)), None)
    mul = None if first is None else data(first).producer()
    sub = None if mul is None or mul.op_type != "Mul" else data(mul).producer()
    if first is None or mul is None or sub is None or sub.op_type != "Sub" or len(mul.outputs[0].uses()) != 1:
        return Refined(model, table)
    mean, scale = (data(node, 1).const_value for node in (sub, mul))
    weight = data(first, 1).const_value
    if mean is None or scale is None or weight is None or mean.size != weight.shape[1]:
        return Refined(model, table)
    mean_pixel, factor = (c.numpy().astype(np.float64).reshape(1, -1, 1, 1) for c in (mean, scale))
    _pad_with_mean(graph, first, data(sub), np.rint(mean_pixel))
    _fold(graph, first, factor, 128 - mean_pixel)
    for node in (mul, sub):
        graph.remove(node, safe=True)
    RemoveUnusedNodesPass()(loaded)
    made = save_graph(loaded)
    return Refined(made, table.with_ranges(made, {EXACT_PIXELS: EXACT_RANGE}))


def _pad_with_mean(graph: ir.Graph, conv: ir.Node, pixels: ir.Value, mean_pixel: npt.NDArray[np.float64]) -> None:
    """Pixels → − m → zero Pad → + (m − 128) → the convolution, which loses its own padding."""
    pads = conv.attributes["pads"].as_ints() if "pads" in conv.attributes else [0, 0, 0, 0]
    top, left, bottom, right = pads
    constants: dict[str, npt.NDArray[Any]] = {
        "preprocessing.mean_pixel": mean_pixel.astype(np.float32),
        "preprocessing.pads": np.array([0, 0, top, left, 0, 0, bottom, right], np.int64),
        "preprocessing.zero": np.array(0, np.float32),
        "preprocessing.mean_pixel_less_128": (mean_pixel - 128).astype(np.float32),
    }
    mean, amounts, zero, back = (add_constant(graph, name, value) for name, value in constants.items())
    centred = ir.node("Sub", [pixels, mean], name="preprocessing.centre")
    padded = ir.node("Pad", [centred.outputs[0], amounts, zero], name="preprocessing.pad")
    result = ir.node("Add", [padded.outputs[0], back], name=EXACT_PIXELS)
    for node in (centred, padded, result):
        node.outputs[0].name = node.name
    graph.insert_before(conv, [centred, padded, result])
    conv.replace_input_with(0, result.outputs[0])
    conv.attributes["pads"] = ir.AttrInt64s("pads", [0, 0, 0, 0])


def _fold(graph: ir.Graph, conv: ir.Node, factor: npt.NDArray[np.float64], offset: npt.NDArray[np.float64]) -> None:
    """Makes a convolution of x = (v + offset) · factor read v."""
    weight = data(conv, 1)
    assert weight.const_value is not None
    folded = weight.const_value.numpy().astype(np.float64) * factor
    shift = (folded * offset).sum(axis=(1, 2, 3))
    bias = conv.inputs[2] if len(conv.inputs) > 2 else None
    if bias is not None and bias.const_value is not None:
        shift += bias.const_value.numpy()
    replace_constant(weight, folded.astype(np.float32))
    if bias is None:
        name = f"{conv.name}.bias"
        conv.resize_inputs(3)
        conv.replace_input_with(2, add_constant(graph, name, shift.astype(np.float32)))
    else:
        replace_constant(bias, shift.astype(np.float32))


def replace_constant(constant: ir.Value, value: npt.NDArray[np.float32]) -> None:
    """Gives an initializer another value of the same shape."""
    constant.const_value = ir.tensor(value, name=constant.name)
