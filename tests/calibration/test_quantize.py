"""From an FP32 network and its ranges to a quantized one."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import pytest
from onnx import numpy_helper

from edge_resnet.calibration import (
    EFFORTS,
    SCHEMES,
    CalibrationTable,
    balance,
    distill,
    frames_wanted,
    insert_qdq,
    quantize,
    reconstruct,
)
from edge_resnet.calibration.bias import MEMORY, frames_at_once
from edge_resnet.calibration.quantize import CHAIN, FRAMELESS, REFINEMENTS, chain_wanted, default_chain, refine
from edge_resnet.calibration.refine import EXACT_PIXELS, Refined, exact_input
from edge_resnet.calibration.schemes import INT8_SCHEMES
from edge_resnet.calibration.segments import Walk
from edge_resnet.calibration.simulate import exact_session, run_frames
from edge_resnet.errors import CalibrationError

TENSORRT = SCHEMES["tensorrt"]
Network = Callable[..., onnx.ModelProto]
Ranges = Callable[[onnx.ModelProto], CalibrationTable]
Frames = Callable[..., npt.NDArray[np.uint8]]


def biases(model: onnx.ModelProto) -> dict[str, npt.NDArray[np.float32]]:
    """Of the convolutions."""
    named = {tensor.name: tensor for tensor in model.graph.initializer}
    return {n.name: numpy_helper.to_array(named[n.input[2]]) for n in model.graph.node if n.op_type == "Conv"}


class TestEffort:
    def test_fast_is_none_and_more_effort_is_more_frames(self) -> None:
        assert [frames_wanted(name) for name in ("fast", "standard", "best")] == [0, 256, 512]
        assert set(EFFORTS) == {"fast", "standard", "best"}

    def test_unknown_effort_lists_those_there_are(self) -> None:
        with pytest.raises(CalibrationError, match="unknown effort 'more': choose one of fast, standard, best"):
            frames_wanted("more")

    @pytest.mark.parametrize("scheme", INT8_SCHEMES)
    @pytest.mark.parametrize("arch", ["resnet18", "resnet20", "resnet50"])
    def test_bias_correction_takes_so_many_frames_as_fit_in_memory(
        self, network: Network, distinct_ranges: Ranges, random_frames: Frames, arch: str, scheme: str
    ) -> None:
        """Measured as it walks: through the network and its quantized form at once."""
        size = 32
        model = network(arch, size)
        quantized = insert_qdq(model, distinct_ranges(model), SCHEMES[scheme]).model
        walks = [Walk(each, random_frames(1, size)) for each in (model, quantized)]
        most = 0
        for _ in range(2 * len(biases(model))):
            walk, other = walks
            before = walk.tensors
            walk.advance()
            held = [*{**before, **walk.tensors}.values(), *other.tensors.values()]
            most = max(most, sum(chunk.nbytes for chunks in held for chunk in chunks))
            walks.reverse()
        at_full_size = most * (224 / size) ** 2
        assert at_full_size * frames_at_once(np.zeros((512, 224, 224, 3), np.uint8)) <= MEMORY


@pytest.mark.parametrize("frames", [None, np.zeros((0, 32, 32, 3), np.uint8)], ids=["none", "an empty batch"])
def test_without_frames_biases_stay_as_they_are(
    network: Network, distinct_ranges: Ranges, frames: npt.NDArray[np.uint8] | None
) -> None:
    model = network("resnet20", 32)
    exact = exact_input(model, distinct_ranges(model))
    made = quantize(model, distinct_ranges(model), TENSORRT, frames)
    assert made.model == insert_qdq(exact.model, exact.table, TENSORRT).model


def test_with_frames_every_bias_is_corrected(network: Network, distinct_ranges: Ranges, random_frames: Frames) -> None:
    model = network("resnet20", 32)
    before = model.SerializeToString(deterministic=True)
    made = quantize(model, distinct_ranges(model), TENSORRT, random_frames(4, 32))
    plain = quantize(model, distinct_ranges(model), TENSORRT, None)
    assert model.SerializeToString(deterministic=True) == before
    changed = [name for name, bias in biases(plain.model).items() if (biases(made.model)[name] != bias).any()]
    assert set(biases(plain.model)) - set(changed) <= {"conv1"}, "whose rounding leaves nothing to correct"
    assert made.quantized_layers == plain.quantized_layers == tuple(biases(model))


def test_a_network_that_is_left_float_answers_as_it_did(
    network: Network, distinct_ranges: Ranges, random_frames: Frames
) -> None:
    model, frames = network("resnet20", 32), random_frames(4, 32)
    every = (*biases(model), *(node.name for node in model.graph.node if node.op_type == "Add"))
    made = quantize(model, distinct_ranges(model), TENSORRT, frames, keep_float=every)
    assert made.quantized_layers == ()
    answers, wanted = (run_frames(exact_session(each), frames) for each in (made.model, model))
    assert np.abs(answers - wanted).max() <= 1e-4 * np.abs(wanted).max()


@pytest.mark.parametrize("kept", [(), ("conv1",), ("layer1.0.conv1",)])
def test_the_input_is_exact_where_the_first_convolution_is_int8(
    network: Network, distinct_ranges: Ranges, kept: tuple[str, ...]
) -> None:
    model = network("resnet20", 32)
    made = quantize(model, distinct_ranges(model), TENSORRT, None, keep_float=kept)
    tensors = {name for node in made.model.graph.node for name in node.output}
    assert (EXACT_PIXELS in tensors) == ("conv1" not in kept)
    assert ("preprocessing.mul" in tensors) == ("conv1" in kept)
    assert set(made.kept_float) == {*kept, "fc"}


def test_a_table_of_another_model_is_refused(network: Network, distinct_ranges: Ranges) -> None:
    with pytest.raises(CalibrationError, match="made for another model"):
        quantize(network("resnet20", 32), distinct_ranges(network("resnet20", 16)), TENSORRT, None)


@pytest.mark.parametrize(
    ("chain", "said"),
    [
        (("bias", "smooth"), f"unknown refinement 'smooth': choose of {', '.join(REFINEMENTS)}"),
        (("bias", "round"), f"refinements bias, round: name each once, in the order {', '.join(REFINEMENTS)}"),
        (("round", "round"), "name each once"),
    ],
)
def test_a_chain_that_does_not_stand_in_order_is_refused(
    network: Network, distinct_ranges: Ranges, random_frames: Frames, chain: tuple[str, ...], said: str
) -> None:
    model = network("resnet20", 16)
    with pytest.raises(CalibrationError, match=said):
        refine(Refined(model, distinct_ranges(model)), TENSORRT, random_frames(1, 16), chain)


def test_a_chain_leaves_out_what_it_does_not_name(
    network: Network, distinct_ranges: Ranges, random_frames: Frames
) -> None:
    model, frames = network("resnet20", 16), random_frames(2, 16)
    table = distinct_ranges(model)
    start = Refined(model, table)
    for chain in ((), ("round",), ("exact-input", "bias")):
        refined = start
        for name in chain:
            refined = REFINEMENTS[name](refined, TENSORRT, frames)
        wanted = insert_qdq(refined.model, refined.table, TENSORRT)
        assert quantize(model, table, TENSORRT, frames, chain=chain).model == wanted.model, chain
    whole = quantize(model, table, TENSORRT, frames, chain=CHAIN).model
    assert whole == quantize(model, table, TENSORRT, frames).model


def test_the_chain_of_an_effort_and_the_frames_it_needs() -> None:
    assert chain_wanted("standard", None) == default_chain(1) == CHAIN
    assert chain_wanted("fast", None) == FRAMELESS
    assert chain_wanted("fast", ()) == ()
    assert chain_wanted("best", ("round",)) == ("round",)
    assert [frames_wanted("best", chain) for chain in (FRAMELESS, (), ("round",), None)] == [0, 0, 512, 512]


def test_what_looks_at_frames_is_refused_without_any(network: Network, distinct_ranges: Ranges) -> None:
    said = r"refinement 'round' looks at images, and there are none: .* an effort that has some \(standard, best\)"
    with pytest.raises(CalibrationError, match=said):
        chain_wanted("fast", ("exact-input", "round", "bias"))
    model = network("resnet20", 16)
    with pytest.raises(CalibrationError, match=said):
        quantize(model, distinct_ranges(model), TENSORRT, None, chain=("round",))


def test_every_refinement_that_takes_time_says_how_far_it_is(
    network: Network, distinct_ranges: Ranges, random_frames: Frames, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module, count in ((balance, 5), (reconstruct, 6), (distill, 7)):
        monkeypatch.setattr(module, "STEPS", count)
    model = network("resnet20", 16)
    table = replace(distinct_ranges(model), method="minmax")
    told: dict[str, list[tuple[int, int]]] = {}

    def progress(phase: str, done: int, total: int) -> None:
        told.setdefault(phase, []).append((done, total))

    quantize(model, table, TENSORRT, random_frames(9, 16), chain=tuple(REFINEMENTS), progress=progress)
    layers, batches, blocks = len(biases(model)), 3, 1 + 9  # batches of four frames at most; the stem is a block too
    steps = {
        "equalize: peaks": batches,
        "equalize: ranges": batches,
        "balance: largest values": batches,
        "balance: gradients": 9,
        "balance: steps": 5,
        "round: patches": batches,
        "round: layers": layers,
        "adaround: layers": layers,
        "reconstruct: blocks": blocks,
        "bias: layers": layers,
        "distill: steps": 7,
    }
    assert list(told) == list(steps)
    for phase, total in steps.items():
        assert told[phase] == [(done, total) for done in range(total + 1)], phase
    assert {phase.split(":")[0] for phase in told} == set(REFINEMENTS) - set(FRAMELESS)


def test_the_same_input_gives_the_same_network(
    network: Network, distinct_ranges: Ranges, random_frames: Frames
) -> None:
    model = network("resnet20", 32)
    once, again = (quantize(model, distinct_ranges(model), TENSORRT, random_frames(6, 32)).model for _ in range(2))
    assert once.SerializeToString(deterministic=True) == again.SerializeToString(deterministic=True)


@pytest.mark.slow
@pytest.mark.parametrize(("scheme", "least"), [("tensorrt", 40), ("cpu", 37)])
def test_the_demo_answers_as_in_fp32(demo: Any, sqnr: Callable[..., float], scheme: str, least: float) -> None:
    frames = demo.frames[:: len(demo.frames) // frames_wanted("standard")]
    made = quantize(demo.model, demo.table, SCHEMES[scheme], frames)
    logits = run_frames(exact_session(made.model), demo.test_frames)
    assert sqnr(demo.logits, logits) > least
    assert np.mean(logits.argmax(1) == demo.logits.argmax(1)) > 0.985
