"""Builds as runs of MLflow, read back by its own client; nothing listens but this process."""

from __future__ import annotations

import hashlib
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from edge_resnet import demo
from edge_resnet.mlflow_runs import metrics

DEMO_WEIGHTS = demo.FOLDER / "resnet20-fashion-mnist.safetensors"

Refused = Callable[..., str]


@pytest.fixture
def store(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> str:
    """A store in files, which takes no time to set up."""
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    return tmp_path_factory.mktemp("mlflow").as_uri()


def run_of(store: str) -> Any:
    from mlflow import MlflowClient

    client = MlflowClient(tracking_uri=store)
    experiment = client.get_experiment_by_name("out")
    assert experiment is not None
    (run,) = client.search_runs([experiment.experiment_id])
    return run


def artefacts(run: Any) -> Path:
    return Path(str(run.info.artifact_uri).removeprefix("file://"))


@pytest.fixture
def recipe(recipe_file: Callable[..., Path]) -> Path:
    path = recipe_file(build='targets = ["cpu"]\noutput = "out.edge"')
    path.write_text(path.read_text().replace("report = false", "report = true"))
    return path


def test_what_is_logged_is_what_was_built(
    store: str, recipe: Path, cli_json: Callable[..., Any], tmp_path: Path
) -> None:
    document = cli_json("build", recipe, "--mlflow", store)
    run = run_of(store)
    assert run.info.status == "FINISHED"
    assert (run.data.params["model.arch"], run.data.params["quantize.effort"]) == ("resnet20", "fast")
    (target,), found = document["targets"], run.data.metrics
    judged = target["accuracy"]
    assert found["cpu/fp32_top1"] == judged["fp32"]["top1"] and found["cpu/top1"] == judged["engine"]["top1"]
    assert found["cpu/agreement"] == judged["agreement"] and found["cpu/logit_sqnr_db"] == judged["logit_sqnr_db"]
    assert [found[f"cpu/drop_{end}"] for end in ("low", "high")] == judged["drop"]["ci95"]
    assert found["cpu/drop_points"] == judged["drop"]["points"] and found["cpu/engine_bytes"] == target["bytes"]
    stages = {f"seconds/{stage['name']}": stage["seconds"] for stage in document["stages"]}
    assert stages.items() <= found.items() and "seconds/calibrate" in stages
    data = (tmp_path / "out.edge").read_bytes()
    assert found["bundle_bytes"] == len(data)
    assert run.data.tags["edge_resnet.bundle_sha256"] == hashlib.sha256(data).hexdigest()
    kept = artefacts(run)
    assert sorted(path.name for path in kept.iterdir()) == ["edge-resnet.toml", "out.report.html"]
    assert (kept / "out.report.html").read_bytes() == (tmp_path / "out.report.html").read_bytes()
    assert 'effort = "fast"' in (kept / "edge-resnet.toml").read_text()


@pytest.mark.parametrize("gate", [True, False])
def test_a_build_that_failed_is_logged_as_failed(store: str, recipe: Path, cli: Callable[..., Any], gate: bool) -> None:
    if gate:
        recipe.write_text(recipe.read_text().replace("[accuracy]", "[accuracy]\nmax_drop = 0\nstrict = true"))
    else:
        weights = recipe.with_name("damaged.safetensors")
        weights.write_bytes(b"no weights")
        recipe.write_text(recipe.read_text().replace(str(DEMO_WEIGHTS), str(weights)))
    result = cli("build", recipe, "--mlflow", store)
    assert result.returncode == (3 if gate else 2)
    run = run_of(store)
    assert run.info.status == "FAILED" and run.data.tags["edge_resnet.why"] in result.stderr
    assert "edge_resnet.bundle_sha256" not in run.data.tags
    assert ("cpu/agreement" in run.data.metrics) == gate


def test_a_store_that_is_lost_meanwhile_costs_a_note_and_no_bundle(
    store: str, recipe: Path, cli: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    from mlflow import MlflowClient

    def gone(*_: Any) -> None:
        raise ConnectionError("the server at http://robot:hunter2@mlflow is gone")

    monkeypatch.setattr(MlflowClient, "log_metric", gone)
    result = cli("build", recipe, "--mlflow", store)
    assert result.returncode == 0 and (recipe.parent / "out.edge").is_file()
    assert "is not all in MLflow: ConnectionError: the server at http://robot:…@mlflow is gone" in result.stderr
    assert run_of(store).info.status == "FAILED"


def test_without_mlflow_nothing_is_begun(store: str, recipe: Path, refused: Refused, tmp_path: Path) -> None:
    line = refused(4, "build", recipe, "--mlflow", "http://robot:hunter2@127.0.0.1:9")
    assert (
        line.startswith("MLflow at http://robot:…@127.0.0.1:9 cannot be used (MlflowException: ")
        and "hunter2" not in line
    )
    with pytest.MonkeyPatch.context() as without:
        without.setitem(sys.modules, "mlflow", None)
        assert refused(4, "build", recipe, "--mlflow", store) == (
            "--mlflow needs mlflow: pip install 'edge-resnet[mlflow]'"
        )
    assert [path.name for path in tmp_path.iterdir()] == [recipe.name]


def test_figures_that_are_not_known_are_left_out() -> None:
    judged = {"images": 9, "fp32": {"top1": None}, "engine": {"top1": None}, "agreement": 1.0, "logit_sqnr_db": None}
    document = {
        "targets": [
            {"target": "cpu", "bytes": 7, "seconds": 0.5, "accuracy": {**judged, "drop": None}},
            {"target": "rtx", "bytes": None, "seconds": None, "accuracy": None},
        ],
        "stages": [{"name": "export", "seconds": 2}],
    }
    assert dict(metrics(document)) == {
        "cpu/engine_bytes": 7,
        "cpu/compile_seconds": 0.5,
        "cpu/agreement": 1.0,
        "cpu/images": 9,
        "seconds/export": 2,
    }


CHECKED = """
import socket, sys
from pathlib import Path
from edge_resnet import mlflow_runs
from edge_resnet.demo import demo_recipe
from edge_resnet.progress import Progress

def no_network(*_):
    raise AssertionError("asked for the network")

socket.socket.connect = socket.getaddrinfo = no_network
run = mlflow_runs._begun(sys.argv[1], demo_recipe())
mlflow_runs._fail(run, "a test")
from mlflow.telemetry import get_telemetry_client
print(get_telemetry_client(), run.client.get_run(run.id).info.status)
"""


def test_a_database_and_no_telemetry(tmp_path: Path) -> None:
    """In a process of its own, for MLflow reads its switch when it is imported."""
    command = [sys.executable, "-c", CHECKED, f"sqlite:///{tmp_path}/mlflow.db"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout.split(), done.stderr) == (0, ["None", "FAILED"], "")
    assert len(list((tmp_path / "mlruns").rglob("edge-resnet.toml"))) == 1
