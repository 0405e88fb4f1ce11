"""Walking through a network, against running all of it at once."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import onnx
import pytest

from edge_resnet.calibration import SCHEMES, insert_qdq
from edge_resnet.calibration.segments import CHUNK, Walk

COUNT = CHUNK + 3
"""Frames: a whole chunk and a part of one."""
SIDE = 32


@pytest.fixture(scope="module", params=["resnet20", "resnet20 tensorrt", "resnet18 cpu"])
def model(
    request: pytest.FixtureRequest, network: Callable[..., onnx.ModelProto], distinct_ranges: Callable[..., Any]
) -> onnx.ModelProto:
    arch, _, scheme = request.param.partition(" ")
    made = network(arch, SIDE)
    return insert_qdq(made, distinct_ranges(made), SCHEMES[scheme]).model if scheme else made


def test_every_convolution_gives_what_a_full_run_gives(
    model: onnx.ModelProto, random_frames: Callable[..., Any], tensors_of: Callable[..., Any]
) -> None:
    frames = random_frames(COUNT, SIDE)
    names = [node.output[0] for node in model.graph.node if node.op_type == "Conv"]
    chunks = [tensors_of(model, frames[start : start + CHUNK], names) for start in (0, CHUNK)]
    walk = Walk(model, frames)
    visited = []
    while (conv := walk.advance()) is not None:
        name = conv.output[0]
        visited.append(name)
        for ours, wanted in zip(walk.tensors[name], chunks, strict=True):
            np.testing.assert_allclose(ours, wanted[name], rtol=1e-5, atol=1e-5 * np.abs(wanted[name]).max())
    assert visited == names
    assert walk.advance() is None


def test_holds_only_what_is_still_read(model: onnx.ModelProto, random_frames: Callable[..., Any]) -> None:
    nodes = list(model.graph.node)
    walk = Walk(model, random_frames(2, SIDE))
    for cut in [index for index, node in enumerate(nodes) if node.op_type == "Conv"]:
        assert walk.advance() == nodes[cut]
        made = {name for node in nodes[: cut + 1] for name in node.output}
        read_later = {name for node in nodes[cut + 1 :] for name in node.input}
        assert set(walk.tensors) == made & read_later | {nodes[cut].output[0]}
        assert len(walk.tensors) <= 3


def test_a_change_to_a_convolutions_output_is_what_later_ones_read(
    network: Callable[..., onnx.ModelProto], random_frames: Callable[..., Any]
) -> None:
    """Bias correction relies on it."""
    plain, shifted = (Walk(network("resnet20", 16), random_frames(2, 16)) for _ in range(2))
    plain.advance()
    first = shifted.advance()
    assert first is not None
    for chunk in shifted.tensors[first.output[0]]:
        chunk += 1
    second, _ = shifted.advance(), plain.advance()
    assert second is not None
    (ours,), (before,) = shifted.tensors[second.output[0]], plain.tensors[second.output[0]]
    assert np.abs(ours - before).max() > 0.1
