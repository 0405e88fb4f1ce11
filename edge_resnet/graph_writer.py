"""Writing ONNX graphs node by node, and the arithmetic half of a preprocessing as nodes. Needs no torch."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
from onnx import TensorProto, helper, numpy_helper

from edge_resnet.preprocessing import Preprocessing

OPSET = 17
"""Every TensorRT from 8.5 on reads it."""
IR_VERSION = 8
"""The ONNX IR that came with opset 17."""
NORMALISED = "preprocessing.mul"
"""The tensor that the arithmetic of a preprocessing gives: the image as the network was trained on it."""


class Writer:
    """Collects the nodes and weights of one ONNX graph. Each node has one output, which has the node's name."""

    def __init__(self) -> None:
        self.nodes: list[onnx.NodeProto] = []
        self.weights: list[onnx.TensorProto] = []

    def node(self, kind: str, name: str, inputs: Sequence[str], **attributes: Any) -> str:
        self.nodes.append(helper.make_node(kind, list(inputs), [name], name=name, **attributes))
        return name

    def weight(self, name: str, value: npt.NDArray[Any]) -> str:
        self.weights.append(numpy_helper.from_array(np.ascontiguousarray(value), name))
        return name


def write_normalisation(writer: Writer, frames: str, preprocessing: Preprocessing) -> str:
    """uint8 N×H×W×C → float32 N×C×H×W, (x/255 − mean) / std. The Cast stands first: TensorRT moves no uint8."""
    shape = (1, preprocessing.channels, 1, 1)
    mean = 255 * np.array(preprocessing.mean, np.float64).reshape(shape)
    scale = 1 / (255 * np.array(preprocessing.std, np.float64).reshape(shape))
    pixels = writer.node("Cast", "preprocessing.cast", [frames], to=TensorProto.FLOAT)
    pixels = writer.node("Transpose", "preprocessing.transpose", [pixels], perm=[0, 3, 1, 2])
    centred = writer.node(
        "Sub", "preprocessing.sub", [pixels, writer.weight("preprocessing.mean", mean.astype(np.float32))]
    )
    return writer.node("Mul", NORMALISED, [centred, writer.weight("preprocessing.scale", scale.astype(np.float32))])
