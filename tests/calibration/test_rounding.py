"""Second-order rounding: how near it comes to the best there is, and what becomes of layers."""

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

from edge_resnet.calibration import SCHEMES, CalibrationTable, Refined, collect, insert_qdq
from edge_resnet.calibration import rounding as module
from edge_resnet.calibration.rounding import round_weights, second_order
from edge_resnet.calibration.schemes import INT8_SCHEMES
from edge_resnet.calibration.simulate import exact_session, run_frames
from edge_resnet.calibration.topology import convolutions, load_graph

Network = Callable[..., onnx.ModelProto]
Frames = Callable[..., npt.NDArray[np.uint8]]
RANDOM = np.random.default_rng(5)


def error(weight: npt.NDArray[Any], rounded: npt.NDArray[Any], moments: npt.NDArray[Any]) -> float:
    missing = weight - rounded
    return float(np.einsum("mi,ij,mj->", missing, moments, missing))


def correlated(size: int) -> npt.NDArray[np.float64]:
    patches = RANDOM.normal(size=(400, 3)) @ RANDOM.normal(size=(3, size)) + 0.3 * RANDOM.normal(size=(400, size))
    return np.asarray(patches.T @ patches)


class TestRule:
    def test_inputs_that_do_not_go_together_are_rounded_to_the_nearest(self) -> None:
        weight, scale = RANDOM.normal(size=(6, 40)), np.full(6, 0.02)
        found = second_order(weight, scale, np.diag(RANDOM.uniform(0.1, 9, 40)))
        np.testing.assert_array_equal(found, np.clip(np.rint(weight / 0.02), -127, 127))

    def test_inputs_that_never_came_are_rounded_to_the_nearest(self) -> None:
        weight, scale = RANDOM.normal(size=(2, 5)), np.array([0.01, 0.1])
        found = second_order(weight, scale, np.zeros((5, 5)))
        np.testing.assert_array_equal(found, np.clip(np.rint(weight / scale[:, None]), -127, 127))

    def test_it_comes_near_the_best_of_all_roundings(self) -> None:
        """Six weights have 64 roundings up or down; over many problems, the excess over the best one is small."""
        nearest, found, best = 0.0, 0.0, 0.0
        for _ in range(60):
            weight, moments, scale = RANDOM.uniform(-5, 5, (1, 6)), correlated(6), np.ones(1)
            every = [np.floor(weight) + np.array(up) for up in itertools.product((0, 1), repeat=6)]
            best += min(error(weight, each, moments) for each in every)
            nearest += error(weight, np.rint(weight), moments)
            found += error(weight, second_order(weight, scale, moments), moments)
        assert best <= found < 0.35 * nearest
        assert found < 2.5 * best

    def test_more_columns_than_are_gathered_at_once(self) -> None:
        weight, moments = RANDOM.normal(size=(8, 3 * module.COLUMNS + 7)), correlated(3 * module.COLUMNS + 7)
        scale = np.abs(weight).max(1) / 127
        found = second_order(weight, scale, moments)
        assert np.abs(found).max() <= 127 and (found == np.rint(found)).all()
        nearest = np.rint(weight / scale[:, None])
        steps = scale[:, None]
        assert error(weight, found * steps, moments) < 0.5 * error(weight, nearest * steps, moments)


@pytest.mark.parametrize("options", ["pads=[1,1,1,1]", "pads=[2,1,0,1],strides=[2,2]", "dilations=[2,2]", "group=2"])
def test_moments_are_those_of_torchs_unfold(
    written: Callable[..., onnx.ModelProto],
    random_frames: Frames,
    tensors_of: Callable[..., dict[str, npt.NDArray[np.float32]]],
    options: str,
) -> None:
    grouped = "group" in options
    values = {
        "mean": np.full((1, 3, 1, 1), 100),
        "factor": np.full((1, 3, 1, 1), 0.02),
        "w0": RANDOM.normal(size=(4, 3, 1, 1)),
        "w": RANDOM.normal(size=(6, 2 if grouped else 4, 3, 3)),
    }
    body = (
        f"c = Conv (x, w0) r = Relu(c) y = Conv <{options}> (r, w) pool = GlobalAveragePool(y) logits = Flatten(pool)"
    )
    model, frames = written(body, values, 9, 9, 3), random_frames(5, 9)
    conv = convolutions(load_graph(model).graph)[1]
    layer = module._Layer.of(conv)
    module._observe(model, [layer], [frames[:4], frames[4:]])
    read = torch.from_numpy(tensors_of(model, frames, ["r"])["r"])
    top, left, bottom, right = conv.attributes["pads"].as_ints() if "pads" in conv.attributes else (0, 0, 0, 0)
    padded = torch.nn.functional.pad(read, (left, right, top, bottom))
    stride = conv.attributes["strides"].as_ints()[0] if "strides" in conv.attributes else 1
    dilation = conv.attributes["dilations"].as_ints()[0] if "dilations" in conv.attributes else 1
    assert len(layer.parts) == (2 if grouped else 1)
    for part, inputs in zip(layer.parts, padded.chunk(len(layer.parts), dim=1), strict=True):
        columns = torch.nn.functional.unfold(inputs, 3, stride=stride, dilation=dilation)
        wanted = torch.einsum("nkp,nlp->kl", columns, columns)
        np.testing.assert_allclose(part.moments, wanted, rtol=1e-4, atol=1e-3)


