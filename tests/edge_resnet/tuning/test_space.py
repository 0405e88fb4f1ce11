"""Every point of the space is a recipe that can be built."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from itertools import product
from pathlib import Path
from typing import Any

import pytest

from edge_resnet.calibration.quantize import EFFORTS, chain_wanted, check_chain
from edge_resnet.preprocessing import NAMED, Preprocessing
from edge_resnet.recipe import METHODS, ModelRecipe, QuantizeRecipe, Recipe
from edge_resnet.tuning.space import CHANNELS, WEIGHTS, Space, efforts_up_to, sides_of
from edge_resnet.tuning.tried import Settings

FASHION, IMAGENET = NAMED["fashion-mnist"], NAMED["imagenet"]


class Scripted:
    """Answers what it is told, and fails where that is none of the choices."""

    def __init__(self, **answers: Any) -> None:
        self.answers = answers

    def suggest_categorical(self, name: str, choices: Sequence[Any]) -> Any:
        answer = self.answers[name.partition(" ")[0]]
        assert answer in choices, (name, answer)
        return answer

    def suggest_float(self, name: str, low: float, high: float, *, step: float | None = None) -> float:
        assert low <= self.answers[name] <= high
        return float(self.answers[name])


def space(own: Preprocessing = FASHION, sides: tuple[int, ...] = (20, 24, 28, 32)) -> Space:
    return Space(tuple(EFFORTS), own, sides, lambda more: ("conv1",) if more > 0 else ())


def test_every_chain_can_be_applied() -> None:
    flags = (True, False)
    seen = set()
    for effort, exact, channels, bias, distill in product(EFFORTS, flags, CHANNELS, flags, flags):
        for weights in WEIGHTS.get(effort, ("none",)):
            answers = {"exact-input": exact, "channels": channels, "weights": weights, "bias": bias, "distill": distill}
            settings = space().suggest(Scripted(method="mse", effort=effort, side=28, float_db=0.0, **answers))
            check_chain(settings.refine, EFFORTS[effort])
            seen.add((effort, settings.refine))
    assert len(seen) == 2 + 2 * 3 * 2 * 2 + 2 * 3 * 4 * 2 * 2
    for effort in EFFORTS:
        assert (effort, chain_wanted(effort, None)) in seen
    learned = {"adaround", "reconstruct", "distill"}
    assert {effort for effort, chain in seen if learned & set(chain)} == {"best"}, "minutes a trial"


def test_a_chain_beside_the_space_begins_at_its_nearest_point() -> None:
    settings = Settings("mse", "standard", ("equalize", "balance", "adaround"), (), None, None)
    given = {name.partition(" ")[0]: value for name, value in space().nearest(settings).items()}
    assert space().suggest(Scripted(**given)).refine == ("balance", "round")


@pytest.mark.parametrize("own", [FASHION, IMAGENET])
def test_every_size_is_a_preprocessing_and_shows_the_same_part(own: Preprocessing, small_recipe: Recipe) -> None:
    arch = "resnet20" if own is FASHION else "resnet50"
    recipe = replace(small_recipe, model=ModelRecipe(arch=arch, weights=Path("w")))
    sides = sides_of(recipe, own)
    assert sides == ((16, 20, 24, 28, 32) if own is FASHION else (128, 160, 192, 224, 256))
    for side in sides:
        answers: dict[str, Any] = {
            "method": "mse",
            "effort": "fast",
            "exact-input": True,
            "float_db": 3.0,
            "side": side,
        }
        settings = space(own, sides).suggest(Scripted(**answers))
        made = settings.applied(recipe, own.to_json())
        table = Preprocessing.from_table(made.preprocessing) if made.preprocessing else own
        if side != min(own.size):
            assert table.size == (side, side)
            assert made.quantize.keep_float == ("conv1",)
            if own.resize is not None and table.resize is not None:
                assert table.resize / side == pytest.approx(own.resize / own.size[0], rel=0.01)


def test_sizes_of_an_oblong_input_and_of_an_onnx_file(small_recipe: Recipe) -> None:
    recipe = replace(small_recipe, model=ModelRecipe(arch="resnet50", weights=Path("w")))
    oblong = replace(IMAGENET, size=(192, 256), resize=256)
    assert sides_of(recipe, oblong) == (96, 192), (
        "192 × 256 is 3 × 4 of 32: the one other multiple in reach is 96 × 128"
    )
    assert sides_of(replace(recipe, model=ModelRecipe(onnx=Path("m.onnx"))), IMAGENET) == (224,)
    odd = replace(IMAGENET, size=(230, 230))
    assert 230 in sides_of(recipe, odd) and set(sides_of(recipe, odd)) - {230} == {128, 160, 192, 224, 256}


@pytest.mark.parametrize("effort", list(EFFORTS))
def test_the_recipe_as_it_stands_is_a_point(effort: str, small_recipe: Recipe) -> None:
    recipe = replace(small_recipe, quantize=QuantizeRecipe(effort=effort))
    point = space().nearest(Settings.of(recipe))
    given = {name.partition(" ")[0]: value for name, value in point.items()}
    found = space().suggest(Scripted(**given))
    assert found == Settings.of(recipe)


def test_efforts_never_end_below_the_recipes_own() -> None:
    assert efforts_up_to("fast", "fast") == ("fast",)
    assert efforts_up_to("fast", "standard") == ("fast", "standard")
    assert efforts_up_to("best", "fast") == tuple(EFFORTS)
    assert set(METHODS) >= {"mse"}
