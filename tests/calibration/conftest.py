"""Networks and frames that the tests of this package share."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache, cached_property
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import pytest
import torch
from onnx import numpy_helper

from edge_resnet.calibration import SCHEMES, CalibrationTable, TensorRange, collect
from edge_resnet.calibration.collect import observed_tensors
from edge_resnet.calibration.qdq import place_qdq
from edge_resnet.calibration.simulate import exact_session, run_frames
from edge_resnet.calibration.table import model_digest
from edge_resnet.demo import demo_recipe
from edge_resnet.export import export_onnx
from edge_resnet.images import open_images
from edge_resnet.models import ResNet, create_model
from edge_resnet.preprocessing import Color, Crop, Interpolation, Preprocessing
from edge_resnet.source import load_source

Frames = npt.NDArray[np.uint8]
Logits = npt.NDArray[np.float32]
Arrays = dict[str, npt.NDArray[np.float32]]
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


@pytest.fixture(scope="session")
def network() -> Callable[..., onnx.ModelProto]:
    """Exports a ResNet with random weights: ``network(arch, size, channels=3)``. Do not change what it gives."""

    @cache
    def model(arch: str, channels: int) -> ResNet:
        with torch.random.fork_rng():
            torch.manual_seed(0)
            return create_model(arch, classes=10, channels=channels)

    @cache
    def export(arch: str, size: int, channels: int = 3) -> onnx.ModelProto:
        color = Color.RGB if channels == 3 else Color.GRAY
        spec = Preprocessing(
            (size, size), None, Crop.NONE, Interpolation.BILINEAR, color, MEAN[:channels], STD[:channels]
        )
        return export_onnx(model(arch, channels), spec)

    return export


@pytest.fixture(scope="session")
def random_frames() -> Callable[..., Frames]:
    """``random_frames(count, size, channels=3)``."""

    def make(count: int, size: int, channels: int = 3) -> Frames:
        return np.random.default_rng(count).integers(0, 256, (count, size, size, channels), np.uint8)

    return make


@pytest.fixture(scope="session")
def distinct_ranges() -> Callable[[onnx.ModelProto], CalibrationTable]:
    """Makes a table in which no two tensors have one range, so that a scale tells whose it is."""

    def make(model: onnx.ModelProto) -> CalibrationTable:
        names = observed_tensors(model)
        ends = {name: float(index) for index, name in enumerate(names, 1)}
        ranges = {name: TensorRange(0.0, end, end, 0.0, 2 * end) for name, end in ends.items()}
        return CalibrationTable("by hand", model_digest(model), {}, {}, ranges)

    return make


class View:
    """A model's nodes and constants by name."""

    def __init__(self, model: onnx.ModelProto) -> None:
        self.nodes = list(model.graph.node)
        self.producer = {name: node for node in self.nodes for name in node.output}
        self.outputs = {value.name for value in model.graph.output}
        self._constants = {tensor.name: tensor for tensor in model.graph.initializer}

    @cached_property
    def readers(self) -> dict[str, list[onnx.NodeProto]]:
        found: dict[str, list[onnx.NodeProto]] = {}
        for node in self.nodes:
            for name in node.input:
                found.setdefault(name, []).append(node)
        return found

    def of_type(self, *kinds: str) -> list[onnx.NodeProto]:
        return [node for node in self.nodes if node.op_type in kinds]

    def named(self, name: str) -> onnx.NodeProto:
        found: onnx.NodeProto
        (found,) = [node for node in self.nodes if node.name == name]
        return found

    def constant(self, name: str) -> npt.NDArray[Any]:
        return numpy_helper.to_array(self._constants[name])

    def is_constant(self, name: str) -> bool:
        return name in self._constants

    def quantizer(self, name: str) -> onnx.NodeProto | None:
        """The QuantizeLinear behind which a tensor was dequantized; None where it is float."""
        dq = self.producer.get(name)
        if dq is None or dq.op_type != "DequantizeLinear" or self.is_constant(dq.input[0]):
            return None
        q: onnx.NodeProto = self.producer[dq.input[0]]
        assert q.op_type == "QuantizeLinear"
        assert list(q.input[1:]) == list(dq.input[1:])
        return q

    def dequantized(self, q: onnx.NodeProto) -> str:
        """The tensor behind a pair."""
        (dq,) = self.readers[q.output[0]]
        return str(dq.output[0])

    def integers(self, name: str) -> onnx.NodeProto | None:
        """The DequantizeLinear of an integer constant that gives a tensor; None where it is another."""
        dq = self.producer.get(name)
        return dq if dq is not None and dq.op_type == "DequantizeLinear" and self.is_constant(dq.input[0]) else None


