"""What is found in the graphs, against what the architectures' authors drew."""

from __future__ import annotations

from collections.abc import Callable

import onnx
import pytest
from onnx import helper

from edge_resnet.calibration.topology import (
    activated,
    convolution_depths,
    convolutions,
    data,
    load_graph,
    only_reader,
    reader_behind_moves,
    residual_adds,
    shortcut_index,
    source_of_moves,
)
from edge_resnet.errors import ModelError

BLOCKS = {"resnet18": 8, "resnet20": 9, "resnet50": 16}
CONVOLUTIONS = {"resnet18": 17 + 3, "resnet20": 19, "resnet50": 49 + 4}
"""A network's number less its fully connected layer, and projection shortcuts."""


@pytest.mark.parametrize("arch", BLOCKS)
def test_every_block_has_one_residual_add(network: Callable[..., onnx.ModelProto], arch: str) -> None:
    graph = load_graph(network(arch, 32)).graph
    assert len(residual_adds(graph)) == BLOCKS[arch]
    assert len(convolutions(graph)) == CONVOLUTIONS[arch]


@pytest.mark.parametrize("swapped", [False, True])
@pytest.mark.parametrize("arch", BLOCKS)
def test_the_shortcut_is_found_on_either_side(
    network: Callable[..., onnx.ModelProto], arch: str, swapped: bool
) -> None:
    model = onnx.ModelProto()
    model.CopyFrom(network(arch, 32))
    for node in model.graph.node:
        if node.op_type == "Add" and swapped:
            node.input[:] = reversed(node.input)
    graph = load_graph(model).graph
    depths = convolution_depths(graph)
    for add in residual_adds(graph):
        shortcut, residual = data(add, shortcut_index(add, depths)), data(add, 1 - shortcut_index(add, depths))
        assert str(residual.name) == str(add.name).replace("add", "conv3" if arch == "resnet50" else "conv2")
        assert "downsample" in str(shortcut.name) or str(shortcut.name).split(".")[-1] in (
            "maxpool", "relu", "relu2", "relu3",
        )  # fmt: skip


def test_moved_values_have_a_source_and_a_reader(network: Callable[..., onnx.ModelProto]) -> None:
    graph = load_graph(network("resnet20", 32)).graph
    nodes = {str(node.name): node for node in graph}
    moved = nodes["layer2.0.downsample"].outputs[0]
    assert source_of_moves(moved) is nodes["layer1.2.relu2"].outputs[0]
    assert source_of_moves(nodes["layer1.2.relu2"].outputs[0]) is nodes["layer1.2.relu2"].outputs[0]
    assert reader_behind_moves(nodes["layer2.0.downsample.subsample"]) is nodes["layer2.0.add"]
    assert reader_behind_moves(nodes["layer2.0.conv1"]) is nodes["layer2.0.conv1"]


def test_an_output_is_taken_behind_its_relu_where_that_alone_reads_it(
    network: Callable[..., onnx.ModelProto],
) -> None:
    graph = load_graph(network("resnet18", 32)).graph
    nodes = {str(node.name): node for node in graph}
    assert activated(nodes["conv1"]) is nodes["relu"].outputs[0]
    assert activated(nodes["layer1.0.conv2"]) is nodes["layer1.0.conv2"].outputs[0]
    assert only_reader(nodes["relu"].outputs[0]) is nodes["maxpool"]
    assert only_reader(nodes["maxpool"].outputs[0]) is None


def test_a_missing_input_is_named() -> None:
    clip = helper.make_node("Clip", ["x", "", "high"], ["y"], name="clip")
    values = [helper.make_tensor_value_info(name, 1, []) for name in ("x", "high", "y")]
    graph = load_graph(helper.make_model(helper.make_graph([clip], "g", values[:2], values[2:]))).graph
    with pytest.raises(ModelError, match=r"'clip' \(Clip\) has no input 1"):
        data(graph[0], 1)
