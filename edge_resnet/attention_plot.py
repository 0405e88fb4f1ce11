"""The picture of an explanation. Needs matplotlib, the extra ``plots``."""

from __future__ import annotations

import io
from textwrap import fill

import numpy as np
import numpy.typing as npt
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.image import AxesImage

from edge_resnet.explain import Explanation, View
from edge_resnet.preprocessing import Color

COLORS = "RdBu_r"
"""Red speaks for the class, blue against it, and nothing is white."""
OPAQUE = 0.6
LINE = 100
"""Characters of a line of the title."""
MEANING = {
    "cam": "what speaks for '{}': the mean of it all, plus a bias, is the logit (class activation map)",
    "occlusion": "what the logit of '{}' loses when a part is covered (occlusion)",
}


def attention_figure(found: Explanation, title: str) -> Figure:
    """Draws the frame, both maps over it, and their difference, all three in one scale of colours.

    Args:
        found: the explanation.
        title: stands above.
    """
    figure = Figure(figsize=(12, 4.3), layout="constrained")
    frame, left, right, difference = figure.subplots(1, 4)
    label, quantized = found.labels[found.index], found.quantized.precision.upper()
    limit = float(max(np.abs(found.fp32.map).max(), np.abs(found.quantized.map).max())) or 1.0
    frame.imshow(_as_rgb(found), interpolation="nearest")
    _say(frame, "as the network sees it", "×".join(map(str, found.frame.shape)))
    for axes, view in ((left, found.fp32), (right, found.quantized)):
        _overlay(axes, found, view.map, limit)
        x, y = found.maximum(view)
        axes.plot(x - 0.5, y - 0.5, "+", color="black", markersize=11, markeredgewidth=1.6)  # pixel 0 is drawn around 0
        predicted = "" if view is found.fp32 else " (predicted)"
        _say(axes, f"{view.precision.upper()}{predicted}", _words(found, view))
    drawn = _overlay(difference, found, found.quantized.map - found.fp32.map, limit)
    _say(difference, f"{quantized} − FP32", _moved(found))
    for axes in (frame, left, right, difference):
        axes.set_xticks([])
        axes.set_yticks([])
    bar = figure.colorbar(drawn, ax=[frame, left, right, difference], location="bottom", aspect=60, shrink=0.6)
    bar.set_label(MEANING[found.method].format(label), parse_math=False)
    figure.suptitle(fill(title, LINE), parse_math=False)
    return figure


def attention_png(found: Explanation, title: str) -> bytes:
    """The file of ``attention_figure``, 1,440 pixels wide."""
    file = io.BytesIO()
    attention_figure(found, title).savefig(file, format="png", dpi=120)
    return file.getvalue()


def _as_rgb(found: Explanation) -> npt.NDArray[np.uint8]:
    if found.frame.shape[2] == 1:
        return np.repeat(found.frame, 3, axis=2)
    return found.frame[:, :, ::-1] if found.preprocessing.color is Color.BGR else found.frame


def _overlay(axes: Axes, found: Explanation, values: npt.NDArray[np.float32], limit: float) -> AxesImage:
    """A map over the frame, whose own colours would be taken for the map's, so it is grey."""
    height, width = found.frame.shape[:2]
    axes.imshow(_as_rgb(found).mean(2), cmap="gray", vmin=0, vmax=255, interpolation="nearest")
    edges = (-0.5, width - 0.5, height - 0.5, -0.5)
    return axes.imshow(
        values, cmap=COLORS, vmin=-limit, vmax=limit, alpha=OPAQUE, extent=edges, interpolation="bilinear"
    )


def _words(found: Explanation, view: View) -> str:
    """The answer; and the class that is explained, where it is another."""
    probabilities = view.probabilities
    answer = f"{found.labels[view.answer]} {100 * probabilities[view.answer]:.1f} %"
    if view.answer == found.index:
        return answer
    return f"{answer}\n{found.labels[found.index]} {100 * probabilities[found.index]:.1f} %"


def _moved(found: Explanation) -> str:
    like = "not defined" if found.correlation is None else f"{found.correlation:.4f}"
    return f"correlation {like}\nmaximum moved {found.shift:.1f} px\nlargest change {100 * found.largest_change:.1f} %"


def _say(axes: Axes, heading: str, words: str) -> None:
    axes.set_title(heading, fontsize=11, fontweight="bold")
    axes.set_xlabel(words, fontsize=10, parse_math=False)
