"""The demo: a ResNet-20 trained on Fashion-MNIST, and images to calibrate and judge it (see ``NOTICE.md``)."""

from __future__ import annotations

from pathlib import Path

from edge_resnet.preprocessing import NAMED
from edge_resnet.recipe import AccuracyRecipe, BuildRecipe, CalibrationRecipe, ModelRecipe, Recipe

FOLDER = Path(__file__).parent
CALIBRATION = FOLDER / "calibration"
"""500 of the images that the model was trained on."""
TEST = FOLDER / "test"
"""1,000 test images, 100 a class."""


def demo_recipe() -> Recipe:
    """The recipe that ``edge-resnet build`` runs when it is given none: for the CPU and for TensorRT-RTX."""
    return Recipe(
        model=ModelRecipe(
            arch="resnet20", weights=FOLDER / "resnet20-fashion-mnist.safetensors", labels=FOLDER / "labels.txt"
        ),
        preprocessing={key: value for key, value in NAMED["fashion-mnist"].to_json().items() if value is not None},
        calibration=CalibrationRecipe(CALIBRATION),
        accuracy=AccuracyRecipe(TEST),
        build=BuildRecipe(targets=("cpu", "rtx"), output=Path("fashion-mnist.edge")),
    )
