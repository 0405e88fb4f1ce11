"""Random networks that behave like trained ones, and how far two answers lie apart."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

Array = npt.NDArray[np.float32]

SCALES = (0.5, 1.5)
"""Lowest and highest; uniform."""
SHIFTS = (0.5, 0.2)
"""Mean and standard deviation; normal."""
BIASES = (0, 0.5)
"""The same, of convolutions and linear layers: far enough below zero that the stem of a V2 shows with what it pads."""


def give_statistics(network: nn.Module, images: Tensor) -> None:
    """Gives every BatchNorm random scales and shifts and the statistics of these images, and every other bias a value.

    Without statistics a BatchNorm does nothing, and a deep network grows out of all range. The shifts lean to the positive:
    about zero, 152 layers of random weights are chaotic, and float32's rounding alone moves the logits by 4e-4 of the
    largest, against 3e-6 so.
    """
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.weight, *SCALES)
            nn.init.normal_(module.bias, *SHIFTS)
            module.momentum = None  # the plain mean of what it sees
        elif isinstance(module, nn.Conv2d | nn.Linear) and module.bias is not None:
            nn.init.normal_(module.bias, *BIASES)
    network.train()
    with torch.no_grad():
        network(images)
    network.eval()


def relative_difference(found: Array, wanted: Array) -> float:
    """max|found − wanted| / max|wanted|."""
    return float(np.abs(found - wanted).max() / np.abs(wanted).max())
