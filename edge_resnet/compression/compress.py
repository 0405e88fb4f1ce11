"""FP32 network → a smaller FP32 network, step by step, each followed by fine-tuning towards the original."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial

import numpy as np
import numpy.typing as npt
import onnx

from edge_resnet.calibration.refine import silent
from edge_resnet.compression.counting import macs_of
from edge_resnet.compression.finetune import finetune
from edge_resnet.compression.importance import units_importance
from edge_resnet.compression.masks import Masks, masked, two_four_masks
from edge_resnet.compression.options import PruneOptions
from edge_resnet.compression.selection import select
from edge_resnet.compression.spans import prepared, spans_of, taken_out
from edge_resnet.engines.engine import Progress
from edge_resnet.errors import CalibrationError

LEAST = 8
"""Images without which nothing is learned: one of them judges."""
Frames = npt.NDArray[np.uint8]


@dataclass(frozen=True)
class Step:
    """A network on the way."""

    name: str
    model: onnx.ModelProto


def compress(
    model: onnx.ModelProto, frames: Frames, wanted: PruneOptions, progress: Progress = silent
) -> tuple[Step, ...]:
    """Takes channels out, then weights, and fine-tunes behind each.

    The result is reproducible on one CPU and version of torch.

    Args:
        model: FP32 ONNX that takes uint8 frames.
        frames: N×H×W×C of its images, without labels.
        wanted: how far.
        progress: told of batches that are looked at, and of steps of learning.

    Returns:
        Every network on the way; the last is the result.

    Raises:
        CalibrationError: nothing can be taken out, or not so much; there are fewer than ``LEAST`` images; an operator has
            no gradient here.
    """
    if len(frames) < LEAST:
        raise CalibrationError(
            f"pruning has {len(frames)} images to learn from: give {LEAST} or more, hundreds are better"
        )
    return tuple(_steps(prepared(model), frames, wanted, progress))


def _steps(whole: onnx.ModelProto, frames: Frames, wanted: PruneOptions, progress: Progress) -> Iterator[Step]:
    made = whole
    for index in range(1, wanted.rounds + 1 if wanted.macs is not None else 1):
        assert wanted.macs is not None
        name = "channels" if wanted.rounds == 1 else f"channels, round {index}"
        told = partial(_tell, progress, name)
        most = sum(macs_of(whole).values()) * wanted.macs ** (index / wanted.rounds)
        made = _narrowed(made, frames, most, told)
        yield Step(name, made)
        if wanted.steps:
            made = finetune(made, whole, frames, wanted.steps, {}, told)
            yield Step(f"{name}, fine-tuned", made)
    if wanted.sparsity is not None:
        told = partial(_tell, progress, wanted.sparsity)
        masks = _masks(made)
        made = masked(made, masks)
        yield Step(wanted.sparsity, made)
        if wanted.steps:
            yield Step(f"{wanted.sparsity}, fine-tuned", finetune(made, whole, frames, wanted.steps, masks, told))


def _narrowed(model: onnx.ModelProto, frames: Frames, most: float, progress: Progress) -> onnx.ModelProto:
    spans = spans_of(model)
    if not spans:
        raise CalibrationError("no layer has channels that convolutions alone read: leave macs out")
    return taken_out(model, select(model, spans, units_importance(model, spans, frames, progress), most))


def _masks(model: onnx.ModelProto) -> Masks:
    masks = two_four_masks(model)
    if not masks:
        raise CalibrationError("no convolution reads a multiple of 4 channels, all together: leave sparsity out")
    return masks


def _tell(progress: Progress, step: str, phase: str, done: int, total: int) -> None:
    progress(f"{step}: {phase}", done, total)
