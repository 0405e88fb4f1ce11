"""FP32 ONNX + table + frames → refined and quantized ONNX: the arrows between ranges and engines, in their order."""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module

import numpy as np
import numpy.typing as npt
import onnx

from edge_resnet.calibration.bias import correct_biases
from edge_resnet.calibration.equalize import equalize
from edge_resnet.calibration.qdq import QuantizedModel, insert_qdq, place_qdq
from edge_resnet.calibration.refine import Refined, exact_input
from edge_resnet.calibration.rounding import round_weights
from edge_resnet.calibration.schemes import Scheme
from edge_resnet.calibration.table import CalibrationTable
from edge_resnet.errors import CalibrationError

Frames = npt.NDArray[np.uint8]
"""Calibration frames N×H×W×C."""
Refinement = Callable[[Refined, Scheme, Frames, tuple[str, ...]], Refined]
"""Network and ranges, the scheme they are for, frames, and the nodes that stay float → network and ranges."""


def _exact_input(refined: Refined, scheme: Scheme, frames: Frames, keep_float: tuple[str, ...]) -> Refined:
    first = next((node.name for node in refined.model.graph.node if node.op_type == "Conv"), None)
    return refined if first in keep_float else exact_input(refined.model, refined.table)


def _learned(module: str, name: str) -> Refinement:
    """A refinement that loads torch, when it is called."""

    def refinement(refined: Refined, scheme: Scheme, frames: Frames, keep_float: tuple[str, ...]) -> Refined:
        found: Refinement = getattr(import_module(f"edge_resnet.calibration.{module}"), name)
        return found(refined, scheme, frames, keep_float)

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
"""Every refinement by its name, in the order in which they build on each other; each may be left out."""

CHAIN = ("exact-input", "balance", "round", "bias")
"""What is applied by default: learning begins where ``equalize`` would lead, and needs it no more."""

EFFORTS: dict[str, int] = {"fast": 0, "standard": 256, "best": 512}
"""Frames that refinement looks at, by the name that ``--effort`` takes; without any, the input is made exact, no more."""


def frames_wanted(effort: str) -> int:
    """How many calibration frames ``quantize`` makes use of.

    Raises:
        CalibrationError: the effort is unknown.
    """
    if effort not in EFFORTS:
        raise CalibrationError(f"unknown effort '{effort}': choose one of {', '.join(EFFORTS)}")
    return EFFORTS[effort]


def quantize(
    model: onnx.ModelProto,
    table: CalibrationTable,
    scheme: Scheme,
    frames: Frames | None,
    keep_float: tuple[str, ...] = (),
) -> QuantizedModel:
    """Refines a network for a scheme, then inserts Q/DQ.

    Args:
        model: FP32 ONNX that takes uint8 frames.
        table: its ranges.
        scheme: what to lower to.
        frames: calibration frames N×H×W×C; of None or none, what looks at frames is left out.
        keep_float: names of nodes that stay float.

    Raises:
        CalibrationError: the table belongs to another model or lacks a tensor; a name in ``keep_float`` is unknown.
    """
    place_qdq(model, table, scheme, keep_float)  # refuses what does not fit before any work is done
    chain = CHAIN if frames is not None and len(frames) else ("exact-input",)
    seen = np.zeros((0, 1, 1, 1), np.uint8) if frames is None else frames
    refined = refine(Refined(model, table), scheme, seen, chain, keep_float)
    return insert_qdq(refined.model, refined.table, scheme, keep_float)


def refine(
    refined: Refined, scheme: Scheme, frames: Frames, chain: tuple[str, ...], keep_float: tuple[str, ...] = ()
) -> Refined:
    """Applies refinements, one after another.

    Raises:
        CalibrationError: a name in the chain is unknown, or stands before one that it builds on.
    """
    order = list(REFINEMENTS)
    for name in chain:
        if name not in REFINEMENTS:
            raise CalibrationError(f"unknown refinement '{name}': choose of {', '.join(REFINEMENTS)}")
    if [order.index(name) for name in chain] != sorted({order.index(name) for name in chain}):
        raise CalibrationError(f"refinements {', '.join(chain)}: name each once, in the order {', '.join(order)}")
    for name in chain:
        refined = REFINEMENTS[name](refined, scheme, frames, keep_float)
    return refined
