"""Builds that go on where another was: the same bundle, byte by byte, with the cache or without."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from edge_resnet import kept_stages
from edge_resnet.chain import BuildResult, build
from edge_resnet.images import open_images
from edge_resnet.recipe import CalibrationRecipe, QuantizeRecipe, Recipe
from edge_resnet.stage_cache import NO_CACHE, StageCache

KEPT = ["calibrate", "quantize for cpu", "quantize for tensorrt"]


@pytest.fixture
def cache(tmp_path: Path) -> StageCache:
    return StageCache(tmp_path / "stages")


def cached(result: BuildResult) -> list[str]:
    return [stage.name for stage in result.stages if stage.cached]


def bundle_of(result: BuildResult) -> bytes:
    assert result.bundle is not None
    return Path(result.bundle).read_bytes()


def test_a_bundle_is_the_same_with_the_cache_and_without(small_recipe: Recipe, cache: StageCache) -> None:
    plain = build(small_recipe, cache=NO_CACHE)
    wanted = bundle_of(plain)
    first = build(small_recipe, cache=cache)
    assert cached(plain) == cached(first) == [] and bundle_of(first) == wanted
    second = build(small_recipe, cache=cache)
    assert cached(second) == KEPT and bundle_of(second) == wanted
    assert [stage["cached"] for stage in second.to_json()["stages"]][:4] == [False, True, True, False]
    assert [stage.name for stage in first.stages] == [stage.name for stage in second.stages]
    for path in cache.folder.iterdir():  # type: ignore[union-attr]
        path.write_bytes(path.read_bytes()[:-1])
    third = build(small_recipe, cache=cache)
    assert cached(third) == [] and bundle_of(third) == wanted, "what is damaged is made again"


def test_a_build_that_died_behind_a_stage_goes_on_there(
    small_recipe: Recipe, cache: StageCache, monkeypatch: pytest.MonkeyPatch
) -> None:
    def die(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(kept_stages, "quantize", die)
        with pytest.raises(KeyboardInterrupt):
            build(small_recipe, cache=cache)
    assert cached(build(small_recipe, cache=cache)) == KEPT[:1]


def test_what_changes_the_result_is_made_again(small_recipe: Recipe, cache: StageCache, few: Path) -> None:
    build(small_recipe, cache=cache)
    assert cached(build(replace(small_recipe, quantize=QuantizeRecipe("fast", ("conv1",))), cache=cache)) == KEPT[:1]
    less = replace(small_recipe, calibration=CalibrationRecipe(few / "calibration", limit=20))
    assert cached(build(less, cache=cache)) == []
    method = replace(small_recipe, calibration=CalibrationRecipe(few / "calibration", method="minmax"))
    assert cached(build(method, cache=cache)) == []
    assert cached(build(small_recipe, cache=cache)) == KEPT


def test_an_image_that_changed_in_its_place_is_seen(small_recipe: Recipe, cache: StageCache, tmp_path: Path) -> None:
    folder = tmp_path / "calibration"
    shutil.copytree(small_recipe.calibration.images, folder)
    recipe = replace(small_recipe, calibration=CalibrationRecipe(folder))
    build(recipe, cache=cache)
    first, second = open_images(folder).paths[:2]
    first.write_bytes(second.read_bytes())
    assert cached(build(recipe, cache=cache)) == []
