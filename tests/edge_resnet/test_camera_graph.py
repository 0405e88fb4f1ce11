"""A network that prepares a camera's frames in its own graph, against the preprocessing on the CPU."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
from PIL import Image

from edge_resnet import camera_graph
from edge_resnet.calibration.float_types import brain_typed, half_typed
from edge_resnet.calibration.simulate import exact_session, run_frames
from edge_resnet.camera_graph import check_camera, with_camera
from edge_resnet.demo import TEST
from edge_resnet.engines.targets import target_named
from edge_resnet.engines.trt_rtx import TensorRtRtxEngine
from edge_resnet.errors import GateError, ModelError
from edge_resnet.frames import FrameColor, FrameFormat
from edge_resnet.onnx_file import load_onnx
from edge_resnet.preprocessing import NAMED, Interpolation

FLOAT = onnx.TensorProto.FLOAT


@pytest.mark.parametrize("color", FrameColor)
@pytest.mark.parametrize("name", ["imagenet", "keras-resnet", "fashion-mnist"])
def test_pixels_are_those_of_the_cpu_within_one(color: FrameColor, name: str) -> None:
    check_camera(NAMED[name], FrameFormat(120, 160, color))


@pytest.mark.parametrize("interpolation", Interpolation)
def test_every_interpolation_is_pillows(interpolation: Interpolation) -> None:
    check_camera(replace(NAMED["imagenet"], interpolation=interpolation), FrameFormat(300, 260, FrameColor.RGB))


def test_a_batch_of_frames_that_look_like_something() -> None:
    paths = sorted(TEST.rglob("*.png"))[:3]
    frames = np.stack([np.asarray(Image.open(path).convert("RGB").resize((320, 240))) for path in paths])
    preprocessing = NAMED["imagenet"]
    network = with_camera(
        camera_graph._pixels_alone(preprocessing, FLOAT), preprocessing, FrameFormat(240, 320, FrameColor.RGB)
    )
    found = run_frames(exact_session(network), frames).transpose(0, 2, 3, 1)
    for pixels, frame in zip(found, frames, strict=True):
        np.testing.assert_array_equal(pixels, preprocessing.prepare(frame))


def test_the_check_notices_a_graph_that_prepares_otherwise(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(camera_graph, "LUMA", np.array([[0.2126, 0.7152, 0.0722]]))
    monkeypatch.setitem(camera_graph._CHANNELS, camera_graph.Color.GRAY, np.array([[0.2126, 0.7152, 0.0722]]))
    with pytest.raises(GateError, match=r"frames of 120×160 rgb is up to \d+ of 255 off this preprocessing"):
        check_camera(NAMED["fashion-mnist"], FrameFormat(120, 160, FrameColor.RGB))


def test_the_answers_are_those_of_prepared_frames(demo_onnx: Path, ten_frames: np.ndarray) -> None:
    """Frames of the network's own size and colour go through unchanged."""
    model, preprocessing = load_onnx(demo_onnx), NAMED["fashion-mnist"]
    network = with_camera(model, preprocessing, FrameFormat(28, 28, FrameColor.GRAY))
    np.testing.assert_array_equal(
        run_frames(exact_session(network), ten_frames), run_frames(exact_session(model), ten_frames)
    )
    assert [value.name for value in network.graph.input] == ["frames"]
    assert network.metadata_props == model.metadata_props


@pytest.mark.parametrize("color", FrameColor)
def test_tensorrt_rtx_compiles_it_into_few_kernels(demo_onnx: Path, color: FrameColor) -> None:
    network = with_camera(half_typed(load_onnx(demo_onnx)), NAMED["fashion-mnist"], FrameFormat(120, 160, color))
    compiled = TensorRtRtxEngine.compile(network.SerializeToString(), target_named("rtx-30"))
    kernels = [layer for layer in compiled.layers if any(name.startswith("camera.") for name in layer.sources)]
    assert 4 <= len(kernels) <= 10
    products = [layer for layer in kernels if {"camera.across", "camera.down"} & set(layer.sources)]
    assert {layer.precision for layer in products} == {"fp16"}


def test_bf16_is_not_what_pixels_are_resized_in(demo_onnx: Path) -> None:
    network = with_camera(
        brain_typed(load_onnx(demo_onnx)), NAMED["fashion-mnist"], FrameFormat(120, 160, FrameColor.RGB)
    )
    kinds = {tensor.data_type for tensor in network.graph.initializer if tensor.name.startswith("camera.")}
    assert kinds == {onnx.TensorProto.FLOAT, onnx.TensorProto.INT64}
    compiled = TensorRtRtxEngine.compile(network.SerializeToString(), target_named("rtx-30"))
    assert {"bf16"} <= {layer.precision for layer in compiled.layers}


def test_a_network_that_begins_otherwise_is_refused(demo_onnx: Path) -> None:
    model = camera_graph._pixels_alone(NAMED["imagenet"], FLOAT)
    model.graph.node[1].op_type = "Identity"
    del model.graph.node[1].attribute[:]
    with pytest.raises(ModelError, match="does not begin with a Cast and a Transpose"):
        with_camera(model, NAMED["imagenet"], FrameFormat(240, 320, FrameColor.RGB))
