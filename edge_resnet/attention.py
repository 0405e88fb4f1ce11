"""Which parts of a frame speak for a class: class activation maps, and occlusion where a network does not allow them.

A class activation map (Zhou et al., https://arxiv.org/abs/1512.04150) is exact for networks that end in a global average
and one linear layer: a logit is then the mean of the map plus the bias. Other networks are shown the frame with one
square after another covered (Zeiler and Fergus, https://arxiv.org/abs/1311.2901).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import onnx
import onnxruntime
from onnx import TensorProto, helper, numpy_helper

from edge_resnet.calibration.simulate import run_frames

PASSED_ON = ("Flatten", "Reshape", "Squeeze", "Identity", "Dropout")
"""Operators between the average and the linear layer that change no value."""
POSITIONS = 14
"""Squares along a side that occlusion covers at most, so that it takes 196 runs of a frame and one more."""
COVERED = 5
"""A square's side is this part of the frame's, as 50 of 224 pixels in the paper."""
BATCH = 8

Array = npt.NDArray[np.float32]
Frame = npt.NDArray[np.uint8]


@dataclass(frozen=True)
class Head:
    """The end of a network: a global average of a tensor, and a linear layer."""

    features: str
    """Name of the tensor that is averaged, 1×channels×h×w."""
    weights: Array
    """Classes×channels."""


def head_of(model: onnx.ModelProto) -> Head | None:
    """Finds the average and the linear layer that give a network's logits; None: it does not end so."""
    producers = {output: node for node in model.graph.node for output in node.output}
    linear = producers.get(model.graph.output[0].name)
    constants = _constants(model)
    if linear is not None and linear.op_type == "Add":  # a MatMul's bias
        linear = next((producers[name] for name in linear.input if name in producers and name not in constants), None)
    weights = None if linear is None else _weights(linear, constants)
    if linear is None or weights is None:
        return None
    pool = producers.get(linear.input[0])
    while pool is not None and pool.op_type in PASSED_ON:
        pool = producers.get(pool.input[0])
    if pool is None or not _averages_all(pool, constants) or pool.input[0] not in producers:
        return None
    return Head(pool.input[0], weights)


def _constants(model: onnx.ModelProto) -> dict[str, npt.NDArray[np.generic]]:
    found = {each.name: numpy_helper.to_array(each) for each in model.graph.initializer}
    for node in model.graph.node:
        if node.op_type == "Constant" and node.attribute[0].name == "value":
            found[node.output[0]] = numpy_helper.to_array(node.attribute[0].t)
    return found


def _weights(linear: onnx.NodeProto, constants: dict[str, npt.NDArray[np.generic]]) -> Array | None:
    """Classes×channels; None: the node is no plain linear layer with constant weights."""
    if linear.op_type not in ("Gemm", "MatMul") or linear.input[1] not in constants:
        return None
    weights = constants[linear.input[1]].astype(np.float32)
    given = {each.name: helper.get_attribute_value(each) for each in linear.attribute}
    if given.get("alpha", 1.0) != 1.0 or given.get("transA", 0) or weights.ndim != 2:
        return None
    return weights if given.get("transB", 0) else weights.T


def _averages_all(pool: onnx.NodeProto, constants: dict[str, npt.NDArray[np.generic]]) -> bool:
    """Whether a node averages rows and columns; axes are an attribute up to opset 17, and an input from 18 on."""
    if pool.op_type != "ReduceMean":
        return bool(pool.op_type == "GlobalAveragePool")
    given = [list(each.ints) for each in pool.attribute if each.name == "axes"]
    given += [constants[name].tolist() for name in pool.input[1:] if name in constants]
    return bool(given) and {axis % 4 for axis in given[0]} == {2, 3}


def with_features(model: onnx.ModelProto, head: Head) -> onnx.ModelProto:
    """The same network, which also gives the tensor that is averaged."""
    made = onnx.ModelProto()
    made.CopyFrom(model)
    made.graph.output.append(helper.make_tensor_value_info(head.features, TensorProto.FLOAT, None))
    return made


def activation_map(session: onnxruntime.InferenceSession, head: Head, frame: Frame, index: int) -> tuple[Array, Array]:
    """Runs a network of ``with_features`` on one frame.

    Args:
        session: it.
        head: its end.
        frame: H×W×C, prepared.
        index: the class.

    Returns:
        The logits, and the class's map h×w: its mean plus the class's bias is the logit.
    """
    logits, features = session.run(None, {session.get_inputs()[0].name: frame[np.newaxis]})
    return logits[0], np.tensordot(head.weights[index], features[0], 1)


def occlusion_map(
    session: onnxruntime.InferenceSession, frame: Frame, index: int, cover: npt.NDArray[np.uint8]
) -> tuple[Array, Array]:
    """Covers one square of a frame after another.

    Args:
        session: a network that takes frames N×H×W×C and gives N×classes.
        frame: H×W×C, prepared.
        index: the class.
        cover: what the squares are filled with, one value a channel.

    Returns:
        The logits of the whole frame, and what the class's logit loses by each square, at most ``POSITIONS`` a side.
    """
    rows, columns = (_squares(side) for side in frame.shape[:2])
    covered = []
    for row in rows:
        for column in columns:
            copy = frame.copy()
            copy[row, column] = cover
            covered.append(copy)
    logits = run_frames(session, frame[np.newaxis])[0]
    batches = [np.stack(covered[start : start + BATCH]) for start in range(0, len(covered), BATCH)]
    left = np.concatenate([run_frames(session, batch)[:, index] for batch in batches])
    return logits, (logits[index] - left).reshape(len(rows), len(columns))


def _squares(side: int) -> list[slice]:
    """Where squares lie along one side: centred on equal parts of it, and cut off at the frame's edge."""
    count, half = min(POSITIONS, side), side / COVERED / 2
    centres = [(part + 0.5) * side / count for part in range(count)]
    return [slice(max(0, round(at - half)), max(round(at - half) + 1, round(at + half))) for at in centres]
