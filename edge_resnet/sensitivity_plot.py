"""The sensitivity of layers as a picture. Needs matplotlib, the extra ``plots``."""

from __future__ import annotations

import io
from collections.abc import Collection, Sequence
from textwrap import fill

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Patch

from edge_resnet.calibration.sensitivity import Sensitivity

INT8, FLOAT, MACS = "#3070b0", "#d07030", "#9a9a9a"
ROW = 0.21
"""Inches a layer: names of nine points do not touch."""
LONGEST = 40
"""Characters of a name that are shown: other exporters write paths of many parts, which would leave the bars no room."""
LINE = 80
"""Characters of a line of the title."""


def sensitivity_figure(found: Sequence[Sensitivity], keep_float: Collection[str], title: str) -> Figure:
    """Draws a bar a layer, from the network's input down: its share of the error, and beside it that of the MACs.

    Noise powers add up nearly, so shares do; at each bar stands the logit SQNR of that layer alone.

    Args:
        found: every layer, in the network's order.
        keep_float: names of layers to be left float, shown in another colour.
        title: stands above.
    """
    figure = Figure(figsize=(10, 1.6 + ROW * len(found)), layout="constrained")
    left, right = figure.subplots(1, 2, sharey=True, width_ratios=(3, 1))
    rows = range(len(found))
    bars = left.barh(rows, _shares([each.noise for each in found]), color=[_color(e, keep_float) for e in found])
    left.bar_label(bars, [f"{e.sqnr_db:.1f} dB" if e.noise > 0 else "no change" for e in found], padding=3, fontsize=8)
    right.barh(rows, _shares([each.macs for each in found]), color=MACS)
    left.set_yticks(rows, [_shown(each.layer) for each in found], fontsize=9, parse_math=False)
    left.set_ylim(len(found) - 0.4, -0.6)
    left.set_xlabel("share of the layers' summed error (%)\nat the bar: logit SQNR of this layer alone")
    right.set_xlabel("share of all MACs (%)")
    for axes in (left, right):
        _tidy(axes)
    left.set_xlim(right=1.15 * left.get_xlim()[1])  # room for the last label
    if keep_float:
        shown = [Patch(color=INT8, label="INT8"), Patch(color=FLOAT, label="to be left float")]
        figure.legend(handles=shown, loc="outside lower center", ncols=2, frameon=False)
    figure.suptitle(fill(title, LINE), parse_math=False)
    return figure


def sensitivity_png(found: Sequence[Sensitivity], keep_float: Collection[str], title: str) -> bytes:
    """The file of ``sensitivity_figure``, 1,200 pixels wide."""
    file = io.BytesIO()
    sensitivity_figure(found, keep_float, title).savefig(file, format="png", dpi=120)
    return file.getvalue()


def _shown(name: str) -> str:
    """A name whose middle is left out where it is long: its ends tell layers apart."""
    kept = LONGEST // 2
    return name if len(name) <= LONGEST else f"{name[: kept - 1]}…{name[-kept:]}"


def _shares(values: Sequence[float]) -> list[float]:
    """Percentages of the sum; zeros where that is zero."""
    total = sum(values) or 1
    return [100 * value / total for value in values]


def _color(layer: Sensitivity, keep_float: Collection[str]) -> str:
    return FLOAT if layer.layer in keep_float else INT8


def _tidy(axes: Axes) -> None:
    axes.grid(axis="x", alpha=0.3)
    axes.set_axisbelow(True)
    axes.tick_params(axis="y", length=0)
    for side in ("top", "right", "left"):
        axes.spines[side].set_visible(False)
