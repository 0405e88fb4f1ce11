"""How long an engine takes on a device that is not here: a roofline over its launches. Arithmetic only.

A launch takes a fixed number of clocks, and then as long as the slower of its arithmetic and its traffic:

    seconds = overhead / clock + max(2 · MACs / (peak · efficiency), DRAM bytes / bandwidth)

Peak and bandwidth are published figures of the device. Overhead and efficiency are the same for every device, and fitted
to published measurements by ``benchmarks/estimate_fit.py``. What fits the L2 cache costs no DRAM traffic.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace

BYTES = {"int8": 1, "fp16": 2, "fp32": 4}
"""Of one weight or activation, by precision, the lowest first."""
AMPERE = 80
"""The first SM with asynchronous copies: a kernel starts in fewer clocks from here on."""


@dataclass(frozen=True)
class Launch:
    """One kernel of an engine for one image: its multiply-adds, and the elements that it moves and keeps."""

    name: str
    kind: str
    """The operator it began with."""
    macs: int
    frame: int
    """Elements of the uint8 frame that it reads."""
    read: int
    """Elements of other activations that it reads."""
    written: int
    weights: int
    held: int = 0
    """Elements of activations that wait for later launches meanwhile."""

    def batched(self, batch: int) -> Launch:
        """The launch for a batch: all of it grows but the weights."""
        return replace(
            self,
            macs=self.macs * batch,
            frame=self.frame * batch,
            read=self.read * batch,
            written=self.written * batch,
            held=self.held * batch,
        )

    def activation_bytes(self, precision: str) -> int:
        """What it reads and writes of activations."""
        return self.frame + BYTES[precision] * (self.read + self.written)


@dataclass(frozen=True)
class OperatingPoint:
    """A device at one of its power modes."""

    sm: int
    """Compute capability × 10."""
    hertz: float
    """Clock of the GPU."""
    operations: Mapping[str, float]
    """Peak, dense, by precision, in operations a second; a multiply-add is two."""
    bandwidth: float
    """Bytes a second from DRAM."""
    l2_bytes: float
    """Zero where it is not known: then all traffic counts as DRAM's."""


@dataclass(frozen=True)
class Constants:
    """What is fitted."""

    overhead_clocks: float
    """Of a launch, on Ampere and later."""
    overhead_clocks_before_ampere: float
    efficiency: float
    """The part of the peak that a kernel reaches."""


def launch_seconds(
    launch: Launch, point: OperatingPoint, precision: str, constants: Constants, weights_cached: bool
) -> float:
    """The time of one launch; ``weights_cached``: the L2 cache still has its weights from the run before."""
    clocks = constants.overhead_clocks if point.sm >= AMPERE else constants.overhead_clocks_before_ampere
    spilled = max(0.0, launch.activation_bytes(precision) - point.l2_bytes)
    weights = 0 if weights_cached else launch.weights * BYTES[precision]
    arithmetic = 2 * launch.macs / (point.operations[precision] * constants.efficiency)
    return clocks / point.hertz + max(arithmetic, (spilled + weights) / point.bandwidth)


def all_seconds(
    launches: Iterable[Launch], point: OperatingPoint, precision: str, constants: Constants
) -> tuple[float, ...]:
    """The time of each launch of a network, in order."""
    every = tuple(launches)
    cached = weight_bytes(every, precision) <= point.l2_bytes
    return tuple(launch_seconds(launch, point, precision, constants, cached) for launch in every)


def weight_bytes(launches: Iterable[Launch], precision: str) -> int:
    """Weights of an engine."""
    return BYTES[precision] * sum(launch.weights for launch in launches)


def live_bytes(launches: Iterable[Launch], precision: str) -> int:
    """The most that activations take at a time."""
    return max(launch.activation_bytes(precision) + BYTES[precision] * launch.held for launch in launches)
