"""The largest values of every channel, and how much of unseen images will lie beyond a limit.

A range that covers what some hundred images showed does not cover what the next ones show, and where every channel fills
its range, every channel overflows sooner or later. Above a high threshold the excess of almost any distribution tends to
an exponential or near it (Pickands 1975, "peaks over threshold"); so the few largest values of a channel give its tail.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import onnx
from onnx import TensorProto, helper

from edge_resnet.calibration.simulate import fast_session

Values = npt.NDArray[np.float32]

BATCH = 4
EACH = 8
"""Values of a channel that one image gives; more from one place tell little."""
KEPT = 256
"""Values of a channel that are kept of all images."""
SHARE = 32
"""One in so many images has, on average, a value in the tail; at least ``FEWEST`` have."""
FEWEST = 4


@dataclass(frozen=True)
class Tail:
    """The upper ends of a tensor's channels."""

    values: Values
    """The largest, C×K, descending."""
    images: int
    """That they were taken from."""

    @property
    def count(self) -> int:
        """Values that belong to the tail."""
        return min(max(FEWEST, self.images // SHARE), int(self.values.shape[1]) - 1)

    @property
    def threshold(self) -> Values:
        """Where the tail begins, one a channel."""
        return self.values[:, self.count]

    @property
    def excess(self) -> Values:
        """Mean of what lies beyond the threshold, one a channel."""
        beyond = self.values[:, : self.count] - self.threshold[:, None]
        return np.asarray(beyond.sum(axis=1) / max(self.count, 1), np.float32)


@dataclass(frozen=True)
class Ends:
    """Both ends of a tensor."""

    upper: Tail
    lower: Tail
    """Of the negated tensor."""


def observe_ends(
    model: onnx.ModelProto, names: Sequence[str], batches: Iterable[npt.NDArray[np.uint8]], images: int
) -> dict[str, Ends]:
    """Collects the ends of tensors N×C×H×W over batches of frames N×H×W×C, of so many images in all."""
    session = fast_session(_with_largest(model, names))
    source = session.get_inputs()[0].name
    found: list[Values] = []
    for batch in batches:
        largest = [
            values.transpose(1, 0, 2).reshape(values.shape[1], -1) for values in session.run(None, {source: batch})
        ]
        found = [_largest(*pair) for pair in zip(found, largest, strict=True)] if found else largest
    tails = [Tail(-np.sort(-values, axis=1), images) for values in found]
    return {name: Ends(*tails[2 * index : 2 * index + 2]) for index, name in enumerate(names)}


def _largest(some: Values, others: Values) -> Values:
    together = np.concatenate([some, others], axis=1)
    return together if together.shape[1] <= KEPT else -np.partition(-together, KEPT - 1, axis=1)[:, :KEPT]


def _with_largest(model: onnx.ModelProto, names: Sequence[str]) -> onnx.ModelProto:
    """The model with two outputs a tensor, N×C×k: the largest of each channel, and of each channel negated."""
    made = onnx.ModelProto()
    made.CopyFrom(model)
    graph = made.graph
    del graph.output[:]
    inferred = onnx.shape_inference.infer_shapes(model).graph
    shapes = {
        value.name: [d.dim_value for d in value.type.tensor_type.shape.dim]
        for value in (*inferred.value_info, *inferred.output)
    }
    graph.initializer.append(helper.make_tensor("ends.shape", TensorProto.INT64, [3], [0, 0, -1]))
    for index, name in enumerate(names):
        each = min(EACH, math.prod(shapes[name][2:]))
        graph.initializer.append(helper.make_tensor(f"ends.{index}.k", TensorProto.INT64, [1], [each]))
        graph.node.append(helper.make_node("Reshape", [name, "ends.shape"], [f"ends.{index}.flat"]))
        graph.node.append(helper.make_node("Neg", [f"ends.{index}.flat"], [f"ends.{index}.negated"]))
        for part in ("flat", "negated"):
            result = f"ends.{index}.{part}.largest"
            outputs = [result, f"{result}.places"]
            graph.node.append(helper.make_node("TopK", [f"ends.{index}.{part}", f"ends.{index}.k"], outputs, axis=2))
            graph.output.append(helper.make_tensor_value_info(result, TensorProto.FLOAT, None))
    return made
