"""Keras's options on our networks: the same shapes, and the same values refused as by Keras itself."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from edge_resnet.applications import resnet
from edge_resnet.errors import ModelError
from edge_resnet.export import export_onnx, max_abs_error
from edge_resnet.models import create_model
from edge_resnet.preprocessing import NAMED, Color, Crop, Interpolation, Preprocessing

SMALL = Preprocessing((32, 40), None, Crop.NONE, Interpolation.BILINEAR, Color.RGB, (0.5,) * 3, (0.25,) * 3)


@pytest.fixture(scope="module")
def keras() -> Any:
    os.environ.setdefault("KERAS_BACKEND", "torch")
    return pytest.importorskip("keras", reason="pip install 'edge-resnet[parity]'")


@pytest.fixture
def shelf(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder for ImageNet weights, empty."""
    monkeypatch.setenv("EDGE_RESNET_WEIGHTS", str(tmp_path / "shelf"))
    (tmp_path / "shelf").mkdir()
    return tmp_path / "shelf"


OPTIONS: list[dict[str, Any]] = [
    {},
    {"include_top": False},
    {"include_top": False, "pooling": "avg"},
    {"include_top": False, "pooling": "max"},
    {"include_top": True, "pooling": "max"},
    {"classes": 7},
    {"include_top": False, "input_shape": (32, 32, 3), "pooling": "avg"},
    {"include_top": False, "input_shape": (31, 64, 3)},
    {"include_top": False, "input_shape": (64, 31, 3)},
    {"include_top": False, "input_shape": (None, None, 3)},
    {"include_top": False, "input_shape": (64, None, 1)},
    {"include_top": True, "input_shape": (64, 96, 3)},
    {"include_top": True, "input_shape": (64, None, 3)},
    {"include_top": True, "input_shape": (64, 64)},
    {"include_top": True, "input_shape": (31, 31, 1)},
    {"weights": "no such file.h5"},
    {"weights": "imagenet", "classes": 10},
    {"weights": "imagenet", "input_shape": (160, 160, 3)},
    {"weights": "imagenet", "include_top": False, "input_shape": (64, 64, 1)},
    {"weights": "imagenet", "include_top": False, "input_shape": (16, 64, 3)},
]


@pytest.mark.parametrize("options", OPTIONS, ids=str)
def test_what_keras_refuses_and_what_it_gives(options: dict[str, Any], keras: Any) -> None:
    """Values that Keras refuses are refused; for the others the output has Keras's shape, channels moved."""
    try:
        theirs = keras.applications.ResNet50V2(**{"weights": None, **options})
    except ValueError:
        with pytest.raises(
            ModelError, match=r": (give|leave|put|with include_top give)|takes height and width of at least 32"
        ):
            resnet("resnet50v2", **options)
        return
    height, width, channels = theirs.input_shape[1:]
    with torch.device("meta"):
        ours = resnet("resnet50v2", **options)
        made = ours(torch.zeros(2, channels, height or 64, width or 64))
    wanted = theirs.compute_output_shape((2, height or 64, width or 64, channels))
    assert tuple(made.shape) == (wanted[0], wanted[-1], *wanted[1:-1])
    given = options.get("input_shape", (None, None, 3))
    assert ours.size == (None if None in given else given[:2])


WRONG: list[tuple[dict[str, Any], str]] = [
    ({"pooling": "mean"}, "pooling is 'mean': give None, 'avg' or 'max'"),
    ({"pooling": "none", "include_top": False}, "pooling is 'none': give None, 'avg' or 'max'"),
    ({"pooling": ["avg"]}, "pooling is ['avg']: give None, 'avg' or 'max'"),
    ({"classes": "5"}, "classes is '5': give a whole number, 1 or more"),
    ({"classes": 5.0}, "classes is 5.0: give a whole number, 1 or more"),
    ({"classes": 0}, "classes is 0: give a whole number, 1 or more"),
    ({"input_shape": 64}, "input_shape is 64: give three numbers, height, width and channels"),
    ({"input_shape": "abc"}, "input_shape is 'abc': give three numbers, height, width and channels"),
    ({"input_shape": (64.0, 64, 3)}, "input_shape is (64.0, 64, 3): give height and width in pixels, or None for any"),
    ({"input_shape": (64, 64, 4)}, "input_shape is (64, 64, 4): give 1 (grey) or 3 (colour) channels"),
    ({"input_shape": (64, 64, None)}, "input_shape is (64, 64, None): give 1 (grey) or 3 (colour) channels"),
    ({"weights": 3}, "weights is 3: give None (random), 'imagenet', or the path of a file that exists"),
    ({"include_top": False, "pooling": "sum"}, "pooling is 'sum': give None, 'avg' or 'max'"),
    ({"shortcut": "F"}, "unknown shortcut 'F': choose one of A, B, C, D, E"),
    (
        {"input_tensor": torch.zeros(1, 3, 64, 64)},
        "input_tensor is a Tensor: give a torch.nn.Module that images pass first",
    ),
]


@pytest.mark.parametrize(("options", "message"), WRONG, ids=[message for _, message in WRONG])
def test_a_wrong_value_is_told_in_one_line(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ModelError) as caught:
        resnet("resnet18", **options)
    assert str(caught.value) == message


