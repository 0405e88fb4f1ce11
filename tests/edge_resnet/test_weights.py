"""Checkpoints: every form that people have, and every way in which one can be wrong."""

import argparse
import os
import pickle
import warnings
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.nn import functional

from edge_resnet.errors import ModelError
from edge_resnet.images import open_images
from edge_resnet.models import ResNet, create_model
from edge_resnet.preprocessing import Color, Crop, Interpolation, Preprocessing
from edge_resnet.weights import load_model, read_checkpoint

SHARED = Path(__file__).parents[3] / "shared" / "data"
Weights = dict[str, Tensor]


@pytest.fixture(scope="module")
def model() -> ResNet:
    """A ResNet-20 for 7 classes whose BatchNorms have statistics of their own."""
    torch.manual_seed(0)
    model = create_model("resnet20", classes=7)
    with torch.no_grad():
        for module in model.modules():
            if isinstance(module, nn.BatchNorm2d):
                for name, tensor in module.state_dict().items():
                    if tensor.is_floating_point():
                        tensor.uniform_(*((0.5, 2.0) if name in ("weight", "running_var") else (-0.5, 0.5)))
    return model


@pytest.fixture(scope="module")
def images() -> Tensor:
    return torch.randn(4, 3, 32, 32, generator=torch.Generator().manual_seed(1))


def prefixed(weights: Weights, prefix: str) -> Weights:
    return {prefix + name: tensor for name, tensor in weights.items()}


FORMS: dict[str, Callable[[Weights], object]] = {
    "state_dict": lambda weights: weights,
    "ordered": OrderedDict,
    "data parallel": lambda weights: prefixed(weights, "module."),
    "compiled": lambda weights: prefixed(weights, "_orig_mod."),
    "both": lambda weights: prefixed(weights, "module._orig_mod."),
    "Lightning": lambda weights: {"state_dict": prefixed(weights, "model."), "epoch": 90, "loops": {}},
    "deep inside another": lambda weights: prefixed(weights, "policy.backbone.module."),
    "state_dict beside others": lambda weights: {"epoch": 3, "best_prec1": 91.7, "state_dict": weights},
    "model beside an optimizer": lambda weights: {"optimizer": {"state": {0: torch.ones(2)}}, "model": weights},
    "model_state_dict": lambda weights: {"model_state_dict": weights, "loss": torch.tensor(0.5)},
    "net": lambda weights: {"net": prefixed(weights, "module."), "acc": 91},
    "averages alone": lambda weights: {"epoch": 3, "state_dict_ema": weights},
    "torch's averages alone": lambda weights: {
        "model_ema": {"n_averaged": torch.tensor(3), **prefixed(weights, "module.")}
    },
    "beside a dict without tensors": lambda weights: {"state_dict": weights, "model": {"name": "resnet20"}},
    "nested twice": lambda weights: {"model": {"state_dict": weights}},
    "flat beside others": lambda weights: {"epoch": 3, "arch": "resnet20", **weights},
    "parameters": lambda weights: {
        name: nn.Parameter(tensor) if tensor.is_floating_point() else tensor for name, tensor in weights.items()
    },
    "CIFAR names": lambda weights: {name.replace("fc.", "linear."): tensor for name, tensor in weights.items()},
    "without counters": lambda weights: {name: t for name, t in weights.items() if not name.endswith("tracked")},
}


@pytest.mark.parametrize("form", FORMS)
def test_every_form_gives_the_same_network(form: str, model: ResNet, images: Tensor, tmp_path: Path) -> None:
    path = tmp_path / "weights.pth"
    torch.save(FORMS[form](model.state_dict()), path)
    loaded = load_model("resnet-20", path)
    assert torch.equal(loaded(images), model(images))
    assert not loaded.training
    assert (loaded.fc.out_features, loaded.channels) == (7, 3)


@pytest.mark.parametrize("suffix", [".pt", ".pth", ".th", ".bin", ".ckpt", ".pth.tar", ".PTH"])
@pytest.mark.parametrize("new_format", [True, False], ids=["zip", "legacy"])
def test_every_suffix_and_both_torch_formats(suffix: str, new_format: bool, model: ResNet, tmp_path: Path) -> None:
    path = tmp_path / f"weights{suffix}"
    torch.save(model.state_dict(), path, _use_new_zipfile_serialization=new_format)
    read = read_checkpoint(path)
    assert list(read) == list(model.state_dict())
    assert all(torch.equal(read[name], tensor) for name, tensor in model.state_dict().items())


