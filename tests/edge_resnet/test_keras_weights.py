"""Files of Keras weights in each of Keras's layouts, written here with h5py; and every way in which one can be wrong."""

from __future__ import annotations

import io
import json
import sys
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import numpy.typing as npt
import pytest
from torch import nn

from edge_resnet.errors import EdgeResnetError, ModelError, UnavailableError
from edge_resnet.keras_weights import read_keras
from edge_resnet.models import create_model
from edge_resnet.weights import load_model, read_checkpoint

Array = npt.NDArray[np.float32]
Layers = Mapping[str, Mapping[str, Array]]
CLASSES = {"conv": "Conv2D", "bn": "BatchNormalization", "predictions": "Dense"}
GROUPS = {"Conv2D": "conv2d", "BatchNormalization": "batch_normalization", "Dense": "dense"}


def floats(*shape: int) -> Array:
    """Different numbers everywhere, so that no two elements change places unseen."""
    return np.arange(1, np.prod(shape) + 1, dtype=np.float32).reshape(shape)


def norm(channels: int) -> dict[str, Array]:
    return {
        name: floats(channels) + offset
        for offset, name in enumerate(("gamma", "beta", "moving_mean", "moving_variance"), 1)
    }


V1: Layers = {
    "conv1_conv": {"kernel": floats(7, 7, 3, 2), "bias": floats(2) / 4},
    "conv1_bn": norm(2),
    "conv2_block1_1_conv": {"kernel": floats(1, 1, 2, 3), "bias": floats(3) / 8},
    "conv2_block1_1_bn": norm(3),
    "conv2_block1_0_conv": {"kernel": floats(1, 1, 2, 5), "bias": floats(5)},
    "conv2_block1_0_bn": norm(5),
    "predictions": {"kernel": floats(5, 4), "bias": floats(4)},
}
"""The first layers of a ResNet50 and its head, with few channels, in Keras's layouts."""
V2: Layers = {
    "conv1_conv": {"kernel": floats(7, 7, 3, 2), "bias": floats(2)},
    "conv2_block1_preact_bn": norm(2),
    "conv2_block1_1_conv": {"kernel": floats(1, 1, 2, 3)},
    "conv2_block1_1_bn": norm(3),
    "conv2_block1_0_conv": {"kernel": floats(1, 1, 2, 5), "bias": floats(5)},
    "conv2_block1_3_conv": {"kernel": floats(1, 1, 3, 5), "bias": floats(5)},
    "post_bn": norm(5),
    "predictions": {"kernel": floats(5, 4), "bias": floats(4)},
}


# --- Keras's layouts --------------------------------------------------------------------------------------------------


def by_name(root: Any, layers: Layers, ending: str) -> None:
    """Keras 2: a group a layer, by its name, twice."""
    root.attrs["layer_names"] = [name.encode() for name in ("input_1", *layers)]
    root.create_group("input_1").attrs["weight_names"] = []
    for layer, arrays in layers.items():
        for name, array in arrays.items():
            root.create_dataset(f"{layer}/{layer}/{name}{ending}", data=array)


def grouped(layers: Layers) -> dict[str, str]:
    """Keras 3's groups of layers: the class, and how many of it came before."""
    counts = dict.fromkeys(GROUPS.values(), 0)
    groups = {}
    for layer in layers:
        group = GROUPS[CLASSES[layer.rpartition("_")[2]]]
        groups[layer] = f"{group}_{counts[group]}" if counts[group] else group
        counts[group] += 1
    return groups


def by_class(file: Any, layers: Layers, *, named: bool, root: str = "layers") -> None:
    """Keras 3: a group a layer, by its class and number, arrays by their number."""
    for layer, group in grouped(layers).items():
        variables = file.create_group(f"{root}/{group}/vars")
        if named:
            variables.attrs["name"] = layer
        for index, array in enumerate(layers[layer].values()):
            variables.create_dataset(str(index), data=array)
    file.create_group("vars")


def write_keras_2(path: Path, layers: Layers) -> None:
    with h5py.File(path, "w") as file:
        by_name(file, layers, ":0")


def write_keras_2_model(path: Path, layers: Layers) -> None:
    with h5py.File(path, "w") as file:
        by_name(file.create_group("model_weights"), layers, ":0")
        file.create_dataset("optimizer_weights/iteration:0", data=7)


