"""The exported graph, against torch on the same images and against formulas in numpy."""

from __future__ import annotations

from collections.abc import Callable
from copy import deepcopy
from functools import cache

import numpy as np
import numpy.typing as npt
import onnx
import onnxruntime
import pytest
import torch
from onnx import TensorProto, numpy_helper
from torch import nn

from edge_resnet import demo
from edge_resnet.errors import ModelError
from edge_resnet.export import export_float_onnx, export_onnx, max_abs_error
from edge_resnet.images import open_images
from edge_resnet.models import ResNet, create_model
from edge_resnet.preprocessing import Color, Crop, Interpolation, Preprocessing

SIZES = {"resnet18": 48, "resnet20": 32, "resnet50": 48}
MEANS, DEVIATIONS = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
FEW = 3
CLASSES = 7


def spec(size: int, channels: int = 3) -> Preprocessing:
    color = Color.RGB if channels == 3 else Color.GRAY
    numbers = MEANS[:channels], DEVIATIONS[:channels]
    return Preprocessing((size, size), None, Crop.NONE, Interpolation.BILINEAR, color, *numbers)


@cache
def trained(name: str, channels: int) -> ResNet:
    """A network with the statistics, scales and shifts that BatchNorm has after training. Not to be changed."""
    torch.manual_seed(0)
    model = create_model(name, classes=CLASSES, channels=channels)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.weight, 0.5, 1.5)
            nn.init.normal_(module.bias, std=0.2)
    model.train()
    with torch.no_grad():
        for _ in range(5):
            model(torch.randn(4, channels, 32, 32) * 0.7 + 0.3)
    norms = [module for module in model.modules() if isinstance(module, nn.BatchNorm2d)]
    assert all(norm.running_mean.abs().max() > 1e-3 and (norm.running_var - 1).abs().max() > 0.1 for norm in norms)
    return model.eval()


def run(model: onnx.ModelProto, *batches: npt.NDArray[np.generic]) -> npt.NDArray[np.float32]:
    """The logits of all batches, each run by itself."""
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    name = session.get_inputs()[0].name
    return np.concatenate([session.run(None, {name: batch})[0] for batch in batches])


def torch_logits(model: ResNet, frames: npt.NDArray[np.uint8]) -> npt.NDArray[np.float64]:
    """torch in float64, fed by the published formula: scale to 0..1, subtract the mean, divide by the deviation."""
    channels = frames.shape[3]
    normalised = (frames / 255 - np.array(MEANS[:channels])) / np.array(DEVIATIONS[:channels])
    with torch.no_grad():
        return deepcopy(model).double()(torch.from_numpy(normalised.transpose(0, 3, 1, 2).copy())).numpy()


def real_and_random(preprocessing: Preprocessing, count: int) -> npt.NDArray[np.uint8]:
    """So many real images, and as many random frames."""
    real = open_images(demo.TEST, count).pixels(preprocessing)
    return np.concatenate([real, np.random.default_rng(0).integers(0, 256, real.shape, np.uint8)])


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("name", SIZES)
def test_onnx_runtime_answers_as_torch(name: str, channels: int) -> None:
    model, preprocessing = trained(name, channels), spec(SIZES[name], channels)
    exported = export_onnx(model, preprocessing)
    frames = real_and_random(preprocessing, FEW)
    wanted = torch_logits(model, frames)
    assert wanted.std() > 0.1, "logits must differ for the comparison to mean anything"
    together = run(exported, frames[:FEW], frames[FEW:])
    one_by_one = run(exported, *(frames[index : index + 1] for index in range(2 * FEW)))
    tolerance = 1e-4 * np.abs(wanted).max()
    np.testing.assert_allclose(together, wanted, rtol=0, atol=tolerance)
    np.testing.assert_allclose(one_by_one, wanted, rtol=0, atol=tolerance)
    assert max_abs_error(model, exported, preprocessing) < tolerance


def test_a_frame_need_not_be_square() -> None:
    model = trained("resnet20", 3)
    preprocessing = Preprocessing((24, 40), None, Crop.NONE, Interpolation.BILINEAR, Color.RGB, MEANS, DEVIATIONS)
    frames = real_and_random(preprocessing, 2)
    assert frames.shape == (4, 24, 40, 3)
    np.testing.assert_allclose(
        run(export_onnx(model, preprocessing), frames), torch_logits(model, frames), rtol=0, atol=1e-3
    )


@pytest.mark.parametrize("channels", [1, 3])
def test_the_arithmetic_of_the_preprocessing_is_the_formula(channels: int) -> None:
    exported = export_onnx(trained("resnet20", channels), spec(16, channels))
    first = next(node for node in exported.graph.node if node.op_type == "Conv").input[0]
    exported.graph.output.append(onnx.helper.make_tensor_value_info(first, TensorProto.FLOAT, None))
    every_value = np.arange(256, dtype=np.uint8).reshape(1, 16, 16, 1).repeat(channels, axis=3)
    session = onnxruntime.InferenceSession(exported.SerializeToString())
    found = session.run([first], {"frames": every_value})[0]
    formula = (every_value / 255 - np.array(MEANS[:channels])) / np.array(DEVIATIONS[:channels])
    np.testing.assert_allclose(found, formula.transpose(0, 3, 1, 2), rtol=0, atol=2e-6)


def test_the_float_form_takes_normalised_images() -> None:
    model = trained("resnet18", 1)
    exported = export_float_onnx(model, (48, 32))
    source = exported.graph.input[0]
    assert source.type.tensor_type.elem_type == TensorProto.FLOAT
    assert [d.dim_param or d.dim_value for d in source.type.tensor_type.shape.dim] == ["batch", 1, 48, 32]
    images = np.random.default_rng(0).standard_normal((2, 1, 48, 32), np.float32)
    with torch.no_grad():
        wanted = model(torch.from_numpy(images)).numpy()
    np.testing.assert_allclose(run(exported, images), wanted, rtol=0, atol=1e-4 * np.abs(wanted).max())
    assert max_abs_error(model, exported, None) < 1e-4 * np.abs(wanted).max()


