"""Learned equalization: the scale of every channel and the range of every tensor that give the answer the least noise.

What quantization adds to the answer is predicted by a model whose parts are measured (``noise``), and made as small as it
can be by gradient descent on the logarithms of scales and ranges. Ranges are chosen for the answer so, not for the
tensor: what does not matter to the answer may be clipped, what matters has finer steps. ``benchmarks/refinement.py``
shows what it gains.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import replace

import numpy as np
import numpy.typing as npt
import onnx_ir as ir
import torch
from torch import Tensor

from edge_resnet.calibration.channels import Channels, Vector, scale_channels
from edge_resnet.calibration.collect import observed_tensors
from edge_resnet.calibration.gradients import measure, reproducible
from edge_resnet.calibration.noise import Noise
from edge_resnet.calibration.observers import OBSERVERS, TensorRange
from edge_resnet.calibration.refine import EXACT_PIXELS, Refined, reported, silent
from edge_resnet.calibration.schemes import Scheme
from edge_resnet.calibration.table import CalibrationTable
from edge_resnet.calibration.tails import BATCH, Ends, observe_ends
from edge_resnet.calibration.topology import convolutions, data, load_graph, own_constants, save_graph
from edge_resnet.engines.engine import Progress

IMAGES = 64
"""Frames that are followed back; energies are means over channels and places, and need no more."""
STEPS = 200
RATE = 0.06
LARGEST = 256.0
"""Channels are scaled by at most so much, up or down; half precision has room for it."""


def balance(
    refined: Refined,
    scheme: Scheme,
    frames: npt.NDArray[np.uint8],
    keep_float: tuple[str, ...] = (),
    progress: Progress = silent,
) -> Refined:
    """Learns scales of channels and ranges of tensors for a scheme.

    Ranges that no observer of ours chose, such as those of a calibration cache, are left as they are, and the network too.
    The result is reproducible on one CPU and version of torch: threads, order and signs are fixed.

    Args:
        refined: the network and its ranges, which are where learning begins.
        scheme: tells which tensors are quantized and how.
        frames: calibration frames N×H×W×C; all give tails, ``IMAGES`` of them energies.
        keep_float: nodes that stay float.
        progress: told of batches whose largest values are seen, of frames that are followed back, and of steps.

    Raises:
        CalibrationError: an operator has no gradient here (``torch_graph``).
    """
    loaded = load_graph(refined.model)
    own_constants(loaded.graph)
    model = save_graph(loaded)
    channels = Channels.of(loaded.graph)
    ranges = {name: found for name, found in refined.table.ranges.items() if name != EXACT_PIXELS}
    names = [name for name in observed_tensors(model) if name in ranges]
    read = {scheme.range_name(value) for value in scheme.reads(loaded.graph, keep_float)}
    learned = [name for name in names if name in read and ranges[name].low < ranges[name].high]
    if not learned or refined.table.method not in OBSERVERS:
        return refined
    batches = [frames[start : start + BATCH] for start in range(0, len(frames), BATCH)]
    ends = observe_ends(model, names, reported(batches, "largest values", progress), len(frames))
    followed = {name: ends[name] for name in learned}
    keys = _keys(loaded.graph, channels)
    layers = [conv for conv in convolutions(loaded.graph) if conv.name not in keep_float]
    with reproducible():
        weights = [str(data(conv, 1).name) for conv in layers]
        some = list(frames[:: math.ceil(len(frames) / IMAGES)])
        energies = measure(model, followed, weights, reported(some, "gradients", progress), len(some))
        noise = Noise.of(loaded.graph, keys, followed, energies, scheme, refined.table, layers)
        steps = reported(range(STEPS), "steps", progress)
        numbers, limits = _solved(noise, torch.from_numpy(channels.roots), refined.table, steps)
    scale_channels(loaded.graph, channels, numbers)
    made = save_graph(loaded)
    found = {name: _seen(each, numbers[keys[name]]) for name, each in ends.items()}
    for name, (low, high) in limits.items():
        found[name] = replace(found[name], low=low, high=high, amax=max(-low, high))
    return Refined(made, refined.table.with_ranges(made, found))


def _keys(graph: ir.Graph, channels: Channels) -> dict[str, npt.NDArray[np.int64]]:
    """The keys of every tensor's channels, by name; key 0 where nothing may be scaled."""
    values = [value for node in graph for value in node.outputs]
    return {str(v.name): channels.keys.get(v, np.zeros(1, np.int64)) for v in values} | {
        str(v.name): np.zeros(1, np.int64) for v in graph.inputs
    }


def _seen(ends: Ends, numbers: Vector) -> TensorRange:
    """The extremes of a tensor whose channels are scaled, as its range: for readers that nothing was learned for."""
    low = min(0.0, -float((ends.lower.values[:, 0] * numbers).max()))
    high = max(0.0, float((ends.upper.values[:, 0] * numbers).max()))
    return TensorRange(low, high, max(-low, high), low, high)


def _solved(
    noise: Noise, roots: Tensor, table: CalibrationTable, steps: Iterable[int]
) -> tuple[Vector, dict[str, tuple[float, float]]]:
    """The number for each key, and each tensor's low and high behind it."""
    starts = [[math.log(max(end, 1e-12)) for end in (table[name].high, -table[name].low)] for name in noise.names]
    limits = torch.tensor(starts, dtype=torch.float64, requires_grad=True)
    logs = torch.zeros(len(roots), dtype=torch.float64, requires_grad=True)
    optimizer = torch.optim.Adam([logs, limits], lr=RATE)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, STEPS)
    for _ in steps:
        optimizer.zero_grad()
        torch.log(noise.predicted(_numbers(logs)[roots], torch.exp(limits))).backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        schedule.step()
    found = torch.exp(limits.detach()).tolist()
    ranges = {
        name: (-low if two_sided else 0.0, high)
        for name, two_sided, (high, low) in zip(noise.names, noise.two_sided.tolist(), found, strict=True)
    }
    return _numbers(logs.detach())[roots].numpy(), ranges


def _numbers(logs: Tensor) -> Tensor:
    """Key 0 is the number 1."""
    bound = math.log(LARGEST)
    return torch.cat([torch.ones_like(logs[:1]), torch.exp(logs[1:].clamp(-bound, bound))])
