"""How strongly a network's answer moves with each channel of its tensors and with each weight: energies of the Jacobian.

An error e of variance v that is independent of all else moves the answer z by J·e, whose squared length is v·‖J‖² on
average. The squared length of a row of J is measured without building J: for a random vector r of signs,
E[(rᵀJ)²] = ‖J‖² a component (Hutchinson 1990), and rᵀJ is one backward pass.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import onnx
import torch
from torch import Tensor

from edge_resnet.calibration.tails import Ends
from edge_resnet.calibration.torch_graph import constants_of, run_nodes

THREADS = 2
"""Of torch, whatever the machine has: sums in another order give other last digits."""
SMALL = 64 * 64
"""Pixels of a frame up to which one thread does: several wait for each other at every layer, on a busy machine for long."""
FEW = 4
"""Values beyond a threshold count as so many more, of the average energy: few of them tell little."""


@contextmanager
def reproducible(threads: int = THREADS) -> Iterator[None]:
    """Torch with a fixed number of threads."""
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def threads_for(frames: npt.NDArray[np.uint8]) -> int:
    """How many threads follow frames N×H×W×C back; of the frames alone, so that the digits are the same everywhere."""
    return 1 if frames.shape[1] * frames.shape[2] <= SMALL else THREADS


@dataclass(frozen=True)
class TensorEnergy:
    """Of one tensor N×C×H×W, each a vector of C numbers."""

    total: Tensor
    """Of all values of an image that are not 0: a ReLU's zeros are integers already, and carry no error."""
    beyond: tuple[Tensor, Tensor]
    """Of one value beyond the upper and the lower threshold."""


@dataclass(frozen=True)
class Energies:
    """By name."""

    tensors: dict[str, TensorEnergy]
    weights: dict[str, Tensor]
    """Of a convolution's weights M×C×kH×kW, summed over the kernel: M×C."""


def measure(
    model: onnx.ModelProto,
    ends: Mapping[str, Ends],
    weights: Sequence[str],
    frames: Iterable[npt.NDArray[np.uint8]],
    count: int,
) -> Energies:
    """Energies of tensors and weights, the mean over frames.

    Args:
        model: takes uint8 frames.
        ends: the tensors' thresholds.
        weights: names of the convolutions' weights.
        frames: H×W×C, one backward pass each.
        count: how many.

    Raises:
        CalibrationError: an operator has no gradient here.
    """
    constants = constants_of(model)
    for name in weights:
        constants[name].requires_grad_(True)
    sums = {name: _Sum.like(each) for name, each in ends.items()}
    squares = {name: torch.zeros(constants[name].shape[:2], dtype=torch.float64) for name in weights}
    signs = torch.Generator().manual_seed(0)
    for frame in frames:
        tensors = {**constants, model.graph.input[0].name: torch.from_numpy(frame[None].copy())}
        for node in model.graph.node:
            run_nodes([node], tensors)
            for name in node.output:
                if name in ends and not tensors[name].requires_grad:
                    tensors[name].requires_grad_(True)
        answer = tensors[model.graph.output[0].name]
        seen_by = (torch.randint(0, 2, answer.shape, generator=signs) * 2 - 1) * answer
        watched = [*(tensors[name] for name in ends), *(constants[name] for name in weights)]
        gradients = torch.autograd.grad(seen_by.sum(), watched, allow_unused=True, materialize_grads=True)
        for (name, total), gradient in zip(sums.items(), gradients, strict=False):
            total.add(tensors[name].detach(), gradient)
        for name, gradient in zip(weights, gradients[len(sums) :], strict=True):
            squares[name] += gradient.double().square().sum((2, 3))
    return Energies(
        {name: total.mean(count) for name, total in sums.items()},
        {name: square / count for name, square in squares.items()},
    )


class _Sum:
    """Sums over images for one tensor."""

    def __init__(self, thresholds: tuple[Tensor, Tensor]) -> None:
        self.thresholds = thresholds
        self.total, self.values = torch.zeros(2, len(thresholds[0]), dtype=torch.float64)
        self.beyond, self.count = torch.zeros(2, 2, len(thresholds[0]), dtype=torch.float64)

    @classmethod
    def like(cls, ends: Ends) -> _Sum:
        return cls((torch.from_numpy(ends.upper.threshold), torch.from_numpy(ends.lower.threshold)))

    def add(self, x: Tensor, gradient: Tensor) -> None:
        energy = gradient.double().square().flatten(2)
        x = x.flatten(2)
        there = x != 0
        self.total += (energy * there).sum((0, 2))
        self.values += there.sum((0, 2))
        for side, (signed, threshold) in enumerate(zip((x, -x), self.thresholds, strict=True)):
            beyond = signed > threshold[None, :, None]
            self.beyond[side] += (energy * beyond).sum((0, 2))
            self.count[side] += beyond.sum((0, 2))

    def mean(self, images: int) -> TensorEnergy:
        usual = self.total / self.values.clamp_min(1)
        upper, lower = (self.beyond + FEW * usual) / (self.count + FEW)
        return TensorEnergy(self.total / images, (upper, lower))
