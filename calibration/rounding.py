"""Second-order rounding: each weight is rounded so that it makes good the error of those before it.

Rounding to the nearest minimises the error of the weights; what matters is the error of the convolution's output, whose
square is ΔwᵀHΔw with H = E[x·xᵀ] over the patches x that the convolution reads. Weights are rounded one after another, and
what an error does to the output is taken into those that are still to come, by the inverse of H (Hassibi and Stork, NIPS
1992; Frantar and Alistarh, arXiv:2208.11580; in the order and form of Frantar et al., "GPTQ", arXiv:2210.17323,
section 3). No gradient and no training: one pass over some images, and a Cholesky factor a layer. A weight that is 0 was
taken out (``sparsity``) and stays 0; what it cannot make good is left to the others (Frantar and Alistarh, "SparseGPT",
arXiv:2301.00774, section 3.5).
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
import onnx
import onnx_ir as ir
from onnx import TensorProto, helper

from edge_resnet.calibration.affine import QuantParams, dequantize
from edge_resnet.calibration.refine import Refined, replace_constant, reported, silent
from edge_resnet.calibration.schemes import Scheme
from edge_resnet.calibration.simulate import fast_session
from edge_resnet.calibration.topology import convolutions, data, load_graph, own_constants, save_graph
from edge_resnet.engines.engine import Progress

PATCHES = 128
"""Patches of an image that enter it, about, evenly over its area; neighbours differ little."""
BATCH = 4
"""Images that run together; each product of patches passes over all of H once."""
DAMPING = 0.01
"""Added to the diagonal of H, as a share of its mean: inputs are noisy by half a step anyway, and H may be singular."""
LARGEST = 2304
"""Weights of an output channel that are rounded together; of more, parts are taken for independent, or H would take
gigabytes."""
COLUMNS = 128
"""Weights whose errors are gathered before the others are corrected: one matrix product in the place of many."""

Matrix = npt.NDArray[np.float64]
Tensor = npt.NDArray[np.float32]


def round_weights(
    refined: Refined,
    scheme: Scheme,
    frames: npt.NDArray[np.uint8],
    keep_float: tuple[str, ...] = (),
    progress: Progress = silent,
) -> Refined:
    """Rounds the weights of every convolution to multiples of their scales, which the table then holds.

    Args:
        refined: the network and its ranges.
        scheme: gives the scales, and the integers that its engines can sum.
        frames: calibration frames N×H×W×C.
        keep_float: nodes that stay float.
        progress: told of batches whose patches are seen, then of layers that are rounded.
    """
    loaded = load_graph(refined.model)
    own_constants(loaded.graph)
    layers = [_Layer.of(conv) for conv in convolutions(loaded.graph) if conv.name not in keep_float]
    batches = [frames[start : start + BATCH] for start in range(0, len(frames), BATCH)]
    if layers:  # else all stay float, and there is nothing to look at
        _observe(save_graph(loaded), layers, reported(batches, "patches", progress))
    reads = {data(conv): scheme.range_name(data(conv)) for conv in convolutions(loaded.graph)}
    scales: dict[str, tuple[float, ...]] = {}
    for layer in reported(layers, "layers", progress):
        activation = scheme.activation_params(refined.table[reads[data(layer.conv)]])
        params = scheme.weight_params(layer.weight, layer.bias, activation)
        integers = scheme.summable(layer.rounded(params))
        replace_constant(data(layer.conv, 1), dequantize(integers, params))
        scales[str(data(layer.conv, 1).name)] = tuple(float(scale) for scale in params.scale)
    made = save_graph(loaded)
    return Refined(made, replace(refined.table.with_ranges(made, {}), weight_scales=scales), refined.target)


@dataclass(frozen=True)
class _Part:
    """Weights that are rounded together: some output channels, and what they read of some input channels."""

    outputs: slice
    inputs: slice
    """Of the convolution's input tensor."""
    columns: slice
    """Of the weights M×K that belong to them."""
    moments: Tensor
    """The sum of x·xᵀ over patches."""


