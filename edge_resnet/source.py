"""Recipe → its network, with labels and preprocessing."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import onnx

from edge_resnet.adoption import Network, open_network
from edge_resnet.errors import RecipeError
from edge_resnet.labels import read_labels
from edge_resnet.onnx_file import class_count, gives_features
from edge_resnet.preprocessing import Preprocessing
from edge_resnet.recipe import ModelRecipe, Recipe

Labels = tuple[str, ...]


def load_source(recipe: Recipe) -> Network:
    """Exports the recipe's checkpoint, or reads its ONNX file. A classifier without labels gets its classes' numbers.

    Raises:
        ModelError: the checkpoint or ONNX file cannot be used.
        RecipeError: labels or preprocessing do not fit.
    """
    labels = None if recipe.model.labels is None else read_labels(recipe.model.labels)
    given = Preprocessing.from_table(recipe.preprocessing) if recipe.preprocessing else None
    if recipe.model.onnx is not None:
        network = _from_onnx(recipe.model, recipe.model.onnx, given, labels)
    else:
        network = _from_checkpoint(recipe.model, given, labels)
    return replace(network, labels=_complete(network.model, labels or network.labels))


def _from_onnx(recipe: ModelRecipe, path: Path, given: Preprocessing | None, labels: Labels | None) -> Network:
    """Reads the file; what the recipe says too must agree with it."""
    network = open_network(path, given, features=not recipe.include_top)
    if not recipe.include_top and not gives_features(network.model):
        raise RecipeError(f"[model] has include_top = false, but {path} was exported with its top: leave it out")
    if given not in (None, network.preprocessing):
        raise RecipeError(f"[preprocessing] is not the one that {path} was exported with: leave it out")
    if gives_features(network.model):
        for key, value in (("classes", recipe.classes), ("labels", recipe.labels)):
            if value is not None:
                raise RecipeError(f"[model] has {key}, but {path} gives features, which have none: leave {key} out")
    elif recipe.classes not in (None, class_count(network.model)):
        found = class_count(network.model)
        raise RecipeError(f"classes is {recipe.classes}, but {path} has {found}: leave it out")
    return network


def _from_checkpoint(recipe: ModelRecipe, given: Preprocessing | None, labels: Labels | None) -> Network:
    from edge_resnet.export import export_onnx  # torch takes seconds to import: only where a checkpoint is read
    from edge_resnet.weights import load_model, own_preprocessing

    assert recipe.arch is not None  # the recipe's reader saw to it
    model = load_model(
        recipe.arch,
        recipe.weights,
        classes=recipe.classes,
        channels=None if given is None else given.channels,
        shortcut=recipe.shortcut,
        head=recipe.head,
    )
    own = None if recipe.weights is None else own_preprocessing(recipe.arch, recipe.weights)
    preprocessing = given or own
    if preprocessing is None:
        raise RecipeError(f"{recipe.weights} brings no preprocessing: give [preprocessing]")
    return Network(export_onnx(model, preprocessing, labels), model.architecture.name, preprocessing, labels)


def _complete(model: onnx.ModelProto, labels: Labels | None) -> Labels | None:
    """The labels, one a class of the model; class numbers where there are none; None for a feature extractor.

    Raises:
        RecipeError: there are more or fewer labels than classes.
    """
    if gives_features(model):
        return None
    classes = class_count(model)
    if labels is None:
        return tuple(str(index) for index in range(classes))
    if len(labels) != classes:
        raise RecipeError(f"{len(labels)} labels for {classes} classes: give one label a class, in the network's order")
    return labels