def test_safetensors(model: ResNet, images: Tensor, tmp_path: Path) -> None:
    path = tmp_path / "weights.safetensors"
    save_file(model.state_dict(), path)
    assert torch.equal(load_model("resnet20", path)(images), model(images))


def test_a_projection_shortcut_by_its_cifar_name(tmp_path: Path) -> None:
    original = create_model("resnet18", classes=2)
    path = tmp_path / "weights.pt"
    torch.save({name.replace("downsample", "shortcut"): t for name, t in original.state_dict().items()}, path)
    x = torch.randn(1, 3, 64, 64)
    assert torch.equal(load_model("resnet18", path)(x), original(x))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_other_precisions_become_float32(dtype: torch.dtype, model: ResNet, tmp_path: Path) -> None:
    path = tmp_path / "weights.pt"
    weights = {name: t.to(dtype) if t.is_floating_point() else t for name, t in model.state_dict().items()}
    torch.save(weights, path)
    for name, tensor in load_model("resnet20", path).state_dict().items():
        if tensor.is_floating_point():
            assert tensor.dtype == torch.float32
            assert torch.equal(tensor, weights[name].float()), name


def test_numbers_are_read_off_the_checkpoint(tmp_path: Path) -> None:
    path = tmp_path / "grey.pt"
    torch.save(create_model("resnet20", classes=5, channels=1).state_dict(), path)
    for classes, channels in ((None, None), (5, 1)):
        loaded = load_model("resnet20", path, classes=classes, channels=channels)
        assert (loaded.fc.out_features, loaded.channels) == (5, 1)


def test_without_a_checkpoint_the_architecture_decides() -> None:
    assert (load_model("resnet20", None).fc.out_features, load_model("resnet20", None).channels) == (10, 3)
    small = load_model("resnet20", None, classes=4, channels=1)
    assert (small.fc.out_features, small.channels, small.training) == (4, 1, False)


def test_a_published_checkpoint() -> None:
    path = SHARED / "weights" / "resnet20-12fca82f.th"
    if not path.is_file():
        pytest.skip(f"needs the published checkpoint {path.name}, which is not part of the project")
    loaded = load_model("resnet20", path)
    raw = torch.load(path, map_location="cpu", weights_only=True)["state_dict"]
    x = torch.randn(8, 3, 32, 32, generator=torch.Generator().manual_seed(2))
    assert torch.allclose(loaded(x), resnet20_by_hand(raw, x), rtol=1e-4, atol=1e-5)


@pytest.mark.slow
def test_a_published_checkpoint_classifies_as_published() -> None:
    """0.816 of these images, which are compressed anew, with the preprocessing that its maker documents."""
    path, images = SHARED / "weights" / "resnet20-12fca82f.th", SHARED / "cifar10-jpeg" / "test"
    if not (path.is_file() and images.is_dir()):
        pytest.skip("needs the published checkpoint and CIFAR-10 images, which are not part of the project")
    mean, std = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
    spec = Preprocessing((32, 32), None, Crop.NONE, Interpolation.BILINEAR, Color.RGB, mean, std)
    test = open_images(images)
    pixels = (test.pixels(spec).astype(np.float32) / 255 - np.float32(mean)) / np.float32(std)
    with torch.no_grad():
        logits = load_model("resnet20", path)(torch.from_numpy(pixels.transpose(0, 3, 1, 2)))
    assert len(test) == 2000
    assert np.mean(logits.argmax(1).numpy() == test.labels) == 0.816


