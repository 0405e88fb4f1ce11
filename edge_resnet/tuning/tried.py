"""What one trial changed in a recipe, and what came of it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any

from edge_resnet.accuracy import AccuracyReport
from edge_resnet.errors import RecipeError
from edge_resnet.kept_stages import chain_of
from edge_resnet.recipe import Recipe

IDENTICAL_DB = 150.0
"""Stands for the SQNR of answers without any difference: float32 itself ends there."""


@dataclass(frozen=True)
class Settings:
    """The part of a recipe that is searched."""

    method: str
    effort: str
    refine: tuple[str, ...]
    keep_float: tuple[str, ...]
    size: tuple[int, int] | None
    """Height and width of the network's input; None: the recipe's own, of which nothing is changed."""
    resize: int | None
    """The shorter side before the crop, with ``size``; None: without a crop."""

    @classmethod
    def of(cls, recipe: Recipe) -> Settings:
        """Those of a recipe as it stands."""
        options = recipe.quantize
        return cls(recipe.calibration.method, options.effort, chain_of(recipe), options.keep_float, None, None)

    @classmethod
    def from_json(cls, document: Mapping[str, Any]) -> Settings:
        """Reads what ``asdict`` gave, through JSON."""
        size = document["size"]
        tuples = {key: tuple(document[key]) for key in ("refine", "keep_float")}
        return cls(**{**document, **tuples, "size": None if size is None else (size[0], size[1])})

    def applied(self, recipe: Recipe, preprocessing: Mapping[str, object]) -> Recipe:
        """The recipe with these in their places.

        Args:
            recipe: the recipe as it stands.
            preprocessing: its network's own, as ``Preprocessing.to_json`` gives it: the recipe may leave it to the model.
        """
        quantize = replace(recipe.quantize, effort=self.effort, refine=self.refine, keep_float=self.keep_float)
        table = recipe.preprocessing
        if self.size is not None:
            changed = {**preprocessing, "size": list(self.size), "resize": self.resize}
            table = {key: value for key, value in changed.items() if value is not None}
        calibration = replace(recipe.calibration, method=self.method)
        return replace(recipe, calibration=calibration, quantize=quantize, preprocessing=table)


@dataclass(frozen=True)
class Figures:
    """How nearly a trial answers as the original FP32 network does, on one set of images."""

    images: int
    sqnr_db: float
    """Of the logits."""
    agreement: float
    top1: float
    drop: float
    """Points of top-1."""
    ci95: tuple[float, float]

    @classmethod
    def of(cls, report: AccuracyReport) -> Figures:
        """Of a comparison on labelled images."""
        if report.drop is None or report.engine.top1 is None:
            raise RecipeError("[accuracy] images have no labels: tune needs them, give a folder a class or path,label")
        sqnr = IDENTICAL_DB if report.logit_sqnr_db is None else report.logit_sqnr_db
        drop = report.drop
        return cls(report.images, sqnr, report.agreement, report.engine.top1, drop.points, drop.ci95)


@dataclass(frozen=True)
class Tried:
    """A trial that went through to its end."""

    number: int
    settings: Settings
    figures: Figures
    latency_ms: float
    """Of one frame."""

    @property
    def fps(self) -> float:
        """Frames a second, one after another."""
        return 1e3 / self.latency_ms

    def to_json(self) -> dict[str, Any]:
        """An element of ``front`` in what ``tune --json`` prints."""
        return {**asdict(self), "fps": self.fps}
