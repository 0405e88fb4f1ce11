"""edge-resnet: ResNets in INT8 on NVIDIA Jetson, RTX and CPUs, with proof that they answer as FP32 did.

import edge_resnet

with edge_resnet.Classifier("model.edge") as classify:
print(classify("photo.jpg").label)
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from edge_resnet.applications import resnet
    from edge_resnet.bundle import Bundle, open_bundle
    from edge_resnet.chain import BuildResult, build
    from edge_resnet.classifier import Classifier, Prediction
    from edge_resnet.embedder import Embedder
    from edge_resnet.errors import EdgeResnetError
    from edge_resnet.frames import CameraFrame
    from edge_resnet.images import ImageSet, open_images
    from edge_resnet.preprocessing import Preprocessing, load_preprocessing
    from edge_resnet.recipe import Recipe, load_recipe
    from edge_resnet.runtime import Timing
    from edge_resnet.stream import Stream

__version__ = "0.1.0"

__all__ = [
    "BuildResult",
    "Bundle",
    "CameraFrame",
    "Classifier",
    "EdgeResnetError",
    "Embedder",
    "ImageSet",
    "Prediction",
    "Preprocessing",
    "Recipe",
    "Stream",
    "Timing",
    "build",
    "load_preprocessing",
    "load_recipe",
    "open_bundle",
    "open_images",
    "resnet",
]

_HOMES = {
    "BuildResult": "chain",
    "Bundle": "bundle",
    "CameraFrame": "frames",
    "Classifier": "classifier",
    "EdgeResnetError": "errors",
    "Embedder": "embedder",
    "ImageSet": "images",
    "Prediction": "classifier",
    "Preprocessing": "preprocessing",
    "Recipe": "recipe",
    "Stream": "stream",
    "Timing": "runtime",
    "build": "chain",
    "load_preprocessing": "preprocessing",
    "load_recipe": "recipe",
    "open_bundle": "bundle",
    "open_images": "images",
    "resnet": "applications",
}


def __getattr__(name: str) -> Any:
    """Imports a public name when it is first used, so that a robot that only classifies never loads the build chain."""
    if name not in _HOMES:
        raise AttributeError(f"module 'edge_resnet' has no attribute '{name}'")
    return getattr(import_module(f"edge_resnet.{_HOMES[name]}"), name)


def __dir__() -> list[str]:
    return [*__all__, "__version__"]
