"""Keras ResNet weights → arrays by our parameters' names: read with h5py, without Keras or TensorFlow.

Keras's own ResNets (``keras.applications``) are ResNet50, 101 and 152, V1 with the stride on a block's first 1×1
convolution, and V2. Three things differ from ours, and are made equal here:

- Layouts: a convolution's kernel is H×W×in×out, a dense layer's in×out.
- V1's convolutions have a bias. BatchNorm subtracts its running mean from what they give, so the mean takes the bias over:
  ``(x + bias) - mean = x - (mean - bias)``. V2 has BatchNorm before a convolution and keeps its biases.
- Epsilon: ``EPSILON`` in every BatchNorm. ``load_model`` sets it.

MLPerf Tiny's ResNet-8 (the benchmark's image classification model) is read as well: its layers have the names that Keras
gives by itself, ``conv2d_3``, whose numbers follow the order in which they were made.

Keras has written its weights in two layouts, each alone or inside a whole model:

- HDF5 until Keras 2 (``.h5``): one group a layer, by the layer's name, ``conv1_conv/conv1_conv/kernel:0``; the whole model
  has them under ``model_weights``.
- Keras 3 (``.weights.h5``, and inside the zip archive ``.keras``): one group a layer, by the layer's class and number,
  ``layers/conv2d_12/vars/0``. Since 3.7 an attribute has the layer's name. Before, a ``.keras`` archive tells it in
  ``config.json``, and a ``.weights.h5`` does not: its numbers follow the order of Keras's own network.
"""

from __future__ import annotations

import io
import re
import zipfile
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from edge_resnet.errors import ModelError, UnavailableError
from edge_resnet.limits import check, parse_json

Array = npt.NDArray[np.float32]
Layers = dict[str, dict[str, Array]]
"""By a layer's name, its arrays by Keras's names, in Keras's layouts."""

SUFFIXES = (".h5", ".keras")
"""Of files that ``read_keras`` takes; a ``.weights.h5`` ends in ``.h5``."""
OWN_HEAD = "fc.own/"
"""What stands in front of the names of layers in a head of the user's own."""

# --- names ------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Family:
    """Keras's names of layers with weights, in the order in which Keras lists them, and our modules'."""

    stem: Mapping[str, str]
    block: Mapping[str, str]
    """Behind ``conv2_block1_``; those that begin with 0 are projections, which only the first block of a stage has."""
    head: Mapping[str, str]


@dataclass(frozen=True)
class _Tiny:
    """Our modules of ResNet-8, in the order in which Keras made its layers."""

    convolutions: tuple[str, ...]
    """3×3, each with its BatchNorm."""
    projections: tuple[str, ...]
    """1×1, without."""


_V1 = _Family(
    stem={"conv1_conv": "conv1", "conv1_bn": "bn1"},
    block={
        "1_conv": "conv1",
        "1_bn": "bn1",
        "2_conv": "conv2",
        "2_bn": "bn2",
        "0_conv": "downsample.0",
        "3_conv": "conv3",
        "0_bn": "downsample.1",
        "3_bn": "bn3",
    },
    head={"predictions": "fc"},
)
_V2 = _Family(
    stem={"conv1_conv": "conv1"},
    block={
        "preact_bn": "bn1",
        "1_conv": "conv1",
        "1_bn": "bn2",
        "2_conv": "conv2",
        "2_bn": "bn3",
        "0_conv": "downsample",
        "3_conv": "conv3",
    },
    head={"post_bn": "post_bn", "predictions": "fc"},
)
_DEPTHS = {"resnet50": (3, 4, 6, 3), "resnet101": (3, 4, 23, 3), "resnet152": (3, 8, 36, 3)}
_GIVEN = re.compile(r"(conv2d|batch_normalization|dense)(?:_(\d+))?")
"""Names that Keras gives to layers without."""
_SIDES = ((3, 3), (1, 1))
_NONE: Array = np.zeros(0, np.float32)
_IN_BLOCK = re.compile(r"conv([2-5])_block([1-9]\d?)_(\w+)")

