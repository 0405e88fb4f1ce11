"""The cpu scheme on CPUs without VNNI, whose kernels add two products of uint8 and int8 in saturating int16.

Shown three ways: by the integers themselves, by a numpy model of VPMADDUBSW, and by ONNX Runtime on an emulated Haswell.
"""

from __future__ import annotations

import platform
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from edge_resnet.calibration import CalibrationTable, collect, insert_qdq
from edge_resnet.calibration.affine import Array, QuantParams, asymmetric, quantize, symmetric
from edge_resnet.calibration.schemes import CpuScheme
from edge_resnet.calibration.simulate import exact_session, run_frames

QEMU = shutil.which("qemu-x86_64")
ACTIVATION = asymmetric(0, 4)


class FullRange(CpuScheme):
    """What saturates: scale amax / 127, as a quantizer does that knows nothing of the kernel."""

    name = "full range"

    def weight_params(self, weight: Array, bias: Array | None, activation: QuantParams) -> QuantParams:
        return symmetric(np.abs(weight).max(axis=(1, 2, 3)), axis=0)


def integers(scheme: CpuScheme, weight: Array, bias: Array | None = None) -> npt.NDArray[np.int64]:
    """Quantized weights, a row for each output channel."""
    params = scheme.weight_params(weight, bias, ACTIVATION)
    return quantize(weight, params).astype(np.int64).reshape(len(weight), -1)


def adversarial() -> dict[str, Array]:
    random = np.random.default_rng(0)
    shape = (4, 6, 3, 3)
    alternating = np.where(np.arange(54).reshape(6, 3, 3) % 2, -1.0, 1.0)
    made = {
        "all equal": np.ones(shape),
        "all equal, negative": np.full(shape, -0.3),
        "alternating": np.broadcast_to(alternating, shape),
        "two large ones": np.where(np.arange(216).reshape(shape) % 54 < 2, 1.0, 1e-3),
        "one large one": np.where(np.arange(216).reshape(shape) % 54 < 1, 1.0, 0.4),
        "heavy tails": random.standard_t(1.5, shape),
        "uniform": random.uniform(0, 1, shape),
        "tiny": np.full(shape, 2e-5),
        "below any FP16 scale": np.full(shape, 1e-9),
        "zero": np.zeros(shape),
        "one weight a channel": np.ones((4, 1, 1, 1)),
    }
    return {name: np.array(values, np.float32) for name, values in made.items()}


class TestPairs:
    """255 · (w₁ + w₂) must fit in int16 for any two weights of a channel: 255 · 128 = 32640, 255 · 129 = 32895."""

    @staticmethod
    def largest_pair(weights: npt.NDArray[np.int64]) -> int:
        padded = np.pad(weights, ((0, 0), (0, 2)))  # with zeros, so that each sign has two
        ascending = np.sort(padded, axis=1)
        return int(max(ascending[:, -2:].clip(0).sum(1).max(), -ascending[:, :2].clip(None, 0).sum(1).min()))

    @pytest.mark.parametrize("name", adversarial())
    def test_of_adversarial_weights_fit(self, name: str) -> None:
        assert self.largest_pair(integers(CpuScheme(), adversarial()[name])) <= 128

    @given(
        hnp.arrays(
            np.float32,
            st.tuples(st.integers(1, 3), st.integers(1, 4), st.just(2), st.just(1)),
            elements=st.floats(-4, 4, width=32) | st.floats(-(2.0**-15), 2.0**-15, width=32),
        )
    )
    def test_of_any_weights_fit(self, weight: Array) -> None:
        assert self.largest_pair(integers(CpuScheme(), weight)) <= 128

    @pytest.mark.parametrize("name", sorted(set(adversarial()) - {"tiny", "below any FP16 scale", "zero"}))
    def test_cost_at_most_one_bit(self, name: str) -> None:
        assert np.abs(integers(CpuScheme(), adversarial()[name])).max(1).min() >= 63

    def test_of_one_large_weight_cost_nothing(self) -> None:
        weight = adversarial()["two large ones"].copy()
        weight[weight == 1] = [1, -1] * 4
        np.testing.assert_array_equal(integers(CpuScheme(), weight), integers(FullRange(), weight))


class TestBias:
    def test_of_a_dead_channel_is_kept(self) -> None:
        """Training leaves channels whose weights are almost zero and whose bias is not."""
        weight, bias = adversarial()["below any FP16 scale"], np.array([0.5, -3, 20, 0], np.float32)
        scheme, activation = CpuScheme(), asymmetric(0, 0.5)
        params = scheme.weight_params(weight, bias, activation)
        bias_params = scheme.bias_params(activation, params)
        assert bias_params is not None
        kept = quantize(bias, bias_params).astype(np.float64)
        np.testing.assert_allclose(kept * bias_params.scale, bias, rtol=1e-6)
        products = 255 * np.abs(quantize(weight, params).astype(np.int64)).sum(axis=(1, 2, 3))
        assert (np.abs(kept) + products).max() < 2**31

    def test_of_an_ordinary_channel_changes_nothing(self) -> None:
        weight = adversarial()["heavy tails"]
        bias = np.array([0.5, -3, 20, 0], np.float32)
        np.testing.assert_array_equal(integers(CpuScheme(), weight, bias), integers(CpuScheme(), weight))


