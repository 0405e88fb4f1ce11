"""Makes networks of settings, and holds them against the original one: what a trial does between two choices."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property, lru_cache
from math import fsum, log10

import numpy as np
import numpy.typing as npt
import onnx

from edge_resnet.accuracy import AccuracyReport, Evaluated, Logits, compare_answers
from edge_resnet.adoption import Network
from edge_resnet.calibration.observers import observer_named
from edge_resnet.calibration.qdq import insert_qdq
from edge_resnet.calibration.schemes import scheme_named
from edge_resnet.calibration.sensitivity import Sensitivity, float_layers
from edge_resnet.calibration.table import CalibrationTable
from edge_resnet.engines.engine import Engine
from edge_resnet.engines.registry import engine_class
from edge_resnet.engines.targets import target_named
from edge_resnet.errors import CalibrationError, RecipeError
from edge_resnet.images import ImageSet
from edge_resnet.kept_stages import calibrated, quantized, sensed
from edge_resnet.lowering import Lowered
from edge_resnet.preprocessing import Preprocessing
from edge_resnet.recipe import Recipe
from edge_resnet.source import load_source
from edge_resnet.stages import Stages
from edge_resnet.timing_cache import compile_engine
from edge_resnet.tuning.halves import split_images
from edge_resnet.tuning.tried import Figures, Settings
from edge_resnet.workforce import THIS_MACHINE, Answering, EngineNetwork, ExactNetwork, FloatNetwork, Workforce

SENSED = 32
"""Calibration images that sensitivity looks at."""


@dataclass(frozen=True)
class Made:
    """A network of some settings, ready to answer."""

    settings: Settings
    model: onnx.ModelProto
    """FP32, at the settings' size."""
    preprocessing: Preprocessing
    network: Answering
    """The engine; where no such engine runs, the exact evaluation of its graph."""
    engine: Engine | None
    """None where it does not run."""

    def close(self) -> None:
        """Frees the engine."""
        if self.engine is not None:
            self.engine.close()