def write_keras_3_model(path: Path, layers: Layers) -> None:
    with h5py.File(path, "w") as file:
        by_name(file.create_group("model_weights"), layers, "")


def write_keras_3(path: Path, layers: Layers) -> None:
    with h5py.File(path, "w") as file:
        by_class(file, layers, named=True)


def write_archive(path: Path, layers: Layers, *, named: bool = False) -> None:
    content = io.BytesIO()
    with h5py.File(content, "w") as file:
        by_class(file, layers, named=named)
    listed = [
        {"class_name": "InputLayer", "config": {"name": "input_layer"}},
        *({"class_name": CLASSES[name.rpartition("_")[2]], "config": {"name": name}} for name in layers),
    ]
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("metadata.json", json.dumps({"keras_version": "3.0.5"}))
        archive.writestr("config.json", json.dumps({"class_name": "Functional", "config": {"layers": listed}}))
        archive.writestr("model.weights.h5", content.getvalue())


def write_archive_with_names(path: Path, layers: Layers) -> None:
    write_archive(path, layers, named=True)


LAYOUTS: dict[str, tuple[str, Callable[[Path, Layers], None]]] = {
    "Keras 2 weights": ("weights.h5", write_keras_2),
    "Keras 2 model": ("model.h5", write_keras_2_model),
    "Keras 2 model, as .keras": ("model.keras", write_keras_2_model),
    "Keras 3 model": ("model.h5", write_keras_3_model),
    "Keras 3.7 weights": ("model.weights.h5", write_keras_3),
    "Keras 3 archive": ("model.keras", write_archive),
    "Keras 3.7 archive": ("model.keras", write_archive_with_names),
}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_v1_from_every_layout(layout: str, tmp_path: Path) -> None:
    name, write = LAYOUTS[layout]
    write(tmp_path / name, V1)
    found = read_keras(tmp_path / name)
    assert set(found) == {
        *("conv1.weight", "bn1.weight", "bn1.bias", "bn1.running_mean", "bn1.running_var"),
        *("layer1.0.conv1.weight", "layer1.0.downsample.0.weight", "fc.weight", "fc.bias"),
        *(f"layer1.0.bn1.{part}" for part in ("weight", "bias", "running_mean", "running_var")),
        *(f"layer1.0.downsample.1.{part}" for part in ("weight", "bias", "running_mean", "running_var")),
    }
    kernel = V1["conv1_conv"]["kernel"]
    for row, column, source, target in ((0, 0, 0, 0), (6, 2, 1, 0), (3, 5, 2, 1)):
        assert found["conv1.weight"][target, source, row, column] == kernel[row, column, source, target]
    assert found["conv1.weight"].shape == (2, 3, 7, 7)
    np.testing.assert_array_equal(found["fc.weight"], V1["predictions"]["kernel"].T)
    np.testing.assert_array_equal(found["layer1.0.downsample.1.weight"], V1["conv2_block1_0_bn"]["gamma"])
    assert all(array.dtype == np.float32 and array.flags.c_contiguous for array in found.values())
    # by hand: BatchNorm has the running means 4, 5 and the convolution the biases 0.25, 0.5
    assert found["bn1.running_mean"].tolist() == [3.75, 4.5]
    assert [found[f"bn1.{part}"].tolist() for part in ("weight", "bias", "running_var")] == [[2, 3], [3, 4], [5, 6]]
    assert found["layer1.0.bn1.running_mean"].tolist() == [3.875, 4.75, 5.625]


@pytest.mark.parametrize("layout", LAYOUTS)
def test_v2_from_every_layout(layout: str, tmp_path: Path) -> None:
    name, write = LAYOUTS[layout]
    write(tmp_path / name, V2)
    found = read_keras(tmp_path / name)
    np.testing.assert_array_equal(found["conv1.bias"], [1, 2])
    np.testing.assert_array_equal(found["layer1.0.downsample.bias"], [1, 2, 3, 4, 5])
    np.testing.assert_array_equal(found["layer1.0.conv3.bias"], [1, 2, 3, 4, 5])
    # nothing is folded: BatchNorm stands before the convolution of its number
    np.testing.assert_array_equal(found["layer1.0.bn1.running_mean"], [4, 5])
    np.testing.assert_array_equal(found["layer1.0.bn2.running_mean"], [4, 5, 6])
    np.testing.assert_array_equal(found["post_bn.weight"], [2, 3, 4, 5, 6])
    assert "layer1.0.conv1.bias" not in found


