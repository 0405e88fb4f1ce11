"""Equalization: the function stays, channels come nearer to each other, and what cannot follow stays as it is."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import pytest
from onnx import numpy_helper

from edge_resnet.calibration import SCHEMES, Refined, collect, exact_input
from edge_resnet.calibration.equalize import POWER, equalize
from edge_resnet.calibration.refine import EXACT_PIXELS, EXACT_RANGE
from edge_resnet.calibration.simulate import exact_session, run_frames

TENSORRT = SCHEMES["tensorrt"]
Network = Callable[..., onnx.ModelProto]
Frames = Callable[..., npt.NDArray[np.uint8]]
Tensors = Callable[..., dict[str, npt.NDArray[np.float32]]]
FAMILIES = (
    "resnet18",
    "resnet20",
    "resnet50",
    "resnet50v2",
    "resnetv2-18",
    "resnet18d",
    "resnet8",
    "plain20",
    "resnext50",
)


def constants(model: onnx.ModelProto) -> dict[str, npt.NDArray[Any]]:
    return {tensor.name: numpy_helper.to_array(tensor) for tensor in model.graph.initializer}


def observed(model: onnx.ModelProto, frames: npt.NDArray[np.uint8]) -> Refined:
    return Refined(model, collect(model, [frames], method="mse", images={}, preprocessing={}))


@pytest.mark.parametrize("arch", FAMILIES)
def test_the_function_stays(network: Network, random_frames: Frames, arch: str) -> None:
    model, frames = network(arch, 32), random_frames(4, 32)
    before = model.SerializeToString(deterministic=True)
    made = equalize(observed(model, frames), TENSORRT, frames)
    assert model.SerializeToString(deterministic=True) == before
    made.table.check_fits(made.model)
    wanted, found = (run_frames(exact_session(m), random_frames(3, 32)) for m in (model, made.model))
    np.testing.assert_allclose(found, wanted, rtol=0, atol=2e-5 * np.abs(wanted).max())
    after = constants(made.model)
    kernels = {name: value for name, value in constants(model).items() if value.ndim == 4}
    same = [name for name, value in kernels.items() if np.array_equal(value, after[name])]
    assert len(same) <= len(kernels) // 3, "but for what the first and last convolutions of a V2 trunk keep"


def test_channels_come_nearer_by_the_power(
    written: Callable[..., onnx.ModelProto], random_frames: Frames, tensors_of: Tensors
) -> None:
    """Two convolutions, of which the first gives channels with peaks a and 1000·a."""
    weight = np.zeros((2, 3, 1, 1))
    weight[0, 0], weight[1, 1] = 1, 1000
    values = {
        "mean": np.zeros((1, 3, 1, 1)),
        "factor": np.ones((1, 3, 1, 1)),
        "w": weight,
        "v": np.ones((4, 2, 1, 1)),
    }
    body = (
        """c = Conv (x, w) r = Relu(c) d = Conv (r, v) s = Relu(d) pool = GlobalAveragePool(s) logits = Flatten(pool)"""
    )
    model, frames = written(body, values, 4, 4, 3), random_frames(3, 4)
    made = equalize(observed(model, frames), TENSORRT, frames)
    before, after = (tensors_of(m, frames, ["r"])["r"].max(axis=(0, 2, 3)) for m in (model, made.model))
    np.testing.assert_allclose(after, before ** (1 - POWER), rtol=1e-5)
    np.testing.assert_allclose(constants(made.model)["v"][0, :, 0, 0], before**POWER, rtol=1e-5)
    assert made.table.ranges["r"].maximum == pytest.approx(after.max(), rel=1e-5)


def test_what_a_foreign_node_reads_stays_as_it_is(
    written: Callable[..., onnx.ModelProto], random_frames: Frames, tensors_of: Tensors
) -> None:
    random = np.random.default_rng(1)
    values = {
        "mean": np.full((1, 3, 1, 1), 100),
        "factor": np.full((1, 3, 1, 1), 0.02),
        "w": random.normal(size=(4, 3, 1, 1)),
        "v": random.normal(size=(4, 4, 1, 1)),
    }
    body = """c = Conv (x, w) r = Relu(c) t = Tanh(r) d = Conv (r, v) s = Relu(d) sum = Add(s, t)
              pool = GlobalAveragePool(sum) logits = Flatten(pool)"""
    model, frames = written(body, values, 4, 4, 3), random_frames(3, 4)
    made = equalize(observed(model, frames), TENSORRT, frames)
    for name, value in constants(model).items():
        np.testing.assert_array_equal(constants(made.model)[name], value)


@pytest.mark.parametrize("transposed", [True, False])
def test_a_linear_layer_follows_whichever_way_its_weights_lie(
    written: Callable[..., onnx.ModelProto], random_frames: Frames, transposed: bool
) -> None:
    random = np.random.default_rng(3)
    values = {
        "mean": np.full((1, 3, 1, 1), 100),
        "factor": np.full((1, 3, 1, 1), 0.02),
        "w": random.normal(size=(4, 3, 1, 1)),
        "v": random.normal(size=(6, 4, 1, 1)),
        "fc": random.normal(size=(5, 6) if transposed else (6, 5)),
    }
    body = f"""c = Conv (x, w) r = Relu(c) d = Conv (r, v) s = Relu(d) pool = GlobalAveragePool(s)
               flat = Flatten(pool) logits = Gemm <transB={int(transposed)}> (flat, fc)"""
    model, frames = written(body, values, 4, 4, 3), random_frames(3, 4)
    made = equalize(observed(model, frames), TENSORRT, frames)
    wanted, found = (run_frames(exact_session(m), frames) for m in (model, made.model))
    np.testing.assert_allclose(found, wanted, rtol=1e-4, atol=1e-5)
    assert not np.allclose(constants(made.model)["v"], values["v"])


def test_constants_that_two_nodes_share_are_scaled_for_each(
    written: Callable[..., onnx.ModelProto], random_frames: Frames
) -> None:
    random = np.random.default_rng(2)
    values = {
        "mean": np.full((1, 3, 1, 1), 100),
        "factor": np.full((1, 3, 1, 1), 0.02),
        "w0": random.normal(size=(4, 3, 1, 1)),
        "w": random.normal(size=(4, 4, 1, 1)),
        "b": random.normal(size=4),
    }
    body = """c = Conv (x, w0, b) r = Relu(c) d = Conv (r, w, b) s = Relu(d) e = Conv (s, w, b)
              pool = GlobalAveragePool(e) logits = Flatten(pool)"""
    model, frames = written(body, values, 4, 4, 3), random_frames(3, 4)
    before = model.SerializeToString(deterministic=True)
    made = equalize(observed(model, frames), TENSORRT, frames)
    assert model.SerializeToString(deterministic=True) == before
    wanted, found = (run_frames(exact_session(m), frames) for m in (model, made.model))
    np.testing.assert_allclose(found, wanted, rtol=1e-4, atol=1e-5)
    assert len(constants(made.model)) > len(constants(model))


def test_ranges_of_another_origin_leave_the_network_as_it_is(network: Network, random_frames: Frames) -> None:
    start = observed(network("resnet20", 32), random_frames(2, 32))
    foreign = Refined(start.model, replace(start.table, method="calibration cache"))
    assert equalize(foreign, TENSORRT, random_frames(2, 32)) is foreign


def test_the_exact_input_stays_exact(network: Network, random_frames: Frames) -> None:
    model, frames = network("resnet20", 32), random_frames(4, 32)
    start = observed(model, frames)
    made = equalize(exact_input(start.model, start.table), TENSORRT, frames)
    assert made.table.ranges[EXACT_PIXELS] == EXACT_RANGE


def test_the_demo_has_less_noise_in_its_activations(demo: Any, sqnr: Callable[..., float]) -> None:
    from edge_resnet.calibration import insert_qdq

    start = exact_input(demo.model, demo.table)
    made = equalize(start, TENSORRT, demo.frames[::4])
    frames, logits = demo.test_frames[::2], demo.logits[::2]
    before, after = (
        sqnr(logits, run_frames(exact_session(insert_qdq(r.model, r.table, TENSORRT).model), frames))
        for r in (start, made)
    )
    assert after > before
