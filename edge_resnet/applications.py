"""The options that Keras users know (``keras.applications``), on torch networks."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from torch import nn

from edge_resnet.errors import ModelError
from edge_resnet.models import ResNet, architecture_named
from edge_resnet.recipe import POOLINGS
from edge_resnet.weights import load_model

_LEAST = 32
"""Height and width that five halvings leave a pixel of."""


@dataclass(frozen=True)
class _InputShape:
    """What ``input_shape`` says: sides that are None are free."""

    height: int | None
    width: int | None
    channels: int


def resnet(
    arch: str,
    *,
    include_top: bool = True,
    weights: str | Path | None = None,
    input_tensor: nn.Module | None = None,
    input_shape: tuple[int | None, int | None, int] | None = None,
    pooling: str | None = None,
    classes: int | None = None,
) -> ResNet:
    """Makes a ResNet with the options of ``keras.applications``, which have the same meaning and refuse the same values.

    Three things differ, and are torch's ways: images are N×C×H×W, a classifier gives logits where Keras's gives their
    softmax, and without ``input_shape`` it takes images of any size.

        features = edge_resnet.resnet("resnet50v2", include_top=False, weights="resnet50v2.h5", pooling="avg")

    Args:
        arch: an architecture's name, such as ``"resnet50"``.
        include_top: whether the classifier is there; without it the network gives features.
        weights: None (random), the path of a checkpoint, or ``"imagenet"``: a file that you have put in place
            (``weights.locate`` says where); nothing is downloaded.
        input_tensor: a module that images pass first; the network continues from its output.
        input_shape: height, width and channels (1 or 3) of an image. With ``include_top`` and ImageNet weights only the
            published one; otherwise height and width are at least 32 in the ImageNet family.
        pooling: without the top, ``"avg"`` or ``"max"`` for features N×channels, None for the feature map N×channels×h×w;
            with the top, of no effect.
        classes: how many logits; the architecture's published number when None.

    Raises:
        ModelError: a value, or two together, that Keras refuses as well; a checkpoint that does not fit.
    """
    architecture = architecture_named(arch)
    imagenet = weights == "imagenet"
    if weights is not None and not imagenet and not Path(weights).exists():
        raise ModelError(f"weights is '{weights}': give None (random), 'imagenet', or the path of a file that exists")
    if imagenet and include_top and classes not in (None, architecture.classes):
        raise ModelError(
            f"classes is {classes}, but ImageNet weights with their top have {architecture.classes}: "
            "leave classes out, or give include_top=False"
        )
    head = POOLINGS.get(pooling or "none")
    if head is None:
        raise ModelError(f"pooling is {pooling!r}: give None, 'avg' or 'max'")
    shape = _checked(architecture.name, architecture.size, input_shape, include_top=include_top, imagenet=imagenet)
    model = load_model(
        arch,
        None if weights is None else Path(weights),
        classes=classes,
        channels=shape.channels,
        head="classifier" if include_top else head,
        source=input_tensor,
    )
    model.size = None if shape.height is None or shape.width is None else (shape.height, shape.width)
    return model


def _checked(
    name: str, published: int, shape: tuple[int | None, int | None, int] | None, *, include_top: bool, imagenet: bool
) -> _InputShape:
    default = (published, published, 3)
    if shape is None:
        return _InputShape(None, None, 3)
    if len(shape) != 3:
        raise ModelError(f"input_shape is {shape}: give three numbers, height, width and channels")
    if imagenet and include_top and tuple(shape) != default:
        raise ModelError(f"input_shape is {shape}, but ImageNet weights with their top take {default}: leave it out")
    height, width, channels = shape
    if imagenet and channels != 3:
        raise ModelError(f"input_shape is {shape}, but ImageNet weights take 3 channels: give 3")
    least = _LEAST if published > _LEAST else 1
    if any(side is not None and side < least for side in (height, width)):
        raise ModelError(f"input_shape is {shape}: {name} takes height and width of at least {least}")
    if include_top and None in shape:
        raise ModelError(f"input_shape is {shape}: with include_top give height and width")
    return _InputShape(height, width, channels)
