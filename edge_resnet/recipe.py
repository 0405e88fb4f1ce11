"""The recipe, ``edge-resnet.toml``: what to build, and from what, in one file beside the model.

Reading is strict, because a misspelt key that is ignored costs a build with the wrong settings.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, fields
from importlib import resources
from pathlib import Path

from edge_resnet.compression.options import PruneOptions
from edge_resnet.engine_options import read_engine_table
from edge_resnet.engines.options import DEFAULTS, BuildOptions
from edge_resnet.errors import OutputError, RecipeError
from edge_resnet.keras_weights import SUFFIXES
from edge_resnet.output import write_atomically
from edge_resnet.preprocessing import Preprocessing
from edge_resnet.toml_table import IMAGES_WANTED, Table, advice_on, read_toml

RECIPE_NAME = "edge-resnet.toml"
"""What ``edge-resnet init`` writes."""
PRECISIONS = ("int8", "fp8", "fp16", "bf16", "fp32")
METHODS = ("minmax", "percentile", "mse", "entropy", "moving-average")
EFFORTS = ("fast", "standard", "best")
POOLINGS = {"none": "map", "avg": "avg", "max": "max"}
"""What stands behind the last stage without the classifier: Keras's names, and those of ``models.HEADS``."""


@dataclass(frozen=True)
class ModelRecipe:
    """``[model]``: an architecture with its weights, or an ONNX file; never both."""

    arch: str | None = None
    weights: Path | None = None
    onnx: Path | None = None
    classes: int | None = None
    """None: as many as the weights have."""
    labels: Path | None = None
    """Text file with the classes' names, one a line."""
    include_top: bool = True
    """False: the network gives features, without its classifier; of an ONNX file, its output N×C holds features."""
    pooling: str = "none"
    """Behind the last feature map, without the top; one of ``POOLINGS``."""
    shortcut: str | None = None
    """One of ``models.SHORTCUTS``; None: the architecture's own."""

    @property
    def head(self) -> str:
        """The name in ``models.HEADS``."""
        return "classifier" if self.include_top else POOLINGS[self.pooling]


@dataclass(frozen=True)
class CalibrationRecipe:
    """``[calibration]``: the images that ranges are collected over, and how."""

    images: Path
    limit: int = 512
    """Images used, at most."""
    method: str = "mse"


@dataclass(frozen=True)
class PruneRecipe(PruneOptions):
    """``[prune]``: how far to compress the network before it is calibrated, and the images to make good for it with."""

    images: Path | None = None
    """None: those of calibration."""
    limit: int | None = None
    """Images used, at most; None: as many as calibration."""


@dataclass(frozen=True)
class QuantizeRecipe:
    """``[quantize]``: how far to refine, and which layers to leave alone."""

    effort: str = "standard"
    keep_float: tuple[str, ...] = ()
    refine: tuple[str, ...] | None = None
    """Names in ``calibration.quantize.REFINEMENTS``, which knows them; None: the default of the effort."""


@dataclass(frozen=True)
class AccuracyRecipe:
    """``[accuracy]``: the images that the engine is judged on, and how much it may lose."""

    images: Path | None = None
    """None: accuracy is not checked."""
    max_drop: float = 1.0
    """Points of top-1 accuracy."""
    strict: bool = False
    """Whether too few images to be sure of the drop are a failure too."""


@dataclass(frozen=True)
class BuildRecipe:
    """``[build]``: what comes out."""

    precision: str = "int8"
    targets: tuple[str, ...] = ("cpu",)
    output: Path = Path("model.edge")
    report: bool = True
    """Whether to write the page about the bundle beside it."""


@dataclass(frozen=True)
class Recipe:
    """A whole recipe; every path is relative to the current folder or absolute, and inputs exist."""

    model: ModelRecipe
    preprocessing: Mapping[str, object]
    """The table as it stands, which ``Preprocessing.from_table`` takes; empty when the model brings its own."""
    calibration: CalibrationRecipe
    prune: PruneRecipe | None = None
    """None: the network stays whole."""
    quantize: QuantizeRecipe = QuantizeRecipe()
    accuracy: AccuracyRecipe = AccuracyRecipe()
    build: BuildRecipe = BuildRecipe()
    engine: BuildOptions = DEFAULTS
    """What compilers are asked for beside the network and the device."""


def load_recipe(path: Path) -> Recipe:
    """Reads and checks a recipe. Paths in it are relative to its folder.

    Raises:
        RecipeError: the file is missing or no TOML, a table or key is unknown or missing, a value is of another type or
            out of range, or a file or folder that it names does not exist.
    """
    document = read_toml(path)
    tables = {field.name: Table(path, field.name, {}) for field in fields(Recipe)}
    for name, values in document.items():
        if not isinstance(values, dict):
            headings = ", ".join(f"[{table}]" for table in tables)
            raise RecipeError(f"{path}: '{name}' is no table: put keys under one of {headings}")
        if name not in tables:
            raise RecipeError(f"{path}: unknown table [{name}]: {advice_on(name, list(tables), 'tables')}")
        tables[name] = Table(path, name, values)
    model = _model(tables["model"])
    return Recipe(
        model=model,
        preprocessing=_preprocessing(tables["preprocessing"], optional=_brings_preprocessing(model)),
        calibration=_calibration(tables["calibration"]),
        prune=_prune(tables["prune"]) if "prune" in document else None,
        quantize=_quantize(tables["quantize"]),
        accuracy=_accuracy(tables["accuracy"]),
        build=_build(tables["build"]),
        engine=read_engine_table(tables["engine"]),
    )