@dataclass(frozen=True)
class _Layer:
    """A convolution and its parts."""

    conv: ir.Node
    parts: tuple[_Part, ...]

    @classmethod
    def of(cls, conv: ir.Node) -> _Layer:
        outputs, inputs, *kernel = cls(conv, ()).weight.shape
        area = math.prod(kernel)
        groups = conv.attributes["group"].as_int() if "group" in conv.attributes else 1
        together = max(1, min(inputs, LARGEST // area))
        parts = [
            _Part(
                slice(group * outputs // groups, (group + 1) * outputs // groups),
                slice(group * inputs + first, group * inputs + min(first + together, inputs)),
                slice(first * area, min(first + together, inputs) * area),
                np.zeros((min(together, inputs - first) * area,) * 2, np.float32),
            )
            for group in range(groups)
            for first in range(0, inputs, together)
        ]
        return cls(conv, tuple(parts))

    @property
    def weight(self) -> Tensor:
        value = data(self.conv, 1).const_value
        assert value is not None
        return np.asarray(value.numpy(), np.float32)

    @property
    def bias(self) -> Tensor | None:
        bias = self.conv.inputs[2] if len(self.conv.inputs) > 2 else None
        return None if bias is None or bias.const_value is None else bias.const_value.numpy()

    def observe(self, x: Tensor) -> None:
        """Adds the patches of some images N×C×H×W."""
        for part in self.parts:
            patches = _patches(x[:, part.inputs], self.weight.shape[2:], self.conv)
            part.moments[:] += patches.T @ patches

    def rounded(self, params: QuantParams) -> npt.NDArray[np.int8]:
        """The weights as integers."""
        weight = self.weight.reshape(len(self.weight), -1).astype(np.float64)
        found = np.empty(weight.shape, np.int8)
        for part in self.parts:
            scale = params.scale[part.outputs].astype(np.float64)
            found[part.outputs, part.columns] = second_order(
                weight[part.outputs, part.columns], scale, part.moments.astype(np.float64)
            )
        return found.reshape(self.weight.shape)


def _patches(x: Tensor, kernel: tuple[int, ...], conv: ir.Node) -> Tensor:
    """What a convolution reads at some of its places, P×K, of images N×C×H×W."""
    (top, left, bottom, right), (down, across), (tall, wide) = (
        conv.attributes[name].as_ints() if name in conv.attributes else default
        for name, default in (("pads", (0, 0, 0, 0)), ("strides", (1, 1)), ("dilations", (1, 1)))
    )
    padded = np.pad(x, ((0, 0), (0, 0), (top, bottom), (left, right)))
    spans = (tall * (kernel[0] - 1) + 1, wide * (kernel[1] - 1) + 1)
    windows = np.lib.stride_tricks.sliding_window_view(padded, spans, axis=(2, 3))
    windows = windows[:, :, ::down, ::across, ::tall, ::wide]
    step = max(1, math.isqrt(windows.shape[2] * windows.shape[3] // PATCHES))
    some = windows[:, :, ::step, ::step].transpose(0, 2, 3, 1, 4, 5)
    return some.reshape(math.prod(some.shape[:3]), -1)


def _observe(model: onnx.ModelProto, layers: list[_Layer], batches: Iterable[npt.NDArray[np.uint8]]) -> None:
    """Runs the network and shows each layer what it reads."""
    shown = onnx.ModelProto()
    shown.CopyFrom(model)
    del shown.graph.output[:]
    names = list(dict.fromkeys(str(data(layer.conv).name) for layer in layers))
    for index, name in enumerate(names):  # under another name: an output may not be an input of the graph
        shown.graph.node.append(helper.make_node("Identity", [name], [f"read.{index}"]))
        shown.graph.output.append(helper.make_tensor_value_info(f"read.{index}", TensorProto.FLOAT, None))
    session = fast_session(shown)
    source = session.get_inputs()[0].name
    for batch in batches:
        tensors = dict(zip(names, session.run(None, {source: batch}), strict=True))
        for layer in layers:
            layer.observe(tensors[str(data(layer.conv).name)])


def second_order(weight: Matrix, scale: Matrix, moments: Matrix) -> Matrix:
    """Integers q, |q| ≤ 127, with a small error (w − q·s)·H·(w − q·s)ᵀ for each row; 0 where w is.

    Args:
        weight: w, M×K.
        scale: s, one a row.
        moments: H up to a factor, K×K.
    """
    mean = moments.diagonal().mean()
    if mean <= 0:  # nothing ever came in
        return np.clip(np.rint(weight / scale[:, None]), -127, 127)
    order = np.argsort(-moments.diagonal(), kind="stable")  # the heaviest first, while there are others to make it good
    damped = moments[np.ix_(order, order)] / mean + DAMPING * np.eye(len(order))
    factor = np.linalg.cholesky(np.linalg.inv(damped)).T
    left = np.ascontiguousarray(weight[:, order].T)
    live = left != 0
    integers = np.empty_like(left)
    for start in range(0, len(order), COLUMNS):
        end = min(start + COLUMNS, len(order))
        errors = np.empty((end - start, len(weight)))
        for index in range(start, end):
            integers[index] = np.clip(np.rint(left[index] / scale), -127, 127) * live[index]
            errors[index - start] = (left[index] - integers[index] * scale) / factor[index, index]
            left[index:end] -= np.outer(factor[index, index:end], errors[index - start])
        left[end:] -= factor[start:end, end:].T @ errors
    found = np.empty(weight.shape)
    found[:, order] = integers.T
    return found
