"""ResNet models as torch modules."""

from edge_resnet.models.measure import Size, measure
from edge_resnet.models.resnet import (
    ARCHITECTURES,
    CHANNELS,
    HEADS,
    SHORTCUTS,
    Add,
    Architecture,
    EvenConv2d,
    ResNet,
    ZeroPadShortcut,
    architecture_named,
    create_model,
)

__all__ = [
    "ARCHITECTURES",
    "CHANNELS",
    "HEADS",
    "SHORTCUTS",
    "Add",
    "Architecture",
    "EvenConv2d",
    "ResNet",
    "Size",
    "ZeroPadShortcut",
    "architecture_named",
    "create_model",
    "measure",
]
