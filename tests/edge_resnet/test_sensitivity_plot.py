"""The picture of sensitivities: every layer is on it, as long as it costs, and every word can be read."""

from __future__ import annotations

import io
from itertools import pairwise

import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import to_hex
from matplotlib.figure import Figure
from matplotlib.text import Text
from PIL import Image

from edge_resnet.calibration.sensitivity import Sensitivity
from edge_resnet.sensitivity_plot import FLOAT, INT8, sensitivity_figure, sensitivity_png

HAND = (Sensitivity("conv1", 10, 30e-6), Sensitivity("layer1.0.conv1", 30, 10e-6), Sensitivity("layer1.0.add", 0, 0.0))


def drawn(layers: tuple[Sensitivity, ...], keep_float: tuple[str, ...] = (), title: str = "a net") -> Figure:
    figure = sensitivity_figure(layers, keep_float, title)
    FigureCanvasAgg(figure).draw()
    return figure


def names_of(figure: Figure) -> list[Text]:
    return list(figure.axes[0].get_yticklabels())


def test_bars_are_shares_and_colours_what_is_left_float() -> None:
    figure = drawn(HAND, ("layer1.0.conv1",))
    noise, macs = figure.axes
    assert [bar.get_width() for bar in noise.patches] == pytest.approx([75, 25, 0])
    assert [bar.get_width() for bar in macs.patches] == pytest.approx([25, 75, 0])
    assert [to_hex(bar.get_facecolor()) for bar in noise.patches] == [INT8, FLOAT, INT8]
    assert [text.get_text() for text in noise.texts] == ["45.2 dB", "50.0 dB", "no change"]
    assert [text.get_text() for text in figure.legends[0].get_texts()] == ["INT8", "to be left float"]
    assert not drawn(HAND).legends


def test_the_first_layer_stands_at_the_top() -> None:
    figure = drawn(HAND)
    tops = [text.get_window_extent().y1 for text in names_of(figure)]
    assert [text.get_text() for text in names_of(figure)] == [each.layer for each in HAND]
    assert tops == sorted(tops, reverse=True)


@pytest.mark.parametrize(
    "name", ["layer{}.conv", "/backbone/stages.3/blocks.{}/a_very_long_part/of_a_path/conv/Conv_{}"]
)
@pytest.mark.parametrize("count", [1, 28, 69])
def test_no_word_is_cut_and_no_name_touches_another(name: str, count: int) -> None:
    layers = tuple(Sensitivity(name.format(i, i), 1 + i % 7, 1e-6 * (1 + i * i)) for i in range(count))
    figure = drawn(layers, (layers[0].layer,), f"{'long_' * 30}.onnx: each layer in INT8 alone (tensorrt, 64 images)")
    noise = figure.axes[0]
    words = [*names_of(figure), *noise.texts, *figure.legends[0].get_texts()]
    words += [axes.xaxis.label for axes in figure.axes]
    assert figure._suptitle is not None  # type: ignore[attr-defined]
    for word in (*words, figure._suptitle):  # type: ignore[attr-defined]
        box, whole = word.get_window_extent(), figure.bbox
        assert whole.x0 <= box.x0 < box.x1 <= whole.x1 and whole.y0 <= box.y0 < box.y1 <= whole.y1, word
    assert all(
        upper.get_window_extent().y0 >= lower.get_window_extent().y1 for upper, lower in pairwise(names_of(figure))
    )
    assert all(word.get_window_extent().x1 <= noise.get_window_extent().x1 for word in noise.texts)
    assert noise.get_window_extent().width > figure.bbox.width / 3, "names leave the bars room"
    labels = noise.xaxis.label.get_window_extent(), figure.axes[1].xaxis.label.get_window_extent()
    assert labels[0].x1 + 20 < labels[1].x0


def test_names_are_shown_as_they_are() -> None:
    layers = (Sensitivity("$conv$_{1", 1, 1e-6), Sensitivity("x$\\frac$", 1, 1e-6))
    picture = Image.open(io.BytesIO(sensitivity_png(layers, (), "model$1$\\bad$.onnx")))
    assert picture.format == "PNG" and picture.width == 1200