def resnet20_by_hand(raw: Weights, x: Tensor) -> Tensor:
    """ResNet-20 in torch's functions, straight from the published names."""

    def layer(conv: str, norm: str, x: Tensor, stride: int = 1) -> Tensor:
        x = functional.conv2d(x, raw[f"module.{conv}.weight"], stride=stride, padding=1)
        mean, variance = (raw[f"module.{norm}.running_{which}"].view(1, -1, 1, 1) for which in ("mean", "var"))
        scale, shift = (raw[f"module.{norm}.{which}"].view(1, -1, 1, 1) for which in ("weight", "bias"))
        return (x - mean) / (variance + 1e-5).sqrt() * scale + shift

    x = layer("conv1", "bn1", x).relu()
    for stage in (1, 2, 3):
        for block in (0, 1, 2):
            name, stride = f"layer{stage}.{block}", 2 if stage > 1 and block == 0 else 1
            y = layer(f"{name}.conv1", f"{name}.bn1", x, stride).relu()
            y = layer(f"{name}.conv2", f"{name}.bn2", y)
            grow = (y.shape[1] - x.shape[1]) // 2
            x = (y + functional.pad(x[:, :, ::stride, ::stride], (0, 0, 0, 0, grow, grow))).relu()
    return x.mean((2, 3)) @ raw["module.linear.weight"].T + raw["module.linear.bias"]


def refusal(action: Callable[[], object]) -> str:
    """The message of the ModelError that an action raises, which has one line; torch may not add warnings to it."""
    with warnings.catch_warnings(), pytest.raises(ModelError) as caught:
        warnings.simplefilter("error")
        action()
    message = str(caught.value)
    assert message and "\n" not in message and "\x1b" not in message
    return message


class Malicious:
    def __init__(self, target: Path) -> None:
        self.target = target

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.target),)


@pytest.mark.parametrize("writer", ["zip", "legacy", "pickle", "pickle 2"])
@pytest.mark.parametrize("suffix", [".pt", ".bin"])
def test_a_pickle_that_would_execute_code_does_not(writer: str, suffix: str, tmp_path: Path) -> None:
    path, target = tmp_path / f"weights{suffix}", tmp_path / "executed"
    content = {"state_dict": {"conv1.weight": torch.zeros(1)}, "extra": Malicious(target)}
    writers: dict[str, Callable[[], object]] = {
        "zip": lambda: torch.save(content, path),
        "legacy": lambda: torch.save(content, path, _use_new_zipfile_serialization=False),
        "pickle": lambda: path.write_bytes(pickle.dumps(Malicious(target))),
        "pickle 2": lambda: path.write_bytes(pickle.dumps(Malicious(target), protocol=2)),
    }
    writers[writer]()
    message = refusal(lambda: load_model("resnet20", path))
    assert not target.exists()
    assert message.startswith(f"{path} is no checkpoint of tensors only")
    assert message.endswith("re-save the weights alone, torch.save(model.state_dict(), 'weights.pth')")


def test_the_malicious_pickle_is_a_real_one(tmp_path: Path) -> None:
    pickle.loads(pickle.dumps(Malicious(tmp_path / "executed")))
    assert (tmp_path / "executed").is_dir()


@pytest.mark.parametrize(
    ("content", "kind"),
    [
        (nn.Sequential(nn.Linear(2, 2)), "torch.nn.modules.container.Sequential"),
        ({"state_dict": {"fc.bias": torch.zeros(2)}, "args": argparse.Namespace(lr=0.1)}, "argparse.Namespace"),
    ],
    ids=["whole module", "arguments"],
)
def test_more_than_tensors_is_refused_by_name(content: object, kind: str, tmp_path: Path) -> None:
    path = tmp_path / "weights.pt"
    torch.save(content, path)
    assert refusal(lambda: read_checkpoint(path)) == (
        f"{path} is no checkpoint of tensors only (it holds '{kind}', which loading would execute): "
        "re-save the weights alone, torch.save(model.state_dict(), 'weights.pth')"
    )


@pytest.mark.filterwarnings("ignore:`torch.jit")
def test_a_torchscript_archive_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "script.pt"
    torch.jit.save(torch.jit.script(nn.Linear(2, 2)), path)
    assert "is no checkpoint of tensors only: re-save" in refusal(lambda: read_checkpoint(path))


