"""Running a network one convolution at a time, keeping only the tensors that later ones still need."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
from onnx import helper

from edge_resnet.calibration.simulate import exact_session

Chunks = list[npt.NDArray[Any]]
"""One tensor, for each chunk of frames."""

CHUNK = 16
"""Frames that run together."""


@dataclass(frozen=True)
class _Segment:
    """The part of a network that ends with one convolution."""

    model: onnx.ModelProto
    convolution: onnx.NodeProto
    needed_later: frozenset[str]


class Walk:
    """A network on its way through some frames. ``tensors`` holds what is known by now, by name."""

    def __init__(self, model: onnx.ModelProto, frames: npt.NDArray[np.uint8]) -> None:
        chunks: Chunks = [frames[start : start + CHUNK] for start in range(0, len(frames), CHUNK)]
        self.tensors: dict[str, Chunks] = {model.graph.input[0].name: chunks}
        self._segments = iter(_segments(onnx.shape_inference.infer_shapes(model)))

    def advance(self) -> onnx.NodeProto | None:
        """Runs up to the next convolution and returns it; None behind the last one.

        Tensors that nothing further needs are then forgotten, but for the convolution's own output.
        """
        segment = next(self._segments, None)
        if segment is None:
            return None
        self._run(segment.model)
        kept = segment.needed_later | {segment.convolution.output[0]}
        self.tensors = {name: chunks for name, chunks in self.tensors.items() if name in kept}
        return segment.convolution

    def _run(self, segment: onnx.ModelProto) -> None:
        session = exact_session(segment)
        sources = [source.name for source in session.get_inputs()]
        names = [output.name for output in session.get_outputs()]
        made: dict[str, Chunks] = {name: [] for name in names}
        for index in range(len(self.tensors[sources[0]])):
            results = session.run(names, {name: self.tensors[name][index] for name in sources})
            for name, result in zip(names, results, strict=True):
                made[name].append(result)
        self.tensors.update(made)


def _segments(model: onnx.ModelProto) -> list[_Segment]:
    """The model cut behind each convolution; what follows the last one is left out."""
    nodes = list(model.graph.node)
    constants = {constant.name: constant for constant in model.graph.initializer}
    types = {value.name: value for value in (*model.graph.value_info, *model.graph.input)}
    found, start = [], 0
    for cut in [index + 1 for index, node in enumerate(nodes) if node.op_type == "Conv"]:
        part = nodes[start:cut]
        needed = frozenset(name for node in nodes[cut:] for name in node.input if name not in constants)
        made = {name for node in part for name in node.output}
        read = {name for node in part for name in node.input}
        graph = helper.make_graph(
            part,
            "segment",
            [types[name] for name in sorted(read - made - constants.keys())],
            [types[name] for name in sorted(made & (needed | {part[-1].output[0]}))],
            [constants[name] for name in sorted(read & constants.keys())],
        )
        segment = helper.make_model(graph, opset_imports=model.opset_import, ir_version=model.ir_version)
        found.append(_Segment(segment, part[-1], needed))
        start = cut
    return found