V1_BLOCK = ("1_conv", "1_bn", "2_conv", "2_bn", "3_conv", "3_bn")
V1_FIRST = ("1_conv", "1_bn", "2_conv", "2_bn", "0_conv", "3_conv", "0_bn", "3_bn")
V2_BLOCK = ("preact_bn", "1_conv", "1_bn", "2_conv", "2_bn", "3_conv")
V2_FIRST = ("preact_bn", "1_conv", "1_bn", "2_conv", "2_bn", "0_conv", "3_conv")
DEPTHS = [(3, 4, 6, 3), (3, 4, 23, 3), (3, 8, 36, 3)]


def marked(depths: tuple[int, ...], version: int) -> Layers:
    """All layers of a Keras ResNet in ``model.layers``'s order, each array holding its layer's place in it."""
    first, others = (V1_FIRST, V1_BLOCK) if version == 1 else (V2_FIRST, V2_BLOCK)
    names = ["conv1_conv", "conv1_bn"] if version == 1 else ["conv1_conv"]
    for stage, depth in enumerate(depths, 2):
        for block in range(1, depth + 1):
            names += [f"conv{stage}_block{block}_{part}" for part in (first if block == 1 else others)]
    names += ["predictions"] if version == 1 else ["post_bn", "predictions"]
    shapes = {"conv": [("kernel", (1, 1, 1, 1))], "predictions": [("kernel", (1, 1)), ("bias", (1,))]}
    norms = [(name, (1,)) for name in norm(1)]
    return {
        name: {part: np.full(shape, place, np.float32) for part, shape in shapes.get(name.rpartition("_")[2], norms)}
        for place, name in enumerate(names)
    }


@pytest.mark.parametrize(
    ("depths", "version", "root"),
    [
        *((depths, version, "layers") for depths in DEPTHS for version in (1, 2)),
        (DEPTHS[0], 1, "_layer_checkpoint_dependencies"),
    ],
)
def test_numbers_alone_follow_keras_order(depths: tuple[int, ...], version: int, root: str, tmp_path: Path) -> None:
    layers = marked(depths, version)
    anonymous, named = tmp_path / "anonymous.weights.h5", tmp_path / "named.h5"
    with h5py.File(anonymous, "w") as file:
        by_class(file, layers, named=False, root=root)
    write_keras_2(named, layers)
    found, wanted = read_keras(anonymous), read_keras(named)
    assert {name: float(array.flat[0]) for name, array in found.items()} == {
        name: float(array.flat[0]) for name, array in wanted.items()
    }
    assert len({float(array.flat[0]) for array in found.values()}) == len(layers)


def in_keras_layout(model: nn.Module) -> Layers:
    """A ResNet50 of ours as the layers of Keras's, with zero biases."""
    parts = {"weight": "gamma", "bias": "beta", "running_mean": "moving_mean", "running_var": "moving_variance"}
    layers: dict[str, dict[str, Array]] = {}
    for path, module in model.named_modules():
        if isinstance(module, nn.Linear):
            layers["predictions"] = {
                "kernel": module.weight.detach().numpy().T,
                "bias": module.bias.detach().numpy(),
            }
        if not isinstance(module, nn.Conv2d | nn.BatchNorm2d):
            continue
        kind = "conv" if isinstance(module, nn.Conv2d) else "bn"
        stage, block, *place = path.removeprefix("layer").split(".") if "layer" in path else ("0", "0", path)
        number = "0" if place[0] == "downsample" else place[0][-1]
        name = f"conv{int(stage) + 1}_block{int(block) + 1}_{number}_{kind}" if int(stage) else f"conv1_{kind}"
        tensors = {key: tensor.numpy() for key, tensor in module.state_dict().items() if not key.endswith("tracked")}
        if kind == "conv":
            layers[name] = {"kernel": tensors["weight"].transpose(2, 3, 1, 0)}
        else:
            layers[name] = {parts[key]: tensor for key, tensor in tensors.items()}
    return layers


