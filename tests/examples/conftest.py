"""A bundle for the examples: the demo's network, for the CPU, without the steps that take long."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

import edge_resnet
from edge_resnet.demo import demo_recipe
from edge_resnet.recipe import AccuracyRecipe, BuildRecipe, CalibrationRecipe, QuantizeRecipe


@pytest.fixture(scope="session")
def quick_bundle(few: Path, tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest) -> Path:
    """Not to be written to; that of ``--bundle`` where one is given."""
    given: Path | None = request.config.getoption("--bundle")
    if given is not None:
        return given
    path = tmp_path_factory.mktemp("quick") / "model.edge"
    recipe = replace(
        demo_recipe(),
        calibration=CalibrationRecipe(few / "calibration"),
        quantize=QuantizeRecipe(effort="fast"),
        accuracy=AccuracyRecipe(few / "test"),
        build=BuildRecipe(targets=("cpu",), output=path),
    )
    edge_resnet.build(recipe)
    return path
