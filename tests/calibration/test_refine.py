"""The exact input: the same function, and a first quantizer that loses nothing."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import pytest
from onnx import numpy_helper

from edge_resnet.calibration import SCHEMES, CalibrationTable, exact_input, insert_qdq
from edge_resnet.calibration.refine import EXACT_PIXELS, EXACT_RANGE
from edge_resnet.calibration.schemes import INT8_SCHEMES
from edge_resnet.calibration.simulate import exact_session, run_frames

Network = Callable[..., onnx.ModelProto]
Ranges = Callable[[onnx.ModelProto], CalibrationTable]
Tensors = Callable[..., dict[str, npt.NDArray[np.float32]]]
Frames = Callable[..., npt.NDArray[np.uint8]]

every_network = pytest.mark.parametrize(("arch", "channels"), [("resnet18", 3), ("resnet20", 3), ("resnet20", 1)])
ROUNDED_MEAN = [124, 116, 104]
"""255 · (0.485, 0.456, 0.406), the mean of the networks' preprocessing."""


@every_network
def test_keeps_the_function(
    network: Network,
    distinct_ranges: Ranges,
    random_frames: Frames,
    tensors_of: Tensors,
    sqnr: Callable[..., float],
    arch: str,
    channels: int,
) -> None:
    model = network(arch, 32, channels)
    refined = exact_input(model, distinct_ranges(model)).model
    frames = random_frames(4, 32, channels)
    before, after = (tensors_of(m, frames, ["conv1", "logits"]) for m in (model, refined))
    assert sqnr(before["logits"], after["logits"]) > 55
    interior = (slice(None), slice(None), slice(2, -2), slice(2, -2))
    np.testing.assert_allclose(after["conv1"][interior], before["conv1"][interior], rtol=1e-4, atol=1e-4)
    border = np.abs(after["conv1"] - before["conv1"]).max()
    assert 1e-4 < border < 0.3  # half a grey level, through the weights that look beyond the frame


@every_network
def test_keeps_the_frame_and_the_names_and_the_other_ranges(
    network: Network, distinct_ranges: Ranges, arch: str, channels: int
) -> None:
    model = network(arch, 32, channels)
    before = model.SerializeToString(deterministic=True)
    table = distinct_ranges(model)
    refined = exact_input(model, table)
    assert model.SerializeToString(deterministic=True) == before
    onnx.checker.check_model(refined.model, full_check=True)
    assert refined.model.graph.input == model.graph.input
    assert refined.model.graph.output == model.graph.output
    refined.table.check_fits(refined.model)
    assert refined.table.ranges == {**table.ranges, EXACT_PIXELS: EXACT_RANGE}
    kinds = [node.op_type for node in refined.model.graph.node[:6]]
    assert kinds == ["Cast", "Transpose", "Sub", "Pad", "Add", "Conv"]  # the Cast first: TensorRT moves no uint8


@pytest.mark.parametrize("scheme", INT8_SCHEMES)
def test_the_quantizer_gives_every_pixel_back(
    network: Network, distinct_ranges: Ranges, tensors_of: Tensors, scheme: str
) -> None:
    model = network("resnet18", 32)
    refined = exact_input(model, distinct_ranges(model))
    quantized = insert_qdq(refined.model, refined.table, SCHEMES[scheme]).model
    constants = {tensor.name: numpy_helper.to_array(tensor) for tensor in quantized.graph.initializer}
    assert constants[f"{EXACT_PIXELS}.scale"] == 1
    all_values = np.arange(1024).astype(np.uint8).reshape(1, 32, 32, 1).repeat(3, axis=3)
    name = f"{EXACT_PIXELS}.dequantized"
    pixels = tensors_of(quantized, all_values, [name])[name] + 128
    wanted = np.tile(np.reshape(ROUNDED_MEAN, (1, 3, 1, 1)), (1, 1, 38, 38))  # a 7×7 convolution pads with 3
    wanted[:, :, 3:-3, 3:-3] = all_values.transpose(0, 3, 1, 2)
    np.testing.assert_array_equal(pixels, wanted)


