"""Learned rounding, one layer or one block after another: AdaRound and block reconstruction.

Each weight is rounded up or down, whichever gives the unit's output the smaller error: a soft share between 0 and 1 is
learned by gradient descent and pushed to one of them (Nagel et al., "Up or Down? Adaptive Rounding for Post-Training
Quantization", arXiv:2004.10568). A unit is a convolution, or what lies between two places where one tensor alone carries
everything, which is a residual block (Li et al., "BRECQ", arXiv:2102.05426). With a block the scales of its activations
are learned, half of the quantizers' elements left out at random (Wei et al., "QDrop", arXiv:2203.05740). A fourth of the
frames judges: a unit on which the error is not smaller stays as it was.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import torch
from torch import Tensor

from edge_resnet.calibration.fake_quant import LARGEST, FakeQuantized
from edge_resnet.calibration.gradients import reproducible
from edge_resnet.calibration.refine import Refined, reported, silent
from edge_resnet.calibration.schemes import Scheme
from edge_resnet.calibration.torch_graph import OPERATORS, Operator, constants_of, run_nodes
from edge_resnet.engines.engine import Progress

STEPS = 400
RATE = 0.02
SCALE_RATE = 0.001
BATCH = 32
JUDGES = 4
"""One in so many frames judges."""
FREE = 0.2
"""Share of the steps before soft shares are pushed to 0 or 1."""
PUSH = 30.0
"""Weight of the push, against the error as a share of the error at the start."""
SHARPNESS = (20.0, 2.0)
"""The push's exponent at its beginning and at its end."""
STRETCH = 0.1
"""By so much the sigmoid goes beyond 0 and 1, so that it reaches both."""
MEMORY = 1 << 30
"""Bytes that the tensors between two units may take; bounds the frames that are looked at."""

Frames = npt.NDArray[np.uint8]


def adaround(
    refined: Refined,
    scheme: Scheme,
    frames: Frames,
    keep_float: tuple[str, ...] = (),
    progress: Progress = silent,
) -> Refined:
    """Learns the rounding of each convolution's weights for the least error of its output.

    Args:
        refined: the network and its ranges; weights that were rounded before are where learning begins.
        scheme: gives scales, and the integers that its engines can sum.
        frames: calibration frames N×H×W×C; of large ones some are enough.
        keep_float: nodes that stay float.
        progress: told of units that are learned.

    Raises:
        CalibrationError: an operator has no gradient here (``torch_graph``).
    """
    units = reported(_behind_convolutions(refined.target), "layers", progress)
    return _learned(refined, scheme, frames, keep_float, units, dropped=0.0, scale_rate=0.0)


def reconstruct(
    refined: Refined,
    scheme: Scheme,
    frames: Frames,
    keep_float: tuple[str, ...] = (),
    progress: Progress = silent,
) -> Refined:
    """Learns rounding and scales of each residual block for the least error of its output; takes the same."""
    units = reported(_behind_blocks(refined.target), "blocks", progress)
    return _learned(refined, scheme, frames, keep_float, units, dropped=0.5, scale_rate=SCALE_RATE)


def _behind_convolutions(model: onnx.ModelProto) -> list[str]:
    return [node.output[0] for node in model.graph.node if node.op_type == "Conv"]


def _behind_blocks(model: onnx.ModelProto) -> list[str]:
    """Tensors that alone are needed by all that follows, the first behind each run of convolutions."""
    nodes = model.graph.node
    last = {name: index for index, node in enumerate(nodes) for name in node.input}
    found, live, convolutions = [], set[str](), 0
    for index, node in enumerate(nodes):
        live = {name for name in live | {*node.output} if last.get(name, -1) > index}
        convolutions += node.op_type == "Conv"
        if convolutions and len(live) == 1:
            found.append(next(iter(live)))
            convolutions = 0
    return found


