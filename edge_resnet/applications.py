"""The options that Keras users know (``keras.applications``), on torch networks."""

from __future__ import annotations

import copy
import os
from dataclasses import dataclass
from pathlib import Path

from torch import nn

from edge_resnet.errors import ModelError
from edge_resnet.models import CHANNELS, Architecture, ResNet, architecture_named
from edge_resnet.recipe import POOLINGS
from edge_resnet.weights import load_model


@dataclass(frozen=True)
class _InputShape:
    """What ``input_shape`` says; None: any side, and as many channels as the weights take."""

    height: int | None = None
    width: int | None = None
    channels: int | None = None


def resnet(
    arch: str,
    *,
    include_top: bool = True,
    weights: str | os.PathLike[str] | None = None,
    input_tensor: nn.Module | None = None,
    input_shape: tuple[int | None, int | None, int] | None = None,
    pooling: str | None = None,
    classes: int | None = None,
    shortcut: str | None = None,
) -> ResNet:
    """Makes a ResNet with the options of ``keras.applications``: they mean the same, and what Keras refuses is refused.

    Refused as well are other poolings than Keras's, which it ignores, and other channels than 1 and 3. Three things are
    torch's ways: images are N×C×H×W, a classifier gives logits where Keras's gives their softmax, and without
    ``input_shape`` it takes images of any size.

        features = edge_resnet.resnet("resnet50v2", include_top=False, weights="resnet50v2.h5", pooling="avg")

    Args:
        arch: an architecture's name, such as ``"resnet50"``.
        include_top: whether the classifier is there; without it the network gives features.
        weights: None (random, and the default; Keras has ImageNet), the path of a checkpoint, or ``"imagenet"``: a file
            that you have put in place (``weights.locate`` says where); nothing is downloaded.
        input_tensor: a module that images pass first; the network continues from its output, with a copy of its own.
        input_shape: height, width and channels (1 or 3) of an image. With ``include_top`` and ImageNet weights only the
            published one; otherwise height and width are at least 32 in the ImageNet family. None: any size, and the
            channels that the weights take.
        pooling: without the top, ``"avg"`` or ``"max"`` for features N×channels, None for the feature map N×channels×h×w;
            with the top, of no effect.
        classes: how many logits; None: as many as the weights have, without any the architecture's published number.
        shortcut: one of ``models.SHORTCUTS`` in the place of the architecture's own; Keras has no such option.

    Raises:
        ModelError: a value, or two together, that cannot be; a checkpoint that does not fit.
    """
    architecture = architecture_named(arch)
    checkpoint = _checkpoint(weights)
    imagenet = weights == "imagenet"
    _check_classes(classes, architecture.classes if imagenet and include_top else None)
    if pooling not in (None, "avg", "max"):
        raise ModelError(f"pooling is {pooling!r}: give None, 'avg' or 'max'")
    shape = _checked(architecture, input_shape, include_top=include_top, imagenet=imagenet)
    model = load_model(
        arch,
        checkpoint,
        classes=classes,
        channels=shape.channels,
        shortcut=shortcut,
        head="classifier" if include_top else POOLINGS[pooling or "none"],
        source=None if input_tensor is None else _copied(input_tensor),
    )
    model.size = None if shape.height is None or shape.width is None else (shape.height, shape.width)
    return model


def _checkpoint(weights: object) -> Path | None:
    if weights is None or weights == "imagenet":
        return None if weights is None else Path("imagenet")
    path = Path(os.path.expanduser(weights)) if isinstance(weights, (str, os.PathLike)) else None
    if path is None or not path.exists():
        raise ModelError(f"weights is {weights!r}: give None (random), 'imagenet', or the path of a file that exists")
    return path


def _check_classes(classes: object, published: int | None) -> None:
    """Refuses what is no number of classes, or with ImageNet weights and their top not the published one."""
    if classes is not None and not _is_count(classes):
        raise ModelError(f"classes is {classes!r}: give a whole number, 1 or more")
    if published is not None and classes not in (None, published):
        raise ModelError(
            f"classes is {classes}, but ImageNet weights with their top have {published}: "
            "leave classes out, or give include_top=False"
        )


def _is_count(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 1


def _copied(module: object) -> nn.Module:
    """A copy, which goes into evaluation mode with the network while the caller's stays as it is."""
    if not isinstance(module, nn.Module):
        raise ModelError(f"input_tensor is a {type(module).__name__}: give a torch.nn.Module that images pass first")
    try:
        return copy.deepcopy(module)
    except Exception as error:  # somebody else's module: any
        raise ModelError(f"input_tensor cannot be copied ({error}): give a module that copy.deepcopy takes") from error


def _checked(architecture: Architecture, shape: object, *, include_top: bool, imagenet: bool) -> _InputShape:
    default = (architecture.size, architecture.size, 3)
    if shape is None:
        return _InputShape()
    if not isinstance(shape, (tuple, list)) or len(shape) != 3:
        raise ModelError(f"input_shape is {shape!r}: give three numbers, height, width and channels")
    if imagenet and include_top and tuple(shape) != default:
        raise ModelError(f"input_shape is {shape}, but ImageNet weights with their top take {default}: leave it out")
    height, width, channels = shape
    if not all(side is None or _is_count(side) for side in (height, width)):
        raise ModelError(f"input_shape is {shape}: give height and width in pixels, or None for any")
    if imagenet and channels != 3:
        raise ModelError(f"input_shape is {shape}, but ImageNet weights take 3 channels: give 3")
    if channels not in CHANNELS:
        raise ModelError(f"input_shape is {shape}: give 1 (grey) or 3 (colour) channels")
    if any(side is not None and side < architecture.least_side for side in (height, width)):
        raise ModelError(
            f"input_shape is {shape}: {architecture.name} takes height and width of at least {architecture.least_side}"
        )
    if include_top and None in shape:
        raise ModelError(f"input_shape is {shape}: with include_top give height and width")
    return _InputShape(height, width, channels)
