"""What a bundle says of its making: the files it was made from, by hash, the recipe, and the versions that ran.

The same inputs give the same words on every machine: no dates, and of a path its last part alone.
"""

from __future__ import annotations

import hashlib
import platform
from collections.abc import Mapping
from dataclasses import fields
from enum import Enum
from importlib.metadata import version
from pathlib import Path
from typing import Any

from edge_resnet.engines.options import BuildOptions
from edge_resnet.errors import ModelError
from edge_resnet.images import ImageSet
from edge_resnet.recipe import ModelRecipe, Recipe

_PACKAGES = ("edge-resnet", "onnxruntime", "numpy", "pillow", "onnx")
_CHUNK = 1 << 20


def provenance_of(recipe: Recipe, evaluation: ImageSet | None) -> dict[str, object]:
    """What goes into the manifest: ``sources``, ``recipe`` and ``evaluation``.

    Args:
        recipe: what is built.
        evaluation: the images that engines are judged on. Calibration's are in the manifest's ``calibration``.

    Raises:
        ModelError: a source cannot be read any more.
    """
    judged_on = None
    if evaluation is not None:
        judged_on = {key: value for key, value in evaluation.manifest().items() if key != "sha256"}
    told = _plain(recipe)
    del told["build"]["report"]  # of a file beside the bundle
    return {"sources": _sources(recipe.model), "recipe": told, "evaluation": judged_on}


def versions() -> dict[str, str]:
    """What made the bundle, in short; the SBOM has all of it."""
    return {**{name: version(name) for name in _PACKAGES}, "python": platform.python_version()}


def _sources(model: ModelRecipe) -> dict[str, dict[str, str]]:
    given = {"weights": _checkpoint(model), "onnx": model.onnx, "labels": model.labels}
    return {name: {"file": path.name, "sha256": _sha256(path)} for name, path in given.items() if path is not None}


def _checkpoint(model: ModelRecipe) -> Path | None:
    if model.arch is None or model.weights is None:
        return None
    from edge_resnet.weights import locate  # torch takes seconds to import: only where a checkpoint was read

    return locate(model.arch, model.weights)


def _sha256(path: Path) -> str:
    digest = hashlib.sha256()
    try:
        with path.open("rb") as file:
            while chunk := file.read(_CHUNK):
                digest.update(chunk)
    except OSError as error:
        raise ModelError(
            f"{path} cannot be read: {error.strerror}: leave it in place until the build is done"
        ) from error
    return digest.hexdigest()


def _plain(value: Any) -> Any:
    """A recipe's values as JSON has them."""
    if isinstance(value, BuildOptions):
        return value.chosen
    if isinstance(value, Path):
        return value.name
    if isinstance(value, Enum):
        return value.value
    if isinstance(value, Mapping):
        return {str(key): _plain(each) for key, each in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(each) for each in value]
    if hasattr(value, "__dataclass_fields__"):
        return {field.name: _plain(getattr(value, field.name)) for field in fields(value)}
    return value