ARCHITECTURES = (*(f"{name}{version}" for name in _DEPTHS for version in ("v1", "v2")), "resnet8")
"""Our names of Keras's own ResNets, and of MLPerf Tiny's."""
EPSILON = dict.fromkeys(ARCHITECTURES[:-1], 1.001e-5)
"""Of every BatchNorm, by our names; others have their architecture's own."""
PREPROCESSING = {name: "keras-resnet-v2" if name.endswith("v2") else "keras-resnet" for name in ARCHITECTURES[:-1]} | {
    "resnet8": "mlperf-tiny"
}
"""What the networks were trained with, by our names, in ``preprocessing.NAMED``."""

_TINY = _Tiny(
    convolutions=(
        *("conv1", "layer1.0.conv1", "layer1.0.conv2"),
        *("layer2.0.conv1", "layer2.0.conv2", "layer3.0.conv1", "layer3.0.conv2"),
    ),
    projections=("layer2.0.downsample", "layer3.0.downsample"),
)

_PARAMETERS = {
    "kernel": "weight",
    "bias": "bias",
    "gamma": "weight",
    "beta": "bias",
    "moving_mean": "running_mean",
    "moving_variance": "running_var",
}
"""Keras's names of a layer's arrays, and torch's."""
_VARIABLES = {1: ("kernel",), 2: ("kernel", "bias"), 4: ("gamma", "beta", "moving_mean", "moving_variance")}
"""What Keras 3 numbers, by how many arrays a layer has."""
_CLASSES = {"Conv2D": "conv2d", "BatchNormalization": "batch_normalization", "Dense": "dense"}
"""Classes of layers with weights, and Keras 3's names of their groups."""
_SUFFIX_CLASSES = {"conv": "Conv2D", "bn": "BatchNormalization", "predictions": "Dense"}
"""By the last part of a layer's name."""


def read_keras(path: Path) -> dict[str, Array]:
    """Reads the weights of a Keras ResNet, with V1's biases folded, by our names and in torch's layouts.

    A layer that is not one of Keras's ResNets' keeps its own name, so that a comparison with a network shows it; a dense
    one, part of a head of the user's own, has its name behind ``OWN_HEAD``.

    Raises:
        ModelError: the file holds no weights of a Keras ResNet.
        UnavailableError: h5py is not installed.
        Exception: a damaged file leads h5py to any.
    """
    layers = _read_layers(path)
    if _is_tiny(layers):
        return _read_tiny(layers)
    layers = _folded(layers)
    family = _V2 if any(layer.endswith("_preact_bn") for layer in layers) else _V1
    modules = {layer: _module(family, layer) for layer in layers}
    if all(module is None for module in modules.values()):
        raise ModelError(
            f"{path} holds none of the layers of Keras's ResNets, but {_some(layers)}: "
            "save one of keras.applications, or export the model to ONNX and calibrate that"
        )
    return {
        f"{modules[layer] or _unknown(layer, arrays)}.{_PARAMETERS.get(name, name)}": _torch_layout(array)
        for layer, arrays in layers.items()
        for name, array in arrays.items()
    }


def _unknown(layer: str, arrays: Mapping[str, Array]) -> str:
    return f"{OWN_HEAD}{layer}" if arrays.get("kernel", _NONE).ndim == 2 else layer


def _module(family: _Family, layer: str) -> str | None:
    """Our module's name; None for a layer that the family has not."""
    match = _IN_BLOCK.fullmatch(layer)
    if match and match[3] in family.block:
        return f"layer{int(match[1]) - 1}.{int(match[2]) - 1}.{family.block[match[3]]}"
    return family.stem.get(layer) or family.head.get(layer)


def _folded(layers: Layers) -> Layers:
    """Moves a convolution's bias into the BatchNorm behind it, which has the same name but ``_bn``, where there is one."""
    folded = {layer: dict(arrays) for layer, arrays in layers.items()}
    for layer, arrays in folded.items():
        norm = folded.get(layer.removesuffix("_conv") + "_bn", {})
        if layer.endswith("_conv") and "bias" in arrays and "moving_mean" in norm:
            norm["moving_mean"] = norm["moving_mean"] - arrays.pop("bias")
    return folded


