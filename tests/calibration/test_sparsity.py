"""2:4 sparsity: TensorRT's rule as its documentation writes it, and zeros that no refinement fills."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import numpy.typing as npt
import onnx
import pytest
from onnx import numpy_helper

from edge_resnet.calibration import SCHEMES, Refined, collect, insert_qdq
from edge_resnet.calibration import distill as distilling
from edge_resnet.calibration import reconstruct as reconstructing
from edge_resnet.calibration.float_types import half_typed
from edge_resnet.calibration.float_weights import float_weights
from edge_resnet.calibration.quantize import refine
from edge_resnet.calibration.rounding import second_order
from edge_resnet.calibration.sparsity import can_be_sparse, is_sparse, sparse_convolutions, two_four

Network = Callable[..., onnx.ModelProto]
Frames = Callable[..., npt.NDArray[np.uint8]]


def by_the_loops(weights: npt.NDArray[np.float32]) -> bool:
    """As NVIDIA's documentation verifies it, loop by loop."""
    k_, c_, r_, s_ = weights.shape
    for k in range(k_):
        for r in range(r_):
            for s in range(s_):
                for four in range(c_ // 4):
                    if np.count_nonzero(weights[k, four * 4 : four * 4 + 4, r, s]) > 2:
                        return False
    return True


def test_the_pattern_is_tensorrts() -> None:
    random = np.random.default_rng(0)
    for _ in range(200):
        weight = random.standard_normal((2, 4, 1, 2)) * (random.random((2, 4, 1, 2)) < 0.5)
        assert is_sparse(weight) == by_the_loops(weight)
    assert not is_sparse(np.zeros((4, 6, 1, 1)))
    assert not can_be_sparse(np.zeros((4, 3, 3, 3)), 1) and not can_be_sparse(np.zeros((4, 4, 3, 3)), 2)


def test_the_two_largest_of_four_stay() -> None:
    weight = np.array([[[[1.0]], [[-5.0]], [[3.0]], [[2.0]], [[0.0]], [[0.0]], [[7.0]], [[7.0]]]])
    assert two_four(np.abs(weight))[0, :, 0, 0].tolist() == [False, True, True, False, False, False, True, True]
    many = np.abs(np.random.default_rng(1).standard_normal((8, 16, 3, 3)))
    kept = two_four(many)
    fours = many.reshape(8, 4, 4, 3, 3)
    least_kept = np.where(kept.reshape(fours.shape), fours, np.inf).min(2)
    most_gone = np.where(kept.reshape(fours.shape), -np.inf, fours).max(2)
    assert (least_kept > most_gone).all() and kept.mean() == 0.5


def test_rounding_leaves_zeros_to_the_others() -> None:
    """Inputs that go together would have a neighbour make good for what is clipped: a live one does, a 0 does not."""
    moments = np.full((3, 3), 0.99) + 0.01 * np.eye(3)
    found = second_order(np.array([[130.0, 0.0, 1.0]]), np.array([1.0]), moments)
    assert found.tolist() == [[127, 0, 4]]


def sparse(model: onnx.ModelProto) -> onnx.ModelProto:
    made = onnx.ModelProto()
    made.CopyFrom(model)
    for each in made.graph.initializer:
        weight = numpy_helper.to_array(each)
        if weight.ndim == 4 and weight.shape[1] % 4 == 0:
            each.CopyFrom(numpy_helper.from_array(weight * two_four(np.abs(weight)), each.name))
    return made


@pytest.mark.parametrize(
    ("arch", "chain"),
    [
        ("resnet8", ("exact-input", "round", "bias")),
        ("resnet8", ("round", "adaround")),
        ("resnet20", ("reconstruct",)),
        ("resnet8", ("equalize", "distill")),
    ],
)
def test_zeros_stay_in_the_integers(
    network: Network, random_frames: Frames, monkeypatch: pytest.MonkeyPatch, arch: str, chain: tuple[str, ...]
) -> None:
    monkeypatch.setattr(reconstructing, "STEPS", 5)
    monkeypatch.setattr(reconstructing, "RATE", 0.5)
    monkeypatch.setattr(distilling, "STEPS", 6)
    monkeypatch.setattr(distilling, "JUDGE_EVERY", 3)
    monkeypatch.setattr(distilling, "RATES", (0.5, 0.02, 0.001))
    monkeypatch.setattr(distilling, "CERTAIN", -np.inf)  # what was learned is taken, good or not
    frames = random_frames(8, 16)
    model = sparse(network(arch, 16))
    table = collect(model, [frames], method="minmax", images={}, preprocessing={})
    table = replace(table, method="minmax")
    scheme = SCHEMES["tensorrt"]
    plain = insert_qdq(model, table, scheme).model
    made = refine(Refined(model, table), scheme, frames, chain)
    quantized = insert_qdq(made.model, made.table, scheme).model
    wanted = {node.name for node in model.graph.node if node.op_type == "Conv"} - {"conv1"}
    assert set(sparse_convolutions(model)) == set(sparse_convolutions(plain)) == wanted
    assert set(sparse_convolutions(quantized)) == wanted, "the Q/DQ's integers"
    assert set(sparse_convolutions(half_typed(quantized))) == wanted, "as TensorRT 10 takes it"
    assert set(sparse_convolutions(float_weights(quantized))) == wanted, "as TensorRT 8 does"
    before, after = (
        {each.name: numpy_helper.to_array(each) for each in graph.graph.initializer} for graph in (plain, quantized)
    )
    changed = [name for name, array in before.items() if array.dtype == np.int8 and array.ndim == 4]
    assert any(not np.array_equal(before[name], after[name]) for name in changed), "something was refined"


def test_a_dense_network_is_not_sparse(network: Network) -> None:
    assert sparse_convolutions(network("resnet8", 16)) == ()
