"""Keras's, torchvision's and timm's own ResNets with random weights: what they answer, and the files they save."""

from __future__ import annotations

import importlib
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import torch
from networks import BIASES, SCALES, SHIFTS, Array, give_statistics
from safetensors.torch import save_file
from torch import nn

COMMON = {
    **{f"resnet{depth}": f"resnet{depth}" for depth in (18, 34, 50, 101, 152)},
    "resnext50_32x4d": "resnext50",
    "resnext101_32x8d": "resnext101",
    "resnext101_64x4d": "resnext101-64x4d",
    "wide_resnet50_2": "wide-resnet50",
    "wide_resnet101_2": "wide-resnet101",
}
"""torchvision's names, which timm has as well, and ours."""
OURS: Mapping[str, Mapping[str, str]] = {
    "torchvision": COMMON,
    "timm": {
        **COMMON,
        **{f"resnet{depth}d": f"resnet{depth}d" for depth in (18, 34, 50, 101, 152)},
        **{f"resnetv2_{depth}": f"resnetv2-{depth}" for depth in (18, 34, 50, 101, 152)},
    },
    "keras": {
        **{f"ResNet{depth}": f"resnet{depth}v1" for depth in (50, 101, 152)},
        **{f"ResNet{depth}V2": f"resnet{depth}v2" for depth in (50, 101, 152)},
    },
}
"""By library, its names and ours of the networks that both have."""
SUFFIXES = {"torchvision": (".pth",), "timm": (".safetensors",), "keras": (".weights.h5", ".keras", ".h5")}
"""Of the files in which a library saves its weights."""


@dataclass(frozen=True)
class Peer:
    """A network of another library."""

    logits: Array
    """Its answer to the images that it was made with."""
    parameters: int
    """That training changes, but for biases which the BatchNorm behind them cancels: ours has none."""
    save: Callable[[Path], object]
    """Writes the weights as the library does, in the format that the path's suffix stands for."""


def make_peer(library: str, name: str, images: Array) -> Peer:
    """Makes a library's network with random weights, the same each time.

    Args:
        library: one of ``OURS``.
        name: the library's name of the network.
        images: normalised float32 N×3×H×W, of which BatchNorm has the statistics.

    Raises:
        ImportError: the library is not installed.
    """
    return _MAKERS[library](name, images)


# --- torchvision and timm ---------------------------------------------------------------------------------------------

_DECLARED = torch.library.Library("torchvision", "FRAGMENT")
"""Operators stay declared as long as this lives."""


def import_torchvision() -> ModuleType:
    """Imports torchvision. PyPI's is built for CUDA, and its operators do not load beside a CPU torch.

    It then breaks off at the first of two operators that it adds to and cannot find. No ResNet uses them: they are declared
    empty, and it is imported once more.
    """
    try:
        return importlib.import_module("torchvision")
    except RuntimeError:
        for operator in ("nms", "qnms"):
            _DECLARED.define(f"{operator}(Tensor x) -> Tensor")
        return importlib.import_module("torchvision")


def _torchvision(name: str, images: Array) -> Peer:
    models = import_torchvision().models
    torch.manual_seed(0)
    network = models.get_model(name)
    return _torch_peer(network, images, lambda path: torch.save(network.state_dict(), path))


def _timm(name: str, images: Array) -> Peer:
    import_torchvision()  # which timm imports
    timm = importlib.import_module("timm")
    torch.manual_seed(0)
    network = timm.create_model(name)
    return _torch_peer(network, images, lambda path: save_file(network.state_dict(), path))


def _torch_peer(network: nn.Module, images: Array, save: Callable[[Path], object]) -> Peer:
    tensor = torch.from_numpy(images)
    give_statistics(network, tensor)
    with torch.no_grad():
        logits = network(tensor).numpy()
    return Peer(logits, sum(parameter.numel() for parameter in network.parameters()), save)


# --- Keras ------------------------------------------------------------------------------------------------------------


def import_keras() -> ModuleType:
    """Imports Keras with its torch backend, which needs no TensorFlow."""
    os.environ["KERAS_BACKEND"] = "torch"
    return importlib.import_module("keras")


def _keras(name: str, images: Array) -> Peer:
    keras = import_keras()
    keras.utils.set_random_seed(0)
    shape = (*images.shape[2:], 3)
    network = getattr(keras.applications, name)(weights=None, input_shape=shape, classifier_activation=None)
    frames = np.ascontiguousarray(images.transpose(0, 2, 3, 1))
    _give_keras_statistics(network, frames)
    with torch.no_grad():
        logits = network(frames, training=False).numpy()
    save = partial(_save_keras, network)
    return Peer(logits, _keras_parameters(network), save)


def _save_keras(network: Any, path: Path) -> None:
    save = network.save_weights if path.name.endswith(".weights.h5") else network.save
    save(path)


def _give_keras_statistics(network: Any, frames: Array) -> None:
    """``give_statistics`` for a Keras network."""
    random = np.random.default_rng(0)
    for weight in network.trainable_weights:
        if weight.name == "gamma":
            weight.assign(random.uniform(*SCALES, weight.shape))
        elif weight.name == "beta":
            weight.assign(random.normal(*SHIFTS, weight.shape))
        elif weight.name == "bias":
            weight.assign(random.normal(*BIASES, weight.shape))
    for layer in network.layers:
        if type(layer).__name__ == "BatchNormalization":
            layer.momentum = 0.0  # what it sees last is all it keeps
    with torch.no_grad():
        network(frames, training=True)


def _keras_parameters(network: Any) -> int:
    names = {layer.name for layer in network.layers}
    cancelled = [
        layer.bias
        for layer in network.layers
        if layer.name.endswith("_conv") and layer.use_bias and f"{layer.name.removesuffix('_conv')}_bn" in names
    ]
    return sum(int(np.prod(weight.shape)) for weight in network.trainable_weights) - sum(
        int(np.prod(bias.shape)) for bias in cancelled
    )


_MAKERS: dict[str, Callable[[str, Array], Peer]] = {"torchvision": _torchvision, "timm": _timm, "keras": _keras}