def _torch_layout(array: Array) -> Array:
    """H×W×in×out → out×in×H×W, and in×out → out×in; vectors stay."""
    order = {4: (3, 2, 0, 1), 2: (1, 0)}.get(array.ndim)
    return array if order is None else np.ascontiguousarray(array.transpose(order))


def _is_tiny(layers: Layers) -> bool:
    """Whether the layers are as many, and as large, as ResNet-8's, all with names that Keras gave."""
    kernels = [arrays["kernel"].shape[:2] for arrays in layers.values() if arrays.get("kernel", _NONE).ndim == 4]
    wanted = [(3, 3)] * len(_TINY.convolutions) + [(1, 1)] * len(_TINY.projections)
    return all(_GIVEN.fullmatch(layer) for layer in layers) and sorted(kernels, reverse=True) == wanted


def _read_tiny(layers: Layers) -> dict[str, Array]:
    """ResNet-8's arrays by our names; the biases in front of BatchNorms are folded as V1's."""
    made = sorted(layers, key=lambda layer: int(_GIVEN.fullmatch(layer)[2] or 0))  # type: ignore[index]
    by_side = {side: [layers[n] for n in made if layers[n].get("kernel", _NONE).shape[:2] == side] for side in _SIDES}
    norms = [layers[name] for name in made if "gamma" in layers[name]]
    heads = [layers[name] for name in made if layers[name].get("kernel", _NONE).ndim == 2]
    found = dict(zip(["fc"], heads, strict=False))  # a network without its top has none
    for module, conv, norm in zip(_TINY.convolutions, by_side[3, 3], norms, strict=True):
        found[module] = {"kernel": conv["kernel"]}
        found[module.replace("conv", "bn")] = {**norm, "moving_mean": norm["moving_mean"] - conv["bias"]}
    found |= dict(zip(_TINY.projections, by_side[1, 1], strict=True))
    return {
        f"{module}.{_PARAMETERS[name]}": _torch_layout(array)
        for module, arrays in found.items()
        for name, array in arrays.items()
    }


# --- files ------------------------------------------------------------------------------------------------------------


def _read_layers(path: Path) -> Layers:
    try:
        import h5py
    except ModuleNotFoundError as error:
        raise UnavailableError(
            f"{path} needs h5py, which is not installed: pip install 'edge-resnet[build]'"
        ) from error
    data, names = path.read_bytes(), {}
    if data.startswith(b"PK"):  # .keras, but before Keras 3 that was a suffix of HDF5 files as well
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            data = read_member(path, archive, "model.weights.h5", "checkpoint_bytes")
            names = _configured(parse_json(read_member(path, archive, "config.json", "document_bytes")))
    with h5py.File(io.BytesIO(data), "r") as file:
        for layout in (
            "layers",
            "_layer_checkpoint_dependencies",
        ):  # the latter in Keras 2.12's first files of this kind
            if layout in file:
                return _by_class(path, file[layout], names)
        if "model_weights" in file:
            return _by_name(path, file["model_weights"])
        if "layer_names" in file.attrs:
            return _by_name(path, file)
        raise ModelError(f"{path} is no file of Keras weights, it holds {_some(file)}: save them with Keras")


def read_member(path: Path, archive: zipfile.ZipFile, name: str, limit: str) -> bytes:
    """A member of a ``.keras`` archive, which is not unpacked if it is larger than a limit; no more than it says is read.

    Raises:
        ModelError: it is larger.
        Exception: a damaged archive leads zipfile to any.
    """
    check(archive.getinfo(name).file_size, limit, f"{path}, '{name}' unpacked,", ModelError, "bytes")
    return archive.read(name)


def _by_name(path: Path, root: Any) -> Layers:
    """Reads the layout until Keras 2: ``conv1_conv/conv1_conv/kernel:0``, without ``:0`` when Keras 3 wrote it.

    A network inside another model has that model's name for it in front: ``resnet50v2/conv1_conv/kernel``.
    """
    layers: Layers = {}
    for name, dataset in _datasets(path, root).items():
        *_, layer, variable = name.split("/")
        layers.setdefault(layer, {})[variable.split(":")[0]] = _array(path, name, dataset)
    return layers


