"""A recipe that is written is the recipe that is read."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from edge_resnet.engines.options import BatchRange, BuildOptions, HardwareCompatibility
from edge_resnet.recipe import ModelRecipe, PruneRecipe, QuantizeRecipe, Recipe, load_recipe
from edge_resnet.recipe_writer import recipe_text


def resolved(recipe: Recipe) -> Recipe:
    """Every path absolute, as the two write them otherwise."""
    tables = {}
    for name in ("model", "calibration", "accuracy", "build"):
        table = getattr(recipe, name)
        paths = {key: value.resolve() for key, value in vars(table).items() if isinstance(value, Path)}
        tables[name] = replace(table, **paths)
    return replace(recipe, **tables)


LEVEL = HardwareCompatibility.AMPERE_PLUS
ENGINES = [
    BuildOptions(),
    BuildOptions(BatchRange(1, 2, 4), 64, 0, True, True, LEVEL, refit=True, strip_weights=True),
    BuildOptions(BatchRange(1, 1, 1), dla_core=0),
]


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("refine", [None, (), ("exact-input", "round")])
def test_what_is_written_is_read(
    small_recipe: Recipe, tmp_path: Path, engine: BuildOptions, refine: tuple[str, ...] | None
) -> None:
    recipe = replace(small_recipe, engine=engine, quantize=QuantizeRecipe("best", ('a "quoted" \\ name', "ü"), refine))
    place = tmp_path / "elsewhere" / "r.toml"
    place.parent.mkdir()
    place.write_text(recipe_text(recipe, place.parent, ("two\nlines",)), encoding="utf-8")
    assert place.read_text(encoding="utf-8").startswith("# two lines\n\n[model]\n")
    assert resolved(load_recipe(place)) == resolved(recipe)


def test_pruning_is_written(small_recipe: Recipe, tmp_path: Path) -> None:
    (tmp_path / "images").mkdir()
    recipe = replace(small_recipe, prune=PruneRecipe(0.7, "2:4", 2, 0, tmp_path / "images", 9))
    (tmp_path / "r.toml").write_text(recipe_text(recipe, tmp_path), encoding="utf-8")
    assert load_recipe(tmp_path / "r.toml").prune == recipe.prune
    assert "[prune]" not in recipe_text(small_recipe, tmp_path)


def test_a_model_that_brings_its_preprocessing_has_no_table(small_recipe: Recipe, tmp_path: Path) -> None:
    (tmp_path / "m.onnx").touch()
    recipe = replace(small_recipe, model=ModelRecipe(onnx=tmp_path / "m.onnx"), preprocessing={})
    text = recipe_text(recipe, tmp_path)
    assert "[preprocessing]" not in text and 'onnx = "m.onnx"' in text
    (tmp_path / "r.toml").write_text(text)
    assert load_recipe(tmp_path / "r.toml").model == recipe.model
