"""The images that choose, and those that report."""

from __future__ import annotations

import shutil
from collections import Counter
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from edge_resnet.errors import ImageError, RecipeError
from edge_resnet.labels import read_labels
from edge_resnet.recipe import AccuracyRecipe, Recipe
from edge_resnet.tuning.halves import split_images


@pytest.fixture
def network(small_recipe: Recipe) -> Any:
    assert small_recipe.model.labels is not None
    return SimpleNamespace(labels=read_labels(small_recipe.model.labels))


def test_no_file_is_in_two_sets_and_each_class_is_halved(small_recipe: Recipe, network: Any) -> None:
    images = split_images(small_recipe, network)
    sets = [set(each.hashes) for each in (images.calibration, images.selection, images.unseen)]
    assert [len(each) for each in sets] == [30, 20, 20]
    assert len(set.union(*sets)) == 70
    for half in (images.selection, images.unseen):
        assert half.labels is not None
        assert set(Counter(half.labels).values()) == {2}
    assert images.selection.labels is not None
    assert len(set(images.selection.labels[:10])) > 3, "a beginning is a sample of the classes"


def test_a_copy_of_an_image_that_chose_does_not_report(
    small_recipe: Recipe, network: Any, few: Path, tmp_path: Path
) -> None:
    shutil.copytree(few / "test", tmp_path / "test")
    for path in sorted((tmp_path / "test").glob("*/*.png")):
        shutil.copy(path, path.with_name(f"copy-{path.name}"))
    recipe = replace(small_recipe, accuracy=AccuracyRecipe(tmp_path / "test"))
    images = split_images(recipe, network)
    assert not set(images.selection.hashes) & set(images.unseen.hashes)


def test_calibration_images_do_not_judge(small_recipe: Recipe, network: Any, few: Path) -> None:
    with pytest.raises(ImageError, match="were used for calibration"):
        split_images(replace(small_recipe, accuracy=AccuracyRecipe(few / "calibration")), network)


def test_features_have_no_accuracy(small_recipe: Recipe) -> None:
    with pytest.raises(RecipeError, match="tune is for classifiers"):
        split_images(small_recipe, SimpleNamespace(labels=None))  # type: ignore[arg-type]
