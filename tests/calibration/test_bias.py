"""Bias correction: the shift that is found is the best one, where it is seen; and the demo network gains by it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import pytest
from onnx import numpy_helper

from edge_resnet.calibration import (
    SCHEMES,
    CalibrationTable,
    Refined,
    TensorRange,
    collect,
    correct_biases,
    exact_input,
)
from edge_resnet.calibration.qdq import place_qdq
from edge_resnet.calibration.schemes import INT8_SCHEMES
from edge_resnet.calibration.simulate import exact_session, run_frames
from edge_resnet.calibration.table import model_digest

Array = npt.NDArray[np.float32]
Tensors = Callable[..., dict[str, Array]]
Frames = npt.NDArray[np.uint8]
TENSORRT = SCHEMES["tensorrt"]


def constants(model: onnx.ModelProto) -> dict[str, Array]:
    return {tensor.name: numpy_helper.to_array(tensor) for tensor in model.graph.initializer}


def shifted(model: onnx.ModelProto, bias: str, amount: Array) -> onnx.ModelProto:
    """The model with ``amount`` added to one bias."""
    made = onnx.ModelProto()
    made.CopyFrom(model)
    (constant,) = [tensor for tensor in made.graph.initializer if tensor.name == bias]
    constant.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(constant) + amount.astype(np.float32), bias))
    return made


class TestByHand:
    """x = pixel, quantized with scale 1; y = 1·R + 0.003·G − 50, whose second weight is less than half a step of 1/127
    and becomes 0. One pixel in ten is (100, 0, 0): y = 50, seen. The others are (0, 120, 0): y = −49.64, cut off by a
    ReLU, and −50 when quantized.
    """

    LOST = 0.9 * 0.003 * 120
    """What the mean of y loses."""

    @pytest.fixture
    def frames(self) -> Frames:
        frames = np.zeros((2, 5, 10, 3), np.uint8)
        frames[..., 1] = 120
        frames[:, :, 0] = (100, 0, 0)
        return frames

    @pytest.fixture
    def network(self, written: Callable[..., onnx.ModelProto]) -> Callable[[str], Refined]:
        def make(behind: str) -> Refined:
            values = {
                "mean": np.zeros((1, 3, 1, 1)),
                "factor": np.ones((1, 3, 1, 1)),
                "w": np.reshape([1, 0.003, 0], (1, 3, 1, 1)),
                "b": np.array([-50]),
            }
            body = f"y = Conv (x, w, b) seen = {behind}(y) pool = GlobalAveragePool(seen) logits = Flatten(pool)"
            model = written(body, values, 5, 10, 3)
            ranges = {"x": TensorRange(0, 127, 127, 0, 255), "seen": TensorRange(-50, 50, 50, -50, 50)}
            return Refined(model, CalibrationTable("by hand", model_digest(model), {}, {}, ranges))

        return make

    def test_what_is_seen_gets_its_mean_back(self, network: Callable[[str], Refined], frames: Frames) -> None:
        corrected = correct_biases(network("Identity"), TENSORRT, frames)
        assert constants(corrected.model)["b"] + 50 == pytest.approx(self.LOST, rel=0.01)

    def test_what_a_relu_cuts_off_does_not_move_what_is_seen(
        self, network: Callable[[str], Refined], frames: Frames
    ) -> None:
        corrected = correct_biases(network("Relu"), TENSORRT, frames)
        error_of_the_seen = 100 * (1 - 127 * float(np.float16(1 / 127)))
        assert constants(corrected.model)["b"] + 50 == pytest.approx(error_of_the_seen, abs=1e-4)
        assert error_of_the_seen < 0.05 * self.LOST

    def test_what_a_shortcut_lifts_over_zero_is_seen(self, written: Callable[..., onnx.ModelProto]) -> None:
        """Every pixel is (100, 120, 0): y = B + 0.003·G − 50 = −49.64, cut off alone, but seen with R added."""
        values = {
            "mean": np.zeros((1, 3, 1, 1)),
            "factor": np.ones((1, 3, 1, 1)),
            "w": np.reshape([[0, 0.003, 1], [0, 0, 0], [0, 0, 0]], (3, 3, 1, 1)),
            "b": np.array([-50, 0, 0]),
        }
        body = """shortcut = Relu(x) y = Conv (shortcut, w, b) sum = Add(y, shortcut) seen = Relu(sum)
                  pool = GlobalAveragePool(seen) logits = Flatten(pool)"""
        model = written(body, values, 4, 4, 3)
        ranges = {"shortcut": TensorRange(0, 127, 127, 0, 255)}
        table = CalibrationTable("by hand", model_digest(model), {}, {}, ranges)
        frames = np.tile(np.array([100, 120, 0], np.uint8), (2, 4, 4, 1))
        corrected = correct_biases(Refined(model, table), TENSORRT, frames)
        assert constants(corrected.model)["b"] - values["b"] == pytest.approx([0.36, 0, 0], abs=1e-4)

    def test_only_biases_change_and_the_table_follows(self, network: Callable[[str], Refined], frames: Frames) -> None:
        before = network("Identity")
        serialised = before.model.SerializeToString(deterministic=True)
        after = correct_biases(before, TENSORRT, frames)
        assert before.model.SerializeToString(deterministic=True) == serialised
        assert [node.op_type for node in after.model.graph.node] == [node.op_type for node in before.model.graph.node]
        for name, value in constants(before.model).items():
            assert np.array_equal(constants(after.model)[name], value) == (name != "b")
        after.table.check_fits(after.model)
        assert after.table.ranges == before.table.ranges


@pytest.fixture(scope="module")
def corrected(
    network: Callable[..., onnx.ModelProto], random_frames: Callable[..., Frames]
) -> tuple[onnx.ModelProto, onnx.ModelProto]:
    """A random ResNet-18, FP32 and quantized with corrected biases."""
    model, frames = network("resnet18", 32), random_frames(TestOptimum.FRAMES, 32)
    table = collect(model, [frames], method="mse", images={}, preprocessing={})
    refined = correct_biases(Refined(model, table), TENSORRT, frames)
    return model, place_qdq(refined.model, refined.table, TENSORRT).model


class TestOptimum:
    """No other shift of a bias gives a smaller squared error where its convolution is seen."""

    FRAMES = 6

    @pytest.mark.parametrize(
        ("convolution", "seen", "tolerance"),
        [
            ("conv1", "relu", 0.001),
            ("layer1.0.conv1", "layer1.0.relu1", 0.001),
            ("layer1.0.conv2", "layer1.0.relu2", 0.001),
            ("layer2.0.conv2", "layer2.0.conv2", 0.001),
            ("layer2.0.downsample.0", "layer2.0.relu2", 0.02),  # it is quantized before it is seen
            ("layer4.1.conv2", "layer4.1.relu2", 0.001),
        ],
        ids=[
            "behind its ReLU",
            "the next, with the first one corrected",
            "behind the sum with a shortcut",
            "before a sum with what is not there yet",
            "a projection, behind the sum with its branch",
            "the last",
        ],
    )
    def test_is_found(
        self,
        corrected: tuple[onnx.ModelProto, onnx.ModelProto],
        random_frames: Callable[..., Frames],
        tensors_of: Tensors,
        convolution: str,
        seen: str,
        tolerance: float,
    ) -> None:
        model, quantized = corrected
        frames = random_frames(self.FRAMES, 32)
        wanted = tensors_of(model, frames, [seen])[seen].astype(np.float64)

        def error(amount: Array) -> npt.NDArray[np.float64]:
            """One a channel."""
            made = shifted(quantized, f"{convolution}.bias", amount)
            return np.asarray(np.square(tensors_of(made, frames, [seen])[seen] - wanted).sum(axis=(0, 2, 3)))

        found = error(np.zeros(wanted.shape[1], np.float32))
        typical = np.sqrt(found * wanted.shape[1] / wanted.size).astype(np.float32)
        for share in (-0.3, -0.03, 0.03, 0.3):
            assert found.sum() <= (1 + tolerance) * error(share * typical).sum()


def test_a_kept_float_layer_needs_no_correction(
    network: Callable[..., onnx.ModelProto],
    distinct_ranges: Callable[..., CalibrationTable],
    random_frames: Callable[..., Frames],
) -> None:
    model = network("resnet20", 16)
    convolutions = tuple(node.name for node in model.graph.node if node.op_type == "Conv")
    adds = tuple(node.name for node in model.graph.node if node.op_type == "Add")
    before = Refined(model, distinct_ranges(model))
    after = correct_biases(before, TENSORRT, random_frames(2, 16), keep_float=(*convolutions, *adds))
    for name, value in constants(model).items():
        np.testing.assert_allclose(constants(after.model)[name], value, atol=1e-6)


@pytest.fixture(scope="module", params=INT8_SCHEMES)
def uncorrected_and_corrected(demo: Any, request: pytest.FixtureRequest) -> tuple[onnx.ModelProto, onnx.ModelProto]:
    """The demo network, quantized."""
    scheme = SCHEMES[request.param]
    before = exact_input(demo.model, demo.table)
    after = correct_biases(before, scheme, demo.frames)
    made = [place_qdq(refined.model, refined.table, scheme).model for refined in (before, after)]
    return made[0], made[1]


@pytest.mark.slow
class TestDemo:
    def test_answers_new_images_better(
        self, demo: Any, uncorrected_and_corrected: tuple[onnx.ModelProto, onnx.ModelProto], sqnr: Callable[..., float]
    ) -> None:
        before, after = (
            sqnr(demo.logits, run_frames(exact_session(model), demo.test_frames)) for model in uncorrected_and_corrected
        )
        assert after >= before > 30

    def test_every_layer_is_nearer_to_fp32_on_new_images(
        self, demo: Any, uncorrected_and_corrected: tuple[onnx.ModelProto, onnx.ModelProto], tensors_of: Tensors
    ) -> None:
        seen = [node.output[0] for node in demo.model.graph.node if node.op_type == "Relu"]
        frames = demo.test_frames[::5]
        wanted = tensors_of(demo.model, frames, seen)
        before, after = (tensors_of(model, frames, seen) for model in uncorrected_and_corrected)
        ratios = np.array(
            [
                np.square(after[name] - wanted[name]).sum() / np.square(before[name] - wanted[name]).sum()
                for name in seen
            ]
        )
        assert ratios.max() < 1