@pytest.mark.parametrize("fraction", [0.0, 0.1, 0.5, 0.9, 0.999])
@pytest.mark.parametrize("form", ["zip", "legacy", "safetensors"])
def test_a_truncated_file(form: str, fraction: float, model: ResNet, tmp_path: Path) -> None:
    path = tmp_path / ("weights.safetensors" if form == "safetensors" else "weights.pt")
    if form == "safetensors":
        save_file(model.state_dict(), path)
    else:
        torch.save(model.state_dict(), path, _use_new_zipfile_serialization=form == "zip")
    whole = path.read_bytes()
    path.write_bytes(whole[: int(len(whole) * fraction)])
    message = refusal(lambda: read_checkpoint(path))
    assert message == f"{path} is damaged, cut short or no checkpoint: copy or download it again"


@pytest.mark.parametrize("name", ["weights.pt", "weights.safetensors"])
@pytest.mark.parametrize("text", ["hello", "<!DOCTYPE html>", "version https://git-lfs.github.com/spec/v1\n"])
def test_a_file_that_is_something_else(name: str, text: str, tmp_path: Path) -> None:
    (tmp_path / name).write_text(text)
    assert refusal(lambda: read_checkpoint(tmp_path / name)).startswith(f"{tmp_path / name} is ")


SMALL = {"conv1.weight": torch.arange(12.0).view(1, 3, 2, 2), "fc.bias": torch.ones(3)}


@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data(), form=st.sampled_from(["zip", "legacy", "safetensors"]))
def test_a_damaged_byte_never_gives_another_error(data: st.DataObject, form: str, tmp_path: Path) -> None:
    path = tmp_path / ("small.safetensors" if form == "safetensors" else "small.pt")
    if form == "safetensors":
        save_file(SMALL, path)
    else:
        torch.save(SMALL, path, _use_new_zipfile_serialization=form == "zip")
    damaged = bytearray(path.read_bytes())
    damaged[data.draw(st.integers(0, len(damaged) - 1))] ^= 1 << data.draw(st.integers(0, 7))
    path.write_bytes(damaged)
    try:
        read_checkpoint(path)
    except ModelError as error:
        assert "\n" not in str(error)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
def test_the_first_weight_that_is_not_finite_is_named(value: float, model: ResNet, tmp_path: Path) -> None:
    weights = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    weights["layer2.1.bn1.running_var"][3] = value
    weights["layer3.0.conv1.weight"][0, 0, 0, 0] = value
    path = tmp_path / "weights.pt"
    torch.save(prefixed(weights, "module."), path)
    assert refusal(lambda: read_checkpoint(path)) == (
        f"{path}: 'module.layer2.1.bn1.running_var' has NaN or infinite values: "
        "take a checkpoint from before training diverged"
    )


def test_float64_beyond_float32_is_not_finite(tmp_path: Path) -> None:
    torch.save({"fc.bias": torch.tensor([1e300], dtype=torch.float64)}, tmp_path / "weights.pt")
    assert "'fc.bias' has NaN or infinite values" in refusal(lambda: read_checkpoint(tmp_path / "weights.pt"))


@pytest.mark.parametrize(
    ("saved", "asked", "fits"),
    [
        ("resnet34", "resnet18", "resnet34"),
        ("resnet20", "resnet-50", "resnet20 or plain20"),
        ("resnet50", "resnet101", "resnet50 or resnet50v1"),
    ],
)
def test_another_architecture_is_named(saved: str, asked: str, fits: str, tmp_path: Path) -> None:
    path = tmp_path / "weights.safetensors"
    save_file(create_model(saved, classes=3).state_dict(), path)
    message = refusal(lambda: load_model(asked, path))
    assert message.startswith(f"{path} does not fit {asked.replace('-', '')} (")
    assert message.endswith(f": it fits {fits}")


@pytest.mark.parametrize(
    ("arch", "saved", "asked", "told"),
    [
        ("resnet18", None, "A", "does not fit resnet18 with shortcut A (unexpected: "),
        ("resnet20", "B", None, "does not fit resnet20 (unexpected: "),
        ("resnet20", "B", "C", "does not fit resnet20 with shortcut C (missing: "),
    ],
)
def test_another_shortcut_is_named(arch: str, saved: str | None, asked: str | None, told: str, tmp_path: Path) -> None:
    path = tmp_path / "weights.pt"
    torch.save(create_model(arch, shortcut=saved).state_dict(), path)
    message = refusal(lambda: load_model(arch, path, shortcut=asked))
    assert told in message
    assert message.endswith(f": it fits {arch} with shortcut {saved}" if saved else f": it fits {arch}")
    assert load_model(arch, path, shortcut=saved).architecture.name == arch


