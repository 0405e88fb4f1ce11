"""How much goes, which, and that learning makes good for it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import numpy.typing as npt
import onnx
import pytest
from onnx import numpy_helper

from edge_resnet.calibration.refine import silent
from edge_resnet.calibration.simulate import fast_session, run_frames
from edge_resnet.calibration.sparsity import is_sparse, sparse_convolutions
from edge_resnet.compression.compress import compress
from edge_resnet.compression.counting import macs_of, zero_share
from edge_resnet.compression.importance import units_importance
from edge_resnet.compression.options import PruneOptions
from edge_resnet.compression.selection import select, step_of
from edge_resnet.compression.spans import Slot, Span, prepared, spans_of, taken_out
from edge_resnet.errors import CalibrationError, RecipeError

Demo = tuple[onnx.ModelProto, npt.NDArray[np.uint8], npt.NDArray[np.uint8]]
QUICK = PruneOptions(macs=0.6, sparsity="2:4", steps=16)


def error(model: onnx.ModelProto, whole: onnx.ModelProto, frames: npt.NDArray[np.uint8]) -> float:
    found, wanted = (run_frames(fast_session(each), frames) for each in (model, whole))
    return float(np.square(found - wanted).sum() / np.square(wanted).sum())


@pytest.fixture(scope="module")
def steps(demo: Demo) -> dict[str, onnx.ModelProto]:
    model, frames, _ = demo
    return {step.name: step.model for step in compress(model, frames, QUICK)}


def test_multiply_adds_are_those_of_the_formula(demo: Demo) -> None:
    """ResNet-20 at 28×28 with one channel: stem, three stages of three blocks of two, linear; option-A shortcuts."""
    stage = 16 * 16 * 9 * 28 * 28
    first = 28 * 28 * 9 * 16
    assert sum(macs_of(demo[0]).values()) == first + 6 * stage + 2 * (stage // 2 + 5 * stage) + 64 * 10


def test_steps_reach_what_was_asked_for(demo: Demo, steps: dict[str, onnx.ModelProto]) -> None:
    assert list(steps) == ["channels", "channels, fine-tuned", "2:4", "2:4, fine-tuned"]
    full = sum(macs_of(demo[0]).values())
    for model in steps.values():
        onnx.checker.check_model(model, full_check=True)
        assert 0.5 < sum(macs_of(model).values()) / full <= 0.6
    for name in ("2:4", "2:4, fine-tuned"):
        sparse = sparse_convolutions(steps[name])
        assert set(macs_of(steps[name])) - set(sparse) == {"conv1", "fc"} and zero_share(steps[name]) > 0.49
    assert sparse_convolutions(steps["channels, fine-tuned"]) == ()


def test_learning_brings_images_that_it_has_not_seen_nearer(demo: Demo, steps: dict[str, onnx.ModelProto]) -> None:
    whole, _, unseen = demo
    for name in ("channels", "2:4"):
        before, after = (error(steps[each], whole, unseen) for each in (name, f"{name}, fine-tuned"))
        assert after < 0.7 * before, name


def test_twice_the_same(small: Callable[[str], onnx.ModelProto], frames: npt.NDArray[np.uint8]) -> None:
    options = replace(QUICK, steps=2, macs=0.9)
    one, two = (compress(small("resnet18"), frames, options)[-1].model for _ in range(2))
    assert one.SerializeToString() == two.SerializeToString()


def test_rounds_go_down_step_by_step(small: Callable[[str], onnx.ModelProto], frames: npt.NDArray[np.uint8]) -> None:
    model = small("resnet50")
    full = sum(macs_of(model).values())
    found = compress(model, frames, PruneOptions(macs=0.64, rounds=2, steps=0))
    assert [step.name for step in found] == ["channels, round 1", "channels, round 2"]
    first, second = (sum(macs_of(step.model).values()) / full for step in found)
    assert 0.64 < first <= 0.8 and second <= 0.64


def test_importance_is_what_the_answers_lose_to_the_first_order(demo: Demo) -> None:
    """Of gates at 1 − ε, measured on the finished network by a difference; of one image, over all random signs."""
    model, frames, _ = demo
    model = prepared(model)
    span = spans_of(model)[4]
    found = units_importance(model, [span], np.repeat(frames[:1], 128, 0), silent)[span.name]
    wanted = run_frames(fast_session(model), frames[:1])
    reader = next(slot.constant for slot in span.slots if slot.axis == 1)
    for unit in (0, 7, 21):
        nudged = onnx.ModelProto()
        nudged.CopyFrom(model)
        constant = next(each for each in nudged.graph.initializer if each.name == reader)
        weight = numpy_helper.to_array(constant).copy()
        weight[:, unit] *= 1 - 1e-2
        constant.CopyFrom(numpy_helper.from_array(weight, reader))
        moved = np.square((run_frames(fast_session(nudged), frames[:1]) - wanted) / 1e-2).sum()
        assert found[unit] == pytest.approx(moved, rel=0.35, abs=1e-6)


def test_what_matters_least_for_its_cost_goes_first(small: Callable[[str], onnx.ModelProto]) -> None:
    model = prepared(small("resnet18"))
    spans = spans_of(model)
    full = sum(macs_of(model).values())
    rising = {span.name: np.arange(span.units, dtype=float) + 1 for span in spans}
    rising[spans[-1].name] += 1e9
    kept = select(model, spans, rising, 0.9 * full)
    assert len(kept[spans[-1].name]) == spans[-1].units, "what matters stays whole"
    for span in spans:
        units = kept[span.name]
        assert units.tolist() == list(range(span.units - len(units), span.units)), "the last are worth the most"
        assert len(units) % step_of(span) == 0
    assert 0.8 * full < sum(macs_of(taken_out(model, kept)).values()) <= 0.9 * full


@pytest.mark.parametrize(
    ("channels", "units", "step"), [(512, 512, 32), (128, 128, 16), (64, 64, 8), (16, 16, 4), (128, 32, 4), (6, 6, 4)]
)
def test_channels_go_in_multiples_that_kernels_take(channels: int, units: int, step: int) -> None:
    assert step_of(Span("c", units, (Slot("w", 0, channels),), (), ("r",))) == step


def test_a_weight_that_was_taken_out_does_not_learn(demo: Demo, steps: dict[str, onnx.ModelProto]) -> None:
    before, after = (
        {each.name: numpy_helper.to_array(each) for each in steps[name].graph.initializer}
        for name in ("2:4", "2:4, fine-tuned")
    )
    name = "layer2.1.conv2.weight"
    assert not np.array_equal(before[name], after[name]) and is_sparse(after[name])
    assert (after[name][before[name] == 0] == 0).all()


def test_what_cannot_be_done_is_one_line(
    small: Callable[[str], onnx.ModelProto], frames: npt.NDArray[np.uint8]
) -> None:
    with pytest.raises(
        CalibrationError, match=r"^no more than \d+ % of the multiply-adds can go, .*: give macs 0\.\d+ or"
    ):
        compress(small("resnet18"), frames, PruneOptions(macs=0.01, steps=0))
    with pytest.raises(CalibrationError, match="^pruning has 7 images to learn from: give 8 or more"):
        compress(small("resnet18"), frames[:7], PruneOptions(macs=0.9))


@pytest.mark.parametrize(
    ("values", "line"),
    [
        ({}, 'there is nothing to prune: give macs, such as 0.7, or sparsity = "2:4"'),
        ({"macs": 1.0}, "macs is 1: give the share of multiply-adds to keep, between 0 and 1"),
        ({"macs": 0.0}, "macs is 0: give the share of multiply-adds to keep, between 0 and 1"),
        ({"macs": float("nan")}, "macs is nan: give the share of multiply-adds to keep, between 0 and 1"),
        ({"sparsity": "1:2"}, "sparsity is '1:2': choose one of 2:4"),
        ({"macs": 0.5, "rounds": 0}, "rounds is 0: give a whole number, 1 or more"),
        ({"macs": 0.5, "steps": -1}, "steps is -1: give a whole number, 0 or more"),
    ],
)
def test_options_that_make_no_sense_are_refused(values: dict[str, object], line: str) -> None:
    with pytest.raises(RecipeError) as caught:
        PruneOptions(**values)  # type: ignore[arg-type]
    assert str(caught.value) == line