@dataclass
class _Walk:
    """A network on its way; ``tensors`` are those that are known and still needed, for all frames."""

    nodes: Sequence[onnx.NodeProto]
    tensors: dict[str, Tensor]
    position: int = 0

    def part(self, target: str) -> Sequence[onnx.NodeProto]:
        """What leads to a tensor from here."""
        end = next(i for i, node in enumerate(self.nodes) if target in node.output) + 1
        return self.nodes[self.position : end]

    def pass_on(self, part: Sequence[onnx.NodeProto], constants: Mapping[str, Tensor], target: str) -> None:
        """Runs a part over all frames."""
        self.position += len(part)
        needed = {name for node in self.nodes[self.position :] for name in node.input} | {target}
        made = [_run(part, {**constants, **some}, OPERATORS) for some in _chunks(self.tensors)]
        kept = {name for name in made[0] if name in needed and name not in constants}
        self.tensors = {name: torch.cat([each[name] for each in made]) for name in sorted(kept)}


def _run(
    part: Iterable[onnx.NodeProto], tensors: dict[str, Tensor], operators: Mapping[str, Operator]
) -> dict[str, Tensor]:
    run_nodes(part, tensors, operators)
    return tensors


def _chunks(tensors: dict[str, Tensor]) -> Iterable[dict[str, Tensor]]:
    count = len(next(iter(tensors.values())))
    for start in range(0, count, BATCH):
        yield {name: tensor[start : start + BATCH] for name, tensor in tensors.items()}


def _dropping(share: float, random: torch.Generator) -> Operator:
    """QuantizeLinear that leaves a share of elements as they are."""

    def quantize(attributes: Mapping[str, Any], inputs: Sequence[Any]) -> Tensor:
        x, scale, zero_point = inputs
        quantized = OPERATORS["QuantizeLinear"](attributes, inputs)
        left = torch.rand(x.shape, generator=random) < share
        return torch.where(left, x / scale + zero_point, quantized)

    return quantize


