"""What may be changed in a recipe. Every point of the space is a valid recipe."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from edge_resnet.calibration.quantize import EFFORTS
from edge_resnet.models import architecture_named
from edge_resnet.preprocessing import Preprocessing
from edge_resnet.recipe import METHODS, Recipe
from edge_resnet.tuning.tried import Settings

CHANNELS = ("none", "equalize", "balance")
"""What evens out channels, at most one: learning begins where equalization would lead."""
WEIGHTS = {"standard": ("none", "round"), "best": ("none", "round", "adaround", "reconstruct")}
"""What rounds weights, at most one: each chooses all of them anew. Those that learn take minutes a trial."""
ENDINGS = {"standard": ("bias",), "best": ("bias", "distill")}
"""What comes last; each may be left out."""
MOST_DB = 12.0
"""By how much layers left float may raise the predicted SQNR: four times less noise in the answers."""
STEP_DB = 0.5
SMALLEST, LARGEST = 0.5, 1.25
"""Of the recipe's own input size, a side."""


class Suggests(Protocol):
    """The part of ``optuna.Trial`` that a space asks."""

    def suggest_categorical(self, name: str, choices: Sequence[Any]) -> Any:
        """One of some choices."""

    def suggest_float(self, name: str, low: float, high: float, *, step: float | None = None) -> float:
        """A number of an interval."""


@dataclass(frozen=True)
class Space:
    """Calibration method, refinement, layers left float, and input size, around one recipe."""

    efforts: tuple[str, ...]
    """From the least to the most that a trial may spend."""
    own: Preprocessing
    """Of the recipe as it stands."""
    sides: tuple[int, ...]
    """Shorter sides of the input, rising, the recipe's own among them."""
    float_layers: Callable[[float], tuple[str, ...]]
    """Decibels to gain → the cheapest layers to leave float for it. So the search is for a number, not among 2^53 sets."""

    def suggest(self, trial: Suggests) -> Settings:
        """One point."""
        method = trial.suggest_categorical("method", METHODS)
        effort = trial.suggest_categorical("effort", self.efforts)
        refine = _refine(trial, effort)
        more = trial.suggest_float("float_db", 0.0, MOST_DB, step=STEP_DB)
        side = trial.suggest_categorical(self._side, self.sides)
        return Settings(method, effort, refine, self.float_layers(more), *self.scaled(side))

    def nearest(self, settings: Settings) -> dict[str, Any]:
        """The point most like a recipe's own settings, which may lie beside the space: where the search begins."""
        point: dict[str, Any] = {"method": settings.method, "effort": settings.effort, "float_db": 0.0}
        point |= {self._side: min(self.own.size), "exact-input": "exact-input" in settings.refine}
        effort = settings.effort
        if effort in WEIGHTS:
            point["channels"] = next((each for each in reversed(CHANNELS) if each in settings.refine), "none")
            weights = next((each for each in reversed(WEIGHTS["best"]) if each in settings.refine), "none")
            point[f"weights of {effort}"] = weights if weights in WEIGHTS[effort] else "round"
            point |= {name: name in settings.refine for name in ENDINGS[effort]}
        return point

    @property
    def _side(self) -> str:
        """A storage refuses other choices under one name, and another goal may leave other sizes to choose from."""
        return f"side of {', '.join(map(str, self.sides))}"

    def scaled(self, side: int) -> tuple[tuple[int, int] | None, int | None]:
        """Size and resize for a shorter side; the resize grows along, so that the crop shows the same part of the image."""
        shorter = min(self.own.size)
        if side == shorter:
            return None, None
        height, width = (round(each * side / shorter) for each in self.own.size)
        resize = None if self.own.resize is None else max(round(self.own.resize * side / shorter), height, width)
        return (height, width), resize


def _refine(trial: Suggests, effort: str) -> tuple[str, ...]:
    """A chain, in the order in which refinements build on each other; without images, what looks at none."""
    flags = (True, False)
    exact = ("exact-input",) if trial.suggest_categorical("exact-input", flags) else ()
    if not EFFORTS[effort]:
        return exact
    channels = trial.suggest_categorical("channels", CHANNELS)
    weights = trial.suggest_categorical(f"weights of {effort}", WEIGHTS[effort])
    ending = tuple(name for name in ENDINGS[effort] if trial.suggest_categorical(name, flags))
    return (*exact, *(each for each in (channels, weights) if each != "none"), *ending)


def efforts_up_to(most: str, own: str) -> tuple[str, ...]:
    """The efforts to search: up to ``most``, and never without the recipe's own."""
    order = list(EFFORTS)
    return tuple(order[: 1 + max(order.index(most), order.index(own))])


def sides_of(recipe: Recipe, own: Preprocessing) -> tuple[int, ...]:
    """Shorter sides that the network takes without a feature map that is cut: multiples of all its halvings together.

    An ONNX file has one size. An oblong input must stay one of whole multiples on both sides.
    """
    shorter, longer = sorted(own.size)
    if recipe.model.arch is None:
        return (shorter,)
    step = 32 if architecture_named(recipe.model.arch).least_side == 32 else 4
    first = step * -(-int(SMALLEST * shorter) // step)
    multiples = range(max(first, step), int(LARGEST * shorter) + 1, step)
    return tuple(sorted({shorter, *(each for each in multiples if (longer * each) % (shorter * step) == 0)}))