# The form of the graph.


@pytest.mark.parametrize("name", SIZES)
def test_the_form_of_the_graph(name: str) -> None:
    exported = export_onnx(trained(name, 3), spec(SIZES[name]))
    onnx.checker.check_model(exported, full_check=True)
    assert [(opset.domain, opset.version) for opset in exported.opset_import] == [("", 17)]
    (source,), (result,) = exported.graph.input, exported.graph.output
    shapes = [[d.dim_param or d.dim_value for d in value.type.tensor_type.shape.dim] for value in (source, result)]
    assert shapes == [["batch", SIZES[name], SIZES[name], 3], ["batch", CLASSES]]
    assert source.type.tensor_type.elem_type == TensorProto.UINT8
    assert result.type.tensor_type.elem_type == TensorProto.FLOAT
    assert (source.name, result.name) == ("frames", "logits")


@pytest.mark.parametrize("name", SIZES)
def test_nodes_are_named_by_their_torch_modules(name: str) -> None:
    model = trained(name, 3)
    exported = export_onnx(model, spec(SIZES[name]))
    nodes = {node.name: node.op_type for node in exported.graph.node}
    assert len(nodes) == len(exported.graph.node), "no name occurs twice"
    arithmetic = {path: kind for path, kind in nodes.items() if not path.startswith("preprocessing.")}
    subsampled = {path for path in arithmetic if path.endswith(".subsample")}
    leaves = {path for path, module in model.named_modules() if path and not list(module.children())}
    folded = {path for path, module in model.named_modules() if isinstance(module, nn.BatchNorm2d | nn.Identity)}
    assert set(arithmetic) - subsampled == leaves - folded
    assert {path.removesuffix(".subsample") for path in subsampled} <= leaves
    convolutions = {path for path, module in model.named_modules() if isinstance(module, nn.Conv2d)}
    assert {path for path, kind in nodes.items() if kind == "Conv"} == convolutions
    assert "BatchNormalization" not in nodes.values()


def test_weights_are_named_by_their_torch_modules_and_hold_the_folded_values() -> None:
    model = trained("resnet50", 3)
    weights = {w.name: numpy_helper.to_array(w) for w in export_onnx(model, spec(32)).graph.initializer}
    np.testing.assert_array_equal(weights["fc.weight"], model.fc.weight.detach().numpy())
    np.testing.assert_array_equal(weights["fc.bias"], model.fc.bias.detach().numpy())
    norm = model.get_submodule("layer3.1.bn2")
    scale = (norm.weight.double() / torch.sqrt(norm.running_var.double() + norm.eps)).detach().numpy()
    kernel = model.get_submodule("layer3.1.conv2").weight.detach().double().numpy()
    shift = norm.bias.detach().double().numpy() - norm.running_mean.double().numpy() * scale
    np.testing.assert_allclose(weights["layer3.1.conv2.weight"], kernel * scale[:, None, None, None], rtol=1e-6)
    np.testing.assert_allclose(weights["layer3.1.conv2.bias"], shift, rtol=1e-5, atol=1e-7)


def test_exporting_changes_neither_the_model_nor_the_next_export() -> None:
    model = trained("resnet20", 3)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    exports = [export_onnx(model, spec(32)).SerializeToString(deterministic=True) for _ in range(2)]
    assert exports[0] == exports[1]
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())


# What does not fit.


def test_labels_and_channels_that_do_not_fit_are_refused() -> None:
    model = create_model("resnet20", classes=3)
    with pytest.raises(ModelError, match="^2 labels for 3 classes: give one label a class$"):
        export_onnx(model, spec(32), ("a", "b"))
    with pytest.raises(ModelError, match="the model takes 3 channels, the preprocessing makes 1"):
        export_onnx(model, spec(32, 1))


def test_a_network_that_answers_nan_is_refused() -> None:
    model = create_model("resnet20", classes=3).eval()
    model.bn1.running_var[2] = -1
    with pytest.raises(ModelError, match="negative running variance"):
        export_onnx(model, spec(32))
    model.bn1.running_var[2] = 1
    exported = export_onnx(model, spec(32))
    with torch.no_grad():
        model.fc.weight[:] = torch.inf
    with pytest.raises(ModelError, match="answers NaN or infinity to plain frames"):
        max_abs_error(model, exported, spec(32))


def test_a_batch_norm_without_statistics_is_refused() -> None:
    model = create_model("resnet20")
    model.bn1 = nn.BatchNorm2d(16, track_running_stats=False)
    with pytest.raises(ModelError, match="no running statistics"):
        export_onnx(model, spec(32))


def other_mean(exported: onnx.ModelProto) -> None:
    weight = next(w for w in exported.graph.initializer if w.name == "preprocessing.mean")
    weight.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(weight) + 1, weight.name))


def swapped_channels(exported: onnx.ModelProto) -> None:
    weight = next(w for w in exported.graph.initializer if w.name == "conv1.weight")
    weight.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(weight)[:, ::-1].copy(), weight.name))


@pytest.mark.parametrize("damage", [other_mean, swapped_channels])
def test_the_comparison_with_torch_notices_a_wrong_graph(damage: Callable[[onnx.ModelProto], None]) -> None:
    model, preprocessing = trained("resnet20", 3), spec(32)
    exported = export_onnx(model, preprocessing)
    right = max_abs_error(model, exported, preprocessing)
    damage(exported)
    assert max_abs_error(model, exported, preprocessing) > 100 * right
