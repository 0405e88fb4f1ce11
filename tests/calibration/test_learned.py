"""Steps that learn: fake quantization against the engines' own graph, and each step by what it is to make small."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import pytest
import torch
from onnx import numpy_helper

from edge_resnet.calibration import SCHEMES, Refined, collect, exact_input, insert_qdq
from edge_resnet.calibration import distill as distilling
from edge_resnet.calibration import reconstruct as reconstructing
from edge_resnet.calibration.distill import _Pupil, distill
from edge_resnet.calibration.fake_quant import FakeQuantized
from edge_resnet.calibration.qdq import place_qdq
from edge_resnet.calibration.reconstruct import _behind_blocks, adaround, reconstruct
from edge_resnet.calibration.rounding import round_weights
from edge_resnet.calibration.schemes import INT8_SCHEMES
from edge_resnet.calibration.simulate import exact_session, run_frames

TENSORRT = SCHEMES["tensorrt"]
Network = Callable[..., onnx.ModelProto]
Written = Callable[..., onnx.ModelProto]
Frames = Callable[..., npt.NDArray[np.uint8]]
Tensors = Callable[..., dict[str, npt.NDArray[np.float32]]]
Logits = npt.NDArray[np.float32]


def observed(model: onnx.ModelProto, frames: npt.NDArray[np.uint8]) -> Refined:
    return Refined(model, collect(model, [frames], method="mse", images={}, preprocessing={}))


def weight(refined: Refined, name: str) -> npt.NDArray[np.float32]:
    return next(numpy_helper.to_array(one) for one in refined.model.graph.initializer if one.name == name)


def quantized(refined: Refined, frames: npt.NDArray[np.uint8], scheme: str = "tensorrt") -> Logits:
    return run_frames(exact_session(insert_qdq(refined.model, refined.table, SCHEMES[scheme]).model), frames)


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reconstructing, "STEPS", 20)
    monkeypatch.setattr(distilling, "STEPS", 20)
    monkeypatch.setattr(distilling, "JUDGE_EVERY", 10)


def plain(written: Written, reading: npt.NDArray[Any]) -> onnx.ModelProto:
    """A stem of four channels, and one convolution of them."""
    values = {
        "mean": np.full((1, 3, 1, 1), 120),
        "factor": np.full((1, 3, 1, 1), 0.02),
        "w": np.random.default_rng(7).normal(size=(4, 3, 3, 3)),
        "v": reading,
    }
    body = """c = Conv <pads=[1,1,1,1]> (x, w) r = Relu(c) d = Conv (r, v)
              pool = GlobalAveragePool(d) logits = Flatten(pool)"""
    return written(body, values, 6, 6, 3)


class TestFakeQuantized:
    @pytest.mark.parametrize("scheme", INT8_SCHEMES)
    @pytest.mark.parametrize("arch", ["resnet20", "resnet18v2"])
    def test_answers_as_the_graph_that_engines_take(
        self, network: Network, random_frames: Frames, arch: str, scheme: str
    ) -> None:
        """INT32 biases of the CPU's scheme are the one thing left out."""
        model, frames = network(arch, 32), random_frames(4, 32)
        start = observed(model, frames)
        for refined in (start, exact_input(start.model, start.table)):
            fake = FakeQuantized.of(refined, SCHEMES[scheme])
            found = _Pupil.of(fake, 1.0).answers(torch.from_numpy(frames)).detach().numpy()
            wanted = quantized(refined, frames, scheme)
            assert np.abs(found - wanted).mean() < 0.02 * np.abs(wanted).mean()  # an integer here and there

    def test_what_learned_nothing_is_what_it_was(self, network: Network, random_frames: Frames) -> None:
        frames = random_frames(4, 32)
        start = round_weights(observed(network("resnet20", 32), frames), TENSORRT, frames)
        made = _Pupil.of(FakeQuantized.of(start, TENSORRT), 1.0).written()
        made.table.check_fits(made.model)
        assert made.table.weight_scales == start.table.weight_scales
        np.testing.assert_array_equal(quantized(made, frames), quantized(start, frames))


class TestUnits:
    @pytest.mark.parametrize(("arch", "blocks"), [("resnet20", 9), ("resnet18v2", 8), ("resnet18d", 8)])
    def test_are_the_stem_and_every_residual_block(self, network: Network, arch: str, blocks: int) -> None:
        ends = _behind_blocks(network(arch, 32))
        producers = {name: node.op_type for node in network(arch, 32).graph.node for name in node.output}
        stem = len(ends) - blocks
        assert stem == (3 if arch == "resnet18d" else 1)  # a deep stem is three convolutions in a row
        assert {producers[end] for end in ends[stem:]} <= {"Add", "Relu"}


