"""benchmarks/loadgen.py under the real LoadGen, on few of the demo's images; what it must agree with is ``check``."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest

import edge_resnet
from edge_resnet.errors import EngineError
from edge_resnet.recipe import Recipe
from edge_resnet.runtime import Runtime

pytest.importorskip("mlperf_loadgen", reason="mlcommons-loadgen is not installed: pip install 'edge-resnet[loadgen]'")

SCRIPT = Path(__file__).resolve().parents[2] / "benchmarks" / "loadgen.py"
PER_QUERY = {"SingleStream": 1, "MultiStream": 8}


@pytest.fixture
def loadgen(monkeypatch: pytest.MonkeyPatch) -> Iterator[ModuleType]:
    """The script, which is no package's module."""
    monkeypatch.syspath_prepend(SCRIPT.parent)
    spec = importlib.util.spec_from_file_location("loadgen", SCRIPT)
    assert spec is not None and spec.loader is not None
    loaded = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, "loadgen", loaded)  # its dataclasses look themselves up
    spec.loader.exec_module(loaded)
    yield loaded


@pytest.fixture
def bundle(small_recipe: Recipe) -> Path:
    made = edge_resnet.build(small_recipe).bundle
    assert made is not None
    return Path(made)


@pytest.fixture
def mixed(few: Path, tmp_path: Path) -> Path:
    """39 images, of which some are said to be what they are not: an accuracy that no accident gives."""
    lines = ["path,label"]
    for index, path in enumerate(sorted((few / "test").glob("*/*.png"))[:39]):
        lines.append(f"{path},{'bag' if index % 7 == 0 else path.parent.name}")
    table = tmp_path / "mixed.csv"
    table.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return table


def test_scenarios_ask_as_mlperf_does_and_their_accuracy_is_that_of_check(
    bundle: Path, mixed: Path, tmp_path: Path, cli: Callable[..., subprocess.CompletedProcess[str]]
) -> None:
    record = tmp_path / "record.json"
    command = [sys.executable, SCRIPT, bundle, "--images", mixed, "--seconds", "0.2", "--json", record]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    checked = json.loads(cli("check", bundle, "--images", mixed, "--max-drop", 100, "--json").stdout)
    assert 0.5 < checked["engine"]["top1"] < 0.95

    results = {each["scenario"]: each for each in json.loads(record.read_text(encoding="utf-8"))["results"]}
    assert list(results) == ["SingleStream", "MultiStream", "Offline"]
    assert {each["top1"] for each in results.values()} == {checked["engine"]["top1"]}
    for name, size in PER_QUERY.items():
        assert results[name]["samples"] == size * results[name]["queries"]
        assert 0 < results[name]["p50_ms"] <= results[name]["p90_ms"] <= results[name]["p99_ms"]
    assert results["MultiStream"]["queries"] >= 662  # which MLPerf's settings ask for, not LoadGen's own
    assert results["SingleStream"]["published"] >= results["SingleStream"]["p90_ms"]
    assert results["MultiStream"]["published"] >= results["MultiStream"]["p99_ms"]
    assert results["Offline"]["queries"] == 1 and results["Offline"]["samples"] >= 39
    for name, each in results.items():
        verdict = "VALID" if each["valid"] else f"INVALID: {each['why']}"
        assert f"| {name} | {verdict} | " in done.stdout


def test_images_are_read_in_parts_and_an_answer_that_is_wrong_costs_its_share(
    loadgen: Any, bundle: Path, few: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("_loadgen_system.IN_MEMORY", 16)
    with closing(Runtime(bundle)) as runtime:
        images = loadgen.labelled_images(runtime, few / "test", None)
        right = _top1(loadgen, runtime, images, tmp_path / "right")

        answers, run = runtime.answers(images.paths), runtime.engine.run
        place = int(np.flatnonzero(answers.argmax(1) == images.labels)[3])
        frame = runtime.ready(images.paths[place]).pixels

        def wrong(frames: Any, out: Any = None) -> Any:
            found = run(frames, out)
            return np.where((frames == frame).all((1, 2, 3))[:, None], -found, found)

        monkeypatch.setattr(runtime.engine, "run", wrong)
        assert _top1(loadgen, runtime, images, tmp_path / "wrong") == pytest.approx(right - 1 / len(images))


def _top1(loadgen: Any, runtime: Runtime, images: Any, logs: Path) -> float:
    found: float = loadgen.measure(runtime, images, loadgen.SCENARIOS["SingleStream"], 0.1, logs).top1
    return found


def test_an_engine_that_fails_is_an_error_and_no_figure(
    loadgen: Any, bundle: Path, few: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with closing(Runtime(bundle)) as runtime:
        images = loadgen.labelled_images(runtime, few / "test", None)
        run, calls = runtime.engine.run, iter(range(1_000_000))

        def fails_later(frames: Any, out: Any = None) -> Any:
            if next(calls) == 30:
                raise EngineError("the device is lost")
            return run(frames, out)

        monkeypatch.setattr(runtime.engine, "run", fails_later)
        with pytest.raises(EngineError, match="the device is lost"):
            loadgen.measure(runtime, images, loadgen.SCENARIOS["Offline"], 0.1, tmp_path)


def test_what_cannot_be_measured_is_said_in_a_line(bundle: Path, tmp_path: Path, few: Path) -> None:
    loose = tmp_path / "loose"
    loose.mkdir()
    (loose / "one.png").write_bytes(next((few / "test").glob("*/*.png")).read_bytes())
    command = [sys.executable, SCRIPT, bundle, "--images", loose, "--scenario", "Offline"]
    done = subprocess.run(command, capture_output=True, text=True)
    wanted = f"loadgen: {loose} has no labels: give a folder of class folders, or a CSV with labels\n"
    assert (done.returncode, done.stderr) == (2, wanted)


def test_without_loadgen_a_line_says_what_to_install(tmp_path: Path) -> None:
    (tmp_path / "mlperf_loadgen.py").write_text("raise ModuleNotFoundError(name='mlperf_loadgen')", encoding="utf-8")
    environment = {**os.environ, "PYTHONPATH": f"{tmp_path}{os.pathsep}{os.environ.get('PYTHONPATH', '')}"}
    done = subprocess.run(
        [sys.executable, SCRIPT, tmp_path / "no.edge"], env=environment, capture_output=True, text=True
    )
    wanted = "loadgen: LoadGen is not installed: pip install 'edge-resnet[loadgen]'\n"
    assert (done.returncode, done.stdout, done.stderr) == (4, "", wanted)
