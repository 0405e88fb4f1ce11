"""Foreign ONNX: real files of torch's exporters and graphs as tf2onnx writes them, held against the original."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import onnxruntime
import pytest
import torch
from onnx import TensorProto, numpy_helper
from torch import nn

from edge_resnet.adoption import adopt, open_network
from edge_resnet.adoption.operators import OPERATORS
from edge_resnet.calibration import SCHEMES, CalibrationTable, collect
from edge_resnet.calibration.quantize import quantize
from edge_resnet.calibration.simulate import exact_session, run_frames
from edge_resnet.engines.engine import Engine
from edge_resnet.engines.ort import OrtEngine
from edge_resnet.engines.targets import target_named
from edge_resnet.engines.trt_rtx import TensorRtRtxEngine
from edge_resnet.errors import ModelError, RecipeError
from edge_resnet.lowering import Lowered
from edge_resnet.onnx_file import gives_features, read_metadata, serialise
from edge_resnet.preprocessing import Color, Crop, Interpolation, Preprocessing

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
SPEC = Preprocessing((16, 16), None, Crop.NONE, Interpolation.BILINEAR, Color.RGB, MEAN, STD)
FRAMES = np.random.default_rng(3).integers(0, 256, (7, 16, 16, 3), np.uint8)
PIXELS = ((FRAMES / 255 - np.array(MEAN)) / np.array(STD)).astype(np.float32)
"""N×H×W×C, normalised."""

Logits = npt.NDArray[np.float32]


def answers(model: onnx.ModelProto, batch: int = 7) -> Logits:
    """Logits of ``FRAMES``, run in parts."""
    session = onnxruntime.InferenceSession(model.SerializeToString())
    return np.concatenate([session.run(None, {"frames": FRAMES[i : i + batch]})[0] for i in range(0, 7, batch)])


def assert_equal(found: Logits, wanted: Logits) -> None:
    assert found.shape == wanted.shape
    assert np.abs(found - wanted).max() <= 1e-4 * np.abs(wanted).max()


def kinds(model: onnx.ModelProto) -> list[str]:
    return [node.op_type for node in model.graph.node][4:]


# torch's exporters.


class Block(nn.Module):
    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(channels, channels, 3, padding=1, bias=False), nn.BatchNorm2d(channels)
        self.gate = nn.Sequential(nn.Conv2d(channels, 4, 1), nn.SiLU(), nn.Conv2d(4, channels, 1), nn.Sigmoid())

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.bn1(self.conv1(x))
        return torch.relu(x + y * self.gate(y.mean((2, 3), keepdim=True)))


class Small(nn.Module):
    """A bit of everything: BatchNorm, depthwise, ReLU6, a gated residual block, Concat, shuffled channels, dropout."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, 8, 3, 1, 1, bias=False), nn.BatchNorm2d(8), nn.ReLU6())
        self.depthwise = nn.Sequential(
            nn.Conv2d(8, 8, 3, 2, 1, groups=8, bias=False), nn.BatchNorm2d(8), nn.Hardswish()
        )
        self.block, self.pool, self.fc = Block(16), nn.MaxPool2d(2), nn.Linear(16, 10)
        self.dropout = nn.Dropout()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.depthwise(self.stem(x))
        x = torch.cat([x, torch.nn.functional.leaky_relu(x - 0.1)], 1)
        n, c, h, w = x.shape
        x = x.view(n, 2, c // 2, h, w).transpose(1, 2).reshape(n, c, h, w)
        x = self.pool(self.block(x))
        return self.fc(self.dropout(torch.flatten(nn.functional.adaptive_avg_pool2d(x, 1), 1)))


@pytest.fixture(scope="module")
def small() -> nn.Module:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = Small()
        for module in model.modules():
            if isinstance(module, nn.BatchNorm2d):
                for tensor, low, high in (
                    (module.weight.data, 0.5, 1.5),
                    (module.bias.data, -0.2, 0.2),
                    (module.running_mean, -0.2, 0.2),
                    (module.running_var, 0.5, 1.5),
                ):
                    assert tensor is not None
                    tensor.uniform_(low, high)
    return model.eval()


def exported(model: nn.Module, batch: int = 1, **options: Any) -> onnx.ModelProto:
    buffer = io.BytesIO()
    torch.onnx.export(model, (torch.randn(batch, 3, 16, 16),), buffer, dynamo=False, **options)
    return onnx.load_from_string(buffer.getvalue())


def exported_now(model: nn.Module, folder: Path, **options: Any) -> onnx.ModelProto:
    torch.onnx.export(model, (torch.randn(2, 3, 16, 16),), folder / "now.onnx", dynamo=True, verbose=False, **options)
    return onnx.load(folder / "now.onnx")


def torch_logits(model: nn.Module) -> Logits:
    with torch.no_grad():
        found: Logits = model(torch.from_numpy(PIXELS).permute(0, 3, 1, 2)).numpy()
    return found


@pytest.mark.parametrize("opset", [11, 13, 17])
@pytest.mark.parametrize("dynamic", [False, True], ids=["batch 1", "any batch"])
def test_torchs_older_exporter(opset: int, dynamic: bool, small: nn.Module) -> None:
    axes = {"input_names": ["x"], "dynamic_axes": {"x": {0: "n"}}} if dynamic else {}
    model = exported(small, opset_version=opset, **axes)
    adopted = adopt(model, SPEC, "small.onnx")
    assert_equal(answers(adopted.model), torch_logits(small))
    assert_equal(answers(adopted.model, 1), torch_logits(small))
    assert ("made the batch, which was fixed at 1, any" in adopted.changes) is not dynamic
    assert (f"brought opset {opset} to 17" in adopted.changes) is (opset != 17)


@pytest.mark.parametrize("fixed", [True, False])
def test_torchs_newer_exporter(fixed: bool, small: nn.Module, tmp_path: Path) -> None:
    dimension = {} if fixed else {"dynamic_shapes": ({0: torch.export.Dim("n")},)}
    model = exported_now(small, tmp_path, **dimension)
    assert model.opset_import[0].version > 17
    adopted = adopt(model, SPEC, "small.onnx")
    assert ("made the batch, which was fixed at 2, any" in adopted.changes) is fixed
    assert_equal(answers(adopted.model), torch_logits(small))
    assert_equal(answers(adopted.model, 1), torch_logits(small))


def test_weights_that_are_listed_as_inputs_and_nothing_folded(small: nn.Module) -> None:
    model = exported(
        small, opset_version=12, do_constant_folding=False, keep_initializers_as_inputs=True,
        training=torch.onnx.TrainingMode.PRESERVE,
    )  # fmt: skip
    assert len(model.graph.input) > 10 and "BatchNormalization" in [node.op_type for node in model.graph.node]
    made = adopt(model, SPEC, "small.onnx").model
    assert_equal(answers(made), torch_logits(small))
    assert {"BatchNormalization", "Constant", "Identity", "Dropout", "Shape", "Gather"}.isdisjoint(kinds(made))


def test_the_form_is_that_of_an_export(small: nn.Module) -> None:
    model = exported(small, opset_version=13)
    before = model.SerializeToString()
    made = adopt(model, SPEC, "small.onnx").model
    assert model.SerializeToString() == before, "what is given is left as it is"
    onnx.checker.check_model(made, full_check=True)
    (source,), (result,) = made.graph.input, made.graph.output
    dims = [dim.dim_param or dim.dim_value for dim in source.type.tensor_type.shape.dim]
    assert (source.name, source.type.tensor_type.elem_type, dims) == ("frames", TensorProto.UINT8, ["batch", 16, 16, 3])
    dims = [dim.dim_param or dim.dim_value for dim in result.type.tensor_type.shape.dim]
    assert (result.name, result.type.tensor_type.elem_type, dims) == ("logits", TensorProto.FLOAT, ["batch", 10])
    assert (made.opset_import[0].version, len(made.opset_import), made.ir_version) == (17, 1, 8)
    found = read_metadata(made, "small.onnx")
    assert (found.preprocessing, found.architecture, found.labels) == (SPEC, None, None)
    assert "/block/conv1/Conv" in [node.name for node in made.graph.node], "torch's names survive"


def test_the_same_file_gives_the_same_bytes(small: nn.Module) -> None:
    model = exported(small, opset_version=11)
    first, second = (serialise(adopt(model, SPEC, "small.onnx").model) for _ in range(2))
    assert first == second


# Networks as text.

HEAD = "p = GlobalAveragePool(y) f = Flatten(p) scores = Gemm(f, fc, fb)"
random = np.random.default_rng(0)
CONSTANTS: dict[str, npt.NDArray[Any]] = {
    "w": random.normal(0, 0.2, (8, 3, 3, 3)),
    "w2": random.normal(0, 0.15, (8, 8, 3, 3)),
    "wg": random.normal(0, 0.2, (3, 8, 3, 3)),
    "w1": random.normal(0, 0.2, (8, 1, 3, 3)),
    "b": random.normal(0, 0.1, 8),
    "var": random.uniform(0.5, 1.5, 8),
    "fc": random.normal(0, 1, (8, 10)),
    "fb": random.normal(0, 1, 10),
    "factor": random.uniform(0.5, 1.5, (1, 8, 1, 1)),
    "shift": random.normal(0, 0.1, (1, 8, 1, 1)),
    "slope": np.full((8, 1, 1), 0.1),
    "zero": np.array(0.0),
    "one": np.array(1.0),
    "six": np.array(6.0),
    "pads": np.array([0, 1, 1, 0, 0, 1, 1, 0]),
    "pads_chw": np.array([0, 0, 1, 1, 0, 0, 1, 1]),
    "halves": np.array([4, 4]),
    "begin": np.array([1, 1]),
    "end": np.array([13, 13]),
    "axes23": np.array([2, 3]),
    "axes12": np.array([1, 2]),
    "batch1": np.array([1, 8]),
    "pairs": np.array([0, 2, 5]),
    "five": np.array([0, 2, 4, 14, 14]),
    "four": np.array([0, 8, 14, 14]),
    "kernel": random.normal(0, 0.1, (14, 14)),
}


def network(
    body: str,
    source: str = "float[N,3,16,16] image",
    result: str = "float[N,10] scores",
    opset: int = 17,
) -> onnx.ModelProto:
    """A model of ONNX's text; ``CONSTANTS`` that it reads become weights."""
    imports = f'"": {opset}, "com.acme": 1'
    model = onnx.parser.parse_model(
        f"<ir_version: 8, opset_import: [{imports}]> g ({source}) => ({result}) {{ {body} }}"
    )
    read = {name for node in model.graph.node for name in node.input}
    for name, value in CONSTANTS.items():
        if name in read:
            typed = value.astype(np.float32) if value.dtype == np.float64 else value
            model.graph.initializer.append(numpy_helper.from_array(typed, name))
    return model


def original(model: onnx.ModelProto, pixels: npt.NDArray[np.float32]) -> Logits:
    session = onnxruntime.InferenceSession(model.SerializeToString())
    name = session.get_inputs()[0].name
    return np.concatenate([session.run(None, {name: pixels[i : i + 1]})[0] for i in range(len(pixels))])


def first_channels(pixels: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    return np.ascontiguousarray(pixels.transpose(0, 3, 1, 2))


TF_BODY = """
    padded = Pad(image, pads)
    first = Transpose <perm=[0,3,1,2]> (padded)
    x1 = Conv <strides=[1,1], auto_pad="VALID"> (first, w)
    x2 = Mul(x1, factor) x3 = Add(x2, shift) x4 = Relu(x3)
    t1 = Transpose <perm=[0,2,3,1]> (x4) t2 = Transpose <perm=[0,3,1,2]> (t1)
    x5 = Conv <auto_pad="SAME_UPPER", strides=[2,2]> (t2, w2, b)
    y = Relu(x5) back = Transpose <perm=[0,2,3,1]> (y)
    pooled = ReduceMean <axes=[1,2], keepdims=0> (back)
    dense = MatMul(pooled, fc) scores = Add(dense, fb)
"""


@pytest.mark.parametrize("batch", ["unk__7", "1"])
def test_a_graph_as_tf2onnx_writes_it(batch: str) -> None:
    model = network(TF_BODY, f"float[{batch},16,16,3] image", f"float[{batch},10] scores", opset=13)
    made = adopt(model, SPEC, "tf.onnx").model
    assert_equal(answers(made), original(model, PIXELS))
    assert_equal(answers(made, 3), original(model, PIXELS))
    assert kinds(made)[:4] == ["Conv", "Relu", "Conv", "Relu"], "pads, Transposes, Mul and Add are folded"
    assert "GlobalAveragePool" in kinds(made) and "Transpose" not in kinds(made)
    pads = [[list(a.ints) for a in node.attribute if a.name == "pads"] for node in made.graph.node[4:8:2]]
    assert pads == [[[1, 1, 1, 1]], [[0, 0, 1, 1]]], "SAME_UPPER: 16 pixels, kernel 3, stride 2 lack one at the end"
    assert not any(a.name == "auto_pad" for node in made.graph.node for a in node.attribute)


@pytest.mark.parametrize("kind", ["ReduceMean", "ReduceMax"])
def test_a_global_pool_that_keras_writes_in_its_own_layout(kind: str) -> None:
    """Opset 18, where the axes are an input, behind a Transpose to N×H×W×C."""
    pooled = f"t = Transpose <perm=[0,2,3,1]> (y) f = {kind} <keepdims=0> (t, axes12) scores = Gemm(f, fc, fb)"
    model = network("q = Pad(image, pads_chw) x = Conv(q, w, b) y = Relu(x)" + pooled, opset=18)
    model.graph.node[0].input.append("")  # an optional input that is empty, as torch's exporter leaves it
    made = adopt(model, SPEC, "keras.onnx").model
    assert_equal(answers(made), original(model, first_channels(PIXELS)))
    assert kinds(made)[:2] == ["Conv", "Relu"]
    assert kinds(made)[2:4] == [{"ReduceMean": "GlobalAveragePool", "ReduceMax": "GlobalMaxPool"}[kind], "Flatten"]


@pytest.mark.parametrize("closing", ["Softmax", "LogSoftmax"])
@pytest.mark.parametrize("behind", ["scores = Identity(s)", "map = Unsqueeze(s, axes23) scores = Flatten(map)"])
def test_a_closing_softmax_is_removed_and_said(closing: str, behind: str) -> None:
    body = "x = Conv(image, w, b) y = Relu(x)" + HEAD
    model = network(f"{body.replace('scores =', 'named =')} s = {closing}(named) {behind}")
    adopted = adopt(model, SPEC, "soft.onnx")
    assert_equal(answers(adopted.model), original(network(body), first_channels(PIXELS)))
    assert adopted.changes == ("removed the closing Softmax 's': the result gives logits",)


def test_scores_of_1_by_1_become_flat() -> None:
    model = network("x = Conv(image, w, b) y = Relu(x) scores = GlobalAveragePool(y)", result="float[N,8,1,1] scores")
    made = adopt(model, SPEC, "flat.onnx").model
    assert_equal(answers(made), original(model, first_channels(PIXELS)).reshape(7, 8))


def test_a_batch_that_a_reshape_fixes_is_made_any() -> None:
    body = "x = Conv(image, w, b) y = Relu(x) p = GlobalAveragePool(y) f = Reshape(p, batch1) scores = Gemm(f, fc, fb)"
    model = network(body, "float[1,3,16,16] image", "float[1,10] scores")
    made = adopt(model, SPEC, "one.onnx").model
    assert_equal(answers(made), original(model, first_channels(PIXELS)))


def test_height_and_width_that_are_open_become_those_of_the_preprocessing() -> None:
    model = network("x = Conv(image, w, b) y = Relu(x)" + HEAD, "float[N,3,H,W] image")
    assert_equal(answers(adopt(model, SPEC, "any.onnx").model), original(model, first_channels(PIXELS)))


def test_an_input_without_any_length_is_understood_by_its_transpose() -> None:
    body = "t = Transpose <perm=[0,3,1,2]> (image) x = Conv(t, w, b) y = Relu(x)" + HEAD
    model = network(body, "float[N,H,W,C] image")
    assert_equal(answers(adopt(model, SPEC, "any.onnx").model), original(model, PIXELS))


def test_names_of_ours_inside_a_foreign_network_are_freed() -> None:
    body = "logits = Conv(frames, w, b) preprocessing_ = Relu(logits) y = Relu(preprocessing_)" + HEAD
    model = network(body, "float[N,3,16,16] frames")
    next(iter(model.graph.node)).name = "preprocessing.mul"
    made = adopt(model, SPEC, "names.onnx").model
    assert_equal(answers(made), original(model, first_channels(PIXELS)))
    names = [node.name for node in made.graph.node]
    assert len(set(names)) == len(names)


def test_float16_becomes_the_same_numbers_in_float32() -> None:
    model = network("x = Conv(image, w, b) y = Relu(x)" + HEAD)
    half = onnx.ModelProto()
    half.CopyFrom(model)
    for source in (*half.graph.input, *half.graph.output):
        source.type.tensor_type.elem_type = TensorProto.FLOAT16
    for index, weight in enumerate(model.graph.initializer):
        value = numpy_helper.to_array(weight).astype(np.float16)
        half.graph.initializer[index].CopyFrom(numpy_helper.from_array(value, weight.name))
        model.graph.initializer[index].CopyFrom(numpy_helper.from_array(value.astype(np.float32), weight.name))
    adopted = adopt(half, SPEC, "half.onnx")
    assert "turned float16 weights into float32, exactly" in adopted.changes
    assert_equal(answers(adopted.model), original(model, first_channels(PIXELS)))
    weights = {w.name: numpy_helper.to_array(w) for w in adopted.model.graph.initializer}
    np.testing.assert_array_equal(weights["w"], CONSTANTS["w"].astype(np.float16).astype(np.float32))


def test_layers_that_share_weights_get_their_own() -> None:
    body = "x1 = Conv(image, w, b) x2 = Conv(x1, w2, b) x3 = Conv(x2, w2, b) y = Relu(x3)" + HEAD
    made = adopt(network(body), SPEC, "shared.onnx").model
    read = [name for node in made.graph.node if node.op_type == "Conv" for name in node.input[1:]]
    assert len(set(read)) == len(read) == 6
    assert_equal(answers(made), original(network(body), first_channels(PIXELS)))


# Files.


def test_weights_in_another_file_are_read(small: nn.Module, tmp_path: Path) -> None:
    model = exported(small, opset_version=13)
    (tmp_path / "sub").mkdir()
    onnx.save(model, tmp_path / "sub" / "m.onnx", save_as_external_data=True, location="m.data", size_threshold=0)
    network = open_network(tmp_path / "sub" / "m.onnx", SPEC)
    assert_equal(answers(network.model), torch_logits(small))
    (tmp_path / "sub" / "m.data").rename(tmp_path / "m.data")
    with pytest.raises(ModelError, match=r"m.onnx is no valid ONNX model: .*m.data"):
        open_network(tmp_path / "sub" / "m.onnx", SPEC)
    moved = onnx.load(tmp_path / "sub" / "m.onnx", load_external_data=False)
    for weight in moved.graph.initializer:
        for entry in weight.external_data:
            entry.value = "../m.data" if entry.key == "location" else entry.value
    (tmp_path / "sub" / "m.onnx").write_bytes(moved.SerializeToString())
    with pytest.raises(ModelError, match="m.onnx is no valid ONNX model: "):
        open_network(tmp_path / "sub" / "m.onnx", SPEC)


def test_weights_beyond_2_gb_are_refused_before_they_are_read(tmp_path: Path) -> None:
    model = network("x = Conv(image, w, b) y = Relu(x)" + HEAD)
    weight = model.graph.initializer[0]
    weight.ClearField("raw_data")
    weight.dims[0] = 2**28
    weight.data_location = TensorProto.EXTERNAL
    weight.external_data.add(key="location", value="missing.data")
    (tmp_path / "big.onnx").write_bytes(model.SerializeToString())
    with pytest.raises(
        ModelError, match=r"big.onnx has \d+\.\d GB of weights: ONNX models of less than 2 GB are taken"
    ):
        open_network(tmp_path / "big.onnx", SPEC)


def test_without_preprocessing_it_is_asked_for(tmp_path: Path) -> None:
    onnx.save(network("x = Conv(image, w, b) y = Relu(x)" + HEAD), tmp_path / "m.onnx")
    with pytest.raises(RecipeError, match=r"m.onnx holds no preprocessing: give --preprocessing, or --size, --mean"):
        open_network(tmp_path / "m.onnx", None)


def test_a_file_of_ours_is_taken_as_it_is(demo_onnx: Path) -> None:
    network = open_network(demo_onnx, None)
    assert network.model.SerializeToString() == onnx.load(demo_onnx).SerializeToString()
    assert (network.architecture, network.changes) == ("resnet20", ())


def test_a_file_of_ours_that_became_float16_since_is_refused(demo_onnx: Path, tmp_path: Path) -> None:
    model = onnx.load(demo_onnx)
    for weight in model.graph.initializer:
        if weight.data_type == TensorProto.FLOAT:
            weight.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(weight).astype(np.float16), weight.name))
    onnx.save(model, tmp_path / "half.onnx")
    with pytest.raises(
        ModelError, match=r"half.onnx has been converted to float16: give the FP32 file that it was made"
    ):
        open_network(tmp_path / "half.onnx", None)


