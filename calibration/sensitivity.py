"""Which layers INT8 hurts: each is quantized alone, and the error of the answers is measured.

Errors of single layers add up nearly, so they also tell what is gained by leaving some of them float, before anything is
built.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import onnx
import onnxruntime

from edge_resnet.calibration.qdq import place_qdq
from edge_resnet.calibration.refine import Refined, reported, silent
from edge_resnet.calibration.schemes import Scheme
from edge_resnet.calibration.simulate import exact_session, fast_session, run_frames
from edge_resnet.calibration.topology import convolutions, load_graph, multiply_adds, quantized_sums
from edge_resnet.engines.engine import Progress
from edge_resnet.errors import CalibrationError

BATCH = 16
CHANGED_AT_0_DB = 0.40
Frames = npt.NDArray[np.uint8]


@dataclass(frozen=True)
class Sensitivity:
    """What quantizing one layer alone costs."""

    layer: str
    """The node's name in the ONNX; of networks made here, also the module's in torch."""
    macs: int
    """Multiply-adds of one frame; 0 of a residual Add, whose shortcut is quantized."""
    noise: float
    """Σ(z − ẑ)² / Σz² over all frames and logits."""

    @property
    def sqnr_db(self) -> float:
        """Of the logits; infinite where nothing changed."""
        return -10 * math.log10(self.noise) if self.noise > 0 else math.inf


def sensitivities(
    refined: Refined,
    scheme: Scheme,
    frames: Frames,
    progress: Progress = silent,
) -> tuple[Sensitivity, ...]:
    """Measures every layer that a scheme quantizes: convolutions, and residual Adds with a quantized shortcut.

    Args:
        refined: the network and its ranges, with an exact input or without.
        scheme: how it will be quantized.
        frames: N×H×W×C; some dozen tell layers apart.
        progress: told of layers that are measured.

    Raises:
        CalibrationError: the table belongs to another model or lacks a tensor.
    """
    alone = SingleLayers(refined, scheme, frames)
    return tuple(alone.measure(layer) for layer in reported(alone.layers, "layers", progress))


class SingleLayers:
    """A network of which one layer after another is quantized alone; arguments as those of ``sensitivities``.

    Args:
        threads: that compute; 0: one on each core. What is measured does not depend on it.
    """

    def __init__(self, refined: Refined, scheme: Scheme, frames: Frames, threads: int = 0) -> None:
        self._refined, self._scheme, self._frames, self._threads = refined, scheme, frames, threads
        self._macs = _macs(refined.model)
        self._wanted = _answers(fast_session(refined.model, threads), frames)
        self._signal = float(np.square(self._wanted).sum())

    @property
    def layers(self) -> list[str]:
        """All that can be measured, in order."""
        return list(self._macs)

    def measure(self, layer: str) -> Sensitivity:
        """Quantizes a layer, and nothing else."""
        others = [name for name in self._macs if name != layer]
        alone = place_qdq(self._refined.model, self._refined.table, self._scheme, others).model
        answers = _answers(exact_session(alone, self._threads), self._frames)
        noise = float(np.square(answers - self._wanted).sum())
        return Sensitivity(layer, self._macs[layer], noise / self._signal)


def layers_of(model: onnx.ModelProto) -> list[str]:
    """Names of the layers that ``sensitivities`` measures, in order."""
    return list(_macs(model))


def _macs(model: onnx.ModelProto) -> dict[str, int]:
    """Multiply-adds of every layer that may be quantized, in order."""
    graph = load_graph(onnx.shape_inference.infer_shapes(model)).graph
    sums, convs = set(quantized_sums(graph)), set(convolutions(graph))
    found = {}
    for node in graph:
        if node in convs:
            found[str(node.name)] = multiply_adds(node)
        elif node in sums:
            found[str(node.name)] = 0
    return found


def _answers(session: onnxruntime.InferenceSession, frames: Frames) -> npt.NDArray[np.float64]:
    parts = [run_frames(session, frames[start : start + BATCH]) for start in range(0, len(frames), BATCH)]
    return np.concatenate(parts).astype(np.float64)


@dataclass(frozen=True)
class MixedPrecision:
    """Layers to leave float, and what is expected of it."""

    keep_float: tuple[str, ...]
    macs_share: float
    """Of all multiply-adds of convolutions, from 0 to 1."""
    sqnr_db: float
    """Predicted: as if the errors of layers added up."""


def sqnr_for_drop(points: float) -> float:
    """The logit SQNR, in dB, at which about so many answers in a hundred change: of them all could be a drop in top-1.

    Answers change on a share of 0.40 · 10^(−SQNR/20) of the images: fitted to 72 configurations of CIFAR-10 networks. Those
    of ``benchmarks`` change from an eighth of that to a third more.

    Raises:
        CalibrationError: the drop is no positive number of points.
    """
    if not 0 < points <= 100:
        raise CalibrationError(f"the drop is {points:g} points: give more than 0, and 100 at most")
    return max(20 * math.log10(CHANGED_AT_0_DB / (points / 100)), 0.0)


def float_layers(found: tuple[Sensitivity, ...], least_sqnr_db: float) -> MixedPrecision:
    """Chooses layers to leave float until the sum of the others' errors is small enough.

    Those that cost the fewest multiply-adds for what they bring come first, and shortcuts, which cost none, before all.
    Then those that turn out not to be needed are given back, the most expensive first.

    Args:
        found: every layer.
        least_sqnr_db: of the logits, to be reached.
    """
    limit = 10 ** (-least_sqnr_db / 10)
    by_price = sorted(found, key=lambda each: each.macs / max(each.noise, 1e-300))
    kept: list[Sensitivity] = []
    while _noise(found, kept) > limit and len(kept) < len(by_price):
        kept.append(by_price[len(kept)])
    for each in sorted(kept, key=lambda each: -each.macs):
        without = [other for other in kept if other is not each]
        if _noise(found, without) <= limit:
            kept = without
    total, left = sum(each.macs for each in found), _noise(found, kept)
    return MixedPrecision(
        tuple(each.layer for each in found if each in kept),
        sum(each.macs for each in kept) / total,
        -10 * math.log10(left) if left > 0 else math.inf,
    )


def _noise(found: tuple[Sensitivity, ...], kept: list[Sensitivity]) -> float:
    return math.fsum(each.noise for each in found if each not in kept)
