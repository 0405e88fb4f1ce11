"""What a whole Keras model computes, by its own description, held against the network that takes its weights.

``.keras`` and ``.h5`` files of whole models list their layers. Both lists are put into the same words, one a step of
computation, and each step of ours is taken off theirs. What is left over, such as a ``Rescaling`` in front or a
``GlobalMaxPooling2D``, would be lost, and the answers would be others. Files of weights alone say nothing of this.
"""

from __future__ import annotations

import re
import zipfile
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import nn

from edge_resnet.errors import ModelError
from edge_resnet.keras_weights import read_member
from edge_resnet.limits import parse_json
from edge_resnet.models import Add, EvenConv2d, ResNet

TRAINING_ONLY = (
    *("Dropout", "SpatialDropout2D", "AlphaDropout", "GaussianDropout", "GaussianNoise", "ActivityRegularization"),
    *("RandomFlip", "RandomRotation", "RandomTranslation", "RandomZoom", "RandomContrast", "RandomBrightness"),
)
"""Layers that give what they get, but for training."""

_NEUTRAL = ("InputLayer", "Identity", "Flatten", *TRAINING_ONLY)
"""Layers that change no value. A Flatten of more than one pixel shows in the classifier's weights."""
_PADS = re.compile(r"conv1_pad|pool1_pad|conv[2-5]_block\d+_2_pad")
"""Names of layers whose zeros our convolutions and poolings add themselves."""
_POOL, _SOFTMAX = "GlobalAveragePooling2D", "Softmax"


@dataclass(frozen=True)
class _Layer:
    kind: str
    name: str
    settings: Mapping[str, Any]


def check_description(path: Path, model: ResNet) -> None:
    """Refuses a file whose model computes something else than a network with the same weights.

    A feature extractor is held against the layers up to the last feature map: what follows them is left out.

    Raises:
        ModelError: the file's model has a layer that the network has not, or lacks one; it is named.
        Exception: a damaged description leads to any.
    """
    description = _description(path)
    if description is None:
        return
    layers, ours = list(_flat(description)), model.architecture.name
    wanted, advice = (
        Counter(_computed(model)),
        "its answers would be others: export the model to ONNX and calibrate that",
    )
    whole_map = _whole_map(model, layers)
    for layer in layers:
        if model.classes is None and not wanted:
            return
        found = Counter(_steps(layer, whole_map))
        if found - wanted:
            raise ModelError(
                f"{path} has the layer '{layer.name}' ({', '.join(found - wanted)}) and {ours} has not: {advice}"
            )
        wanted -= found
    optional = {_SOFTMAX, *(_POOL for layer in layers if layer.kind == "Flatten")}  # then of a single pixel
    for step in wanted.keys() - optional:
        raise ModelError(f"{path} describes a model without {step}, which {ours} has: {advice}")


def _description(path: Path) -> Any:
    """``config.json`` of an archive, or the attribute of an HDF5 file; None where there are weights alone."""
    import h5py

    with path.open("rb") as opened:
        archived = opened.read(2) == b"PK"  # the suffix does not tell: Keras 2 wrote HDF5 as .keras too
    if archived:
        with zipfile.ZipFile(path) as archive:
            return parse_json(read_member(path, archive, "config.json", "document_bytes"))
    with h5py.File(path, "r") as file:
        if "model_config" not in file.attrs:
            return None
        described = file.attrs["model_config"]
        return parse_json(described.encode() if isinstance(described, str) else bytes(described))


def _flat(description: Mapping[str, Any]) -> Iterator[_Layer]:
    """The layers in the order of computation, those of a model inside another in its place."""
    settings = description["config"]
    if "layers" not in settings:
        yield _Layer(description["class_name"], settings.get("name", ""), settings)
    for inner in settings.get("layers", ()):
        yield from _flat(inner)


def _whole_map(model: ResNet, layers: list[_Layer]) -> list[int]:
    """Height and width of the last feature map, for the images that the file's model takes; none where they are open."""
    shapes = (layer.settings.get("batch_shape") or layer.settings.get("batch_input_shape") for layer in layers)
    reduction = 4 if model.architecture.stem == "3x3" else 32
    _, *sides, _ = next((shape for shape in shapes if shape), (None, None))
    return [side // reduction for side in sides if side is not None and side % reduction == 0]


# --- one step of computation, in the same words for both ----------------------------------------------------------------


def _convolution(kernel: Any, stride: Any, dilation: Any) -> str:
    return f"Conv2D of {_by(kernel)} at stride {_by(stride)}, dilation {_by(dilation)}"


def _max_pooling(kernel: Any, stride: Any) -> str:
    return f"MaxPooling2D of {_by(kernel)} at stride {_by(stride)}"


def _norm(epsilon: float) -> str:
    return f"BatchNormalization with epsilon {epsilon:g}"


def _by(sides: int | tuple[int, ...] | list[int]) -> str:
    return f"{sides}×{sides}" if isinstance(sides, int) else "×".join(map(str, sides))


_OURS: dict[type[nn.Module], Callable[[Any], str]] = {
    nn.Conv2d: lambda conv: _convolution(conv.kernel_size, conv.stride, conv.dilation),
    EvenConv2d: lambda conv: _convolution(conv.kernel_size, conv.stride, conv.dilation),
    nn.BatchNorm2d: lambda norm: _norm(norm.eps),
    nn.MaxPool2d: lambda pool: _max_pooling(pool.kernel_size, pool.stride),
    nn.ReLU: lambda relu: "relu",
    Add: lambda add: "Add",
}
"""The step that a module of ours is."""


def _computed(model: ResNet) -> Iterator[str]:
    for name, module in model.named_modules():
        if type(module) in _OURS and not name.startswith("source"):
            yield _OURS[type(module)](module)
    if model.classes is not None:
        yield from (_POOL, "Dense", _SOFTMAX)


_ACTIVATIONS: dict[object, list[str]] = {"linear": [], "relu": ["relu"], "softmax": [_SOFTMAX]}


def _activation(settings: Mapping[str, Any]) -> list[str]:
    function = settings.get("activation", "linear")
    return _ACTIVATIONS.get(function, [str(function)]) if isinstance(function, str) else [f"activation {function}"]


def _relu(settings: Mapping[str, Any]) -> list[str]:
    limits = {key: settings[key] for key in ("max_value", "negative_slope", "threshold") if settings.get(key)}
    return [f"relu with {key} {value}" for key, value in limits.items()] or ["relu"]


_THEIRS: dict[str, Callable[[Mapping[str, Any]], list[str]]] = {
    "Conv2D": lambda conv: [
        _convolution(conv["kernel_size"], conv["strides"], conv["dilation_rate"]),
        *_activation(conv),
    ],
    "BatchNormalization": lambda norm: [_norm(norm["epsilon"])],
    "MaxPooling2D": lambda pool: [_max_pooling(pool["pool_size"], pool["strides"])],
    "Dense": lambda dense: ["Dense", *_activation(dense)],
    "Activation": _activation,
    "ReLU": _relu,
    **dict.fromkeys(_NEUTRAL, lambda layer: []),
}
"""The steps that a layer of Keras's is, by its class; of others, the class itself."""


def _steps(layer: _Layer, whole_map: list[int]) -> list[str]:
    if _PADS.fullmatch(layer.name):
        return []
    if layer.kind == "AveragePooling2D" and list(layer.settings["pool_size"]) == whole_map:
        return [_POOL]
    return _THEIRS[layer.kind](layer.settings) if layer.kind in _THEIRS else [layer.kind]