@dataclass
class _Unit:
    """A part of the quantized network, and what it learns."""

    part: Sequence[onnx.NodeProto]
    target: str
    network: FakeQuantized
    floors: dict[str, Tensor] = field(default_factory=dict)
    """Of the weights, in units of their scales."""
    shares: dict[str, Tensor] = field(default_factory=dict)
    """Before the sigmoid."""
    factors: dict[str, Tensor] = field(default_factory=dict)
    """Logarithms, of the scales of ranges."""

    def __post_init__(self) -> None:
        for name in (node.input[1] for node in self.part if node.op_type == "Conv"):
            if name in self.network.weights:
                weight = self.network.weights[name]
                wanted, nearest = weight.wanted.clamp(-LARGEST, LARGEST), weight.start.round()
                floor = torch.where(wanted < nearest, nearest - 1, nearest).clamp(-LARGEST, LARGEST - 1)
                self.floors[name] = floor
                start = ((wanted - floor).clamp(0, 1) + nearest - floor) / 2  # between the weight and its integer
                self.shares[name] = torch.logit((start + STRETCH) / (1 + 2 * STRETCH)).requires_grad_(True)
        for scale in (node.input[1] for node in self.part if node.op_type == "QuantizeLinear"):
            if scale in self.network.ranges:
                self.factors[self.network.ranges[scale]] = torch.zeros((), requires_grad=True)

    def soft(self, name: str) -> Tensor:
        shares = (torch.sigmoid(self.shares[name]) * (1 + 2 * STRETCH) - STRETCH).clamp(0, 1)
        return shares * self.network.weights[name].live

    def integers(self) -> dict[str, Tensor]:
        return {name: floor + (self.soft(name).detach() > 0.5) for name, floor in self.floors.items()}

    def started(self) -> dict[str, Tensor]:
        return {name: self.network.weights[name].start.round().clamp(-LARGEST, LARGEST) for name in self.floors}

    def constants(self, weights: Mapping[str, Tensor], factors: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """What the part reads, for weights in units of their scales."""
        scaled = {name: steps * self.network.weights[name].scale for name, steps in weights.items()}
        biases = {name: bias.start for name, bias in self.network.biases.items()}
        scales = {
            scale: self.network.constants[scale] * torch.exp(factors[name])
            for scale, name in self.network.ranges.items()
            if name in factors
        }
        return {**self.network.constants, **biases, **scaled, **scales}

    def error(self, constants: dict[str, Tensor], read: dict[str, Tensor], wanted: Tensor) -> float:
        """Squared error of the output, a sum."""
        made = (_run(self.part, {**constants, **some}, OPERATORS)[self.target] for some in _chunks(read))
        return float(sum((a - b).square().sum() for a, b in zip(made, torch.split(wanted, BATCH), strict=True)))

    def learn(self, read: dict[str, Tensor], wanted: Tensor, first: float, dropped: float, scale_rate: float) -> None:
        """Gradient descent; ``first`` is the mean squared error at the start."""
        random = torch.Generator().manual_seed(0)
        operators = {**OPERATORS, "QuantizeLinear": _dropping(dropped, random)}
        learned = [{"params": list(self.shares.values()), "lr": RATE}]
        if scale_rate:
            learned.append({"params": list(self.factors.values()), "lr": scale_rate})
        optimizer = torch.optim.Adam(learned)
        count = sum(share.numel() for share in self.shares.values())
        for step in range(STEPS):
            some = torch.randperm(len(wanted), generator=random)[:BATCH]
            soft = {name: floor + self.soft(name) for name, floor in self.floors.items()}
            tensors = {**self.constants(soft, self.factors), **{name: x[some] for name, x in read.items()}}
            loss = (_run(self.part, tensors, operators)[self.target] - wanted[some]).square().mean() / first
            push = (step / STEPS - FREE) / (1 - FREE)
            if push > 0:
                power = SHARPNESS[0] + (SHARPNESS[1] - SHARPNESS[0]) * push
                loss = (
                    loss
                    + PUSH
                    * push**2
                    * sum((1 - (2 * self.soft(n) - 1).abs() ** power).sum() for n in self.shares)
                    / count
                )
            optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()


def _learned(
    refined: Refined,
    scheme: Scheme,
    frames: Frames,
    keep_float: tuple[str, ...],
    targets: Iterable[str],
    dropped: float,
    scale_rate: float,
) -> Refined:
    network = FakeQuantized.of(refined, scheme, keep_float)
    frames = frames[:: math.ceil(len(frames) / frames_at_once(frames))]
    source = refined.model.graph.input[0].name
    wanted = _Walk(refined.target.graph.node, {source: torch.from_numpy(frames)})
    actual = _Walk(network.nodes, {source: torch.from_numpy(frames)})
    floats = constants_of(refined.target)
    integers: dict[str, Tensor] = {}
    factors: dict[str, float] = {}
    with reproducible():
        for target in targets:
            with torch.no_grad():
                wanted.pass_on(wanted.part(target), floats, target)
            unit = _Unit(actual.part(target), target, network)
            weights, scales = _chosen(unit, actual.tensors, wanted.tensors[target], dropped, scale_rate)
            with torch.no_grad():
                actual.pass_on(unit.part, unit.constants(weights, scales), target)
            integers |= weights
            factors |= {name: math.exp(float(log)) for name, log in scales.items()}
    return network.written(integers, {}, factors)


def _chosen(
    unit: _Unit, read: dict[str, Tensor], wanted: Tensor, dropped: float, scale_rate: float
) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Weights in units of their scales, and logarithms of factors: those learned, where the judges find them better."""
    started, none = unit.started(), dict[str, Tensor]()
    judging = torch.arange(len(wanted)) % JUDGES == JUDGES - 1
    shown, held = ({name: x[rows] for name, x in read.items()} for rows in (~judging, judging))
    with torch.no_grad():
        first = unit.error(unit.constants(started, none), shown, wanted[~judging]) / max(1, wanted[~judging].numel())
    if not unit.shares or not judging.any() or first <= 0:
        return started, none
    unit.learn(shown, wanted[~judging], first, dropped, scale_rate)
    weights, factors = unit.integers(), {name: log.detach() for name, log in unit.factors.items() if scale_rate}
    with torch.no_grad():
        before, after = (
            unit.error(unit.constants(*each), held, wanted[judging]) for each in ((started, none), (weights, factors))
        )
    return (weights, factors) if after < before else (started, none)


def frames_at_once(frames: Frames) -> int:
    """How many frames H×W×C fit into ``MEMORY``."""
    height, width = frames.shape[1:3]
    between = 256 * int(height) * int(width)  # four float32 tensors of 16 values a pixel, a ResNet's widest
    return max(16, MEMORY // between)
