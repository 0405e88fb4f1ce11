"""FP32 ONNX + table + frames → refined and quantized ONNX: the arrows between ranges and engines, in their order."""

from __future__ import annotations

from functools import partial
from importlib import import_module
from typing import Protocol

import numpy as np
import numpy.typing as npt
import onnx

from edge_resnet.calibration.bias import correct_biases
from edge_resnet.calibration.equalize import equalize
from edge_resnet.calibration.qdq import QuantizedModel, insert_qdq, place_qdq
from edge_resnet.calibration.refine import Refined, exact_input, silent
from edge_resnet.calibration.rounding import round_weights
from edge_resnet.calibration.schemes import Scheme
from edge_resnet.calibration.table import CalibrationTable
from edge_resnet.engines.engine import Progress
from edge_resnet.errors import CalibrationError

Frames = npt.NDArray[np.uint8]
"""Calibration frames N×H×W×C."""


class Refinement(Protocol):
    """Network and ranges → network and ranges that lose less in INT8."""

    def __call__(
        self,
        refined: Refined,
        scheme: Scheme,
        frames: Frames,
        keep_float: tuple[str, ...] = (),
        progress: Progress = silent,
    ) -> Refined:
        """Refines for a scheme by what it sees on frames; some nodes stay float; ``progress`` hears of each phase."""


def _exact_input(
    refined: Refined,
    scheme: Scheme,
    frames: Frames,
    keep_float: tuple[str, ...] = (),
    progress: Progress = silent,
) -> Refined:
    first = next((node.name for node in refined.model.graph.node if node.op_type == "Conv"), None)
    return refined if first in keep_float else exact_input(refined.model, refined.table)


def _learned(module: str, name: str) -> Refinement:
    """A refinement that loads torch, when it is called."""

    def refinement(
        refined: Refined,
        scheme: Scheme,
        frames: Frames,
        keep_float: tuple[str, ...] = (),
        progress: Progress = silent,
    ) -> Refined:
        found: Refinement = getattr(import_module(f"edge_resnet.calibration.{module}"), name)
        return found(refined, scheme, frames, keep_float, progress)

    return refinement


REFINEMENTS: dict[str, Refinement] = {
    "exact-input": _exact_input,
    "equalize": equalize,
    "balance": _learned("balance", "balance"),
    "round": round_weights,
    "adaround": _learned("reconstruct", "adaround"),
    "reconstruct": _learned("reconstruct", "reconstruct"),
    "bias": correct_biases,
    "distill": _learned("distill", "distill"),
}
"""Every refinement by its name, in the order in which they build on each other; each may be left out.

What each counts, phase after phase, as ``progress`` hears it: ``exact-input`` nothing; ``equalize`` batches, once for their
peaks and once for their ranges; ``balance`` batches for their largest values, images followed back for gradients, steps of
learning; ``round`` batches for their patches, then layers; ``adaround`` layers; ``reconstruct`` blocks; ``bias`` layers;
``distill`` steps of learning.
"""

CHAIN = ("exact-input", "balance", "round", "bias")
"""What is applied by default: learning begins where ``equalize`` would lead, and needs it no more."""

FRAMELESS = ("exact-input",)
"""Refinements that look at no frames."""

EFFORTS: dict[str, int] = {"fast": 0, "standard": 256, "best": 512}
"""Frames that refinement looks at, by the name that ``--effort`` takes; without any, the input is made exact, no more."""


def frames_wanted(effort: str, chain: tuple[str, ...] | None = None) -> int:
    """How many calibration frames ``quantize`` makes use of.

    Args:
        effort: one of ``EFFORTS``.
        chain: the refinements; None stands for the effort's own.

    Raises:
        CalibrationError: the effort is unknown.
    """
    if effort not in EFFORTS:
        raise CalibrationError(f"unknown effort '{effort}': choose one of {', '.join(EFFORTS)}")
    return 0 if chain is not None and set(chain) <= set(FRAMELESS) else EFFORTS[effort]


