"""The squared error that quantization will add to a network's answer, as a function of channel scales and ranges.

Three parts, each with the energy of the Jacobian at its place (``gradients``):

- rounding: every value that is not 0 is off by up to half a step, step²/12 on average;
- clipping: what lies beyond the range is lost, of unseen images as well (``tails``);
- weights: each is off by up to half a step of its output channel, less what second-order rounding takes back.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import onnx_ir as ir
import torch
from torch import Tensor

from edge_resnet.calibration.gradients import Energies
from edge_resnet.calibration.schemes import Scheme
from edge_resnet.calibration.table import CalibrationTable
from edge_resnet.calibration.tails import Ends, Tail
from edge_resnet.calibration.topology import data, rectified_tensors

WEIGHTS_LEFT = 0.3
"""Share of the noise of rounded weights that is left behind second-order rounding."""
FLOOR = 0.01
"""Least energy and least tail of a channel, as shares of the mean: one that was silent may speak tomorrow."""

Keys = Mapping[str, npt.NDArray[np.int64]]
"""For each channel of a tensor, by its name, the key of the number that scales it."""


@dataclass(frozen=True)
class Beyond:
    """What lies beyond a limit: R rows, a tail each."""

    share: Tensor
    """Values of the tail an image, R."""
    threshold: Tensor
    excess: Tensor
    images: Tensor
    falling: Tensor
    """The negated values that were seen below the thresholds, ascending, R×K; infinity where there are fewer."""
    sums: Tensor
    squares: Tensor
    """Of the first k of those values, R×(K+1)."""

    @classmethod
    def of(cls, tails: Sequence[Tail]) -> Beyond:
        width = max(tail.values.shape[1] - tail.count for tail in tails)
        rest = [torch.from_numpy(tail.values[:, tail.count :]).double() for tail in tails]
        values = torch.cat([torch.nn.functional.pad(r, (0, width - r.shape[1]), value=-torch.inf) for r in rest])
        seen = torch.nn.functional.pad(torch.nan_to_num(values, neginf=0.0), (1, 0))
        return cls(
            torch.cat([torch.full((len(tail.values),), tail.count / tail.images) for tail in tails]).double(),
            torch.cat([torch.from_numpy(tail.threshold) for tail in tails]).double(),
            torch.cat([_floored(torch.from_numpy(tail.excess).double()) for tail in tails]).clamp_min(1e-12),
            torch.cat([torch.full((len(tail.values),), float(tail.images)) for tail in tails]).double(),
            -values,
            seen.cumsum(1),
            seen.square().cumsum(1),
        )

    def lost(self, limit: Tensor) -> Tensor:
        """The squared excess over a limit, one a row, that an image has on average.

        Of the tail, with its exponential excess of mean β over the threshold u: 2β²·exp(−(limit − u)/β) for a limit
        above u, and below it the second moment about the limit; of the values that were seen below u, their own.
        """
        above, below = (limit - self.threshold).clamp_min(0), (self.threshold - limit).clamp_min(0)
        in_tail = 2 * self.excess.square() * torch.exp(-above / self.excess) + below.square() + 2 * below * self.excess
        count = torch.searchsorted(self.falling, -limit.detach()[:, None])
        sums, squares = (prefix.gather(1, count)[:, 0] for prefix in (self.sums, self.squares))
        seen = squares - 2 * limit * sums + count[:, 0] * limit.square()
        return self.share * in_tail + seen / self.images


@dataclass(frozen=True)
class Weights:
    """What is known of a convolution."""

    keys: Tensor
    """Of what its weights read: C, or M×C where groups read each their own."""
    peaks: Tensor
    """The largest magnitude in each kernel, M×C."""
    energy: Tensor
    """M×C."""

    @classmethod
    def of(cls, conv: ir.Node, keys: Keys, energies: Energies) -> Weights:
        value = data(conv, 1).const_value
        assert value is not None
        peaks = torch.from_numpy(np.abs(value.numpy()).max(axis=(2, 3)))
        groups = conv.attributes["group"].as_int() if "group" in conv.attributes else 1
        read = torch.from_numpy(keys[str(data(conv).name)]).expand(groups * peaks.shape[1])
        each = read.reshape(groups, -1).repeat_interleave(len(peaks) // groups, 0) if groups > 1 else read
        return cls(each, peaks, energies.weights[str(data(conv, 1).name)].float())

    def noise(self, numbers: Tensor) -> Tensor:
        scaled = numbers[self.keys].float().expand_as(self.peaks)
        largest = (self.peaks / scaled.detach()).argmax(1, keepdim=True)
        steps = (self.peaks.gather(1, largest) / scaled.gather(1, largest))[:, 0] / 127
        return (steps.square() / 12 * (self.energy * scaled.square()).sum(1)).sum()


@dataclass(frozen=True)
class Noise:
    """The model. Limits are T×2: high and −low of every tensor that is quantized."""

    names: tuple[str, ...]
    two_sided: Tensor
    """1 for a tensor that has a lower end, 0 behind a ReLU; T."""
    step: Tensor
    """Of the quantizer, as a share of high − low; T."""
    tensor: Tensor
    """Of each channel of all tensors; the next two have one for each channel too."""
    keys: Tensor
    energy: Tensor
    place: Tensor
    """Of each tail in limits, flattened; the next two have one for each tail too."""
    end_keys: Tensor
    end_energy: Tensor
    beyond: Beyond
    weights: tuple[Weights, ...]

    @classmethod
    def of(
        cls,
        graph: ir.Graph,
        keys: Keys,
        ends: Mapping[str, Ends],
        energies: Energies,
        scheme: Scheme,
        table: CalibrationTable,
        layers: Sequence[ir.Node],
    ) -> Noise:
        """Of the tensors in ``ends`` and the convolutions ``layers``."""
        rectified, names = rectified_tensors(graph), tuple(ends)
        spans = [table[name].high - table[name].low for name in names]
        scales = [float(scheme.activation_params(table[name]).scale) for name in names]
        channels = [len(energies.tensors[name].total) for name in names]
        of = [torch.from_numpy(keys[name]).expand(count) for name, count in zip(names, channels, strict=True)]
        sides = [
            (name, index, side) for index, name in enumerate(names) for side in ((0,) if name in rectified else (0, 1))
        ]
        return cls(
            names,
            torch.tensor([float(name not in rectified) for name in names], dtype=torch.float64),
            torch.tensor([scale / span for scale, span in zip(scales, spans, strict=True)], dtype=torch.float64),
            torch.arange(len(names)).repeat_interleave(torch.tensor(channels)),
            torch.cat(of),
            torch.cat([_floored(energies.tensors[name].total) for name in names]),
            torch.cat([torch.full((channels[index],), 2 * index + side) for _, index, side in sides]),
            torch.cat([of[index] for _, index, _ in sides]),
            torch.cat([_floored(energies.tensors[name].beyond[side]) for name, _, side in sides]),
            Beyond.of([(ends[name].upper, ends[name].lower)[side] for name, _, side in sides]),
            tuple(Weights.of(conv, keys, energies) for conv in layers),
        )

    def predicted(self, numbers: Tensor, limits: Tensor) -> Tensor:
        """The squared error of the answer, with a number for each key."""
        steps = self.step * (limits[:, 0] + self.two_sided * limits[:, 1])
        rounding = (steps.square() / 12)[self.tensor] * self.energy / numbers[self.keys].square()
        clipping = self.end_energy * self.beyond.lost(limits.flatten()[self.place] / numbers[self.end_keys])
        weights = [each.noise(numbers) for each in self.weights]
        return rounding.sum() + clipping.sum() + WEIGHTS_LEFT * torch.stack(weights).sum()


def _floored(values: Tensor) -> Tensor:
    return values + FLOOR * values.mean()