def test_a_wide_layer_is_rounded_in_parts(monkeypatch: pytest.MonkeyPatch, network: Network) -> None:
    monkeypatch.setattr(module, "LARGEST", 9 * 10)
    conv = next(c for c in convolutions(load_graph(network("resnet20", 16)).graph) if c.name == "layer2.1.conv1")
    parts = module._Layer.of(conv).parts
    assert [(part.inputs.start, part.inputs.stop) for part in parts] == [(0, 10), (10, 20), (20, 30), (30, 32)]
    assert [(part.columns.start, part.columns.stop) for part in parts] == [(0, 90), (90, 180), (180, 270), (270, 288)]


@pytest.mark.parametrize("scheme", INT8_SCHEMES)
class TestNetwork:
    @pytest.fixture
    def refined(self, network: Network, random_frames: Frames) -> Refined:
        model = network("resnet20", 32)
        table = collect(model, [random_frames(8, 32)], method="mse", images={}, preprocessing={})
        return Refined(model, table)

    def test_rounded_weights_are_what_is_quantized(self, refined: Refined, random_frames: Frames, scheme: str) -> None:
        made = round_weights(refined, SCHEMES[scheme], random_frames(8, 32), keep_float=("layer1.0.conv1",))
        made.table.check_fits(made.model)
        assert CalibrationTable.from_json(made.table.to_json(), "t.json") == made.table
        floats = {t.name: numpy_helper.to_array(t) for t in made.model.graph.initializer}
        before = {t.name: numpy_helper.to_array(t) for t in refined.model.graph.initializer}
        quantized = insert_qdq(made.model, made.table, SCHEMES[scheme], ("layer1.0.conv1",)).model
        integers = {t.name: numpy_helper.to_array(t) for t in quantized.graph.initializer}
        assert len(made.table.weight_scales) == 18 and "layer1.0.conv1.weight" not in made.table.weight_scales
        for name, scales in made.table.weight_scales.items():
            steps = np.float32(scales).reshape(-1, 1, 1, 1)
            found = integers[f"{name}.quantized"].astype(np.float32)
            np.testing.assert_array_equal(found * steps, floats[name])
            assert (np.abs(floats[name] - before[name]) > steps / 2).any(), "some were not rounded to the nearest"
        np.testing.assert_array_equal(floats["layer1.0.conv1.weight"], before["layer1.0.conv1.weight"])

    def test_no_pair_of_weights_overflows_on_the_cpu(
        self, refined: Refined, random_frames: Frames, scheme: str
    ) -> None:
        made = round_weights(refined, SCHEMES[scheme], random_frames(8, 32))
        limit = 128 if scheme == "cpu" else 254
        for name, scales in made.table.weight_scales.items():
            value = next(numpy_helper.to_array(t) for t in made.model.graph.initializer if t.name == name)
            flat = np.sort((value / np.float32(scales).reshape(-1, 1, 1, 1)).round().reshape(len(value), -1), axis=1)
            assert flat[:, -2:].sum(1).max() <= limit and flat[:, :2].sum(1).min() >= -limit


@pytest.mark.parametrize("scheme", INT8_SCHEMES)
def test_the_demo_answers_new_images_better(demo: Any, sqnr: Callable[..., float], scheme: str) -> None:
    before = Refined(demo.model, demo.table)
    after = round_weights(before, SCHEMES[scheme], demo.frames[::8])
    frames, logits = demo.test_frames[::4], demo.logits[::4]
    nearest, rounded = (
        sqnr(logits, run_frames(exact_session(insert_qdq(r.model, r.table, SCHEMES[scheme]).model), frames))
        for r in (before, after)
    )
    assert rounded > nearest + 0.5
