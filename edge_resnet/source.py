"""Recipe → the FP32 network that everything else is made from and held against."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import onnx

from edge_resnet.adoption import open_network
from edge_resnet.errors import RecipeError
from edge_resnet.labels import read_labels
from edge_resnet.onnx_file import gives_features
from edge_resnet.preprocessing import Preprocessing
from edge_resnet.recipe import ModelRecipe, Recipe


@dataclass(frozen=True)
class Source:
    """The FP32 network and what belongs to it."""

    model: onnx.ModelProto
    architecture: str | None
    preprocessing: Preprocessing
    labels: tuple[str, ...] | None
    """The classes' names; None where the network gives features."""
    changes: tuple[str, ...] = ()
    """What was changed of a foreign ONNX file."""

    @property
    def input_shape(self) -> tuple[int, int, int]:
        """Height, width and channels of a frame."""
        return (*self.preprocessing.size, self.preprocessing.channels)


def load_source(recipe: Recipe) -> Source:
    """Exports the recipe's checkpoint, or reads its ONNX file.

    Raises:
        ModelError: the checkpoint or ONNX file cannot be used.
        RecipeError: labels or preprocessing do not fit.
    """
    labels = None if recipe.model.labels is None else read_labels(recipe.model.labels)
    if recipe.model.onnx is not None:
        return _from_onnx(recipe, recipe.model.onnx, labels)
    given = Preprocessing.from_table(recipe.preprocessing) if recipe.preprocessing else None
    return _from_checkpoint(recipe.model, given, labels)


def _from_onnx(recipe: Recipe, path: Path, labels: tuple[str, ...] | None) -> Source:
    """Reads the file; what the recipe says too must agree with it."""
    given = Preprocessing.from_table(recipe.preprocessing) if recipe.preprocessing else None
    network = open_network(path, given)
    if given not in (None, network.preprocessing):
        raise RecipeError(f"[preprocessing] is not the one that {path} was exported with: leave it out")
    model = network.model
    if recipe.model.classes not in (None, _classes(model)):
        raise RecipeError(f"classes is {recipe.model.classes}, but {path} has {_classes(model)}: leave it out")
    return Source(
        model,
        network.architecture,
        network.preprocessing,
        complete_labels(model, labels or network.labels),
        network.changes,
    )


def _from_checkpoint(recipe: ModelRecipe, given: Preprocessing | None, labels: tuple[str, ...] | None) -> Source:
    from edge_resnet.export import export_onnx  # torch takes seconds to import: only where a checkpoint is read
    from edge_resnet.weights import load_model, own_preprocessing

    assert recipe.arch is not None  # the recipe's reader saw to it
    channels = None if given is None else given.channels
    network = load_model(recipe.arch, recipe.weights, classes=recipe.classes, channels=channels, head=recipe.head)
    own = None if recipe.weights is None else own_preprocessing(recipe.arch, recipe.weights)
    preprocessing = given or own
    if preprocessing is None:
        raise RecipeError(f"{recipe.weights} brings no preprocessing: give [preprocessing]")
    model = export_onnx(network, preprocessing, labels)
    return Source(model, network.architecture.name, preprocessing, complete_labels(model, labels))


def complete_labels(model: onnx.ModelProto, labels: tuple[str, ...] | None) -> tuple[str, ...] | None:
    """The labels, one a class of the model; class numbers where there are none; None for a feature extractor.

    Raises:
        RecipeError: there are more or fewer labels than classes.
    """
    if gives_features(model):
        if labels is not None:
            raise RecipeError("labels are for a classifier, and this network gives features: leave them out")
        return None
    classes = _classes(model)
    if labels is None:
        return tuple(str(index) for index in range(classes))
    if len(labels) != classes:
        raise RecipeError(f"{len(labels)} labels for {classes} classes: give one label a class, in the network's order")
    return labels


def _classes(model: onnx.ModelProto) -> int:
    return int(model.graph.output[0].type.tensor_type.shape.dim[1].dim_value)
