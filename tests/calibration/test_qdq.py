"""Q/DQ graphs of both schemes: valid, running, INT8 where it is said, and integer arithmetic when run."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import pytest

from edge_resnet.calibration import SCHEMES, CalibrationTable, TensorRange, insert_qdq
from edge_resnet.calibration.qdq import place_qdq
from edge_resnet.calibration.schemes import INT8_SCHEMES
from edge_resnet.calibration.simulate import exact_session, fast_session, run_frames
from edge_resnet.errors import CalibrationError

SIZE = 32
CONVOLUTIONS = {"resnet18": 17 + 3, "resnet20": 19, "resnet50": 49 + 4}
"""A network's number less its fully connected layer, and projection shortcuts."""

Network = Callable[..., onnx.ModelProto]
Ranges = Callable[[onnx.ModelProto], CalibrationTable]
Quantized = Callable[..., tuple[Any, CalibrationTable]]
"""``conftest.quantized``: a view of the quantized model, and the table."""

every_architecture = pytest.mark.parametrize("arch", CONVOLUTIONS)
every_scheme = pytest.mark.parametrize("scheme", INT8_SCHEMES)


class TestBothSchemes:
    @every_scheme
    @every_architecture
    def test_is_onnx_that_runs_and_leaves_the_original_alone(
        self, network: Network, distinct_ranges: Ranges, random_frames: Callable[..., Any], arch: str, scheme: str
    ) -> None:
        model = network(arch, SIZE)
        before = model.SerializeToString(deterministic=True)
        made = insert_qdq(model, distinct_ranges(model), SCHEMES[scheme])
        assert model.SerializeToString(deterministic=True) == before
        onnx.checker.check_model(made.model, full_check=True)
        assert made.model.graph.input == model.graph.input
        assert made.model.graph.output == model.graph.output
        assert [(o.domain, o.version) for o in made.model.opset_import] == [("", 17)]
        frames = random_frames(2, SIZE)
        for session in (exact_session(made.model), fast_session(made.model)):
            assert np.isfinite(run_frames(session, frames)).all()

    @every_scheme
    @every_architecture
    def test_says_which_layers_are_int8(
        self, network: Network, distinct_ranges: Ranges, arch: str, scheme: str
    ) -> None:
        model = network(arch, SIZE)
        made = insert_qdq(model, distinct_ranges(model), SCHEMES[scheme])
        assert made.scheme == scheme
        assert len(made.quantized_layers) == CONVOLUTIONS[arch]
        assert set(made.quantized_layers) == {node.name for node in model.graph.node if node.op_type == "Conv"}
        assert made.kept_float == ("fc",)

    @every_scheme
    @every_architecture
    def test_every_weight_is_int8_per_output_channel(self, quantized: Quantized, arch: str, scheme: str) -> None:
        view, _ = quantized(arch, scheme)
        convolutions = view.of_type("Conv")
        assert len(convolutions) == CONVOLUTIONS[arch]
        for conv in convolutions:
            dq = view.integers(conv.input[1])
            assert dq is not None
            weight, scale, zero_point = (view.constant(name) for name in dq.input)
            assert [(a.name, a.i) for a in dq.attribute] == [("axis", 0)]
            assert weight.dtype == zero_point.dtype == np.int8
            assert scale.shape == zero_point.shape == weight.shape[:1]
            assert not zero_point.any()
            assert np.abs(weight.astype(int)).max() <= 127

    @every_scheme
    @every_architecture
    def test_one_pair_a_tensor_and_none_for_nothing(self, quantized: Quantized, arch: str, scheme: str) -> None:
        view, _ = quantized(arch, scheme)
        quantizers = view.of_type("QuantizeLinear")
        sources = [q.input[0] for q in quantizers]
        assert len(set(sources)) == len(sources)
        for q in quantizers:
            assert [reader.op_type for reader in view.readers[q.output[0]]] == ["DequantizeLinear"]
            assert view.constant(q.input[1]).shape == view.constant(q.input[2]).shape == ()
            assert view.readers[view.dequantized(q)]

    @every_scheme
    @every_architecture
    def test_pooling_and_the_last_layer_stay_float(self, quantized: Quantized, arch: str, scheme: str) -> None:
        view, _ = quantized(arch, scheme)
        (gemm,) = view.of_type("Gemm")
        for name in gemm.input:
            assert view.quantizer(name) is None
        assert view.constant(gemm.input[1]).dtype == np.float32
        (pool,) = view.of_type("GlobalAveragePool")
        assert view.readers[pool.output[0]][0].op_type == "Flatten"

    @every_scheme
    def test_a_table_of_another_model_is_refused(self, network: Network, distinct_ranges: Ranges, scheme: str) -> None:
        with pytest.raises(CalibrationError, match="another model"):
            insert_qdq(network("resnet20", SIZE), distinct_ranges(network("resnet20", 16)), SCHEMES[scheme])