def test_a_source_of_other_channels_is_named(tmp_path: Path) -> None:
    path = tmp_path / "weights.pt"
    torch.save(create_model("resnet20").state_dict(), path)
    assert refusal(lambda: load_model("resnet20", path, source=nn.Conv2d(3, 4, 1))) == (
        f"input_tensor gives 4 channels, but {path} takes 3: give a module with 3"
    )
    message = refusal(lambda: load_model("resnet32", path, source=nn.Conv2d(3, 3, 1)))
    assert message.endswith("it fits resnet20 or plain20")


def test_a_checkpoint_for_other_than_grey_and_colour_images(tmp_path: Path) -> None:
    weights = create_model("resnet20").state_dict() | {"conv1.weight": torch.zeros(16, 4, 3, 3)}
    path = tmp_path / "weights.pt"
    torch.save(weights, path)
    for channels in (None, 3):
        assert refusal(lambda: load_model("resnet20", path, channels=channels)) == (  # noqa: B023
            f"{path} takes images of 4 channels: only 1 (grey) and 3 (colour) are supported"
        )


def test_differences_are_listed_up_to_three(tmp_path: Path) -> None:
    path = tmp_path / "weights.pt"
    torch.save(create_model("resnet32").state_dict(), path)
    assert refusal(lambda: load_model("resnet20", path)) == (
        f"{path} does not fit resnet20 (unexpected: layer1.3.conv1.weight, layer1.3.bn1.weight, layer1.3.bn1.bias "
        "and 57 more): it fits resnet32"
    )


def test_one_wrong_shape_name_and_dtype_each(model: ResNet, tmp_path: Path) -> None:
    weights = dict(model.state_dict())
    weights["head.bias"] = weights.pop("fc.bias")
    weights["bn1.bias"] = torch.zeros(17)
    weights["layer1.0.conv1.weight"] = torch.zeros(16, 16, 3, 3, dtype=torch.int8)
    path = tmp_path / "weights.pt"
    torch.save(weights, path)
    assert refusal(lambda: load_model("resnet20", path)) == (
        f"{path} does not fit resnet20 (missing: fc.bias; unexpected: head.bias; different: bn1.bias is 17, not 16, "
        "layer1.0.conv1.weight is int8 16×16×3×3, not 16×16×3×3): "
        "it fits none exactly; the nearest is resnet20, from which 4 tensors differ: "
        "export the network to ONNX and calibrate that"
    )


def test_something_else_altogether(tmp_path: Path) -> None:
    path = tmp_path / "vgg.pt"
    torch.save({f"features.{i}.weight": torch.zeros(8, 8, 3, 3) for i in range(16)}, path)
    assert refusal(lambda: load_model("resnet20", path)).endswith(
        "it is near none of the known architectures (see 'edge-resnet models'): "
        "export the network to ONNX and calibrate that"
    )


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        ({"classes": 10}, "classes is 10, but {path} has 7: give 7, or leave it out"),
        (
            {"channels": 1},
            "{path} takes images of 3 channels (colour), but the input has 1 channel (grey): "
            "give the input shape and preprocessing that it was trained with",
        ),
    ],
)
def test_numbers_that_disagree(asked: dict[str, int], message: str, model: ResNet, tmp_path: Path) -> None:
    path = tmp_path / "weights.pt"
    torch.save(model.state_dict(), path)
    assert refusal(lambda: load_model("resnet20", path, **asked)) == message.format(path=path)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({}, "holds no tensors, but nothing: save model.state_dict() itself"),
        ({"epoch": 3, "student": {"fc.bias": torch.ones(1)}}, "holds no tensors, but 'epoch', 'student': save"),
        (
            dict.fromkeys("abcdefghijklmn", 1),
            "holds no tensors, but 'a', 'b', 'c', 'd', 'e', 'f', 'g', 'h', 'i', 'j', ",
        ),
        ([torch.ones(1)], "holds a list: it must hold a dict of tensors, a state_dict"),
        ({"fc.bias": torch.ones(1), "linear.bias": torch.ones(1)}, "has 'linear.bias' and another name for it"),
        ({"fc.bias": torch.ones(3).to_sparse()}, "'fc.bias' is a sparse tensor or one without values"),
        ({"fc.bias": torch.ones(3, device="meta")}, "'fc.bias' is a sparse tensor or one without values"),
    ],
    ids=["empty", "nested elsewhere", "many keys", "list", "twice", "sparse", "meta"],
)
def test_content_that_is_no_state_dict(content: object, message: str, tmp_path: Path) -> None:
    torch.save(content, tmp_path / "weights.pt")
    assert message in refusal(lambda: read_checkpoint(tmp_path / "weights.pt"))


