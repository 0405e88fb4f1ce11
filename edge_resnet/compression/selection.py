"""Which units go: those that matter least for the multiply-adds that they cost, over the whole network at once."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import onnx

from edge_resnet.calibration.topology import data, load_graph
from edge_resnet.compression.counting import macs_of
from edge_resnet.compression.spans import Importance, Kept, Span
from edge_resnet.errors import CalibrationError

WIDEST_STEP = 32
"""Channels that go together in a wide layer: what TensorRT's INT8 tensor cores want channels to be a multiple of, 16 dense
and 32 with 2:4 weights (NVIDIA TensorRT documentation, "Best Practices", Optimizing for Tensor Cores), so that no kernel
pads what was saved."""
NARROWEST_STEP = 4
"""In a narrow one: the four that 2:4 sparsity counts in, and that INT8 dot products take at once."""
STEPS_A_SPAN = 8
"""A span has as many steps to choose between, where its width allows."""
FEWEST = 8
"""Of a span's units at least one in so many stays: a layer that is nearly gone is a bottleneck that no estimate sees."""


def step_of(span: Span) -> int:
    """How many of a span's units go together."""
    channels = span.units * span.channels_a_unit
    wanted = 1 << max(0, (channels // STEPS_A_SPAN).bit_length() - 1)  # a power of two, so that others are multiples
    return max(1, min(WIDEST_STEP, max(NARROWEST_STEP, wanted)) // span.channels_a_unit)


def select(
    model: onnx.ModelProto, spans: Sequence[Span], importance: Mapping[str, Importance], most: float
) -> dict[str, Kept]:
    """The units that stay, by span.

    Args:
        model: prepared.
        spans: of it.
        importance: of each unit, by span.
        most: multiply-adds that the network may have.

    Raises:
        CalibrationError: so few cannot be reached.
    """
    cost = _Cost(model, spans)
    left = {span.name: span.units for span in spans}
    order = {span.name: np.argsort(importance[span.name], kind="stable") for span in spans}
    steps = sorted((step for span in spans for step in _steps(span, importance[span.name], cost)), key=lambda s: s[0])
    for _, name, count in steps:
        if cost.total(left) <= most:
            break
        left[name] = min(left[name], count)
    if cost.total(left) > most:
        raise CalibrationError(
            f"no more than {100 * (1 - cost.total(left) / cost.full):.0f} % of the multiply-adds can go, from inside "
            f"{len(spans)} blocks' layers: give macs {cost.total(left) / cost.full + 0.005:.2f} or more"
        )
    return {name: np.sort(order[name][len(order[name]) - count :]) for name, count in left.items()}


def _steps(span: Span, importance: Importance, cost: _Cost) -> list[tuple[float, str, int]]:
    """What each step costs the answers for the multiply-adds that it saves, and how many units it leaves; rising."""
    rising, step = np.sort(importance), step_of(span)
    least = max(step, -(-span.units // FEWEST))
    first = span.units % step or step
    counts = [count for count in range(span.units - first, 0, -step) if count >= least]
    found, before, so_far = [], span.units, 0.0
    for count in counts:
        lost = float(rising[span.units - before : span.units - count].sum())
        so_far = max(so_far, lost / max(1, cost.of_units(span, before - count)))
        found.append((so_far, span.name, count))
        before = count
    return found


class _Cost:
    """Multiply-adds of a network with so many units of each span."""

    def __init__(self, model: onnx.ModelProto, spans: Sequence[Span]) -> None:
        self._macs = macs_of(model)
        self.full = sum(self._macs.values())
        self._units = {span.name: span.units for span in spans}
        by_constant: dict[str, list[str]] = {}
        for span in spans:
            for slot in span.slots:
                by_constant.setdefault(slot.constant, []).append(span.name)
        self._spans = {
            str(node.name): by_constant.get(str(data(node, 1).name), [])
            for node in load_graph(model).graph
            if node.name in self._macs
        }

    def total(self, left: Mapping[str, int]) -> float:
        return sum(self._left(name, left) for name in self._macs)

    def of_units(self, span: Span, count: int) -> float:
        """What some of a span's units cost, with all others there."""
        return self.full - self.total({**self._units, span.name: span.units - count})

    def _left(self, layer: str, left: Mapping[str, int]) -> float:
        shares = [left[name] / self._units[name] for name in self._spans[layer]]
        return float(self._macs[layer] * np.prod(shares))