class TestAdaround:
    def test_finds_about_the_best_of_all_roundings(self, written: Written, random_frames: Frames) -> None:
        """Four weights round in 16 ways; the channels they read go together, so that nearest is not best."""
        model, frames = plain(written, np.array([0.3, 0.5, 0.7, 100]).reshape(1, 4, 1, 1)), random_frames(32, 6)
        model = plain(written, np.array([[100.0, 40.45, 30.4, 20.42]]).reshape(1, 4, 1, 1) / 127 * 1.27)
        start = observed(model, frames)
        scale = float(
            TENSORRT.weight_params(weight(start, "v"), None, TENSORRT.activation_params(start.table["r"])).scale[0]
        )
        floors = np.floor(weight(start, "v") / scale)

        def error(refined: Refined) -> float:
            return float(np.square(quantized(refined, frames) - run_frames(exact_session(model), frames)).mean())

        def rounded(ups: tuple[int, ...]) -> Refined:
            made = onnx.ModelProto()
            made.CopyFrom(start.model)
            index = [one.name for one in made.graph.initializer].index("v")
            values = ((floors + np.reshape(ups, (1, 4, 1, 1))) * scale).astype(np.float32)
            made.graph.initializer[index].CopyFrom(numpy_helper.from_array(values, "v"))
            return Refined(made, replace(start.table.with_ranges(made, {}), weight_scales={"v": (scale,)}))

        best = min(error(rounded(ups)) for ups in itertools.product((0, 1), repeat=4))
        assert error(adaround(start, TENSORRT, frames)) < 1.5 * best

    def test_weights_are_whole_numbers_of_their_scales_next_to_what_they_were(
        self, network: Network, random_frames: Frames, quick: None
    ) -> None:
        frames = random_frames(8, 32)
        start = observed(network("resnet8", 32), frames)
        made = adaround(start, TENSORRT, frames)
        assert made.target is start.model
        for name, scales in made.table.weight_scales.items():
            steps = weight(made, name) / np.array(scales, np.float32).reshape(-1, 1, 1, 1)
            np.testing.assert_allclose(steps, np.rint(steps), atol=1e-4)
            before = weight(start, name) / np.array(scales, np.float32).reshape(-1, 1, 1, 1)
            assert np.abs(steps - before).max() < 1.01


class TestReconstruct:
    def test_blocks_answer_new_images_better_than_rounded_to_the_nearest(
        self, network: Network, random_frames: Frames, tensors_of: Tensors, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(reconstructing, "STEPS", 150)
        monkeypatch.setattr(reconstructing, "RATE", 0.05)
        frames = random_frames(65, 32)
        start = observed(network("resnet8", 32), frames[:64])
        start = exact_input(start.model, start.table)
        made = reconstruct(start, TENSORRT, frames[:64])
        ends = _behind_blocks(start.model)[:2]
        wanted = tensors_of(start.model, frames[64:], ends)
        before, after = (
            tensors_of(place_qdq(each.model, each.table, TENSORRT).model, frames[64:], ends) for each in (start, made)
        )
        for end, share in zip(ends, (1, 0.9), strict=True):
            lost, left = (float(np.square(found[end] - wanted[end]).mean()) for found in (before, after))
            assert left <= share * lost

    def test_leaves_what_stays_float(self, network: Network, random_frames: Frames, quick: None) -> None:
        frames = random_frames(8, 32)
        start = observed(network("resnet8", 32), frames)
        kept = next(node for node in start.model.graph.node if node.op_type == "Conv" and "layer2" in node.name)
        made = reconstruct(start, TENSORRT, frames, (kept.name,))
        np.testing.assert_array_equal(weight(made, kept.input[1]), weight(start, kept.input[1]))
        assert kept.input[1] not in made.table.weight_scales

    def test_one_frame_has_no_judge_and_changes_no_range(
        self, network: Network, random_frames: Frames, quick: None
    ) -> None:
        frames = random_frames(1, 32)
        start = observed(network("resnet20", 32), frames)
        made = reconstruct(start, TENSORRT, frames)
        assert made.table.ranges == start.table.ranges
        np.testing.assert_array_equal(quantized(made, frames), quantized(start, frames))


class TestDistill:
    def test_finds_ranges_that_were_four_times_too_wide(
        self, written: Written, random_frames: Frames, sqnr: Callable[..., float], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(distilling, "RATES", (0.02, 0.02, 0.02))
        monkeypatch.setattr(distilling, "STEPS", 200)
        model = plain(written, np.random.default_rng(1).normal(size=(6, 4, 1, 1)))
        frames, new = random_frames(64, 6), np.random.default_rng(9).integers(0, 256, (64, 6, 6, 3), np.uint8)
        start = observed(model, frames)
        wide = replace(start.table["r"], high=4 * start.table["r"].high, amax=4 * start.table["r"].amax)
        made = distill(Refined(model, start.table.with_ranges(model, {"r": wide})), TENSORRT, frames)
        assert made.table["r"].high < 0.6 * wide.high
        before = quantized(Refined(model, start.table.with_ranges(model, {"r": wide})), new)
        wanted = run_frames(exact_session(model), new)
        assert sqnr(wanted, quantized(made, new)) > sqnr(wanted, before) + 3

    def test_what_no_judge_finds_better_stays(self, network: Network, random_frames: Frames, quick: None) -> None:
        """Eight frames of noise teach nothing about the ninth."""
        start = observed(network("resnet20", 32), random_frames(8, 32))
        assert distill(start, TENSORRT, random_frames(7, 32)) is start


@pytest.mark.parametrize("step", [adaround, reconstruct, distill])
def test_twice_the_same_whatever_the_number_of_threads(
    step: Callable[..., Refined], network: Network, random_frames: Frames, quick: None
) -> None:
    frames = random_frames(16, 32)
    start, threads, made = observed(network("resnet8", 32), frames), torch.get_num_threads(), []
    for count in (1, 3):
        torch.set_num_threads(count)
        made.append(step(start, TENSORRT, frames))
        assert torch.get_num_threads() == count
    torch.set_num_threads(threads)
    assert made[0].model.SerializeToString(deterministic=True) == made[1].model.SerializeToString(deterministic=True)
    assert made[0].table == made[1].table