def _by_class(path: Path, root: Any, names: Mapping[str, str]) -> Layers:
    """Reads Keras 3's layout, ``conv2d_12/vars/0``; ``names`` are the layers' by their groups', as far as known.

    A network inside another model is one of its layers: ``functional/layers/conv2d_12/vars/0``.
    """
    groups: Layers = {}
    for name, dataset in _datasets(path, root).items():
        match = re.fullmatch(r"((?:[^/]+/layers/)*[^/]+)/vars/(\d+)", name)
        if match:
            groups.setdefault(match[1], {})[match[2]] = _array(path, name, dataset)
    names = names or _counted(groups)
    layers: Layers = {}
    for group, arrays in groups.items():
        layer = root[f"{group}/vars"].attrs.get("name", names.get(group, group))
        variables = _VARIABLES.get(len(arrays), tuple(arrays))
        layers[layer] = {
            variable: arrays[key] for variable, key in zip(variables, sorted(arrays, key=int), strict=True)
        }
    return layers


def _datasets(path: Path, root: Any) -> dict[str, Any]:
    """Every dataset below a group by its path, none read yet: a file of a few KB can hold one of many GB, compressed.

    Visiting follows no link, so that a file reads from itself alone.
    """
    found: dict[str, Any] = {}

    def visit(name: str, item: Any) -> None:
        if hasattr(item, "dtype"):
            found[name] = item

    root.visititems(visit)
    check(sum(each.nbytes for each in found.values()), "checkpoint_bytes", str(path), ModelError, "bytes, unpacked")
    return found


def _array(path: Path, name: str, dataset: Any) -> Array:
    if dataset.external or dataset.is_virtual:
        raise ModelError(f"{path}: '{name}' lies in another file: save the weights into one")
    if dataset.dtype.kind != "f":
        raise ModelError(f"{path}: '{name}' has dtype {dataset.dtype}: save the network with float32 weights")
    values: Array = np.asarray(dataset[()]).astype(np.float32)
    return values


# --- numbers of Keras 3's groups --------------------------------------------------------------------------------------


def _configured(config: Any) -> dict[str, str]:
    """Layers' names by their groups', from ``config.json``; none for a model that does not list its layers."""
    layers = config.get("config", {}).get("layers", ())
    return _numbered((layer["class_name"], layer["config"]["name"]) for layer in layers)


def _counted(groups: Mapping[str, object]) -> dict[str, str]:
    """Layers' names by their groups', of the one of Keras's ResNets that has as many of each class; none otherwise."""
    for depths in _DEPTHS.values():
        for family in (_V1, _V2):
            names = _numbered(_listed(family, depths))
            if names.keys() - {"dense"} == groups.keys() - {"dense"}:  # compared without the head, which may be missing
                return names
    return {}


def _listed(family: _Family, depths: tuple[int, ...]) -> Iterator[tuple[str, str]]:
    """Classes and names of a network's layers with weights, in Keras's order."""
    names = [*family.stem]
    for stage, depth in enumerate(depths, 2):
        for block in range(1, depth + 1):
            names += [f"conv{stage}_block{block}_{name}" for name in family.block if block == 1 or name[0] != "0"]
    for name in (*names, *family.head):
        yield _SUFFIX_CLASSES[name.rpartition("_")[2]], name


def _numbered(layers: Iterable[tuple[str, str]]) -> dict[str, str]:
    """Names by groups: each class counts for itself, and its first layer has no number."""
    counts: Counter[str] = Counter()
    names = {}
    for class_name, name in layers:
        if class_name in _CLASSES:
            group, number = _CLASSES[class_name], counts[class_name]
            names[f"{group}_{number}" if number else group] = name
            counts[class_name] += 1
    return names


def _some(names: Any) -> str:
    return ", ".join(repr(name) for name in list(names)[:3]) or "nothing"