def test_a_path_may_begin_in_the_home(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    torch.save(create_model("resnet20", classes=3).state_dict(), tmp_path / "weights.pt")
    assert resnet("resnet20", weights="~/weights.pt").classes == 3


def test_a_grey_checkpoint_needs_no_shape(tmp_path: Path) -> None:
    torch.save(create_model("resnet20", channels=1).state_dict(), tmp_path / "grey.pt")
    assert resnet("resnet20", weights=tmp_path / "grey.pt").channels == 1
    with pytest.raises(
        ModelError, match=r"grey.pt takes images of 1 channel \(grey\), but the input has 3 .* input shape"
    ):
        resnet("resnet20", weights=tmp_path / "grey.pt", input_shape=(32, 32, 3))


def test_another_shortcut(tmp_path: Path) -> None:
    torch.save(create_model("resnet20", shortcut="B").state_dict(), tmp_path / "weights.pt")
    with pytest.raises(ModelError, match="it fits resnet20 with shortcut B$"):
        resnet("resnet20", weights=tmp_path / "weights.pt")
    assert resnet("resnet20", weights=tmp_path / "weights.pt", shortcut="B").architecture.shortcut == "B"


def test_the_cifar_family_takes_small_images() -> None:
    assert resnet("resnet20", input_shape=(16, 16, 1), classes=3)(torch.zeros(1, 1, 16, 16)).shape == (1, 3)


def test_imagenet_weights_are_a_local_file(shelf: Path) -> None:
    with pytest.raises(ModelError) as caught:
        resnet("resnet18", weights="imagenet")
    assert str(caught.value) == (
        f"weights 'imagenet' are not downloaded: put a checkpoint of resnet18 at {shelf / 'resnet18'}.pth "
        "(or .pt, .th, .bin, .ckpt, .tar, .safetensors, .h5, .keras; EDGE_RESNET_WEIGHTS names another folder), "
        "or give its path"
    )
    theirs = create_model("resnet18")
    torch.save(theirs.state_dict(), shelf / "resnet18.pth")
    ours = resnet("resnet18", weights="imagenet", include_top=False, pooling="avg")
    x = torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        assert torch.equal(theirs.fc(ours(x)), theirs(x))


def test_the_weights_folder_is_in_the_home_by_default(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("EDGE_RESNET_WEIGHTS", raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    with pytest.raises(ModelError, match=str(tmp_path / ".cache" / "edge-resnet" / "weights" / "resnet20.pth")):
        resnet("resnet20", weights="imagenet")


def test_weights_without_a_classifier(tmp_path: Path) -> None:
    weights = {n: t for n, t in create_model("resnet20").state_dict().items() if not n.startswith("fc.")}
    torch.save(weights, tmp_path / "backbone.pt")
    assert resnet("resnet20", weights=tmp_path / "backbone.pt", include_top=False).classes is None
    with pytest.raises(ModelError, match=r"backbone.pt has no classifier of one layer \('fc.weight'"):
        resnet("resnet20", weights=tmp_path / "backbone.pt")


def colour_correction(channels: int = 3) -> nn.Sequential:
    torch.manual_seed(1)
    return nn.Sequential(nn.Conv2d(channels, 3, 1), nn.BatchNorm2d(3), nn.ReLU())


@pytest.mark.parametrize("channels", [1, 3])
def test_input_tensor_goes_first(channels: int, tmp_path: Path) -> None:
    alone = create_model("resnet20", classes=5)
    torch.save(alone.state_dict(), tmp_path / "weights.pt")
    first = colour_correction(channels).eval()
    model = resnet("resnet20", weights=tmp_path / "weights.pt", input_tensor=first, input_shape=(32, 40, channels))
    x = torch.randn(2, channels, 32, 40, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        assert torch.equal(model(x), alone(first(x)))
        if channels == 3:
            assert max_abs_error(model, export_onnx(model, SMALL), SMALL) < 1e-4


def test_the_module_that_was_given_stays_as_it_is() -> None:
    first = colour_correction().train()
    model = resnet("resnet20", input_tensor=first)
    assert not model.source.training and not model.source[1].training
    assert first.training and first[1].training
    assert first[1].num_batches_tracked == 0


def test_an_input_tensor_that_cannot_be() -> None:
    with pytest.raises(ModelError, match="input_tensor does not take images of 3 channels"):
        resnet("resnet20", input_tensor=nn.Conv2d(4, 3, 1))
    with pytest.raises(ModelError, match="input_tensor gives no feature map"):
        resnet("resnet20", input_tensor=nn.Flatten())
    model = resnet("resnet20", input_tensor=nn.Sequential(nn.Conv2d(3, 3, 1), nn.SELU()))
    with pytest.raises(ModelError, match=r"input_tensor holds SELU, which is not exported: build it of Conv2d, "):
        export_onnx(model, SMALL)


def test_images_of_another_size_are_not_exported() -> None:
    with pytest.raises(ModelError, match=r"the model takes images of \(64, 64\), the preprocessing makes \(32, 40\)"):
        export_onnx(resnet("resnet20", input_shape=(64, 64, 3)), SMALL)


@pytest.mark.parametrize(("pooling", "shape"), [(None, (2, 64, 8, 10)), ("avg", (2, 64)), ("max", (2, 64))])
def test_features_are_exported(pooling: str | None, shape: tuple[int, ...]) -> None:
    import onnxruntime

    model = resnet("resnet20", include_top=False, pooling=pooling)
    exported = export_onnx(model, SMALL)
    assert max_abs_error(model, exported, SMALL) < 1e-4
    session = onnxruntime.InferenceSession(exported.SerializeToString(), providers=["CPUExecutionProvider"])
    assert [output.name for output in session.get_outputs()] == ["features"]
    assert session.run(None, {"frames": np.zeros((2, 32, 40, 3), np.uint8)})[0].shape == shape


def test_features_have_no_labels() -> None:
    with pytest.raises(
        ModelError, match="labels are for a classifier, and this network gives features: leave them out"
    ):
        export_onnx(resnet("resnet20", include_top=False), NAMED["mlperf-tiny"], ["cat"])
