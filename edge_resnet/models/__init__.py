"""ResNet models as torch modules."""

from edge_resnet.models.measure import Size, measure
from edge_resnet.models.resnet import (
    ARCHITECTURES,
    SHORTCUTS,
    Add,
    Architecture,
    ResNet,
    ZeroPadShortcut,
    architecture_named,
    create_model,
)

__all__ = [
    "ARCHITECTURES",
    "SHORTCUTS",
    "Add",
    "Architecture",
    "ResNet",
    "Size",
    "ZeroPadShortcut",
    "architecture_named",
    "create_model",
    "measure",
]