@pytest.mark.parametrize(
    ("plain", "averaged"), [("model", "model_ema"), ("state_dict", "state_dict_ema"), ("net", "of another name")]
)
def test_weights_and_their_moving_average_are_not_chosen_between(
    plain: str, averaged: str, model: ResNet, tmp_path: Path
) -> None:
    weights = model.state_dict()
    torch.save({plain: weights, averaged: {name: 0.5 * t for name, t in weights.items()}}, tmp_path / "weights.pt")
    assert refusal(lambda: load_model("resnet20", tmp_path / "weights.pt")) == (
        f"{tmp_path / 'weights.pt'} holds several sets of weights, ['{plain}'] and ['{averaged}']: save one alone, "
        f"such as torch.save(torch.load('weights.pt', weights_only=True)['{averaged}'], 'weights.pth')"
    )


@pytest.mark.parametrize("key", ["model_ema", "ema_model", "of another name"])
def test_a_moving_average_alone_is_read_beside_an_optimizer(key: str, tmp_path: Path) -> None:
    model = create_model("resnet20")
    optimizer = torch.optim.Adam(model.parameters())
    model(torch.zeros(1, 3, 32, 32)).sum().backward()
    optimizer.step()
    torch.save({key: model.state_dict(), "optimizer": optimizer.state_dict(), "epoch": 3}, tmp_path / "weights.pt")
    assert torch.equal(load_model("resnet20", tmp_path / "weights.pt").fc.weight, model.fc.weight)


def test_a_head_of_another_name(tmp_path: Path) -> None:
    tensors = {name.replace("fc.", "head.0."): t for name, t in create_model("resnet20").state_dict().items()}
    torch.save(tensors, tmp_path / "weights.pt")
    message = refusal(lambda: load_model("resnet20", tmp_path / "weights.pt"))
    assert "(it has" not in message and "it has head.0.weight, head.0.bias): give it that name" in message
    assert message.endswith("or export the network to ONNX and calibrate that"), "it cannot be read without its top"


def test_a_dict_that_holds_itself(tmp_path: Path) -> None:
    content: dict[str, object] = {}
    content["model"] = content
    torch.save(content, tmp_path / "weights.pt")
    assert "holds no tensors, but 'model'" in refusal(lambda: read_checkpoint(tmp_path / "weights.pt"))


@pytest.mark.parametrize("name", ["weights.pt", "weights.safetensors"])
def test_a_missing_file(name: str, tmp_path: Path) -> None:
    assert refusal(lambda: read_checkpoint(tmp_path / name)) == f"{tmp_path / name} does not exist: check the path"


def test_a_folder_and_an_unknown_suffix(tmp_path: Path) -> None:
    (tmp_path / "folder.pt").mkdir()
    assert refusal(lambda: read_checkpoint(tmp_path / "folder.pt")).endswith("is a folder: give a checkpoint file")
    assert refusal(lambda: read_checkpoint(tmp_path / "model.onnx")) == (
        f"{tmp_path / 'model.onnx'} has the unknown suffix '.onnx': "
        "give one of .pt, .pth, .th, .bin, .ckpt, .tar, .safetensors, .h5, .keras"
    )


def test_an_unknown_architecture_comes_before_the_file(tmp_path: Path) -> None:
    message = refusal(lambda: load_model("vgg16", tmp_path / "missing.pt"))
    assert "unknown architecture 'vgg16': choose one of resnet18, " in message
    assert message.endswith("can come as ONNX, through `edge-resnet calibrate` or a recipe's onnx (docs/onnx.md)")