def write_recipe_template(folder: Path) -> Path:
    """Writes a commented ``edge-resnet.toml`` to fill in.

    Returns:
        The file that was written.

    Raises:
        OutputError: there is a recipe already, which is left as it is, or the folder is missing or cannot be written.
    """
    path = folder / RECIPE_NAME
    if os.path.lexists(path):
        raise OutputError(f"cannot write '{path}': it exists already: remove it first, or choose another folder")
    write_atomically(path, resources.files("edge_resnet").joinpath("recipe_template.toml").read_bytes())
    return path


def _model(table: Table) -> ModelRecipe:
    table.check_keys(ModelRecipe)
    recipe = ModelRecipe(
        arch=table.text("arch"),
        weights=table.file("weights"),
        onnx=table.file("onnx"),
        classes=table.count("classes", None),
        labels=table.file("labels"),
        include_top=table.flag("include_top", ModelRecipe.include_top),
        pooling=table.choice("pooling", tuple(POOLINGS), ModelRecipe.pooling),
        shortcut=table.text("shortcut"),
    )
    if recipe.include_top and recipe.pooling != "none":
        raise RecipeError(f"{table.path}: [model] has pooling, which is for features: add include_top = false")
    if recipe.classes is not None and not recipe.include_top:
        raise RecipeError(f"{table.path}: [model] has classes, and features have none: leave one out")
    if recipe.onnx is not None and recipe.pooling != "none":
        raise RecipeError(
            f"{table.path}: [model] has onnx and pooling, which is for arch: an ONNX file pools or not, leave it out"
        )
    if recipe.onnx is not None and recipe.shortcut is not None:
        raise RecipeError(f"{table.path}: [model] has onnx and shortcut, which is for arch: leave one out")
    given = tuple(key for key in ("arch", "weights", "onnx") if getattr(recipe, key) is not None)
    if given not in (("arch", "weights"), ("onnx",)):
        has = f"has {' and '.join(given)}" if given else "names no model"
        raise RecipeError(f"{table.path}: [model] {has}: give arch and weights, or onnx alone")
    return recipe


def _brings_preprocessing(model: ModelRecipe) -> bool:
    """An ONNX file has it inside, and Keras's weights are of networks whose preprocessing is known."""
    return model.onnx is not None or (model.weights is not None and model.weights.suffix.lower() in SUFFIXES)


def _preprocessing(table: Table, *, optional: bool) -> Mapping[str, object]:
    if table.values or not optional:
        try:
            Preprocessing.from_table(table.values)
        except RecipeError as error:
            raise RecipeError(f"{table.path}: {error}") from error
    return table.values


def _calibration(table: Table) -> CalibrationRecipe:
    table.check_keys(CalibrationRecipe)
    images = table.images("images")
    if images is None:
        raise RecipeError(f"{table.path}: [calibration] lacks 'images': {IMAGES_WANTED}")
    return CalibrationRecipe(
        images=images,
        limit=table.count("limit", CalibrationRecipe.limit),
        method=table.choice("method", METHODS, CalibrationRecipe.method),
    )


def _prune(table: Table) -> PruneRecipe:
    table.check_keys(PruneRecipe)
    macs, sparsity, steps = table.number("macs"), table.text("sparsity"), table.index("steps")
    images, limit, rounds = (
        table.images("images"),
        table.count("limit", None),
        table.count("rounds", PruneRecipe.rounds),
    )
    try:
        return PruneRecipe(macs, sparsity, rounds, PruneRecipe.steps if steps is None else steps, images, limit)
    except RecipeError as error:
        raise RecipeError(f"{table.path}: [prune]: {error}") from error


def _quantize(table: Table) -> QuantizeRecipe:
    table.check_keys(QuantizeRecipe)
    return QuantizeRecipe(
        effort=table.choice("effort", EFFORTS, QuantizeRecipe.effort),
        keep_float=table.texts("keep_float", QuantizeRecipe.keep_float),
        refine=table.texts("refine", ()) if "refine" in table.values else None,
    )


def _accuracy(table: Table) -> AccuracyRecipe:
    table.check_keys(AccuracyRecipe)
    return AccuracyRecipe(
        images=table.images("images"),
        max_drop=table.points("max_drop", AccuracyRecipe.max_drop),
        strict=table.flag("strict", AccuracyRecipe.strict),
    )


def _build(table: Table) -> BuildRecipe:
    table.check_keys(BuildRecipe)
    targets = table.texts("targets", BuildRecipe.targets)
    if not targets:
        raise table.wrong("targets", 'give at least one, such as "cpu"')
    return BuildRecipe(
        precision=table.choice("precision", PRECISIONS, BuildRecipe.precision),
        targets=targets,
        output=table.beside(table.text("output") or str(BuildRecipe.output)),
        report=table.flag("report", BuildRecipe.report),
    )