def pair_sums(x: npt.NDArray[np.int64], weights: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """Σ x·w as VPMADDUBSW and VPMADDWD compute it: int16 sums of two products saturate, int32 sums do not.

    Intel Software Developer's Manual, volume 2, PMADDUBSW: "SaturateToSignedWord(SRC[15-8]*DEST[15-8]+SRC[7-0]*DEST[7-0])".
    """
    products = x * weights
    pairs = products.reshape(*products.shape[:-1], -1, 2).sum(-1)
    return np.asarray(np.clip(pairs, -(2**15), 2**15 - 1).sum(-1))


class TestModelOfTheInstruction:
    @pytest.mark.parametrize("name", sorted(set(adversarial()) - {"one weight a channel"}))
    @pytest.mark.parametrize("pixels", ["bright", "random"])
    def test_our_weights_give_the_exact_sum_in_any_order(self, name: str, pixels: str) -> None:
        random = np.random.default_rng(0)
        weights = integers(CpuScheme(), adversarial()[name])
        count = weights.shape[1]
        x = np.full(count, 255) if pixels == "bright" else np.array(random.integers(0, 256, count))
        for _ in range(20):  # kernels pack the weights each in their own way
            order = random.permutation(count)
            np.testing.assert_array_equal(pair_sums(x[order], weights[:, order]), weights @ x)

    def test_full_range_weights_do_not(self) -> None:
        weights = integers(FullRange(), adversarial()["all equal"])
        x = np.full(weights.shape[1], 255, np.int64)
        exact, saturated = weights @ x, pair_sums(x, weights)
        assert (saturated < 0.51 * exact).all()


@pytest.fixture(scope="module")
def positive_network(written: Callable[..., onnx.ModelProto]) -> onnx.ModelProto:
    """Two convolutions of large positive weights on bright pixels: the worst that a sum of two products can meet."""
    random = np.random.default_rng(0)
    constants = {
        "mean": np.zeros((1, 3, 1, 1)),
        "factor": np.full((1, 3, 1, 1), 1 / 255),
        "w1": random.uniform(0.9, 1, (16, 3, 3, 3)),
        "b1": np.zeros(16),
        "w2": random.uniform(0.9, 1, (16, 16, 3, 3)),
        "b2": np.zeros(16),
        "fc": random.normal(size=(10, 16)),
        "fc_b": np.zeros(10),
    }
    body = """conv1 = Conv <pads=[1,1,1,1]> (x, w1, b1) relu1 = Relu(conv1)
              conv2 = Conv <pads=[1,1,1,1]> (relu1, w2, b2) relu2 = Relu(conv2)
              pool = GlobalAveragePool(relu2) flat = Flatten(pool) logits = Gemm <transB=1> (flat, fc, fc_b)"""
    return written(body, constants, 12, 12, 3)


ON_HASWELL = """
import sys
import numpy, onnxruntime
options = onnxruntime.SessionOptions()
options.intra_op_num_threads = 1
frames, *models = sys.argv[1:]
for path in models:
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    numpy.save(path + ".npy", session.run(None, {"frames": numpy.load(frames)})[0])
"""


@pytest.mark.slow
@pytest.mark.skipif(QEMU is None, reason="qemu-x86_64 is not installed (Debian: qemu-user)")
@pytest.mark.skipif(platform.machine() != "x86_64", reason="this Python is no x86-64 program")
def test_onnx_runtime_on_a_haswell_is_exact_with_our_weights_and_wrong_with_full_range_ones(
    positive_network: onnx.ModelProto, tmp_path: Path, sqnr: Callable[..., float]
) -> None:
    frames = np.random.default_rng(1).integers(200, 256, (4, 12, 12, 3), np.uint8)
    table: CalibrationTable = collect(positive_network, [frames], method="minmax", images={}, preprocessing={})
    wanted: dict[str, Any] = {}
    for scheme in (CpuScheme(), FullRange()):
        made = insert_qdq(positive_network, table, scheme)
        (tmp_path / scheme.name).write_bytes(made.model.SerializeToString())
        wanted[scheme.name] = run_frames(exact_session(made.model), frames)
    np.save(tmp_path / "frames.npy", frames)
    files = [str(tmp_path / name) for name in ("frames.npy", *wanted)]
    assert QEMU is not None
    command = [QEMU, "-cpu", "Haswell", sys.executable, "-c", ON_HASWELL, *files]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr
    answers = {name: np.load(tmp_path / f"{name}.npy") for name in wanted}
    assert sqnr(wanted["cpu"], answers["cpu"]) > 45
    assert sqnr(wanted["full range"], answers["full range"]) < 10
