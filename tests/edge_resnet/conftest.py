"""Bundles that are built in a second, for tests that are not about what is in them."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

import edge_resnet
from edge_resnet.demo import demo_recipe
from edge_resnet.recipe import AccuracyRecipe, BuildRecipe, CalibrationRecipe, QuantizeRecipe


@pytest.fixture(scope="session")
def int8_bundle(few: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The demo's network in INT8 for the CPU alone, on few images; not to be written to."""
    return built(few, tmp_path_factory.mktemp("int8") / "model.edge", "int8")


@pytest.fixture(scope="session")
def fp32_bundle(few: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same in FP32."""
    return built(few, tmp_path_factory.mktemp("fp32") / "model.edge", "fp32")


def built(few: Path, output: Path, precision: str) -> Path:
    recipe = replace(
        demo_recipe(),
        calibration=CalibrationRecipe(few / "calibration"),
        quantize=QuantizeRecipe(effort="fast"),
        accuracy=AccuracyRecipe(few / "test"),
        build=BuildRecipe(precision=precision, targets=("cpu",), output=output, report=False),
    )
    bundle = edge_resnet.build(recipe).bundle
    assert bundle is not None
    return Path(bundle)
