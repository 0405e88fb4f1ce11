"""Learned equalization: its parts against formulas, and all of it on images that it did not see."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import pytest
import torch
from onnx import numpy_helper

from edge_resnet.calibration import SCHEMES, Refined, collect, exact_input, insert_qdq
from edge_resnet.calibration.balance import LARGEST, balance
from edge_resnet.calibration.equalize import equalize
from edge_resnet.calibration.gradients import measure
from edge_resnet.calibration.noise import Beyond
from edge_resnet.calibration.refine import EXACT_PIXELS, EXACT_RANGE
from edge_resnet.calibration.rounding import round_weights
from edge_resnet.calibration.simulate import exact_session, run_frames
from edge_resnet.calibration.tails import EACH, KEPT, Ends, Tail, observe_ends
from edge_resnet.calibration.torch_graph import constants_of, run_nodes

TENSORRT = SCHEMES["tensorrt"]
Network = Callable[..., onnx.ModelProto]
Written = Callable[..., onnx.ModelProto]
Frames = Callable[..., npt.NDArray[np.uint8]]
Tensors = Callable[..., dict[str, npt.NDArray[np.float32]]]
FAMILIES = ("resnet20", "resnet18d", "resnet18v2")


def observed(model: onnx.ModelProto, frames: npt.NDArray[np.uint8]) -> Refined:
    return Refined(model, collect(model, [frames], method="mse", images={}, preprocessing={}))


def constants(model: onnx.ModelProto) -> dict[str, npt.NDArray[Any]]:
    return {tensor.name: numpy_helper.to_array(tensor) for tensor in model.graph.initializer}


PLAIN = """c = Conv <pads=[1,1,1,1]> (x, w) r = Relu(c) d = Conv (r, v) s = Relu(d) pool = GlobalAveragePool(s)
           flat = Flatten(pool) logits = Gemm <transB=1> (flat, fc)"""


def small(written: Written, body: str = PLAIN, **more: Any) -> onnx.ModelProto:
    random = np.random.default_rng(7)
    values = {
        "mean": np.full((1, 3, 1, 1), 120),
        "factor": np.full((1, 3, 1, 1), 0.02),
        "w": random.normal(size=(4, 3, 3, 3)),
        "v": random.normal(size=(5, 4, 1, 1)),
        "fc": random.normal(size=(6, 5)),
        **more,
    }
    return written(body, values, 6, 6, 3)


class TestTails:
    def test_are_each_channels_largest_values_of_all_images(
        self, written: Written, random_frames: Frames, tensors_of: Tensors
    ) -> None:
        model, frames = small(written), random_frames(9, 6)
        ends = observe_ends(model, ["c"], [frames[:4], frames[4:8], frames[8:]], 9)["c"]
        values = tensors_of(model, frames, ["c"])["c"].transpose(1, 0, 2, 3).reshape(4, 9, 36)
        for tail, signed in ((ends.upper, values), (ends.lower, -values)):
            each = -np.sort(-signed, axis=2)[:, :, :EACH]
            wanted = -np.sort(-each.reshape(4, -1), axis=1)[:, :KEPT]
            np.testing.assert_allclose(tail.values, wanted, rtol=1e-4, atol=1e-5)

    def test_what_lies_beyond_a_limit_is_that_of_the_distribution(self) -> None:
        """Of an exponential distribution with mean 2, E[(x − L)₊²] = 8·exp(−L/2)."""
        random, images = np.random.default_rng(1), 4096
        drawn = random.exponential(2.0, (40, images))
        tail = Tail((-np.sort(-drawn, axis=1))[:, :KEPT].astype(np.float32), images)
        for limit in (8.0, 14.0, 20.0):  # inside what was seen, at its end, beyond it
            found = float(Beyond.of([tail]).lost(torch.full((40,), limit, dtype=torch.float64)).mean())
            assert found == pytest.approx(8 * np.exp(-limit / 2), rel=0.25)

    def test_one_value_is_a_tail_of_its_own(self) -> None:
        tail = Tail(np.array([[3.0]], np.float32), 1)
        assert (tail.count, tail.threshold, tail.excess) == (0, 3.0, 0.0)


def test_energies_are_those_of_the_jacobian(written: Written, random_frames: Frames) -> None:
    """With two answers a signed sum over both is an average of few: so the mean over many draws, against J itself."""
    model, frames = small(written), random_frames(1, 6).repeat(400, axis=0)
    low = Tail(np.full((4, 2), -1e9, np.float32), 1)
    found = measure(model, {"r": Ends(low, low)}, ["v"], frames, 400)
    start = constants_of(model)

    def answer(r: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
        tensors = {**start, "r": r, "v": v}
        run_nodes(model.graph.node[-5:], tensors)
        return tensors["logits"]

    tensors = {**start, "frames": torch.from_numpy(frames[:1])}
    run_nodes(model.graph.node, tensors)
    assert model.graph.node[-5].output[0] == "d"
    of_r, of_v = torch.autograd.functional.jacobian(answer, (tensors["r"], tensors["v"]))  # type: ignore[no-untyped-call]
    there = tensors["r"] != 0
    wanted = (of_r.square().sum((0, 1)) * there).sum((0, 2, 3))
    torch.testing.assert_close(found.tensors["r"].total.float(), wanted, rtol=0.15, atol=1e-6)
    torch.testing.assert_close(found.weights["v"].float(), of_v.square().sum((0, 1, 4, 5)), rtol=0.15, atol=1e-4)


@pytest.mark.parametrize("arch", FAMILIES)
def test_the_function_stays(network: Network, random_frames: Frames, arch: str) -> None:
    model, frames = network(arch, 32), random_frames(4, 32)
    before = model.SerializeToString(deterministic=True)
    made = balance(observed(model, frames), TENSORRT, frames)
    assert model.SerializeToString(deterministic=True) == before
    made.table.check_fits(made.model)
    wanted, found = (run_frames(exact_session(m), random_frames(3, 32)) for m in (model, made.model))
    np.testing.assert_allclose(found, wanted, rtol=0, atol=5e-5 * np.abs(wanted).max())
    assert {name: r for name, r in made.table.ranges.items() if not r.low <= 0 <= r.high} == {}


def test_the_function_of_groups_stays(written: Written, random_frames: Frames) -> None:
    body = """c = Conv <pads=[1,1,1,1]> (x, w) r = Relu(c) d = Conv <group=2> (r, v) s = Relu(d)
              pool = GlobalAveragePool(s) flat = Flatten(pool) logits = Gemm <transB=1> (flat, fc)"""
    random = np.random.default_rng(5)
    model = small(written, v=random.normal(size=(6, 2, 1, 1)), fc=random.normal(size=(6, 6)), body=body)
    made = balance(observed(model, random_frames(8, 6)), TENSORRT, random_frames(8, 6)).model
    assert np.abs(constants(made)["v"] / constants(model)["v"] - 1).max() > 0.01
    wanted, found = (run_frames(exact_session(m), random_frames(3, 6)) for m in (model, made))
    np.testing.assert_allclose(found, wanted, rtol=0, atol=1e-5 * np.abs(wanted).max())


def test_a_channel_that_dwarfs_the_others_comes_down(
    written: Written, random_frames: Frames, tensors_of: Tensors
) -> None:
    """All channels count alike in the answer; one is 1,000 times as large, and its reader takes that back."""
    weight, reading = np.random.default_rng(2).uniform(0.5, 1, (4, 3, 3, 3)), np.ones((5, 4, 1, 1))
    weight[0], reading[:, 0] = weight[0] * 1000, 0.001
    model, frames = small(written, w=weight, v=reading, fc=np.eye(6, 5)), random_frames(32, 6)
    made = balance(observed(model, frames), TENSORRT, frames)
    before, after = (tensors_of(m, frames, ["r"])["r"].max(axis=(0, 2, 3)) for m in (model, made.model))
    assert before[0] > 300 * before[1:].max()
    assert after[0] < 20 * after[1:].min()


def test_a_dead_channel_and_plain_frames_leave_finite_numbers(written: Written, random_frames: Frames) -> None:
    dead = np.random.default_rng(3).normal(size=(4, 3, 3, 3))
    dead[2] = 0
    model = small(written, w=dead)
    for frames in (random_frames(3, 6), np.full((1, 6, 6, 3), 120, np.uint8)):
        made = balance(observed(model, frames), TENSORRT, frames)
        for name, value in constants(made.model).items():
            assert np.isfinite(value).all(), name
        changes = constants(made.model)["v"] / constants(model)["v"]
        assert changes.max() <= LARGEST * 1.01
        assert changes.min() >= 0.99 / LARGEST


def test_what_nothing_may_be_scaled_for_still_gets_its_range(written: Written, random_frames: Frames) -> None:
    random = np.random.default_rng(1)
    values = {
        "mean": np.full((1, 3, 1, 1), 100),
        "factor": np.full((1, 3, 1, 1), 0.02),
        "w": random.normal(size=(4, 3, 1, 1)),
        "v": random.normal(size=(4, 4, 1, 1)),
    }
    body = """c = Conv (x, w) r = Relu(c) t = Tanh(r) d = Conv (r, v) s = Relu(d) sum = Add(s, t)
              pool = GlobalAveragePool(sum) logits = Flatten(pool)"""
    model, frames = written(body, values, 4, 4, 3), random_frames(16, 4)
    start = observed(model, frames)
    made = balance(start, TENSORRT, frames)
    for name, value in constants(model).items():
        np.testing.assert_array_equal(constants(made.model)[name], value)
    assert 0.5 * start.table["r"].maximum < made.table["r"].high < 2 * start.table["r"].maximum


def test_the_exact_input_stays_exact(network: Network, random_frames: Frames) -> None:
    frames = random_frames(3, 32)
    start = observed(network("resnet20", 32), frames)
    made = balance(exact_input(start.model, start.table), TENSORRT, frames)
    assert made.table[EXACT_PIXELS] == EXACT_RANGE


def test_twice_the_same_whatever_the_number_of_threads(network: Network, random_frames: Frames) -> None:
    start, frames = observed(network("resnet20", 32), random_frames(6, 32)), random_frames(6, 32)
    made = []
    threads = torch.get_num_threads()
    for count in (1, 3):
        torch.set_num_threads(count)
        made.append(balance(start, TENSORRT, frames))
        assert torch.get_num_threads() == count
    torch.set_num_threads(threads)
    for one, other in itertools.pairwise(made):
        assert one.model.SerializeToString(deterministic=True) == other.model.SerializeToString(deterministic=True)
        assert one.table == other.table


def test_the_demo_answers_new_images_with_less_noise(demo: Any, sqnr: Callable[..., float]) -> None:
    """Behind rounding, in the place of the closed form: balanced channels ask more of weights."""
    exact, frames = exact_input(demo.model, demo.table), demo.frames[::2]

    def behind(step: Callable[..., Refined]) -> float:
        made = round_weights(step(exact, TENSORRT, frames), TENSORRT, frames)
        quantized = exact_session(insert_qdq(made.model, made.table, TENSORRT).model)
        return sqnr(demo.logits[::2], run_frames(quantized, demo.test_frames[::2]))

    assert behind(balance) > behind(equalize) + 0.4