# What is refused, and by what name.

CONV = "x = Conv(image, w, b) y = Relu(x)"
TRAINING = "x = Conv(image, w) y, m, v = BatchNormalization <training_mode=1> (x, b, b, b, var)"
BRANCH = """x = Conv(image, w, b) m = ReduceMax <keepdims=0> (x) c = Greater(m, zero)
    y = If(c) <then_branch = a () => (float[N,8,14,14] t) {t = Relu(x)},
               else_branch = e () => (float[N,8,14,14] u) {u = Abs(x)}>"""
SQUEEZED = "p = GlobalAveragePool(y) f = Squeeze(p) r = Reshape(f, batch1) scores = Gemm(r, fc, fb)"
REFUSED: dict[str, tuple[onnx.ModelProto, str]] = {
    "opset": (network(CONV + HEAD, opset=9), "has opset 9: export it with 11 or later"),
    "operator": (network("x = Conv(image, w, b) y = Erf(x)" + HEAD), "node 'y' is of the operator Erf, not supported"),
    "axes": (network("x = Conv(image, w, b) z = ReduceMean <axes=[1]> (x) y = Add(x, z)" + HEAD), "operator ReduceMean"),
    "domain": (network("x = Conv(image, w, b) y = com.acme.Foo(x)" + HEAD), "node 'y' is Foo of the domain 'com.acme'"),
    "control flow": (network(BRANCH + HEAD), r"node 'y' is control flow \(If\)"),
    "training": (network(TRAINING + HEAD), r"node 'y' \(BatchNormalization\) is in training mode"),
    "two inputs": (
        network("x = Conv(image, w, b) z = Relu(x) y = Add(z, s)" + HEAD, "float[N,3,16,16] image, float[N,8,14,14] s"),
        r"has 2 inputs \('image', 's'\)",
    ),
    "two outputs": (
        network(CONV + HEAD, result="float[N,10] scores, float[N,8,14,14] y"),
        r"has 2 outputs \('scores', 'y'\)",
    ),
    "size": (network(CONV + HEAD, "float[N,3,32,24] image"), "takes 32×24 pixels, the preprocessing makes 16×16"),
    "channels": (
        network("x = Conv(image, w1, b) y = Relu(x)" + HEAD, "float[N,1,16,16] image"),
        "takes 1 channels, the preprocessing makes 3",
    ),
    "uint8": (
        network("c = Cast <to=1> (image) x = Conv(c, w, b) y = Relu(x)" + HEAD, "uint8[N,3,16,16] image"),
        "takes uint8 and does not say what it makes of the pixels",
    ),
    "float64": (network("c = Cast <to=1> (image) x = Conv(c, w, b) y = Relu(x)" + HEAD, "double[N,3,16,16] image"),
                "input 'image' is double"),
    "vector": (network("c = Reshape(image, four) y = Relu(c)" + HEAD, "float[N,768] image"), "input 'image' has 2 axes"),
    "map": (network("x = Conv(image, w, b) y = Relu(x) scores = Softmax <axis=1> (y)", result="float[N,8,14,14] scores"),
            "ends in the Softmax 'scores', so it gives no features"),
    "three axes": (
        network(CONV + HEAD.replace("scores =", "s =") + "scores = Reshape(s, pairs)", result="float[N,2,5] scores"),
        "output 'scores' is 2×2×5: a classifier gives N×classes, a feature extractor N×C",
    ),
    "sigmoid": (network(CONV + HEAD.replace("scores =", "s =") + "scores = Sigmoid(s)"), "ends in the Sigmoid 'scores'"),
    "groups": (
        network(CONV + HEAD.replace("scores =", "s =") + "g = Reshape(s, pairs) t = Softmax(g) scores = Flatten(t)"),
        "ends in 't', which is no Softmax over the classes",
    ),
    "no convolution": (network("y = Relu(image) scores = ReduceMax <axes=[2,3], keepdims=0> (y)"), "has no convolution"),
    "shapes": (network(CONV + "f = Flatten(y) scores = Gemm(f, fc, fb)"), "ONNX Runtime: .*scores.*Gemm"),
    "computed weights": (
        network("k = Conv(image, w, b) t = Transpose <perm=[1,0,2,3]> (k) x = Conv(k, t) y = Relu(x)" + HEAD),
        r"the weights of node 'x' \(Conv\) are computed",
    ),
    "padding": (network("q = Pad(image, pads_chw, one) x = Conv(q, w, b) y = Relu(x)" + HEAD), r"node 'q' \(Pad\) pads"),
    "lost batch": (network(CONV + SQUEEZED, "float[1,3,16,16] image", "float[1,10] scores"), "batch"),
    "NaN": (network("x = Conv(image, w, b) z = Sub(x, x) y = Div(z, z)" + HEAD), "gives NaN or infinite scores"),
}  # fmt: skip