class Workshop:
    """One recipe for one target, with its images and the original network's answers to them.

    Args:
        recipe: as it stands.
        target: the device.
        stages: keep what has been made.
        workforce: calibrates and answers; refinement is this machine's work, as are moving averages, which depend on the
            order of images.
    """

    def __init__(self, recipe: Recipe, target: str, stages: Stages, workforce: Workforce = THIS_MACHINE) -> None:
        if recipe.build.precision != "int8":
            raise RecipeError(f"[build] has precision {recipe.build.precision}: tune is for int8")
        if recipe.prune is not None:
            raise RecipeError(
                "the recipe has [prune], and tune makes hundreds of networks: prune once with `edge-resnet prune`, and "
                "name the ONNX file that it writes in [model]"
            )
        self._recipe, self.target, self._stages = recipe, target_named(target).at("int8"), stages
        self.own = Settings.of(recipe)
        self._kind, self._workforce = engine_class(self.target.kind), workforce
        self.original = load_source(recipe)
        self._fp32 = FloatNetwork(self.original.model)
        self.images = split_images(recipe, self.original)
        self._networks: dict[object, Network] = {None: self.original}

    @property
    def measures(self) -> bool:
        """Whether the target's engine runs here."""
        return self._kind.why_not_run(self.target) is None

    @property
    def evaluated(self) -> Evaluated:
        """What a comparison of this workshop is."""
        return "measured" if self.measures else "predicted"

    def recipe_of(self, settings: Settings) -> Recipe:
        """The recipe with these settings."""
        return settings.applied(self._recipe, self.original.preprocessing.to_json())

    def make(self, settings: Settings) -> Made:
        """Calibrates, refines and, where the engine runs here, compiles; ranges and networks made before are kept.

        Raises:
            EdgeResnetError: the settings cannot be built.
        """
        if settings.keep_float and all(each.layer in settings.keep_float for each in self._sensitivities if each.macs):
            raise CalibrationError("no convolution is left in INT8: leave fewer layers float")
        recipe = self.recipe_of(settings)
        network = self._network(settings)
        table = self._calibrated(recipe, network)
        made = quantized(recipe, network, table, self.images.calibration, self._kind.scheme, self._stages)
        lowered = Lowered.quantized(made, self._kind)
        if not self.measures:
            return Made(settings, network.model, network.preprocessing, ExactNetwork(lowered.evaluated_as), None)
        compiled = compile_engine(self._kind, lowered.compiled_from, self.target, recipe.engine)
        lowered.check_coverage(self.target.name, compiled.layers)
        answering = EngineNetwork(self._kind.kind, compiled.data)
        return Made(settings, network.model, network.preprocessing, answering, answering.engine)

    def _calibrated(self, recipe: Recipe, network: Network) -> CalibrationTable:
        who = self._workforce if observer_named(recipe.calibration.method).mergeable else THIS_MACHINE
        return calibrated(recipe, network, self.images.calibration, self._stages, who)

    @lru_cache  # noqa: B019  # a workshop lives as long as its command
    def float_layers(self, more_db: float) -> tuple[str, ...]:
        """The cheapest layers to leave float so that the predicted SQNR rises, and those that the compiler then leaves too.

        ONNX Runtime computes in INT8 only what integers are read from: of a convolution in front of a float Add it makes a
        float one, and a build would refuse the engine unless the recipe says so.
        """
        noise = fsum(each.noise for each in self._sensitivities)
        if more_db <= 0 or noise <= 0:
            return ()
        chosen = float_layers(self._sensitivities, more_db - 10 * log10(noise)).keep_float
        return self._closed(chosen) if self.measures else chosen

    def _closed(self, chosen: tuple[str, ...]) -> tuple[str, ...]:
        kept, missing = set(chosen), list(chosen)
        while missing:
            left = tuple(each.layer for each in self._sensitivities if each.layer in kept)
            plain = insert_qdq(self.original.model, self._table, scheme_named(self._kind.scheme), left)
            lowered = Lowered.quantized(plain, self._kind)
            compiled = compile_engine(self._kind, lowered.compiled_from, self.target, self._recipe.engine)
            missing = lowered.uncovered(compiled.layers)
            kept.update(missing)
        return left

    @cached_property
    def _table(self) -> CalibrationTable:
        """The recipe's own ranges."""
        return self._calibrated(self._recipe, self.original)

    @cached_property
    def _sensitivities(self) -> tuple[Sensitivity, ...]:
        """What each layer costs in INT8, with the recipe's own ranges: the order of layers hardly depends on those."""
        images = self.images.calibration.draw(SENSED)
        scheme, stages = self._kind.scheme, self._stages
        return sensed(self._recipe, self.original, self._table, images, scheme, stages, self._workforce)

    def comparisons(self, made: Made, ends: tuple[int, ...]) -> Iterator[AccuracyReport]:
        """Compares with the original network on growing beginnings of the selection, answering only what is asked for."""
        images, answers = self.images.selection, np.zeros((0, self._wanted.shape[1]), np.float32)
        for end in ends:
            part = images.take(range(len(answers), end))
            answers = np.concatenate([answers, self._answers(made.network, part, made.preprocessing)])
            yield self._compared(self._wanted[:end], answers, images.take(range(end)))

    def float_figures(self, settings: Settings) -> Figures:
        """What the size alone costs: the FP32 network at the settings' size against itself at its own."""
        network, images = self._network(settings), self.images.selection
        answers = self._answers(FloatNetwork(network.model), images, network.preprocessing)
        return Figures.of(self._compared(self._wanted, answers, images))

    def on_unseen(self, made: Made) -> AccuracyReport:
        """Compares on the images that no choice was made by."""
        images = self.images.unseen
        return self._compared(self._wanted_unseen, self._answers(made.network, images, made.preprocessing), images)

    @cached_property
    def _wanted(self) -> Logits:
        """The original network's answers to the selection."""
        return self._answers(self._fp32, self.images.selection, self.original.preprocessing)

    @cached_property
    def _wanted_unseen(self) -> Logits:
        """The same, to the images that no choice is made by."""
        return self._answers(self._fp32, self.images.unseen, self.original.preprocessing)

    def _compared(self, wanted: Logits, answers: Logits, images: ImageSet) -> AccuracyReport:
        """Both have answered already, each to frames of its own size."""
        pairs = [(wanted, answers)]
        return compare_answers(pairs, images.labels, engine_name=self.target.name, evaluated=self.evaluated)

    def _answers(self, network: Answering, images: ImageSet, spec: Preprocessing) -> npt.NDArray[np.float32]:
        return np.concatenate([answers for (answers,) in self._workforce.answers((network,), images, spec)])

    def _network(self, settings: Settings) -> Network:
        if settings.size not in self._networks:
            self._networks[settings.size] = load_source(self.recipe_of(settings))
        return self._networks[settings.size]
