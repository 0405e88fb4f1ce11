"""The trials of a search as a picture. Needs matplotlib, the extra ``plots``."""

from __future__ import annotations

import io
from collections.abc import Sequence
from textwrap import fill

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Patch

from edge_resnet.tuning.tried import Tried
from edge_resnet.tuning.tune import Tuned

FRONT, OTHER, OWN, CHOSEN = "#3070b0", "#b8b8b8", "#303030", "#d07030"
LINE = 95
"""Characters of a line of the title."""


def front_figure(tuned: Tuned) -> Figure:
    """Draws every trial with a result, twice: nearness to FP32 against latency, and the drop in top-1 against latency.

    The line is the front; the shaded parts miss the goal.
    """
    figure = Figure(figsize=(10, 5), layout="constrained")
    nearness, drop = figure.subplots(1, 2)
    front = tuned.front
    others = [each for each in tuned.tried if each not in front]
    nearness.step(_latencies(front), _sqnr(front), where="post", color=FRONT, linewidth=1, alpha=0.6)
    nearness.set_ylabel("logit SQNR against the original FP32 (dB)")
    drop.set_ylabel("drop in top-1 (points, 95 % interval)")
    for label, group, color, marker, size in (
        ("trial", others, OTHER, "o", 5),
        ("on the front", front, FRONT, "o", 6),
        ("the recipe as it stands", (tuned.own,), OWN, "s", 10),
        ("chosen" if tuned.met else "nearest to the goal", (tuned.chosen,), CHOSEN, "D", 8),
    ):
        style = {"color": color, "marker": marker, "markersize": size, "linestyle": "none"}
        nearness.plot(_latencies(group), _sqnr(group), label=label, **style)
        drop.errorbar(_latencies(group), [each.figures.drop for each in group], _errors(group), **style, linewidth=0.8)
    for axes in (nearness, drop):
        _tidy(axes, f"latency of a frame (ms, {tuned.latency})")
    _shade(nearness, drop, tuned)
    handles = [*nearness.get_legend_handles_labels()[0], Patch(color=CHOSEN, alpha=0.16, label="misses the goal")]
    figure.legend(handles=handles, loc="outside lower center", ncols=5, frameon=False)
    figure.suptitle(fill(_title(tuned), LINE), parse_math=False, fontsize=11)
    return figure


def front_png(tuned: Tuned) -> bytes:
    """The file of ``front_figure``, 1,200 pixels wide."""
    file = io.BytesIO()
    front_figure(tuned).savefig(file, format="png", dpi=120)
    return file.getvalue()


def _title(tuned: Tuned) -> str:
    counted = f"{tuned.trials} trials, {tuned.trials - len(tuned.tried)} ended early"
    least = tuned.goal.least_fps(tuned.own)
    return (
        f"{tuned.target}: {counted}, {tuned.own.figures.images} images. Goal: {least:.4g} FPS, a drop of at most "
        f"{tuned.goal.max_drop:g} points"
    )


def _shade(nearness: Axes, drop: Axes, tuned: Tuned) -> None:
    """What is too slow, where that is in sight, and what loses too much."""
    slowest = 1e3 / tuned.goal.least_fps(tuned.own)
    for axes in (nearness, drop):
        low, high = axes.get_xlim()
        if slowest < high:
            axes.axvspan(max(slowest, low), high, color=CHOSEN, alpha=0.08, linewidth=0)
        axes.set_xlim(low, high)
    low, high = drop.get_ylim()
    if tuned.goal.max_drop < high:
        drop.axhspan(max(tuned.goal.max_drop, low), high, color=CHOSEN, alpha=0.08, linewidth=0)
    drop.set_ylim(low, high)


def _latencies(group: Sequence[Tried]) -> list[float]:
    return [each.latency_ms for each in group]


def _sqnr(group: Sequence[Tried]) -> list[float]:
    return [each.figures.sqnr_db for each in group]


def _errors(group: Sequence[Tried]) -> list[list[float]]:
    """How far the interval reaches below and above; its middle is not the drop itself, which may lie at its edge."""
    figures = [each.figures for each in group]
    below = [max(0.0, each.drop - each.ci95[0]) for each in figures]
    return [below, [max(0.0, each.ci95[1] - each.drop) for each in figures]]


def _tidy(axes: Axes, label: str) -> None:
    axes.set_xlabel(label)
    axes.grid(alpha=0.3)
    axes.set_axisbelow(True)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