# Features.


@pytest.mark.parametrize("pooled", [True, False], ids=["N×C", "N×C×h×w"])
def test_features_in_the_place_of_classes(pooled: bool, small: nn.Module) -> None:
    trunk = nn.Sequential(small.stem, small.depthwise, *([nn.AdaptiveAvgPool2d(1), nn.Flatten()] if pooled else []))
    adopted = adopt(exported(trunk.eval(), opset_version=17), SPEC, "trunk.onnx", features=pooled)
    assert gives_features(adopted.model)
    assert ("took its output, a map of more than one pixel, for features" in adopted.changes) is not pooled
    assert_equal(answers(adopted.model), torch_logits(trunk))


def test_without_being_told_a_row_of_numbers_is_taken_for_classes(small: nn.Module) -> None:
    assert not gives_features(adopt(exported(small, opset_version=17), SPEC, "small.onnx").model)


@pytest.mark.parametrize(("model", "reason"), REFUSED.values(), ids=REFUSED)
def test_refused_in_one_line(model: onnx.ModelProto, reason: str) -> None:
    with pytest.raises(ModelError, match=f"^foreign.onnx.*{reason}") as caught:
        adopt(model, SPEC, "foreign.onnx")
    assert "\n" not in str(caught.value)
    assert caught.value.exit_code == 2


