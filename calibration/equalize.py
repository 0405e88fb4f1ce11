"""Cross-layer equalization: channels of one tensor are brought nearer to each other, and the network's function is kept.

A tensor has one scale for all its channels, so a channel that stays small has few integers; ``channels`` says which may
be scaled. This is the closed form, from the channels' peaks alone; ``balance`` learns the numbers.

The larger the share by which channels are brought together, the better for activations and the worse for the weights that
must follow; ``POWER`` is where ``benchmarks/refinement.py`` finds the least error.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
from onnx import TensorProto, helper

from edge_resnet.calibration.channels import Channels, Keys, Vector, scale_channels
from edge_resnet.calibration.collect import collect
from edge_resnet.calibration.observers import OBSERVERS
from edge_resnet.calibration.refine import EXACT_PIXELS, Refined, reported, silent
from edge_resnet.calibration.schemes import Scheme
from edge_resnet.calibration.simulate import fast_session
from edge_resnet.calibration.topology import load_graph, save_graph
from edge_resnet.engines.engine import Progress

POWER = 0.25
"""A channel of peak a is scaled by a^−POWER; 1 would make all peaks equal."""
BATCH = 4


def equalize(
    refined: Refined,
    scheme: Scheme,
    frames: npt.NDArray[np.uint8],
    keep_float: tuple[str, ...] = (),
    progress: Progress = silent,
) -> Refined:
    """Scales channels by their peaks over some frames, and collects the ranges of the network that results.

    Ranges that no observer of ours chose, such as those of a calibration cache, cannot be chosen again: then the network
    stays as it is.

    Args:
        refined: the network and its ranges, which say by which method ranges are chosen.
        scheme: tells which tensors are quantized.
        frames: calibration frames N×H×W×C.
        keep_float: nodes that stay float.
        progress: told of batches, first those whose peaks are seen, then those whose ranges are.
    """
    loaded = load_graph(refined.model)
    channels = Channels.of(loaded.graph)
    read = {scheme.range_name(value) for value in scheme.reads(loaded.graph, keep_float)}
    quantized = [value for value in channels.keys if str(value.name) in read]
    if not quantized or refined.table.method not in OBSERVERS:
        return refined
    batches = [frames[start : start + BATCH] for start in range(0, len(frames), BATCH)]
    peaks = _peaks(refined.model, [str(value.name) for value in quantized], reported(batches, "peaks", progress))
    scale_channels(loaded.graph, channels, _numbers(channels, [channels.keys[value] for value in quantized], peaks))
    made = save_graph(loaded)
    table = collect(
        made,
        reported(batches, "ranges", progress),
        method=refined.table.method,
        images=refined.table.images,
        preprocessing=refined.table.preprocessing,
    )
    kept = {EXACT_PIXELS: refined.table[EXACT_PIXELS]} if EXACT_PIXELS in refined.table.ranges else {}
    return Refined(made, table.with_ranges(made, kept))


def _peaks(model: onnx.ModelProto, names: list[str], batches: Iterable[npt.NDArray[np.uint8]]) -> list[Vector]:
    """The largest magnitude in each channel of some tensors N×C×H×W."""
    shown = onnx.ModelProto()
    shown.CopyFrom(model)
    del shown.graph.output[:]
    for index, name in enumerate(names):
        shown.graph.node.append(helper.make_node("Abs", [name], [f"peak.{index}.abs"]))
        shown.graph.node.append(helper.make_node("GlobalMaxPool", [f"peak.{index}.abs"], [f"peak.{index}"]))
        shown.graph.output.append(helper.make_tensor_value_info(f"peak.{index}", TensorProto.FLOAT, None))
    session = fast_session(shown)
    source = session.get_inputs()[0].name
    found: list[Any] = []
    for batch in batches:
        peaks = [result.max(axis=(0, 2, 3)) for result in session.run(None, {source: batch})]
        found = [np.maximum(*pair) for pair in zip(found, peaks, strict=True)] if found else peaks
    return [np.asarray(peak, np.float64) for peak in found]


def _numbers(channels: Channels, keys: list[Keys], peaks: list[Vector]) -> Vector:
    """The number for each key, from the peaks of the channels that have it."""
    roots = channels.roots
    highest = np.zeros(len(roots))
    for some, found in zip(keys, peaks, strict=True):
        np.maximum.at(highest, roots[some], found)
    numbers = np.where(highest > 0, np.where(highest > 0, highest, 1) ** -POWER, 1)
    numbers[0] = 1
    return np.asarray(numbers[roots], np.float64)