def test_a_loaded_network_has_kerass_epsilon(tmp_path: Path) -> None:
    path, model = tmp_path / "weights.h5", create_model("resnet50v1", classes=2)
    write_keras_2(path, in_keras_layout(model))
    loaded = load_model("resnet50v1", path)
    wanted = model.state_dict()
    assert all((tensor == wanted[name]).all() for name, tensor in loaded.state_dict().items())
    assert {module.eps for module in loaded.modules() if isinstance(module, nn.BatchNorm2d)} == {1.001e-5}
    assert loaded.architecture.epsilon == 1.001e-5
    with pytest.raises(ModelError, match=r"does not fit resnet50 \(Keras has the stride in another convolution\)"):
        load_model("resnet50", path)


# --- what is wrong ----------------------------------------------------------------------------------------------------


def refusal(path: Path) -> str:
    """The line with which a file is refused."""
    with pytest.raises(EdgeResnetError) as caught:
        read_checkpoint(path)
    message = str(caught.value)
    assert "\n" not in message and message.startswith(str(path))
    return message.removeprefix(f"{path}")


@pytest.mark.parametrize("fraction", [0.0, 0.01, 0.5, 0.99])
@pytest.mark.parametrize("layout", ["Keras 2 weights", "Keras 3.7 weights", "Keras 3 archive"])
def test_a_file_cut_short(layout: str, fraction: float, tmp_path: Path) -> None:
    name, write = LAYOUTS[layout]
    path = tmp_path / name
    write(path, V1)
    path.write_bytes(path.read_bytes()[: int(path.stat().st_size * fraction)])
    assert refusal(path) == " is damaged, cut short or no checkpoint: copy or download it again"


