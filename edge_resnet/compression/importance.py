"""What a network's answers owe to each unit.

A unit's importance is the mean over images of ‖Σ a·∂z/∂a‖², a the unit's activations and z the answers: the first-order
estimate of how far the answers move when the unit goes (Molchanov et al., "Importance Estimation for Neural Network
Pruning", arXiv:1906.10771, with a gate on every unit). Theirs is the gradient of the loss; the loss here is the distance
from what the same network answers, whose gradient is 0, so it is the gradient of the answers, all of them at once, by
random signs (Hutchinson 1990, as in ``calibration.gradients``).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import onnx
import torch
from torch import Tensor

from edge_resnet.calibration.gradients import reproducible, threads_for
from edge_resnet.calibration.refine import reported
from edge_resnet.calibration.torch_graph import constants_of, run_nodes
from edge_resnet.compression.spans import Importance, Span
from edge_resnet.engines.engine import Progress

BATCH = 16
Frames = npt.NDArray[np.uint8]


def units_importance(
    model: onnx.ModelProto, spans: Sequence[Span], frames: Frames, progress: Progress
) -> dict[str, Importance]:
    """The importance of every unit, by span.

    Args:
        model: prepared.
        spans: of it.
        frames: N×H×W×C.
        progress: told of batches that are followed back.

    Raises:
        CalibrationError: an operator has no gradient here (``torch_graph``).
    """
    constants = constants_of(model)
    gated = {name: span for span in spans for name in span.reads}
    sums = {span.name: torch.zeros(span.units, dtype=torch.float64) for span in spans}
    signs = torch.Generator().manual_seed(0)
    starts = range(0, len(frames), BATCH)
    with reproducible(threads_for(frames)):
        for start in reported(starts, "importance", progress):
            batch = torch.from_numpy(frames[start : start + BATCH])
            gates = {span.name: torch.ones(len(batch), span.units, requires_grad=True) for span in spans}
            tensors = {**constants, model.graph.input[0].name: batch}
            for node in model.graph.node:
                run_nodes([node], tensors)
                for name in node.output:
                    if name in gated:
                        tensors[name] = _through(gates[gated[name].name], tensors[name])
            answer = tensors[model.graph.output[0].name]
            seen_by = (torch.randint(0, 2, answer.shape, generator=signs) * 2 - 1) * answer
            for name, moved in zip(gates, torch.autograd.grad(seen_by.sum(), list(gates.values())), strict=True):
                sums[name] += moved.double().square().sum(0)
    return {name: (total / len(frames)).numpy() for name, total in sums.items()}


def _through(gate: Tensor, x: Tensor) -> Tensor:
    """A tensor N×C×H×W through the gates N×units of its channels."""
    return x * gate.repeat_interleave(x.shape[1] // gate.shape[1], 1)[:, :, None, None]