@pytest.fixture(scope="session")
def view_of() -> type[View]:
    """``View``, which test modules cannot import."""
    return View


@pytest.fixture(scope="session")
def quantized(
    network: Callable[..., onnx.ModelProto], distinct_ranges: Callable[[onnx.ModelProto], CalibrationTable]
) -> Callable[..., tuple[View, CalibrationTable]]:
    """Quantizes a random ResNet at 32×32 with distinct ranges: ``quantized(arch, scheme, *keep_float)``.

    Zero points are where a scheme put them; ``test_zero_points`` has what becomes of them.
    """

    @cache
    def make(arch: str, scheme: str, *keep_float: str) -> tuple[View, CalibrationTable]:
        model = network(arch, 32)
        table = distinct_ranges(model)
        return View(place_qdq(model, table, SCHEMES[scheme], keep_float).model), table

    return make


@pytest.fixture(scope="session")
def written() -> Callable[..., onnx.ModelProto]:
    """Makes a small model, opset 17, of ONNX's text: ``written(body, constants, height, width, channels)``.

    The body reads ``x``, float N×C×H×W: (pixel − ``mean``) · ``factor``, and makes ``logits``.
    """

    def write(body: str, constants: Arrays, height: int, width: int, channels: int) -> onnx.ModelProto:
        text = f"""<ir_version: 8, opset_import: ["": 17]>
        small (uint8[N,{height},{width},{channels}] frames) => (float[N,K] logits) {{
            cast = Cast <to=1> (frames) chw = Transpose <perm=[0,3,1,2]> (cast)
            centred = Sub(chw, mean) x = Mul(centred, factor)
            {body}
        }}"""
        model = onnx.parser.parse_model(text)
        for node in model.graph.node:
            node.name = node.output[0]
        model.graph.initializer.extend(
            numpy_helper.from_array(value.astype(np.float32), name) for name, value in constants.items()
        )
        onnx.checker.check_model(model, full_check=True)
        return model

    return write


@pytest.fixture(scope="session")
def tensors_of() -> Callable[..., Arrays]:
    """Runs a model node by node, ONNX Runtime's optimisations off, and gives tensors by name:
    ``tensors_of(model, frames, names)``.
    """

    def run(model: onnx.ModelProto, frames: Frames, names: Sequence[str]) -> Arrays:
        shown = onnx.ModelProto()
        shown.CopyFrom(model)
        del shown.graph.output[:]
        shown.graph.output.extend(onnx.ValueInfoProto(name=name) for name in names)
        session = exact_session(shown)
        return dict(zip(names, session.run(list(names), {session.get_inputs()[0].name: frames}), strict=True))

    return run


@pytest.fixture(scope="session")
def sqnr() -> Callable[[Logits, Logits], float]:
    """10·log10(Σz² / Σ(z − ẑ)²), in dB; infinite for equal tensors."""

    def of(wanted: Logits, actual: Logits) -> float:
        noise = np.square(wanted.astype(np.float64) - actual).sum()
        return float(10 * np.log10(np.square(wanted, dtype=np.float64).sum() / noise)) if noise else math.inf

    return of


@dataclass(frozen=True)
class Demo:
    """The trained demo network, its ranges, and images."""

    model: onnx.ModelProto
    table: CalibrationTable
    frames: Frames
    """Calibration images."""
    test_frames: Frames
    """Other images."""
    logits: Logits
    """FP32 answers to them."""


@pytest.fixture(scope="session")
def demo() -> Demo:
    recipe = demo_recipe()
    assert recipe.accuracy.images is not None
    source = load_source(recipe)
    images = open_images(recipe.calibration.images)
    frames = images.pixels(source.preprocessing)
    test_frames = open_images(recipe.accuracy.images).pixels(source.preprocessing)
    batches = images.batches(source.preprocessing, 50)
    batches = images.batches(source.preprocessing, 50)
    table = collect(source.model, batches, method="mse", images={}, preprocessing={})
    logits = run_frames(exact_session(source.model), test_frames)
    return Demo(source.model, table, frames, test_frames, logits)
