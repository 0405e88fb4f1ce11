"""Zero points folded into biases: the integers stay, INT8 with zero point 0 is all there is, and no ReLU is needed."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import pytest
from onnx import numpy_helper

from edge_resnet.calibration import SCHEMES, CalibrationTable, TensorRange, collect, insert_qdq
from edge_resnet.calibration.qdq import place_qdq
from edge_resnet.calibration.simulate import exact_session, run_frames
from edge_resnet.calibration.table import model_digest
from edge_resnet.calibration.zero_points import fold_zero_points

TENSORRT = SCHEMES["tensorrt"]
Array = npt.NDArray[np.float32]
Tensors = Callable[..., dict[str, Array]]
Network = Callable[..., onnx.ModelProto]
Frames = Callable[..., npt.NDArray[np.uint8]]
Written = Callable[..., onnx.ModelProto]

ARCHITECTURES = ("resnet18", "resnet20", "resnet50", "resnet50v2", "resnetv2-18", "resnet18d", "resnet8", "plain20")


def quantizers(model: onnx.ModelProto) -> list[onnx.NodeProto]:
    return [node for node in model.graph.node if node.op_type == "QuantizeLinear"]


def constants(model: onnx.ModelProto) -> dict[str, npt.NDArray[Any]]:
    return {tensor.name: numpy_helper.to_array(tensor) for tensor in model.graph.initializer}


@pytest.fixture(scope="module", params=ARCHITECTURES)
def forms(
    request: pytest.FixtureRequest, network: Network, random_frames: Frames
) -> tuple[onnx.ModelProto, onnx.ModelProto]:
    """With the zero points that were chosen, and with them folded."""
    model = network(request.param, 32)
    table = collect(model, [random_frames(4, 32)], method="mse", images={}, preprocessing={})
    placed = place_qdq(model, table, TENSORRT).model
    before = placed.SerializeToString(deterministic=True)
    folded = fold_zero_points(placed)
    assert placed.SerializeToString(deterministic=True) == before
    return placed, folded


class TestArchitectures:
    def test_all_that_is_left_is_int8_with_zero_point_zero(
        self, forms: tuple[onnx.ModelProto, onnx.ModelProto]
    ) -> None:
        placed, folded = forms
        assert {constants(placed)[q.input[2]].dtype for q in quantizers(placed)} == {np.dtype(np.uint8)}
        known = constants(folded)
        for node in folded.graph.node:
            if node.op_type in ("QuantizeLinear", "DequantizeLinear"):
                zero = known[node.input[2]]
                assert zero.dtype == np.int8 and not zero.any()

    def test_answers_are_those_of_the_unsigned_graph(
        self, forms: tuple[onnx.ModelProto, onnx.ModelProto], random_frames: Frames, sqnr: Callable[..., float]
    ) -> None:
        """Up to float sums that round to the other integer, here and there."""
        unsigned, signed = (run_frames(exact_session(model), random_frames(8, 32)) for model in forms)
        assert sqnr(unsigned, signed) > 30

    def test_saturation_stands_for_every_relu_in_front_of_a_quantizer(
        self, forms: tuple[onnx.ModelProto, onnx.ModelProto]
    ) -> None:
        placed, folded = forms
        readers: dict[str, set[str]] = {}
        for node in placed.graph.node:
            for name in node.input:
                readers.setdefault(name, set()).add(node.op_type)
        needed = [
            node.name
            for node in placed.graph.node
            if node.op_type == "Relu" and readers[node.output[0]] - {"QuantizeLinear", "MaxPool"}
        ]
        assert [node.name for node in folded.graph.node if node.op_type == "Relu"] == needed
        assert len(needed) == 1, "the last, which is averaged"
        producers = {name: node.op_type for node in folded.graph.node for name in node.output}
        apart = {producers[n.input[0]] for n in folded.graph.node if n.op_type == "Sub" and n.name.endswith(".centre")}
        assert apart <= {"Mul", "AveragePool"}, "elsewhere a bias takes the offset off"

    def test_no_convolution_pads_what_is_offset(self, forms: tuple[onnx.ModelProto, onnx.ModelProto]) -> None:
        _, folded = forms
        _, *others = [node for node in folded.graph.node if node.op_type == "Conv"]
        for conv in others:
            assert not any(any(a.ints) for a in conv.attribute if a.name == "pads"), conv.name


def test_a_folded_convolution_gives_what_integers_give(
    written: Written, random_frames: Frames, tensors_of: Tensors
) -> None:
    """By hand: x in [−2, 3] has zero point 102; a 3×3 convolution pads it with the integer of zero."""
    random = np.random.default_rng(3)
    values = {
        "mean": np.array([100, 120, 140]).reshape(1, 3, 1, 1),
        "factor": np.array([0.02, 0.018, 0.016]).reshape(1, 3, 1, 1),
        "w": random.normal(size=(4, 3, 3, 3)),
        "b": random.normal(size=4),
    }
    body = """conv = Conv <pads=[1,1,1,1]> (x, w, b) relu = Relu(conv)
              pool = GlobalAveragePool(relu) logits = Flatten(pool)"""
    model = written(body, values, 6, 5, 3)
    ranges = {"x": TensorRange(-2.5, 3, 2, -2, 3)}
    made = insert_qdq(model, CalibrationTable("by hand", model_digest(model), {}, {}, ranges), TENSORRT).model
    frames = random_frames(3, 6)[:, :, :5]
    found = tensors_of(made, frames, ["conv"])["conv"]

    step = float(np.float16(5 / 255))
    x = ((frames.transpose(0, 3, 1, 2) - values["mean"]) * values["factor"]).astype(np.float64)
    integers = np.clip(np.rint(x / step) + 102, 0, 255) - 102
    weight_steps = np.float16(np.abs(values["w"]).max((1, 2, 3)) / 127).astype(np.float64).reshape(-1, 1, 1, 1)
    weights = np.rint(values["w"] / weight_steps)
    padded = np.pad(integers, ((0, 0), (0, 0), (1, 1), (1, 1)))
    windows = np.lib.stride_tricks.sliding_window_view(padded, (3, 3), axis=(2, 3))
    sums = np.einsum("nchwij,mcij->nmhw", windows, weights)
    wanted = sums * step * weight_steps.reshape(1, -1, 1, 1) + values["b"].reshape(1, -1, 1, 1)
    np.testing.assert_allclose(found, wanted, rtol=1e-4, atol=1e-4)


READERS = {
    "float reader beside": "y = Conv <pads=[1,1,1,1]> (r, w) side = Neg(r) out = Add(y, side)",
    "average pooling": "a = AveragePool <kernel_shape=[2,2],strides=[2,2]> (r) out = Conv (a, w1)",
    "average pooling that counts its padding": """a = AveragePool <kernel_shape=[3,3],pads=[1,1,1,1],
        count_include_pad=1> (r) out = Conv (a, w1)""",
    "no bias": "out = Conv <pads=[1,1,1,1]> (r, w)",
    "two paddings": """p = Conv <pads=[1,1,1,1]> (r, w) q = Conv <pads=[2,2,2,2], dilations=[2,2]> (r, w2)
        s = Relu(p) t = Relu(q) out = Add(s, t)""",
    "a shared bias": "p = Conv (r, w1, b) s = Relu(p) out = Conv (s, w3, b)",
    "explicit padding": 'e = Pad <mode="constant"> (r, amounts) out = Conv (e, w)',
    "max pooling": "m = MaxPool <kernel_shape=[3,3],pads=[1,1,1,1],strides=[2,2]> (r) out = Conv (m, w1)",
}


@pytest.mark.parametrize("body", READERS.values(), ids=READERS)
def test_whatever_reads_an_offset_tensor_gets_it_right(
    written: Written, random_frames: Frames, sqnr: Callable[..., float], body: str
) -> None:
    random = np.random.default_rng(7)
    values = {
        "mean": np.full((1, 3, 1, 1), 100),
        "factor": np.full((1, 3, 1, 1), 0.02),
        "w0": random.normal(size=(8, 3, 3, 3)),
        "b": random.normal(size=8),
        "w": random.normal(size=(8, 8, 3, 3)),
        "w1": random.normal(size=(8, 8, 1, 1)),
        "w2": random.normal(size=(8, 8, 3, 3)),
        "w3": random.normal(size=(8, 8, 1, 1)),
    }
    text = (
        f"c = Conv <pads=[1,1,1,1]> (x, w0, b) r = Relu(c) {body} pool = GlobalAveragePool(out) logits = Flatten(pool)"
    )
    if "amounts" in body:
        text = f"amounts = Constant <value_ints=[0,0,1,1,0,0,1,1]> () {text}"
    model = written(text, {k: v for k, v in values.items() if k in text or k in ("mean", "factor")}, 8, 8, 3)
    frames = random_frames(6, 8)
    table = collect(model, [frames], method="minmax", images={}, preprocessing={})
    placed = place_qdq(model, table, TENSORRT).model
    unsigned, signed = (run_frames(exact_session(m), frames) for m in (placed, fold_zero_points(placed)))
    assert sqnr(unsigned, signed) > 45
    assert sqnr(run_frames(exact_session(model), frames), signed) > 25


def test_one_bit_more_for_tensors_behind_a_relu(demo: Any, sqnr: Callable[..., float]) -> None:
    """Against the same ranges in INT8 with zero point 0, as other tools quantize for TensorRT."""

    class Symmetric(type(TENSORRT)):  # type: ignore[misc]
        def activation_params(self, found: TensorRange) -> Any:
            from edge_resnet.calibration.affine import symmetric

            return symmetric(found.amax)

    frames = demo.test_frames[::4]
    answers = [
        run_frames(exact_session(insert_qdq(demo.model, demo.table, scheme).model), frames)
        for scheme in (Symmetric(), TENSORRT)
    ]
    symmetric_db, folded_db = (sqnr(demo.logits[::4], each) for each in answers)
    assert folded_db > symmetric_db + 2.5
