"""What a compiled engine launches: counted against published sizes, and against small graphs worked by hand."""

from __future__ import annotations

from collections import Counter

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from edge_resnet.calibration import SCHEMES, CalibrationTable, insert_qdq
from edge_resnet.calibration.collect import collect
from edge_resnet.calibration.qdq import place_qdq
from edge_resnet.engines.roofline import Launch
from edge_resnet.errors import ModelError
from edge_resnet.export import export_onnx
from edge_resnet.launches import architecture_launches, launches_of
from edge_resnet.models import ARCHITECTURES, create_model, measure
from edge_resnet.preprocessing import NAMED


@pytest.fixture(scope="module")
def resnet50() -> tuple[Launch, ...]:
    return architecture_launches("resnet50")


def test_resnet50_has_its_published_size(resnet50: tuple[Launch, ...]) -> None:
    assert sum(launch.macs for launch in resnet50) == round(measure(ARCHITECTURES["resnet50"]).gmac * 1e9)
    # parameters, with the scale of each of the 26,560 BatchNorm channels folded into the weights; mean and std of the input
    assert sum(launch.weights for launch in resnet50) == 25_557_032 - 26_560 + 6


def test_resnet50_is_a_launch_a_convolution_and_four_more(resnet50: tuple[Launch, ...]) -> None:
    kinds = Counter(launch.kind for launch in resnet50)
    assert kinds == {"Conv": 53, "Transpose": 1, "MaxPool": 1, "GlobalAveragePool": 1, "Gemm": 1}


def test_a_residual_joins_the_convolution_computed_last(resnet50: tuple[Launch, ...]) -> None:
    by_name = {launch.name: launch for launch in resnet50}
    third, shortcut = by_name["layer1.0.conv3"], by_name["layer1.0.downsample.0"]
    block = 56 * 56 * 256
    assert [third.read, third.written] == [56 * 56 * 64, block]
    assert [shortcut.read, shortcut.written] == [56 * 56 * 64 + block, block]  # its own input, and what it is added to
    assert shortcut.held == 0
    assert by_name["layer1.1.conv2"].held == block  # the shortcut waits for the Add


@pytest.fixture(scope="module")
def resnet8() -> tuple[onnx.ModelProto, CalibrationTable]:
    preprocessing = NAMED["mlperf-tiny"]
    model = export_onnx(create_model("resnet8"), preprocessing)
    frames = np.random.default_rng(0).integers(0, 256, (4, 32, 32, 3), dtype=np.uint8)
    return model, collect(model, [frames], method="minmax", images={}, preprocessing=preprocessing.to_json())


def test_qdq_costs_nothing(resnet8: tuple[onnx.ModelProto, CalibrationTable]) -> None:
    model, table = resnet8
    placed = place_qdq(model, table, SCHEMES["tensorrt"]).model
    assert any(node.op_type == "QuantizeLinear" for node in placed.graph.node)
    assert launches_of(placed, "placed") == launches_of(model, "model")


def test_padding_that_zero_points_ask_for_is_a_launch_of_its_own(
    resnet8: tuple[onnx.ModelProto, CalibrationTable],
) -> None:
    model, table = resnet8
    plain, finished = launches_of(model, "model"), launches_of(insert_qdq(model, table, SCHEMES["tensorrt"]).model, "q")
    assert Counter(launch.kind for launch in finished) - Counter(launch.kind for launch in plain) == {"Pad": 6}
    assert sum(launch.macs for launch in finished) == sum(launch.macs for launch in plain)


def graph(*nodes: onnx.NodeProto, sides: tuple[int | str, int | str] = (8, 8)) -> onnx.ModelProto:
    """A float N×4×8×8 network; ``w`` is a 1×1 convolution of four channels in two groups, ``b`` a scale."""
    weights = [
        numpy_helper.from_array(np.ones((4, 2, 1, 1), np.float32), "w"),
        numpy_helper.from_array(np.ones((4, 1, 1), np.float32), "b"),
    ]
    source = helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", 4, *sides])
    result = helper.make_tensor_value_info("y", TensorProto.FLOAT, None)
    made = helper.make_graph(list(nodes), "g", [source], [result], weights)
    return helper.make_model(made, opset_imports=[helper.make_opsetid("", 17)])


def conv(name: str, source: str, result: str) -> onnx.NodeProto:
    return helper.make_node("Conv", [source, "w"], [result], name, group=2)


def node(kind: str, inputs: list[str], result: str) -> onnx.NodeProto:
    return helper.make_node(kind, inputs, [result], f"{kind}-{result}")


def test_scale_add_and_relu_end_the_convolution_before_them() -> None:
    model = graph(
        conv("first", "x", "a"),
        node("Relu", ["a"], "r"),
        conv("second", "r", "c"),
        node("Mul", ["c", "b"], "m"),
        node("Add", ["m", "r"], "s"),
        node("Relu", ["s"], "y"),
    )
    assert launches_of(model, "g") == (
        Launch("first", "Conv", macs=256 * 2, frame=0, read=256, written=256, weights=8),
        Launch("second", "Conv", macs=256 * 2, frame=0, read=256, written=256, weights=8 + 4),
    )


def test_an_operator_behind_a_tensor_that_others_read_is_a_launch_of_its_own() -> None:
    model = graph(
        conv("first", "x", "a"),
        node("Relu", ["a"], "r"),
        conv("second", "r", "c"),
        node("Add", ["c", "a"], "y"),
    )
    assert [launch.name for launch in launches_of(model, "g")] == ["first", "Relu-r", "second"]


def test_shapes_that_are_not_fixed_are_refused() -> None:
    model = graph(conv("first", "x", "y"), sides=("h", "w"))
    with pytest.raises(
        ModelError, match="g.onnx: the shape of '.' cannot be told: export the network with a fixed size"
    ):
        launches_of(model, "g.onnx")


def test_what_has_no_convolution_is_refused() -> None:
    with pytest.raises(ModelError, match="g.onnx has no convolution"):
        launches_of(graph(node("Relu", ["x"], "y")), "g.onnx")
