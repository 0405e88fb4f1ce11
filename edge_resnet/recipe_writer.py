"""A recipe as the text of a file, which ``load_recipe`` reads back to the same recipe."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Mapping
from enum import Enum
from pathlib import Path

from edge_resnet.engine_options import FLAGS
from edge_resnet.engines.options import DEFAULTS, BatchRange
from edge_resnet.recipe import Recipe


def recipe_text(recipe: Recipe, folder: Path, comment: Iterable[str] = ()) -> str:
    """Writes every table; keys that are not set are left out.

    Args:
        recipe: what to write.
        folder: where the file will lie, which its paths are relative to.
        comment: lines to stand above.
    """
    tables: dict[str, Mapping[str, object]] = {
        "model": vars(recipe.model),
        "preprocessing": recipe.preprocessing,
        "calibration": vars(recipe.calibration),
        "prune": {} if recipe.prune is None else vars(recipe.prune),
        "quantize": vars(recipe.quantize),
        "accuracy": vars(recipe.accuracy),
        "build": vars(recipe.build),
        "engine": {key: getattr(recipe.engine, key) for key in FLAGS if _asked_for(recipe, key)},
    }
    lines = [f"# {' '.join(line.split())}" for line in comment]
    for name, values in tables.items():
        if values:
            written = {key: value for key, value in values.items() if value is not None}
            lines += ["", f"[{name}]", *(f"{key} = {_value(value, folder)}" for key, value in written.items())]
    return "\n".join(lines).lstrip("\n") + "\n"


def _asked_for(recipe: Recipe, key: str) -> bool:
    return bool(getattr(recipe.engine, key) != getattr(DEFAULTS, key))


def _value(value: object, folder: Path) -> str:
    """A TOML value. Strings of JSON are basic strings of TOML."""
    if isinstance(value, Path):
        return _value(os.path.relpath(value, folder), folder)
    if isinstance(value, BatchRange):
        return _value([value.smallest, value.typical, value.largest], folder)
    if isinstance(value, Enum):
        return _value(value.value, folder)
    if isinstance(value, (list, tuple)):
        return f"[{', '.join(_value(each, folder) for each in value)}]"
    return json.dumps(value, ensure_ascii=False)
