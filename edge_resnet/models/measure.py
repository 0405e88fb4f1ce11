"""Parameters and multiply-adds of an architecture, counted, not looked up."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from edge_resnet.models.resnet import Architecture, ResNet


@dataclass(frozen=True)
class Size:
    """How large a network is, at its published input size and number of classes."""

    name: str
    parameters: int
    gmac: float
    """Multiply-adds of convolutions and the linear layer for one image, in 10⁹."""
    size: int
    """Height and width of the image."""


def measure(architecture: Architecture) -> Size:
    """Counts by running shapes through the network; no weight is made."""
    macs = 0

    def count(module: nn.Module, _: object, output: Tensor) -> None:
        nonlocal macs
        if isinstance(module, nn.Conv2d):
            macs += output.numel() * module.weight[0].numel()
        elif isinstance(module, nn.Linear):
            macs += output.numel() * module.in_features

    with torch.device("meta"):
        model = ResNet(architecture, classes=architecture.classes).eval()
        for module in model.modules():
            module.register_forward_hook(count)
        model(torch.empty(1, 3, architecture.size, architecture.size))
    parameters = sum(parameter.numel() for parameter in model.parameters())
    return Size(architecture.name, parameters, macs / 1e9, architecture.size)
