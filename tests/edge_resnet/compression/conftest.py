"""Small networks of every kind of block, with the statistics of trained ones."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import cache

import numpy as np
import numpy.typing as npt
import onnx
import pytest
import torch
from networks import give_statistics

from edge_resnet.demo import CALIBRATION, TEST, demo_recipe
from edge_resnet.export import export_onnx
from edge_resnet.images import open_images
from edge_resnet.models import ARCHITECTURES, ResNet
from edge_resnet.preprocessing import Color, Crop, Interpolation, Preprocessing
from edge_resnet.source import load_source

SIDE = 32
SPEC = Preprocessing((SIDE, SIDE), None, Crop.NONE, Interpolation.BILINEAR, Color.RGB, (0.5,) * 3, (0.25,) * 3)
Frames = npt.NDArray[np.uint8]


@cache
def exported(arch: str) -> onnx.ModelProto:
    """An architecture of one block a stage and narrow."""
    architecture = ARCHITECTURES[arch]
    narrow = tuple(max(16, width // 2) for width in architecture.widths[:2])
    small = replace(architecture, stem="3x3", depths=(1, 1), widths=narrow, size=SIDE)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = ResNet(small, classes=10, channels=3)
        give_statistics(model, torch.randn(16, 3, SIDE, SIDE))
    return export_onnx(model.eval(), SPEC)


@pytest.fixture(scope="session")
def small() -> Callable[[str], onnx.ModelProto]:
    """``small(arch)``. Do not change what it gives."""
    return exported


@pytest.fixture(scope="session")
def frames() -> Frames:
    return np.random.default_rng(0).integers(0, 256, (16, SIDE, SIDE, 3), dtype=np.uint8)


@pytest.fixture(scope="session")
def demo() -> tuple[onnx.ModelProto, Frames, Frames]:
    """The demo's network, images to learn on and others."""
    source = load_source(demo_recipe())
    learned, other = (open_images(place).draw(count) for place, count in ((CALIBRATION, 96), (TEST, 64)))
    return source.model, learned.pixels(source.preprocessing), other.pixels(source.preprocessing)