def chain_wanted(effort: str, named: tuple[str, ...] | None, scheme: Scheme | None = None) -> tuple[str, ...]:
    """The refinements to apply: those named, or the effort's own that are for the scheme.

    Raises:
        CalibrationError: the effort is unknown, or has no frames for a refinement that is named; the chain cannot be
            applied, or not for the scheme.
    """
    frames = frames_wanted(effort)
    suited = REFINEMENTS if scheme is None or scheme.refinements is None else scheme.refinements
    if named is None:
        return tuple(name for name in default_chain(frames) if name in suited)
    check_chain(named, frames)
    for name in named:
        if scheme is not None and name not in suited:
            raise CalibrationError(f"refinement '{name}' is not for {scheme.name}: choose of {', '.join(suited)}")
    return named


def default_chain(frames: int) -> tuple[str, ...]:
    """``CHAIN``; of no frames, those that look at none."""
    return CHAIN if frames else FRAMELESS


def check_chain(chain: tuple[str, ...], frames: int) -> None:
    """Refuses refinements that cannot be applied one after another to so many frames.

    Raises:
        CalibrationError: a name is unknown, stands before one that it builds on, or looks at frames where there are none.
    """
    order = list(REFINEMENTS)
    for name in chain:
        if name not in REFINEMENTS:
            raise CalibrationError(f"unknown refinement '{name}': choose of {', '.join(REFINEMENTS)}")
    if [order.index(name) for name in chain] != sorted({order.index(name) for name in chain}):
        raise CalibrationError(f"refinements {', '.join(chain)}: name each once, in the order {', '.join(order)}")
    looking = [name for name in chain if name not in FRAMELESS]
    if looking and not frames:
        raise CalibrationError(
            f"refinement '{looking[0]}' looks at images, and there are none: leave it out, or choose an effort that "
            f"has some ({', '.join(effort for effort, count in EFFORTS.items() if count)})"
        )


def quantize(
    model: onnx.ModelProto,
    table: CalibrationTable,
    scheme: Scheme,
    frames: Frames | None,
    *,
    chain: tuple[str, ...] | None = None,
    keep_float: tuple[str, ...] = (),
    progress: Progress = silent,
) -> QuantizedModel:
    """Refines a network for a scheme, then inserts Q/DQ.

    Args:
        model: FP32 ONNX that takes uint8 frames.
        table: its ranges.
        scheme: what to lower to.
        frames: calibration frames N×H×W×C; None is none.
        chain: names in ``REFINEMENTS``, in their order; None is the default of so many frames (``default_chain``).
        keep_float: names of nodes that stay float.
        progress: told of each refinement's phases.

    Raises:
        CalibrationError: the table belongs to another model or lacks a tensor; a name in ``keep_float`` is unknown; the
            chain cannot be applied.
    """
    seen = np.zeros((0, 1, 1, 1), np.uint8) if frames is None else frames
    suited = REFINEMENTS if scheme.refinements is None else scheme.refinements
    wanted = tuple(name for name in default_chain(len(seen)) if name in suited) if chain is None else chain
    check_chain(wanted, len(seen))
    place_qdq(model, table, scheme, keep_float)  # refuses what does not fit before any work is done
    refined = refine(Refined(model, table), scheme, seen, wanted, keep_float, progress)
    return insert_qdq(refined.model, refined.table, scheme, keep_float)


def refine(
    refined: Refined,
    scheme: Scheme,
    frames: Frames,
    chain: tuple[str, ...],
    keep_float: tuple[str, ...] = (),
    progress: Progress = silent,
) -> Refined:
    """Applies refinements, one after another; a phase is told with the refinement's name before its own.

    Raises:
        CalibrationError: the chain cannot be applied, as ``check_chain`` says.
    """
    check_chain(chain, len(frames))
    for name in chain:
        refined = REFINEMENTS[name](refined, scheme, frames, keep_float, partial(_tell, progress, name))
    return refined


def _tell(progress: Progress, refinement: str, phase: str, done: int, total: int) -> None:
    progress(f"{refinement}: {phase}", done, total)
