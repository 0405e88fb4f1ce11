"""benchmarks/load.py in small: every answer of many threads and clients is the one that the picture got alone."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest

from edge_resnet.engines.ort import OrtEngine

SCRIPT = Path(__file__).resolve().parents[2] / "benchmarks" / "load.py"


@pytest.fixture
def load(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """The script, which is no package's module."""
    spec = importlib.util.spec_from_file_location("load", SCRIPT)
    assert spec is not None and spec.loader is not None
    loaded = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, "load", loaded)  # its dataclasses look themselves up
    spec.loader.exec_module(loaded)
    return loaded


def test_eight_threads_get_no_wrong_answer(load: ModuleType, quick_bundle: Path) -> None:
    found = load.through_one_classifier(quick_bundle, 8, 200)
    assert (found.requests, found.wrong, found.ended_well) == (1600, 0, True)
    assert max(mb for _, mb in found.memory) - found.memory[0][1] < 20


def test_64_clients_get_no_wrong_answer_and_the_service_ends_well(load: ModuleType, quick_bundle: Path) -> None:
    found = load.through_the_service(quick_bundle, 64, 8)
    assert (found.requests, found.wrong, found.ended_well) == (512, 0, True)
    assert max(mb for _, mb in found.memory) - found.memory[0][1] < 100


def test_answers_that_change_places_are_found(
    load: ModuleType, quick_bundle: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As if two threads shared one buffer: once the golden answers are known, each run gives that of the one before."""
    run, last = OrtEngine._run, [np.zeros((1, 10), np.float32)]
    runs = iter(range(10**9))

    def late(self: OrtEngine, *given: Any) -> np.ndarray:
        answer = run(self, *given)
        if next(runs) < 102:  # to warm up, and those alone
            return answer
        before, last[0] = last[0], answer
        return before

    monkeypatch.setattr(OrtEngine, "_run", late)
    found = load.through_one_classifier(quick_bundle, 2, 20)
    assert found.wrong > 30 and not found.passed
    assert load.LoadResult(1, 0, 1.0, 0, ((0, 5.0), (10_000, 6.5)), True).mb_for_10000 == pytest.approx(1.5)
