"""Explanations of a bundle's answers, and the picture: against the classifier, and against figures worked by hand."""

from __future__ import annotations

import io
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from PIL import Image

from edge_resnet.attention_plot import attention_figure, attention_png
from edge_resnet.bundle import FP32_MEMBER, QDQ_MEMBER, open_bundle, write_bundle
from edge_resnet.calibration.simulate import exact_session, run_frames
from edge_resnet.errors import BundleError
from edge_resnet.explain import Explanation, View, explain
from edge_resnet.onnx_file import parse_onnx, serialise
from edge_resnet.preprocessing import NAMED, Color


def test_logits_are_those_of_both_networks_and_means_of_their_maps(quick_bundle: Path, sneaker: Path) -> None:
    found = explain(quick_bundle, sneaker)
    assert (found.method, found.labels[found.index]) == ("cam", "sneaker")
    assert found.frame.shape == (28, 28, 1) and found.fp32.map.shape == found.quantized.map.shape == (7, 7)
    bundle = open_bundle(quick_bundle)
    for view, member in ((found.fp32, FP32_MEMBER), (found.quantized, QDQ_MEMBER)):
        model = parse_onnx(bundle.read(member), member)
        wanted = run_frames(exact_session(model), found.frame[np.newaxis])[0]
        (bias,) = (onnx.numpy_helper.to_array(each) for each in model.graph.initializer if each.name == "fc.bias")
        assert view.logits == pytest.approx(wanted, abs=1e-4)
        assert view.map.mean() + bias[found.index] == pytest.approx(view.logits[found.index], abs=1e-3)
    assert not np.array_equal(found.fp32.map, found.quantized.map)
    assert found.correlation is not None and 0.98 < found.correlation < 1


def test_any_class_can_be_asked_for(quick_bundle: Path, sneaker: Path) -> None:
    found = explain(quick_bundle, sneaker, "bag")
    assert found.labels[found.index] == "bag" and found.labels[found.fp32.answer] == "sneaker"
    assert not np.allclose(found.fp32.map, explain(quick_bundle, sneaker).fp32.map)


def test_a_network_that_ends_otherwise_is_occluded(quick_bundle: Path, sneaker: Path, tmp_path: Path) -> None:
    """With a Softmax behind the logits, what is lost is probability: at most what there was."""
    bundle = open_bundle(quick_bundle)
    members = {name: bundle.read(name) for name in bundle.names}
    for member in (FP32_MEMBER, QDQ_MEMBER):
        model = parse_onnx(members[member], member)
        model.graph.node[-1].output[0] = "before"
        model.graph.node.append(onnx.helper.make_node("Softmax", ["before"], [model.graph.output[0].name]))
        members[member] = serialise(model)
    write_bundle(tmp_path / "softmax.edge", bundle.manifest, members)
    found = explain(tmp_path / "softmax.edge", sneaker)
    assert (found.method, found.fp32.map.shape) == ("occlusion", (14, 14))
    assert 0 < found.fp32.map.max() < found.fp32.logits.max() < 1
    assert found.correlation is not None and found.correlation > 0.95


def hand(one: list[list[float]], other: list[list[float]]) -> Explanation:
    """A frame 20×40×3, colours of its own, two classes."""
    logits = np.array([0, np.log(3)], np.float32)
    views = [View(name, logits, np.array(each, np.float32)) for name, each in (("fp32", one), ("int8", other))]
    frame = np.zeros((20, 40, 3), np.uint8)
    frame[:, :, 2] = 200
    return Explanation(frame, NAMED["imagenet"], ("cat", "dog"), 1, "cam", *views)


def test_figures_worked_by_hand() -> None:
    found = hand([[0, 0, 0, 4], [0, 0, 0, 0]], [[0, 0, 0, 1], [2, 0, 0, 0]])
    assert found.fp32.probabilities == pytest.approx([0.25, 0.75])
    assert (found.maximum(found.fp32), found.maximum(found.quantized)) == ((35.0, 5.0), (5.0, 15.0))
    assert found.shift == pytest.approx(np.sqrt(30**2 + 10**2))
    assert found.largest_change == pytest.approx(3 / 4)
    # Means 1/2 and 3/8; Σxy = 4 of 8, Σx² = 16, Σy² = 5: (4 − 1.5) / √((16 − 2)(5 − 1.125))
    assert found.correlation == pytest.approx(2.5 / np.sqrt(14 * 3.875))


def test_maps_that_are_the_same_everywhere_have_no_correlation() -> None:
    found = hand([[0, 0]], [[1, 2]])
    assert (found.correlation, found.largest_change) == (None, 1.0)
    assert "correlation not defined" in words(found)