def test_a_result_that_answers_otherwise_is_refused(monkeypatch: pytest.MonkeyPatch, small: nn.Module) -> None:
    monkeypatch.setattr("edge_resnet.adoption.foreign.write_normalisation", lambda writer, frames, spec: _raw(writer))
    with pytest.raises(ModelError, match=r"answers otherwise in our form, by [\d.e+]+ of its largest score"):
        adopt(exported(small, opset_version=17), SPEC, "small.onnx")


def _raw(writer: Any) -> str:
    cast = writer.node("Cast", "preprocessing.cast", ["frames"], to=TensorProto.FLOAT)
    return str(writer.node("Transpose", "preprocessing.mul", [cast], perm=[0, 3, 1, 2]))


# Through the rest of the line.

TARGETS: list[tuple[type[Engine], str]] = [(OrtEngine, "cpu"), (TensorRtRtxEngine, "rtx-30")]
C2 = "y = Conv <pads=[1,1,1,1]> (z, w2, b)"
SHUFFLE = f"x = Conv(image, w, b) r = Reshape(x, five) t = Transpose <perm=[0,2,1,3,4]> (r) z = Reshape(t, four) {C2}"
GATE = "x = Conv(image, w, b) g = GlobalAveragePool(x)"
BODIES = {
    "Conv": "x = Conv(image, w) y = Conv <group=8> (x, w1, b)",
    "MatMul": "x = Conv(image, w, b) y = MatMul(x, kernel)",
    "Gemm": "y = Conv(image, w, b)",
    "BatchNormalization": f"x = Conv(image, w, b) r = Relu(x) z = BatchNormalization(r, b, b, b, var) {C2}",
    "Add": "x = Conv(image, w, b) z = Relu(x) c = Conv <pads=[1,1,1,1]> (z, w2, b) y = Add(z, c)",
    "PRelu": f"x = Conv(image, w, b) z = PRelu(x, slope) {C2}",
    "Clip": f"x = Conv(image, w, b) z = Clip(x, zero, six) {C2}",
    "Softmax": f"x = Conv(image, w, b) z = Softmax <axis=1> (x) {C2}",
    "LRN": f"x = Conv(image, w, b) z = LRN <size=5> (x) {C2}",
    "MaxPool": f"x = Conv(image, w, b) z = MaxPool <kernel_shape=[2,2], strides=[2,2]> (x) {C2}",
    "AveragePool": f"x = Conv(image, w, b) z = AveragePool <kernel_shape=[2,2], strides=[2,2]> (x) {C2}",
    "GlobalAveragePool": f"x = Conv(image, w, b) g = GlobalAveragePool(x) z = Mul(x, g) {C2}",
    "GlobalMaxPool": f"x = Conv(image, w, b) g = GlobalMaxPool(x) z = Mul(x, g) {C2}",
    "Concat": f"x = Conv(image, w, b) s, t = Split <axis=1> (x, halves) z = Concat <axis=1> (t, s) {C2}",
    "Split": f"x = Conv(image, w, b) s, t = Split <axis=1> (x, halves) z = Concat <axis=1> (t, s) {C2}",
    "Slice": f"x = Conv(image, w, b) z = Slice(x, begin, end, axes23) {C2}",
    "Pad": "x = Conv(image, w, b) r = Relu(x) z = Pad(r, pads_chw) s = Sigmoid(z) y = Conv(s, w2, b)",
    "Transpose": SHUFFLE,
    "Reshape": SHUFFLE,
    "Flatten": "y = Conv(image, w, b)",
    "Squeeze": "y = Conv(image, w, b)",
    "Unsqueeze": f"{GATE} q = Squeeze(g, axes23) u = Sigmoid(q) v = Unsqueeze(u, axes23) z = Mul(x, v) {C2}",
    **{kind: f"{GATE} s = Sigmoid(g) z = {kind}(x, s) {C2}" for kind in ("Sub", "Mul", "Div")},
    **{
        kind: f"x = Conv(image, w, b) z = {kind}(x) {C2}"
        for kind in ("Relu", "LeakyRelu", "Elu", "Selu", "Sigmoid", "HardSigmoid", "HardSwish", "Tanh", "Softplus")
    },
}  # fmt: skip
HEADS = {
    "Squeeze": "p = GlobalAveragePool(y) f = Squeeze(p, axes23) scores = Gemm(f, fc, fb)",
}


