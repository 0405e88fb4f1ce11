"""Q/DQ taken out: the scales put back give the Q/DQ graph's own answers, and without them it is the float network still."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np
import numpy.typing as npt
import onnx
import pytest
from onnx import helper, numpy_helper

from edge_resnet.calibration import SCHEMES, CalibrationTable, collect, insert_qdq
from edge_resnet.calibration.simulate import exact_session, run_frames
from edge_resnet.calibration.strip import Stripped, strip_qdq
from edge_resnet.errors import CalibrationError

Network = Callable[..., onnx.ModelProto]
Frames = Callable[..., npt.NDArray[np.uint8]]
Forms = tuple[onnx.ModelProto, onnx.ModelProto, Stripped]
SQNR = Callable[[npt.NDArray[np.float32], npt.NDArray[np.float32]], float]


def with_pairs(model: onnx.ModelProto, scales: Mapping[str, float]) -> onnx.ModelProto:
    """Quantizes tensors for all their readers, as TensorRT does that reads a cache."""
    made = onnx.ModelProto()
    made.CopyFrom(model)
    nodes = []
    for node in made.graph.node:
        node.input[:] = [f"{name}.dq" if name in scales else name for name in node.input]
        nodes.append(node)
        for name in set(node.output) & set(scales):
            constants = {f"{name}.s": np.float32(scales[name]), f"{name}.z": np.int8(0)}
            made.graph.initializer.extend(numpy_helper.from_array(np.array(v), n) for n, v in constants.items())
            nodes.append(helper.make_node("QuantizeLinear", [name, *constants], [f"{name}.q"]))
            nodes.append(helper.make_node("DequantizeLinear", [f"{name}.q", *constants], [f"{name}.dq"]))
    kept = [onnx.NodeProto.FromString(node.SerializeToString()) for node in nodes]
    del made.graph.node[:]
    made.graph.node.extend(kept)
    return made


def answers(model: onnx.ModelProto, frames: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
    return run_frames(exact_session(model), frames)


@pytest.fixture(scope="module", params=["resnet18", "resnet20", "resnetv2-18", "resnet18d"])
def forms(request: pytest.FixtureRequest, network: Network, random_frames: Frames) -> Forms:
    """FP32, Q/DQ, and stripped."""
    model = network(request.param, 32)
    table = collect(model, [random_frames(4, 32)], method="mse", images={}, preprocessing={})
    quantized = insert_qdq(model, table, SCHEMES["tensorrt"]).model
    return model, quantized, strip_qdq(quantized)


def test_the_scales_put_back_give_the_answers_of_the_qdq_graph(forms: Forms, random_frames: Frames) -> None:
    _, quantized, stripped = forms
    frames = random_frames(8, 32)
    wanted = answers(quantized, frames)
    assert answers(with_pairs(stripped.model, stripped.quantized), frames) == pytest.approx(wanted, abs=1e-5)


def test_without_the_scales_it_is_the_float_network_with_every_relu(
    forms: Forms, random_frames: Frames, sqnr: SQNR
) -> None:
    """So that any layer may stay float. What a quantizer saturates at −128 has no ReLU of its own."""
    model, quantized, stripped = forms
    frames = random_frames(8, 32)
    reference = answers(model, frames)
    gained = sqnr(reference, answers(stripped.model, frames)) - sqnr(reference, answers(quantized, frames))
    assert gained > 0
    assert {node.op_type for node in stripped.model.graph.node}.isdisjoint({"QuantizeLinear", "DequantizeLinear"})


def test_convolutions_have_scales_on_both_sides(forms: Forms) -> None:
    """Without, TensorRT leaves them float: as the last one, whose sum nothing quantizes, and in V2 networks what adds
    to the float trunk, the stem among it.
    """
    _, _, stripped = forms
    scales = stripped.quantized | stripped.between
    nodes = stripped.model.graph.node
    convolutions = [node for node in nodes if node.op_type == "Conv"]
    assert all(node.input[0] in scales for node in convolutions)
    unscaled = [node.output[0] for node in convolutions if node.output[0] not in scales]
    if any(node.op_type == "BatchNormalization" for node in nodes):
        readers = {name: node.op_type for node in nodes for name in node.input}
        assert {readers[name] for name in unscaled} <= {"Add", "BatchNormalization", "MaxPool"}
    else:
        assert unscaled == [convolutions[-1].output[0]]


def test_what_saturates_in_front_of_a_residual_sum_saturates_in_the_sum_anyway(forms: Forms) -> None:
    _, _, stripped = forms
    scales = stripped.quantized | stripped.between
    producers = {node.output[0]: node for node in stripped.model.graph.node}
    sums = [
        node
        for node in stripped.model.graph.node
        if node.op_type == "Add" and node.output[0] in scales and all(name in scales for name in node.input)
    ]
    rng = np.random.default_rng(0)
    for node in sums:
        branch, shortcut = sorted(node.input, key=lambda name: name in stripped.quantized)
        assert producers[branch].op_type == "Conv"
        s, t, own = scales[node.output[0]], scales[shortcut], scales[branch]
        assert own == pytest.approx(s + t)
        x, y = rng.normal(0, 100 * own, 10_000), t * rng.integers(-128, 128, 10_000)
        free = np.clip(x + y, -128 * s, 127 * s)
        held = np.clip(np.clip(x, -128 * own, 127 * own) + y, -128 * s, 127 * s)
        assert np.abs(held - free).max() <= t + 1e-4 * own


def test_what_it_refuses(network: Network, distinct_ranges: Callable[[onnx.ModelProto], CalibrationTable]) -> None:
    model = network("resnet20", 32)
    with pytest.raises(
        CalibrationError, match="the model has no Q/DQ to take out: give a Q/DQ ONNX, or an INT8 bundle"
    ):
        strip_qdq(model)
    other = insert_qdq(model, distinct_ranges(model), SCHEMES["cpu"]).model
    with pytest.raises(
        CalibrationError, match="zero point or a scale for each channel, which a calibration cache cannot"
    ):
        strip_qdq(other)