def words(found: Explanation) -> str:
    figure = attention_figure(found, "photo.jpg")
    return "\n".join(text for axes in figure.axes for text in (axes.get_title(), axes.get_xlabel()))


def test_the_picture_says_whose_maps_they_are() -> None:
    said = words(hand([[1, 2]], [[2, 1]]))
    for each in ("FP32", "INT8 (predicted)", "INT8 − FP32", "dog 75.0 %", "maximum moved 20.0 px", "speaks for 'dog'"):
        assert each in said
    assert "20×40×3" in said and "cat" not in said
    assert "cat 25.0 %" in words(replace(hand([[1, 2]], [[2, 1]]), index=0))


def test_maps_share_one_scale_and_lie_over_the_whole_frame() -> None:
    figure = attention_figure(hand([[0, -8]], [[2, 1]]), "x")
    maps = [axes.images[-1] for axes in figure.axes[1:4]]
    assert [each.get_clim() for each in maps] == [(-8, 8)] * 3
    assert [each.get_extent() for each in maps] == [[-0.5, 39.5, 19.5, -0.5]] * 3
    assert [each.get_array().tolist() for each in maps] == [[[0, -8]], [[2, 1]], [[2, 9]]]


def test_a_network_that_takes_bgr_is_shown_as_people_see() -> None:
    found = hand([[1, 2]], [[2, 1]])
    shown = attention_figure(found, "x").axes[0].images[0].get_array()
    assert shown[0, 0].tolist() == [0, 0, 200]
    bgr = replace(found, preprocessing=replace(found.preprocessing, color=Color.BGR))
    assert attention_figure(bgr, "x").axes[0].images[0].get_array()[0, 0].tolist() == [200, 0, 0]


def test_every_word_is_inside_the_picture() -> None:
    found = replace(hand([[1, 2]], [[2, 1]]), labels=("ship$_1", "a very long label of many words"), index=0)
    figure = attention_figure(found, "x" * 150)
    FigureCanvasAgg(figure).draw()
    whole = figure.bbox
    for text in (word for axes in figure.axes for word in (axes.title, axes.xaxis.label)):
        box = text.get_window_extent()
        assert whole.x0 <= box.x0 <= box.x1 <= whole.x1 and whole.y0 <= box.y0 <= box.y1 <= whole.y1, text
    picture = Image.open(io.BytesIO(attention_png(found, "x")))
    assert (picture.format, picture.width) == ("PNG", 1440)


# The command


def test_the_command(
    quick_bundle: Path, sneaker: Path, cli: Callable[..., object], cli_json: Callable[..., dict]
) -> None:
    document = cli_json("explain", quick_bundle, sneaker, "-o", "f.png")
    found = explain(quick_bundle, sneaker)
    assert document["class"] == {"label": "sneaker", "index": found.index}
    assert (document["method"], document["evaluated"], document["plot"]) == ("cam", "predicted", "f.png")
    assert document["correlation"] == pytest.approx(found.correlation)
    assert document["maximum_shift_px"] == found.shift
    assert np.array(document["quantized"]["map"]) == pytest.approx(found.quantized.map)
    assert document["fp32"]["maximum_px"] == list(found.maximum(found.fp32))
    assert Image.open("f.png").format == "PNG"
    shown = cli("explain", quick_bundle, sneaker, "--class", "bag").stdout
    assert "int8, predicted" in shown and "what speaks for 'bag'" in shown and "maximum moved" in shown


def test_what_it_refuses(quick_bundle: Path, fp32_bundle: Path, sneaker: Path, refused: Callable[..., str]) -> None:
    assert "class 'boot' is 0 of the 10 labels" in refused(2, "explain", quick_bundle, sneaker, "--class", "boot")
    assert "is fp32 and holds no quantized network" in refused(2, "explain", fp32_bundle, sneaker)
    assert "'f.svg': the picture is a PNG file" in refused(2, "explain", quick_bundle, sneaker, "-o", "f.svg")
    refused(2, "explain", quick_bundle, "missing.png")


def test_features_are_no_answer(quick_bundle: Path, sneaker: Path, tmp_path: Path) -> None:
    bundle = open_bundle(quick_bundle)
    members = {name: bundle.read(name) for name in bundle.names}
    write_bundle(tmp_path / "f.edge", replace(bundle.manifest, labels=None), members)
    with pytest.raises(BundleError, match="gives features, not classes"):
        explain(tmp_path / "f.edge", sneaker)
