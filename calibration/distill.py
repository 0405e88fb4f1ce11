"""Fine-tuning without labels: weights, biases and scales learn together to answer as the FP32 network did.

Quantization-aware training with the FP32 network as the teacher (Hinton et al., arXiv:1503.02531, here on logits as they
are), fake quantization with straight-through gradients and learned scales. It sees the whole network at once, which no
other step does, and wants more images than they do: a few thousand. A part of the frames judges, and where the error on
them does not fall, the network stays as it was.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from edge_resnet.calibration.fake_quant import LARGEST, FakeQuantized
from edge_resnet.calibration.gradients import reproducible
from edge_resnet.calibration.refine import Refined, reported, silent
from edge_resnet.calibration.schemes import Scheme
from edge_resnet.calibration.simulate import fast_session, run_frames
from edge_resnet.calibration.torch_graph import run_nodes, straight_rounded
from edge_resnet.engines.engine import Progress

STEPS = 800
BATCH = 32
JUDGE_EVERY = 100
"""Steps between two looks at the judges."""
JUDGES = 4
"""One in so many frames judges."""
CERTAIN = 2.0
"""By so many standard errors the error must fall, image by image: of a few judges some fall by chance."""
RATES = (0.02, 0.02, 0.001)
"""Of weights, in steps of their integers; of biases, in units; of the logarithms of scales."""
PIXELS = 200_000
"""Of frames that are followed back at once; larger batches are taken in parts."""

Frames = npt.NDArray[np.uint8]


def distill(
    refined: Refined,
    scheme: Scheme,
    frames: Frames,
    keep_float: tuple[str, ...] = (),
    progress: Progress = silent,
) -> Refined:
    """Fine-tunes a network for a scheme.

    Args:
        refined: the network and its ranges, where learning begins.
        scheme: gives scales, and the integers that its engines can sum.
        frames: N×H×W×C, without labels.
        keep_float: nodes that stay float; their weights stay as they are.
        progress: told of steps of learning.

    Raises:
        CalibrationError: an operator has no gradient here (``torch_graph``).
    """
    network = FakeQuantized.of(refined, scheme, keep_float)
    wanted = torch.from_numpy(run_frames(fast_session(refined.target), frames))
    pupil = _Pupil.of(network, float(wanted.square().mean()))
    judging = torch.arange(len(frames)) % JUDGES == JUDGES - 1
    if not pupil.steps or not judging.any():
        return refined
    shown, held = ((torch.from_numpy(frames)[rows], wanted[rows]) for rows in (~judging, judging))
    with reproducible():
        least, best = pupil.errors(*held), refined
        lessons = _Lessons.of(pupil)
        for step in reported(range(1, STEPS + 1), "steps", progress):
            lessons.give(*shown)
            if step % JUDGE_EVERY == 0 and _fell(least, errors := pupil.errors(*held)):
                least, best = errors, pupil.written()
    return best


def _fell(before: Tensor, after: Tensor) -> bool:
    """Whether errors of the same images fell by more than chance."""
    gains = (before - after).double()
    return len(gains) > 1 and float(gains.mean()) > CERTAIN * float(gains.std()) / math.sqrt(len(gains))


@dataclass(frozen=True)
class _Pupil:
    """The quantized network, and what it learns, each by its name in the network."""

    network: FakeQuantized
    power: float
    """Mean square of the answers."""
    steps: dict[str, Tensor]
    """Weights in units of their scales."""
    shifts: dict[str, Tensor]
    """Of biases, in units."""
    factors: dict[str, Tensor]
    """Logarithms, of scales."""

    @classmethod
    def of(cls, network: FakeQuantized, power: float) -> _Pupil:
        return cls(
            network,
            max(power, 1e-30),
            {name: weight.start.clone().requires_grad_(True) for name, weight in network.weights.items()},
            {name: torch.zeros_like(bias.unit, requires_grad=True) for name, bias in network.biases.items()},
            {name: torch.zeros((), requires_grad=True) for name in sorted(set(network.ranges.values()))},
        )

    def biases(self) -> dict[str, Tensor]:
        return {name: bias.start + self.shifts[name] * bias.unit for name, bias in self.network.biases.items()}

    def answers(self, frames: Tensor) -> Tensor:
        weights = {
            name: straight_rounded(self.steps[name].clamp(-LARGEST, LARGEST)) * weight.live * weight.scale
            for name, weight in self.network.weights.items()
        }
        scales = {
            scale: self.network.constants[scale] * torch.exp(self.factors[name])
            for scale, name in self.network.ranges.items()
        }
        graph = self.network.refined.model.graph
        tensors = {**self.network.constants, **weights, **self.biases(), **scales, graph.input[0].name: frames}
        run_nodes(self.network.nodes, tensors)
        return tensors[graph.output[0].name]

    def errors(self, frames: Tensor, wanted: Tensor) -> Tensor:
        """Squared error of each image's answers."""
        with torch.no_grad():
            parts = zip(torch.split(frames, BATCH), torch.split(wanted, BATCH), strict=True)
            return torch.cat([(self.answers(some) - answers).square().sum(1) for some, answers in parts])

    def written(self) -> Refined:
        integers = {
            name: steps.detach().clamp(-LARGEST, LARGEST).round() * self.network.weights[name].live
            for name, steps in self.steps.items()
        }
        biases = {name: bias.detach() for name, bias in self.biases().items()}
        return self.network.written(
            integers, biases, {n: math.exp(float(log.detach())) for n, log in self.factors.items()}
        )


@dataclass(frozen=True)
class _Lessons:
    """Gradient descent on the error of the answers."""

    pupil: _Pupil
    optimizer: torch.optim.Optimizer
    schedule: torch.optim.lr_scheduler.LRScheduler
    random: torch.Generator

    @classmethod
    def of(cls, pupil: _Pupil) -> _Lessons:
        learned = (pupil.steps, pupil.shifts, pupil.factors)
        groups = [{"params": list(part.values()), "lr": rate} for part, rate in zip(learned, RATES, strict=True)]
        optimizer = torch.optim.Adam([group for group in groups if group["params"]])
        schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, STEPS)
        return cls(pupil, optimizer, schedule, torch.Generator().manual_seed(0))

    def give(self, frames: Tensor, wanted: Tensor) -> None:
        """One step, on a batch drawn anew."""
        together = max(1, PIXELS // (frames.shape[1] * frames.shape[2]))
        self.optimizer.zero_grad()
        drawn = torch.randperm(len(frames), generator=self.random)[:BATCH]
        for some in torch.split(drawn, together):
            missed = (self.pupil.answers(frames[some]) - wanted[some]).square().sum()
            (missed / self.pupil.power / (len(drawn) * wanted.shape[1])).backward()  # type: ignore[no-untyped-call]
        self.optimizer.step()
        self.schedule.step()
