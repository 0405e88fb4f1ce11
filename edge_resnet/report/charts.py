"""Small pictures in SVG, coloured by the page's own style: light, dark, and on paper.

``currentColor`` and classes, no colours: the page decides. Every mark has a title, which is its tooltip.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from markupsafe import Markup

from edge_resnet.benchmark import Latency
from edge_resnet.calibration.quantizer_noise import LOWEST, STEPS_A_BIN, WIDEST, QuantizedTensor

_SVG = Markup('<svg class="{}" viewBox="0 0 {} {}" role="img" aria-label="{}">{}</svg>')
_RECT = Markup('<rect class="{}" x="{:.2f}" y="{:.2f}" width="{:.2f}" height="{:.2f}"><title>{}</title></rect>')
_LINE = Markup('<line class="{}" x1="{:.2f}" y1="{:.2f}" x2="{:.2f}" y2="{:.2f}"/>')
_TEXT = Markup('<text class="{}" x="{:.2f}" y="{:.2f}" text-anchor="{}">{}</text>')
_DOT = Markup('<circle cx="{:.2f}" cy="{:.2f}" r="3"><title>{}</title></circle>')
_NOTHING = Markup("")


def interval(points: float, low: float, high: float, limit: float) -> Markup:
    """A drop with its 95 % interval, in points, and the gate; positive is worse and to the right."""
    width, height, edge = 220, 34, 8
    reach = 1.15 * max(abs(low), abs(high), abs(limit), 0.1)

    def x(value: float) -> float:
        return edge + (width - 2 * edge) * (value + reach) / (2 * reach)

    parts = [
        _LINE.format("axis", edge, 14, width - edge, 14),
        _LINE.format("zero", x(0), 4, x(0), 22),
        _LINE.format("gate", x(limit), 2, x(limit), 24),
        _RECT.format("range", x(low), 11, x(high) - x(low), 6, f"95 %: {low:+.2f} to {high:+.2f} points"),
        Markup('<circle class="point" cx="{:.2f}" cy="14" r="4.5"><title>{:+.2f} points</title></circle>').format(
            x(points), points
        ),
        _TEXT.format("small", x(0), 33, "middle", "0"),
        _TEXT.format("small", min(x(limit), width - 22), 33, "middle", f"gate {limit:g}"),
    ]
    label = f"drop {points:+.2f} points, 95 % from {low:+.2f} to {high:+.2f}, gate {limit:g}"
    return _SVG.format("interval", width, height, label, _NOTHING.join(parts))


def depth(tensors: Sequence[QuantizedTensor]) -> Markup:
    """The SQNR of each quantized tensor, from the network's input to its answer."""
    width, height, left, bottom, top = 720, 220, 44, 30, 12
    values = [each.sqnr_db for each in tensors if each.sqnr_db is not None]
    if not values:  # nothing is rounded in any
        return _NOTHING
    low, high = 5 * math.floor(min(values) / 5), 5 * math.ceil(max(values) / 5 + 0.01)

    def x(index: int) -> float:
        return left + (width - left - 10) * index / max(len(tensors) - 1, 1)

    def y(db: float) -> float:
        return top + (height - top - bottom) * (high - db) / (high - low)

    parts = []
    for db in range(low, high + 1, 5 if high - low <= 30 else 10):
        parts.append(_LINE.format("grid", left, y(db), width - 10, y(db)))
        parts.append(_TEXT.format("small", left - 6, y(db) + 4, "end", f"{db} dB"))
    known = [(index, each, each.sqnr_db) for index, each in enumerate(tensors) if each.sqnr_db is not None]
    path = " ".join(f"{x(index):.1f},{y(db):.1f}" for index, _, db in known)
    parts.append(Markup('<polyline class="curve" points="{}"/>').format(path))
    parts += [_DOT.format(x(index), y(db), f"{each.name}: {db:.1f} dB") for index, each, db in known]
    parts.append(_TEXT.format("small", left, height - 8, "start", tensors[0].name))
    parts.append(_TEXT.format("small", width - 10, height - 8, "end", tensors[-1].name))
    label = f"SQNR of {len(tensors)} tensors, least {min(values):.1f} dB"
    return _SVG.format("depth", width, height, label, _NOTHING.join(parts))


def clip(tensor: QuantizedTensor) -> Markup:
    """A tensor's histogram in steps of its scale, on a square-root scale, and the 256 steps that INT8 has."""
    width, height = 256, 72
    counts = np.sqrt(np.array(tensor.histogram, np.float64))
    bar = width / len(counts)
    first = (LOWEST + WIDEST) // STEPS_A_BIN
    last = first + 256 // STEPS_A_BIN
    parts = [_RECT.format("inside", first * bar, 0, (last - first) * bar, height, "−128 to 127 steps")]
    for index in np.flatnonzero(counts).tolist():
        tall = (height - 4) * counts[index] / counts.max()
        steps = index * STEPS_A_BIN - WIDEST
        where = "under" if index < first else "kept" if index < last else "over"
        title = f"{steps} to {steps + STEPS_A_BIN} steps: {tensor.histogram[index]} values"
        parts.append(_RECT.format(where, index * bar, height - tall, bar * 0.9, tall, title))
    label = f"histogram of {tensor.name}, {100 * tensor.above:.3f} % above the range"
    return _SVG.format("clip", width, height, label, _NOTHING.join(parts))


def times(latency: Latency) -> Markup:
    """How often each latency occurred, with median and 99th percentile."""
    width, height, bottom = 720, 150, 26
    low, high = min(latency.times_ms), max(latency.percentile_ms(99), 1.05 * latency.percentile_ms(50))
    counts, edges = np.histogram(latency.times_ms, 60, (low, high))

    def x(ms: float) -> float:
        return 8 + (width - 16) * (ms - low) / (high - low)

    parts = []
    for count, start, end in zip(counts.tolist(), edges[:-1].tolist(), edges[1:].tolist(), strict=True):
        tall = (height - bottom - 6) * count / max(counts.max(), 1)
        title = f"{start:.2f} to {end:.2f} ms: {count} frames"
        parts.append(_RECT.format("kept", x(start), height - bottom - tall, x(end) - x(start) - 0.6, tall, title))
    for q, anchor in ((50, "start"), (99, "end")):
        ms = latency.percentile_ms(q)
        parts.append(_LINE.format("zero", x(ms), 2, x(ms), height - bottom))
        parts.append(_TEXT.format("small", x(ms) + (4 if q == 50 else -4), 12, anchor, f"p{q} {ms:.2f} ms"))
    parts.append(_LINE.format("axis", 8, height - bottom, width - 8, height - bottom))
    parts.append(_TEXT.format("small", 8, height - 8, "start", f"{low:.2f} ms"))
    parts.append(_TEXT.format("small", width - 8, height - 8, "end", f"{high:.2f} ms"))
    return _SVG.format("times", width, height, f"latency of {len(latency.times_ms)} frames", _NOTHING.join(parts))
