"""The file that a search is kept in: one SQLite database, for one recipe with its images. Needs the extra ``tune``."""

from __future__ import annotations

import hashlib
import json
import sqlite3
from contextlib import closing
from dataclasses import asdict
from pathlib import Path
from typing import Any

import optuna
from optuna.trial import TrialState

from edge_resnet.errors import OutputError
from edge_resnet.recipe import Recipe
from edge_resnet.tuning.halves import Images

NAME = "edge-resnet tune"
DIGEST = "digest"
_HEAD = b"SQLite format 3\x00"


def open_study(
    place: Path | None, digest: str, sampler: optuna.samplers.BaseSampler, pruner: optuna.pruners.BasePruner
) -> optuna.Study:
    """A new search, or the one that is kept there; trials that were killed half-way are given up.

    Args:
        place: the database; None keeps it in memory.
        digest: of everything that the trials depend on.
        sampler: chooses what is tried.
        pruner: ends trials early.

    Raises:
        OutputError: the file is something else, or the search of another recipe.
    """
    if place is not None:
        _check_database(place)
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    storage = None if place is None else f"sqlite:///{place}"
    study = optuna.create_study(
        storage=storage, sampler=sampler, pruner=pruner, study_name=NAME, direction="maximize", load_if_exists=True
    )
    if study.user_attrs.setdefault(DIGEST, digest) != digest:
        raise OutputError(
            f"'{place}' holds the search of another recipe, or other images, target or effort: give another --storage, "
            "or remove it"
        )
    study.set_user_attr(DIGEST, digest)
    for killed in study.get_trials(deepcopy=False, states=(TrialState.RUNNING,)):
        study.tell(killed.number, state=TrialState.FAIL)
    return study


def digest_of(recipe: Recipe, images: Images, target: str, effort: str) -> str:
    """SHA-256 of what trials depend on: not of the goal, which the same trials may serve, nor of where things lie."""
    tables = {name: asdict(getattr(recipe, name)) for name in ("model", "calibration", "quantize", "engine")}
    inputs = {
        **tables,
        "preprocessing": dict(recipe.preprocessing),
        "images": [images.calibration.hashes, images.selection.hashes, images.unseen.hashes],
        "target": target,
        "effort": effort,
    }
    return hashlib.sha256(json.dumps(inputs, sort_keys=True, default=_plain).encode()).hexdigest()


def _plain(value: Any) -> str:
    """A file as its bytes' hash; a folder's images are there by their own."""
    if isinstance(value, Path):
        return hashlib.sha256(value.read_bytes()).hexdigest() if value.is_file() else ""
    return str(value)


def _check_database(place: Path) -> None:
    """Refuses to write tables into somebody's file."""
    if not place.exists() or place.stat().st_size == 0:
        return
    with place.open("rb") as file:
        ours = file.read(len(_HEAD)) == _HEAD
    if ours:
        with closing(sqlite3.connect(place)) as database:
            try:
                tables = {name for (name,) in database.execute("select name from sqlite_master where type = 'table'")}
            except sqlite3.DatabaseError:
                tables = {"damaged"}
        ours = not tables or "studies" in tables
    if not ours:
        raise OutputError(f"'{place}' is no database of a search: give another --storage, or remove it")
