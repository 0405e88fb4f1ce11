"""Sequential bias correction: each convolution's bias takes back what quantization moved, as far as it is seen.

Layer after layer, each measured with those before it quantized and corrected, as in Nagel et al., "Data-Free
Quantization Through Weight Equalization and Bias Correction" (arXiv:1906.04721, section 4.2). There the bias restores
the mean of the convolution's output. But what a ReLU cuts off is never seen: where most of a channel is cut off (the
plain background of a camera that looks at a conveyor belt), the mean is dominated by values that do not matter, and
restoring it spoils those that do. So the bias found here minimises the squared error *behind* the ReLU, and, where the
convolution ends a residual branch, behind the sum with its quantized shortcut. ``benchmarks/refinement.py`` shows
both.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import onnx

from edge_resnet.calibration.qdq import place_qdq
from edge_resnet.calibration.refine import Refined, replace_constant, silent
from edge_resnet.calibration.schemes import Scheme
from edge_resnet.calibration.segments import Chunks, Walk
from edge_resnet.calibration.topology import convolutions, load_graph, save_graph
from edge_resnet.engines.engine import Progress

Vector = npt.NDArray[np.float32]
"""One number a channel."""

MEMORY = 1 << 29
"""Bytes that the tensors between two layers may take; bounds the frames that are looked at."""
STEPS = 4
"""Newton steps of the search behind a ReLU; the error is piecewise quadratic, and two or three reach its minimum."""


def correct_biases(
    refined: Refined,
    scheme: Scheme,
    frames: npt.NDArray[np.uint8],
    keep_float: tuple[str, ...] = (),
    progress: Progress = silent,
) -> Refined:
    """Corrects every bias for a scheme.

    Args:
        refined: the network and its ranges.
        scheme: how it will be quantized.
        frames: calibration frames N×H×W×C; of large ones some are enough, evenly over all, for the tensors between two
            layers are in memory.
        keep_float: nodes that will stay float.
        progress: told of layers that are corrected.
    """
    quantized = place_qdq(refined.model, refined.table, scheme, keep_float).model
    shown = frames[:: math.ceil(len(frames) / frames_at_once(frames))]
    corrections = _corrections(refined.target, quantized, shown, progress)
    loaded = load_graph(refined.model)
    for conv in convolutions(loaded.graph):
        bias = conv.inputs[2] if len(conv.inputs) > 2 else None
        if bias is not None and bias.const_value is not None:
            replace_constant(bias, bias.const_value.numpy() + corrections[str(conv.name)])
    made = save_graph(loaded)
    return Refined(made, refined.table.with_ranges(made, {}), refined.target)


def frames_at_once(frames: npt.NDArray[np.uint8]) -> int:
    """How many frames H×W×C fit into ``MEMORY``."""
    height, width = frames.shape[1:3]
    between = (
        96 * 4 * int(height) * int(width)
    )  # six float32 tensors of 16 values a pixel: a ResNet's widest, in both forms
    return max(16, MEMORY // between)


def _corrections(
    model: onnx.ModelProto, quantized: onnx.ModelProto, frames: npt.NDArray[np.uint8], progress: Progress
) -> dict[str, Vector]:
    """What to add to each bias, by convolution."""
    wanted, actual = Walk(model, frames), Walk(quantized, frames)
    seen = _Seen.in_graph(model, quantized)
    found: dict[str, Vector] = {}
    layers = sum(node.op_type == "Conv" for node in model.graph.node)
    progress("layers", 0, layers)
    while (conv := wanted.advance()) is not None and (quantized_conv := actual.advance()) is not None:
        view = seen[conv.name]
        target = view.of(wanted.tensors, conv.output[0], view.shortcut)
        output = view.of(actual.tensors, quantized_conv.output[0], view.quantized_shortcut)
        found[conv.name] = _best_shift(target, output, rectified=view.rectified)
        for chunk in actual.tensors[quantized_conv.output[0]]:
            chunk += found[conv.name].reshape(1, -1, 1, 1)
        progress("layers", len(found), layers)
    return found


@dataclass(frozen=True)
class _Seen:
    """Through what the rest of the network sees a convolution's output."""

    shortcut: str | None
    """What is added to it, where that is known when the convolution has run."""
    quantized_shortcut: str | None
    rectified: bool
    """Whether a ReLU follows."""

    def of(self, tensors: dict[str, Chunks], output: str, shortcut: str | None) -> Chunks:
        """The convolution's output, with the shortcut added where there is one."""
        if shortcut is None or shortcut not in tensors:
            return tensors[output]
        return [a + b for a, b in zip(tensors[output], tensors[shortcut], strict=True)]

    @classmethod
    def in_graph(cls, model: onnx.ModelProto, quantized: onnx.ModelProto) -> dict[str, _Seen]:
        """For each convolution of a model and its quantized form."""
        readers: dict[str, list[onnx.NodeProto]] = {}
        for node in model.graph.node:
            for name in node.input:
                readers.setdefault(name, []).append(node)
        position = {name: index for index, node in enumerate(model.graph.node) for name in node.output}
        counterparts = {node.name: node for node in quantized.graph.node}

        def seen(conv: onnx.NodeProto) -> _Seen:
            output, shortcut, quantized_shortcut = conv.output[0], None, None
            first = readers.get(output, [])
            if len(first) == 1 and first[0].op_type == "Add":
                other = 1 - list(first[0].input).index(output)
                if position.get(first[0].input[other], len(position)) < position[output]:
                    shortcut = first[0].input[other]
                    quantized_shortcut = counterparts[first[0].name].input[other]
                    first = readers.get(first[0].output[0], [])
            return cls(shortcut, quantized_shortcut, len(first) == 1 and first[0].op_type == "Relu")

        return {node.name: seen(node) for node in model.graph.node if node.op_type == "Conv"}


def _best_shift(wanted: Chunks, actual: Chunks, *, rectified: bool) -> Vector:
    """The shift b, one a channel, with the least Σ(f − (q + b))², or Σ(relu(f) − relu(q + b))² where rectified.

    Args:
        wanted: f, chunks N×C×H×W.
        actual: q, the same shape.
        rectified: whether a ReLU follows.
    """
    if not rectified:
        total = sum(((f - q).sum(axis=(0, 2, 3), dtype=np.float64) for f, q in zip(wanted, actual, strict=True)))
        return np.asarray(total / sum(f.size // f.shape[1] for f in wanted), np.float32)
    shift = best = np.zeros(wanted[0].shape[1], np.float32)
    least, gradient, active = _behind_relu(wanted, actual, shift)
    for _ in range(STEPS):
        shift = (shift + gradient / np.maximum(active, 1)).astype(np.float32)
        error, gradient, active = _behind_relu(wanted, actual, shift)
        best = np.where(error < least, shift, best)
        least = np.minimum(error, least)
    return best


def _behind_relu(
    wanted: Chunks, actual: Chunks, shift: Vector
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """Squared error behind the ReLU, half its negative gradient, and half its curvature, one a channel."""
    error, gradient, active = np.zeros((3, len(shift)))
    for f, q in zip(wanted, actual, strict=True):
        shifted = q + shift.reshape(1, -1, 1, 1)
        on = shifted > 0
        missing = np.maximum(f, 0) - np.where(on, shifted, 0)
        error += np.square(missing).sum(axis=(0, 2, 3), dtype=np.float64)
        gradient += np.where(on, missing, 0).sum(axis=(0, 2, 3), dtype=np.float64)
        active += on.sum(axis=(0, 2, 3))
    return error, gradient, active
