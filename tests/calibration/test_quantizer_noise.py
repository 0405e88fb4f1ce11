"""What is said of each quantizer, against rounding by hand in NumPy, and against the whole graph."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from edge_resnet.bundle import FP32_MEMBER, QDQ_MEMBER, open_bundle
from edge_resnet.calibration.quantizer_noise import STEPS_A_BIN, WIDEST, quantizer_noise
from edge_resnet.calibration.simulate import exact_session, fast_session, run_frames
from edge_resnet.errors import CalibrationError
from edge_resnet.golden import read_golden
from edge_resnet.onnx_file import parse_onnx

FIRST, SECOND = 0.75, 0.4
"""Scales of the two tensors."""


def two_convolutions(zero: int = 0) -> onnx.ModelProto:
    """pixels → ×1.1 → Q/DQ → ×−0.7 → Q/DQ → ×1, each a convolution of one weight."""
    constants = {
        "first.scale": np.float32(FIRST),
        "second.scale": np.float32(SECOND),
        "zero": np.int8(zero),
        **{f"w{index}": np.full((1, 1, 1, 1), weight, np.float32) for index, weight in enumerate((1.1, -0.7, 1.0))},
    }
    node = helper.make_node
    nodes = [
        node("Cast", ["frames"], ["float"], to=TensorProto.FLOAT),
        node("Transpose", ["float"], ["pixels"], perm=[0, 3, 1, 2]),
        node("Conv", ["pixels", "w0"], ["first"], name="first"),
        node("QuantizeLinear", ["first", "first.scale", "zero"], ["first.q"]),
        node("DequantizeLinear", ["first.q", "first.scale", "zero"], ["first.dq"]),
        node("Conv", ["first.dq", "w1"], ["second"], name="second"),
        node("QuantizeLinear", ["second", "second.scale", "zero"], ["second.q"]),
        node("DequantizeLinear", ["second.q", "second.scale", "zero"], ["second.dq"]),
        node("Conv", ["second.dq", "w2"], ["answer"], name="third"),
    ]
    graph = helper.make_graph(
        nodes,
        "two",
        [helper.make_tensor_value_info("frames", TensorProto.UINT8, ["N", 4, 4, 1])],
        [helper.make_tensor_value_info("answer", TensorProto.FLOAT, ["N", 1, 4, 4])],
        [numpy_helper.from_array(np.asarray(value), name) for name, value in constants.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)


def rounded(values: npt.NDArray[np.float64], scale: float) -> npt.NDArray[np.float64]:
    return np.clip(np.rint(values / scale), -128, 127) * scale


def saturated(values: npt.NDArray[np.float64], scale: float) -> npt.NDArray[np.float64]:
    return np.clip(values, -128 * scale, 127 * scale)


def test_each_quantizer_alone_is_rounding_by_hand() -> None:
    frames = np.random.default_rng(0).integers(0, 120, (3, 4, 4, 1), np.uint8)
    first, second = quantizer_noise(two_convolutions(), frames)
    x = 1.1 * frames.astype(np.float64)
    plain = saturated(-0.7 * saturated(x, FIRST), SECOND)
    alone = {
        "first": saturated(-0.7 * rounded(x, FIRST), SECOND),
        "second": rounded(-0.7 * saturated(x, FIRST), SECOND),
    }
    for found in (first, second):
        noise = np.square(alone[found.name] - plain).sum() / np.square(plain).sum()
        assert found.noise == pytest.approx(noise, rel=1e-3)
    both = rounded(-0.7 * rounded(x, FIRST), SECOND)
    own = np.square(both - plain).sum() / np.square(plain - plain.mean()).sum()
    assert second.sqnr_db == pytest.approx(-10 * np.log10(own), abs=0.02)


def test_a_histogram_holds_every_value_in_steps_of_the_scale() -> None:
    frames = np.array([0, 10, 100, 255], np.uint8).repeat(4).reshape(1, 4, 4, 1)
    first, second = quantizer_noise(two_convolutions(), frames)
    steps = 1.1 * frames.ravel().astype(np.float64) / FIRST  # 0, 14.7, 146.7 and 374
    counts, _ = np.histogram(np.minimum(steps, WIDEST - 1), np.arange(-WIDEST, WIDEST + 1, STEPS_A_BIN))
    assert first.histogram == tuple(counts.tolist())
    assert (first.below, first.above) == (0.0, 0.5)
    assert (second.below, second.above) == (0.5, 0.0)  # −0.7 · 95.25 / 0.4 = −167 and less


def test_the_parts_make_up_the_whole(demo_bundle: Path) -> None:
    """Noise of independent roundings adds up: that of all tensors is that of the answers, weights aside."""
    bundle = open_bundle(demo_bundle)
    frames, quantized = read_golden(bundle, "frames"), parse_onnx(bundle.read(QDQ_MEMBER), "Q/DQ")
    found = quantizer_noise(quantized, frames)
    assert len({each.name for each in found}) == len(found) > 18
    wanted = run_frames(fast_session(parse_onnx(bundle.read(FP32_MEMBER), "FP32")), frames)
    answers = run_frames(exact_session(quantized), frames)
    whole = np.square(answers - wanted).sum() / np.square(wanted).sum()
    assert 0.3 < sum(each.noise for each in found) / whole < 1.5
    assert max(each.above for each in found) < 0.01


def test_what_is_not_of_this_scheme_is_refused() -> None:
    frames = np.zeros((1, 4, 4, 1), np.uint8)
    with pytest.raises(CalibrationError, match="has a zero point or another type"):
        quantizer_noise(two_convolutions(zero=3), frames)
    plain = two_convolutions()
    del plain.graph.node[3:]
    plain.graph.output[0].name = "first"
    with pytest.raises(CalibrationError, match="no activation of the graph is quantized"):
        quantizer_noise(plain, frames)