def convolved(x: npt.NDArray[np.float64], w: npt.NDArray[np.float64], stride: int) -> npt.NDArray[np.float64]:
    """A convolution of C×H×W without padding."""
    size = w.shape[-1]
    windows = np.lib.stride_tricks.sliding_window_view(x, (size, size), axis=(1, 2))[:, ::stride, ::stride]
    return np.asarray(np.einsum("chwij,mcij->mhw", windows, w))


BODY = """conv = Conv <pads=[1,1,1,1], strides=[2,2]> (x, w{bias}) pool = GlobalAveragePool(conv)
          flat = Flatten(pool) logits = Gemm <transB=1> (flat, fc, fc_b)"""


def small(written: Callable[..., onnx.ModelProto], body: str, **constants: Any) -> onnx.ModelProto:
    random = np.random.default_rng(5)
    given: dict[str, Any] = {
        "mean": np.reshape([100.25, 120.75, 140.5], (1, 3, 1, 1)),
        "factor": np.reshape([0.02, 0.018, 0.016], (1, 3, 1, 1)),
        "w": random.normal(size=(2, 3, 3, 3)),
        "b": random.normal(size=2),
        "fc": random.normal(size=(4, 2)),
        "fc_b": random.normal(size=4),
        **constants,
    }
    return written(body, {name: value for name, value in given.items() if value is not None}, 6, 7, 3)


@pytest.mark.parametrize("bias", [True, False])
def test_padding_means_the_rounded_mean_pixel(
    written: Callable[..., onnx.ModelProto], distinct_ranges: Ranges, tensors_of: Tensors, bias: bool
) -> None:
    model = small(written, BODY.format(bias=", b" if bias else ""), **({} if bias else {"b": None}))
    refined = exact_input(model, distinct_ranges(model)).model
    frame = np.random.default_rng(6).integers(0, 256, (1, 6, 7, 3), np.uint8)
    constants = {tensor.name: numpy_helper.to_array(tensor).astype(np.float64) for tensor in model.graph.initializer}
    pixels = np.empty((3, 8, 9))
    pixels[:] = np.reshape([100, 121, 140], (3, 1, 1))  # 140.5 is rounded to even
    pixels[:, 1:-1, 1:-1] = frame[0].transpose(2, 0, 1)
    x = (pixels - constants["mean"][0]) * constants["factor"][0]
    wanted = convolved(x, constants["w"], stride=2) + (constants["b"].reshape(-1, 1, 1) if bias else 0)
    np.testing.assert_allclose(tensors_of(refined, frame, ["conv"])["conv"][0], wanted, rtol=1e-4, atol=1e-5)


WITH_BIAS = BODY.format(bias=", b")
OTHERS: dict[str, tuple[str, dict[str, Any]]] = {
    "no arithmetic": (WITH_BIAS.replace("(x, w", "(chw, w"), {}),
    "no Mul": (WITH_BIAS.replace("(x, w", "(centred, w"), {}),
    "no Sub": ("scaled = Mul(chw, factor) " + WITH_BIAS.replace("(x, w", "(scaled, w"), {}),
    "read twice": (
        "other = GlobalAveragePool(x) "
        + WITH_BIAS.replace("Flatten(pool)", "Flatten(both)").replace(
            "flat =", "both = Concat <axis=1> (pool, other) flat ="
        ),
        {"fc": np.ones((4, 5))},
    ),
    "one mean for three channels": (WITH_BIAS, {"mean": np.full((1, 1, 1, 1), 120.0)}),
}


@pytest.mark.parametrize("name", OTHERS)
def test_another_input_is_returned_as_it_is(
    written: Callable[..., onnx.ModelProto], distinct_ranges: Ranges, name: str
) -> None:
    body, constants = OTHERS[name]
    model = small(written, body, **constants)
    table = distinct_ranges(model)
    refined = exact_input(model, table)
    assert refined.model is model
    assert refined.table is table


def test_refining_twice_changes_nothing_more(network: Network, distinct_ranges: Ranges, random_frames: Frames) -> None:
    model = network("resnet20", 16)
    once = exact_input(model, distinct_ranges(model))
    twice = exact_input(once.model, once.table)
    frames = random_frames(2, 16)
    answers = [run_frames(exact_session(refined.model), frames) for refined in (once, twice)]
    np.testing.assert_array_equal(answers[0], answers[1])