@pytest.mark.parametrize("name", ["weights.h5", "model.keras"])
@pytest.mark.parametrize(
    "content", [b"<!DOCTYPE html>", b"PK\x03\x04 but no archive", b"\x89HDF\r\n\x1a\n and no more"]
)
def test_a_file_of_another_kind(name: str, content: bytes, tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(content)
    assert refusal(tmp_path / name) == " is damaged, cut short or no checkpoint: copy or download it again"


def test_an_archive_without_weights(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "model.keras", "w") as archive:
        archive.writestr("config.json", "{}")
    assert "is damaged, cut short or no checkpoint" in refusal(tmp_path / "model.keras")


def test_a_damaged_byte_never_gives_another_error(tmp_path: Path) -> None:
    write_keras_3(tmp_path / "whole.h5", V1)
    whole, path = (tmp_path / "whole.h5").read_bytes(), tmp_path / "damaged.h5"
    random = np.random.default_rng(0)
    for _ in range(80):
        damaged = bytearray(whole)
        damaged[random.integers(0, min(len(damaged), 4096))] ^= 1 << int(random.integers(0, 8))
        path.write_bytes(damaged)
        try:
            read_checkpoint(path)
        except ModelError as error:
            assert "\n" not in str(error)


def test_hdf5_that_is_no_keras_file(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "data.h5", "w") as file:
        file["images"], file["labels"] = floats(2, 2), floats(2)
    assert refusal(tmp_path / "data.h5") == (
        " is no file of Keras weights, it holds 'images', 'labels': save them with Keras"
    )


def test_a_keras_network_that_is_no_resnet(tmp_path: Path) -> None:
    write_keras_2(tmp_path / "vgg.h5", {f"block1_conv{i}": {"kernel": floats(3, 3, 2, 2)} for i in range(1, 5)})
    assert refusal(tmp_path / "vgg.h5") == (
        " holds none of the layers of Keras's ResNets, but 'block1_conv1', 'block1_conv2', 'block1_conv3': "
        "save one of keras.applications, or export the model to ONNX and calibrate that"
    )


def test_a_network_inside_another_is_found(tmp_path: Path) -> None:
    nested = {"resnet50": {f"{layer}/{name}": array for layer, arrays in V1.items() for name, array in arrays.items()}}
    write_keras_2(tmp_path / "nested.h5", nested)
    write_keras_2(tmp_path / "alone.h5", V1)
    found, wanted = read_keras(tmp_path / "nested.h5"), read_keras(tmp_path / "alone.h5")
    assert found.keys() == wanted.keys()
    assert all(np.array_equal(found[name], wanted[name]) for name in wanted)


def test_a_network_without_its_classifier(tmp_path: Path) -> None:
    write_keras_2(tmp_path / "notop.h5", {name: arrays for name, arrays in V1.items() if name != "predictions"})
    with pytest.raises(ModelError, match="has no classifier"):
        load_model("resnet50v1", tmp_path / "notop.h5")


def test_an_unknown_layer_keeps_its_name_and_is_told(tmp_path: Path) -> None:
    path = tmp_path / "more.h5"
    write_keras_2(path, {**V1, "extra_dense": {"kernel": floats(4, 4)}, "conv2_block1_4_conv": {"kernel": floats(1)}})
    assert {"fc.own/extra_dense.weight", "conv2_block1_4_conv.weight"} <= set(read_keras(path))
    with pytest.raises(ModelError, match="unexpected: conv2_block1_4_conv.weight, extra_dense.weight;"):
        load_model("resnet50v1", path)


@pytest.mark.parametrize(("dtype", "name"), [(np.int8, "int8"), (np.complex64, "complex64"), (np.bool_, "bool")])
def test_weights_that_are_no_floats(dtype: type[np.generic], name: str, tmp_path: Path) -> None:
    write_keras_2(tmp_path / "weights.h5", {**V1, "conv1_bn": {"gamma": floats(2).astype(dtype)}})
    assert refusal(tmp_path / "weights.h5") == (
        f": 'conv1_bn/conv1_bn/gamma:0' has dtype {name}: save the network with float32 weights"
    )


@pytest.mark.parametrize("dtype", [np.float16, np.float64])
def test_other_floats_become_float32(dtype: type[np.floating[Any]], tmp_path: Path) -> None:
    write_keras_2(tmp_path / "weights.h5", {"conv1_conv": {"kernel": floats(1, 1, 2, 2).astype(dtype)}})
    found = read_keras(tmp_path / "weights.h5")["conv1.weight"]
    assert (found.dtype, found.ravel().tolist()) == (np.float32, [1, 3, 2, 4])


# A file reads from itself alone.


def externally_stored(file: Any, other: Path) -> None:
    other.with_suffix(".raw").write_bytes(floats(2).tobytes())
    file.create_dataset(
        "layers/dense/vars/0", (2,), np.float32, external=[(str(other.with_suffix(".raw")), 0, h5py.h5f.UNLIMITED)]
    )


def virtual(file: Any, other: Path) -> None:
    layout = h5py.VirtualLayout((2,), np.float32)
    layout[:] = h5py.VirtualSource(str(other), "layers/conv2d/vars/1", (2,))
    file.create_virtual_dataset("layers/dense/vars/0", layout)


@pytest.mark.parametrize("write", [externally_stored, virtual])
def test_an_array_that_lies_in_another_file(write: Callable[[Any, Path], None], tmp_path: Path) -> None:
    write_keras_3(tmp_path / "other.h5", V1)
    with h5py.File(tmp_path / "weights.h5", "w") as file:
        write(file, tmp_path / "other.h5")
    assert refusal(tmp_path / "weights.h5") == ": 'dense/vars/0' lies in another file: save the weights into one"


@pytest.mark.parametrize("place", ["layers", "layers/conv2d", "layers/conv2d/vars/0", "model_weights"])
def test_a_link_to_another_file_is_not_followed(place: str, tmp_path: Path) -> None:
    write_keras_3(tmp_path / "other.h5", V1)
    with h5py.File(tmp_path / "weights.h5", "w") as file:
        file[place] = h5py.ExternalLink(str(tmp_path / "other.h5"), "/layers" if place == "model_weights" else place)
    refusal(tmp_path / "weights.h5")


def test_without_h5py(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_keras_2(tmp_path / "weights.h5", V1)
    monkeypatch.setitem(sys.modules, "h5py", None)
    with pytest.raises(UnavailableError) as caught:
        read_checkpoint(tmp_path / "weights.h5")
    assert str(caught.value) == (
        f"{tmp_path / 'weights.h5'} needs h5py, which is not installed: pip install 'edge-resnet[build]'"
    )


def test_a_missing_file(tmp_path: Path) -> None:
    assert refusal(tmp_path / "weights.h5") == " does not exist: check the path"