def calibrated(model: onnx.ModelProto) -> CalibrationTable:
    return collect(model, [FRAMES], method="minmax", images={}, preprocessing={})


def sqnr(wanted: Logits, found: Logits) -> float:
    return float(10 * np.log10(np.square(wanted).sum() / np.square(wanted - found).sum()))


def through_the_line(model: onnx.ModelProto, floor: float) -> None:
    table = calibrated(model)
    for engine, target in TARGETS:
        quantized = quantize(model, table, SCHEMES[engine.scheme], FRAMES)
        assert set(quantized.quantized_layers) == {node.name for node in model.graph.node if node.op_type == "Conv"}
        lowered = Lowered.quantized(quantized, engine)
        compiled = engine.compile(lowered.compiled_from, target_named(target))
        lowered.check_coverage(target, compiled.layers)
        assert sqnr(answers(model), lowered.predicted(FRAMES)) > floor, target


@pytest.mark.parametrize("operator", OPERATORS)
def test_every_operator_of_the_table_goes_through_the_line(operator: str) -> None:
    model = network(BODIES[operator] + HEADS.get(operator, HEAD))
    made = adopt(model, SPEC, f"{operator}.onnx").model
    expected = {"HardSwish": "HardSigmoid"}.get(operator, operator)
    assert operator in kinds(made) or expected in kinds(made)
    through_the_line(made, 18)


def test_a_network_of_torchs_goes_through_the_line(small: nn.Module) -> None:
    made = adopt(exported(small, opset_version=13), SPEC, "small.onnx").model
    through_the_line(made, 18)
    assert run_frames(exact_session(made), FRAMES).shape == (7, 10)


def test_a_gated_shortcut_has_a_range() -> None:
    body = f"{GATE} s = Sigmoid(g) z = Mul(x, s) c = Conv <pads=[1,1,1,1]> (z, w2, b) y = Add(z, c)"
    made = adopt(network(body + HEAD), SPEC, "gate.onnx").model
    assert {"z", "c", "y", "x"} <= set(calibrated(made).ranges)


def test_the_documented_operators_are_those_of_the_table() -> None:
    text = (Path(__file__).parents[2] / "docs" / "onnx.md").read_text(encoding="utf-8")
    assert all(f"| {operator} | {use} |\n" in text for operator, use in OPERATORS.items())
    assert text.split("## Operators")[1].split("##")[0].count("\n| ") == len(OPERATORS) + 1
