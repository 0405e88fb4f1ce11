"""A build as a run of MLflow: its recipe, its figures, its report, and whether it failed.

Needs the extra ``mlflow``. Nothing of MLflow is loaded otherwise, and its telemetry is off. No model is logged, for
MLflow keeps those as pickles: the bundle is named by its hashes.
"""

from __future__ import annotations

import hashlib
import logging
import math
import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edge_resnet.addresses import without_password
from edge_resnet.chain import BuildResult
from edge_resnet.errors import UnavailableError
from edge_resnet.progress import Progress
from edge_resnet.recipe import Recipe
from edge_resnet.recipe_writer import recipe_text
from edge_resnet.toml_table import tomllib

RECIPE = "edge-resnet.toml"
"""The recipe among a run's artefacts."""
_LONGEST = 6000
"""MLflow's limit of a parameter's characters."""
_ENVIRONMENT = {"MLFLOW_HTTP_REQUEST_MAX_RETRIES": "2", "MLFLOW_HTTP_REQUEST_TIMEOUT": "30"}
"""Unless the user's says otherwise: by its own, MLflow waits minutes for a server that is not there."""


@dataclass(frozen=True)
class _Run:
    client: Any
    id: str


def tracked(store: str, recipe: Recipe, build: Callable[[], BuildResult], progress: Progress) -> BuildResult:
    """Builds, and keeps a run of it in the experiment that has the bundle's name.

    Args:
        store: MLflow's tracking URI: ``http://…``, ``sqlite:///mlflow.db``, or ``file:…``, where MLflow still takes it.
        recipe: what is built.
        build: builds it.
        progress: told where the run cannot be finished: the bundle stands without it.

    Raises:
        UnavailableError: MLflow is not installed or cannot be reached; nothing has been built.
        EdgeResnetError: as ``build``; the run is logged as failed.
    """
    run = _begun(store, recipe)
    try:
        result = build()
    except BaseException as error:
        why = str(error) or type(error).__name__
        _end(run, store, progress, lambda: _fail(run, why))
        raise

    def finish() -> None:
        _log(run, result)
        if result.failures:
            _fail(run, "; ".join(dict.fromkeys(map(str, result.failures))))
        else:
            run.client.set_terminated(run.id, "FINISHED")

    _end(run, store, progress, finish)
    return result


def _begun(store: str, recipe: Recipe) -> _Run:
    os.environ["MLFLOW_DISABLE_TELEMETRY"] = "true"  # read when it is imported
    for name, value in _ENVIRONMENT.items():
        os.environ.setdefault(name, value)
    try:
        from mlflow import MlflowClient
    except ModuleNotFoundError as error:
        raise UnavailableError(f"--mlflow needs {error.name}: pip install 'edge-resnet[mlflow]'") from error
    logging.getLogger("mlflow").setLevel(logging.WARNING)
    name = recipe.build.output.stem
    try:
        client = MlflowClient(tracking_uri=store)
        found = client.get_experiment_by_name(name)
        experiment = client.create_experiment(name) if found is None else found.experiment_id
        title = f"{recipe.build.precision} for {', '.join(recipe.build.targets)}"
        run = _Run(client, client.create_run(experiment, run_name=title).info.run_id)
        for key, text in _params(recipe):
            client.log_param(run.id, key, text)
        place = Path.cwd()
        client.log_text(run.id, recipe_text(recipe, place, [f"Paths are relative to {place}."]), RECIPE)
    except Exception as error:  # MLflow's, its database's, or of a package that is not here
        raise UnavailableError(
            f"MLflow at {without_password(store)} cannot be used ({_one_line(error)}): give --mlflow a tracking server's "
            f"address or sqlite:///mlflow.db, or leave it out"
        ) from error
    return run


def _end(run: _Run, store: str, progress: Progress, finish: Callable[[], None]) -> None:
    """Finishes a run; what hinders it is a note, for the build's own outcome is worth more."""
    try:
        finish()
    except Exception as error:
        progress.note(f"the run {run.id} at {without_password(store)} is not all in MLflow: {_one_line(error)}")
        with suppress(Exception):
            run.client.set_terminated(run.id, "FAILED")


def _fail(run: _Run, why: str) -> None:
    run.client.set_tag(run.id, "edge_resnet.why", why)
    run.client.set_terminated(run.id, "FAILED")


def _log(run: _Run, result: BuildResult) -> None:
    for key, value in metrics(result.to_json()):
        run.client.log_metric(run.id, key, value)
    if result.report is not None:
        run.client.log_artifact(run.id, result.report)
    if result.bundle is not None:
        data = Path(result.bundle).read_bytes()
        run.client.set_tag(run.id, "edge_resnet.bundle", result.bundle)
        run.client.set_tag(run.id, "edge_resnet.bundle_sha256", hashlib.sha256(data).hexdigest())
        run.client.log_metric(run.id, "bundle_bytes", len(data))


def _params(recipe: Recipe) -> Iterator[tuple[str, str]]:
    """The recipe's keys as its file has them: ``quantize.effort``."""
    for table, values in tomllib.loads(recipe_text(recipe, Path.cwd())).items():
        for key, value in values.items():
            yield f"{table}.{key}", str(value)[:_LONGEST]


def metrics(document: Mapping[str, Any]) -> Iterator[tuple[str, float]]:
    """The figures in what ``build --json`` prints, as ``cpu/agreement``, ``cpu/drop_points`` and ``seconds/calibrate``.

    Accuracies are fractions from 0 to 1, drops are points; what is not known is left out.
    """
    for target in document["targets"]:
        figures = {
            "engine_bytes": target["bytes"],
            "compile_seconds": target["seconds"],
            **_accuracy(target["accuracy"]),
        }
        for key, value in figures.items():
            if value is not None and math.isfinite(value):
                yield f"{target['target']}/{key}", float(value)
    for stage in document["stages"]:
        yield f"seconds/{stage['name']}", float(stage["seconds"])


def _accuracy(judged: Mapping[str, Any] | None) -> dict[str, float | None]:
    if judged is None:
        return {}
    fp32, engine, drop = judged.get("fp32") or {}, judged.get("engine") or {}, judged["drop"] or {}
    low, high = drop.get("ci95", (None, None))
    return {
        "fp32_top1": fp32.get("top1"),
        "top1": engine.get("top1"),
        "agreement": judged.get("agreement"),
        "logit_sqnr_db": judged.get("logit_sqnr_db"),
        "drop_points": drop.get("points"),
        "drop_low": low,
        "drop_high": high,
        "images": judged["images"],
    }


def _one_line(error: Exception) -> str:
    return without_password(" ".join(f"{type(error).__name__}: {error}".split()))[:500]