class TestKeepFloat:
    KEPT = ("conv1", "layer2.1.conv2")

    @every_scheme
    def test_leaves_exactly_the_named_convolutions_float(
        self, network: Network, distinct_ranges: Ranges, view_of: Callable[..., Any], scheme: str
    ) -> None:
        model = network("resnet18", SIZE)
        made = place_qdq(model, distinct_ranges(model), SCHEMES[scheme], self.KEPT)
        view, original = view_of(made.model), view_of(model)
        for conv in view.of_type("Conv"):
            kept = conv.name in self.KEPT
            assert (view.quantizer(conv.input[0]) is None) == kept
            assert (view.integers(conv.input[1]) is None) == kept
            if kept:
                for name in conv.input[1:]:
                    np.testing.assert_array_equal(view.constant(name), original.constant(name))
        assert set(made.kept_float) == {*self.KEPT, "fc"}
        assert not set(made.quantized_layers) & set(self.KEPT)

    @every_scheme
    @pytest.mark.parametrize(("arch", "add"), [("resnet18", "layer1.1.add"), ("resnet20", "layer2.0.add")])
    def test_a_kept_add_reads_a_shortcut_that_was_never_quantized(
        self, quantized: Quantized, arch: str, add: str, scheme: str
    ) -> None:
        view, _ = quantized(arch, scheme, add)
        waiting = list(view.named(add).input)
        for name in waiting:
            assert view.quantizer(name) is None
            if view.producer[name].op_type in ("Slice", "Pad"):
                waiting.append(view.producer[name].input[0])
        assert all(view.quantizer(conv.input[0]) is not None for conv in view.of_type("Conv"))

    @every_scheme
    def test_an_unknown_name_is_refused(self, network: Network, distinct_ranges: Ranges, scheme: str) -> None:
        model = network("resnet20", SIZE)
        with pytest.raises(CalibrationError, match="keep_float names 'layer9.conv1'") as caught:
            insert_qdq(model, distinct_ranges(model), SCHEMES[scheme], ("conv1", "layer9.conv1"))
        assert "\n" not in str(caught.value)


@pytest.fixture(scope="module")
def one_convolution(written: Callable[..., onnx.ModelProto]) -> onnx.ModelProto:
    """A 3×3 convolution with 2 channels and a ReLU, and a layer behind them."""
    random = np.random.default_rng(3)
    constants = {
        "mean": np.array([100, 120, 140]).reshape(1, 3, 1, 1),
        "factor": np.array([0.02, 0.018, 0.016]).reshape(1, 3, 1, 1),
        "w": random.normal(size=(2, 3, 3, 3)),
        "b": random.normal(size=2),
        "fc": random.normal(size=(4, 2)),
        "fc_b": random.normal(size=4),
    }
    body = """conv = Conv <pads=[1,1,1,1]> (x, w, b) relu = Relu(conv) mean_pool = GlobalAveragePool(relu)
              flat = Flatten(mean_pool) logits = Gemm <transB=1> (flat, fc, fc_b)"""
    return written(body, constants, 6, 5, 3)


def convolved(x: npt.NDArray[np.int64], w: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """A 3×3 convolution with zero padding, in integers."""
    padded = np.pad(x, ((0, 0), (0, 0), (1, 1), (1, 1)))
    windows = np.lib.stride_tricks.sliding_window_view(padded, (3, 3), axis=(2, 3))
    return np.asarray(np.einsum("nchwij,mcij->nmhw", windows, w))


@every_scheme
def test_exact_evaluation_is_integer_arithmetic(
    one_convolution: onnx.ModelProto,
    distinct_ranges: Ranges,
    random_frames: Callable[..., Any],
    tensors_of: Callable[..., Any],
    view_of: Callable[..., Any],
    scheme: str,
) -> None:
    table = distinct_ranges(one_convolution).with_ranges(
        one_convolution,
        {"x": TensorRange(-2.5, 3, 2, -2, 3), "relu": TensorRange(0, 30, 25, 0, 20)},
    )
    made = place_qdq(one_convolution, table, SCHEMES[scheme])
    view = view_of(made.model)
    frames = random_frames(3, 6)[:, :, :5]
    results = tensors_of(made.model, frames, ["x", "conv"])
    (conv,) = view.of_type("Conv")
    q, dq = view.quantizer(conv.input[0]), view.integers(conv.input[1])
    assert q is not None
    assert dq is not None
    step, zero_point = (view.constant(name).astype(np.float64) for name in q.input[1:])
    ends = np.iinfo(view.constant(q.input[2]).dtype)
    x = np.clip(np.rint(results["x"] / np.float32(step)) + zero_point, ends.min, ends.max) - zero_point
    sums = convolved(x.astype(np.int64), view.constant(dq.input[0]).astype(np.int64))
    scale = (step * view.constant(dq.input[1])).reshape(1, -1, 1, 1)
    original = view_of(one_convolution).constant("b").reshape(1, -1, 1, 1)
    bias = original if scheme == "tensorrt" else np.rint(original / scale) * scale
    np.testing.assert_allclose(results["conv"], sums * scale + bias, rtol=1e-5, atol=1e-5)
