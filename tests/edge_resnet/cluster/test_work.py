"""``spread``: order, errors, and workers that die."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from ray_jobs import Broken, Deadly, Squares
from ray_nodes import ray_cluster  # before ray, which reads its settings when it is imported

from edge_resnet.cluster import work
from edge_resnet.cluster.connection import connected
from edge_resnet.cluster.crew import Crew
from edge_resnet.cluster.work import Libraries, spread
from edge_resnet.demo import CALIBRATION
from edge_resnet.errors import CalibrationError, UnavailableError
from edge_resnet.images import open_images
from edge_resnet.onnx_file import load_onnx
from edge_resnet.preprocessing import NAMED
from edge_resnet.workforce import THIS_MACHINE

ray = pytest.importorskip("ray", reason="spreading work needs the extra 'ray'")
pytestmark = pytest.mark.slow


def test_results_and_errors_come_in_the_order_of_tasks(address: str, tmp_path: Path) -> None:
    begun = tmp_path / "begun"
    with connected(address):
        assert list(spread(Squares(begun), range(20), print)) == [number**2 for number in range(20)]
        processes = begun.read_text(encoding="ascii").split()
        assert 1 <= len(processes) == len(set(processes)) <= 2, "each process begins a job once"
        found = spread(Squares(begun), [1, 2, -3, -4, 5], print)
        assert [next(found), next(found)] == [1, 4]
        with pytest.raises(CalibrationError, match=r"^-3 is below 0: give another$") as refused:
            next(found)
        assert type(refused.value) is CalibrationError
        with pytest.raises(ZeroDivisionError):  # a bug is shown as one
            list(spread(Broken(), [1], print))


def test_a_task_that_kills_its_workers_ends(address: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(work, "RETRIES", 1)
    with connected(address), pytest.raises(UnavailableError, match="has lost its worker 2 times .*: look for one that"):
        list(spread(Deadly(), [1], print))


def test_what_computes_otherwise(address: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    here, notes = Libraries.here(), list[str]()
    job = Squares(tmp_path / "begun")
    with connected(address):
        monkeypatch.setattr(Libraries, "here", lambda: replace(here, kernels="z80 (none)"))
        assert list(spread(job, [1, 3], notes.append)) == [1, 9]
        assert len(notes) == 1 and notes[0].endswith(f"is {here.kernels}, here z80 (none): last digits may differ")
        older = replace(here, versions={**here.versions, "numpy": "1.0"})
        monkeypatch.setattr(Libraries, "here", lambda: older)
        with pytest.raises(UnavailableError, match=r"^worker .* has numpy 2.*, here is 1.0, and results could differ"):
            list(spread(job, [1], notes.append))


def test_a_killed_node_changes_nothing(demo_onnx: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """Of two nodes one is killed while both work; the other does the rest, and what was lost."""
    model, images, spec = load_onnx(demo_onnx), open_images(CALIBRATION, 160), NAMED["fashion-mnist"]
    parts: list[int] = []
    with ray_cluster({}, {}) as cluster:

        def advance(done: int) -> None:
            parts.append(done)
            if len(parts) == 4:
                cluster.remove_node(cluster.list_all_nodes()[-1], allow_graceful=False)  # SIGKILL

        with connected(cluster.address):
            table = Crew(print).calibrate(model, images, spec, "mse", advance)
            assert _comes_to_be(lambda: sum(not node["Alive"] for node in ray.nodes()) == 1)
    assert len(parts) == 16 and sum(parts) == 160
    assert table.to_json() == THIS_MACHINE.calibrate(model, images, spec, "mse", lambda done: None).to_json()
    assert capfd.readouterr().out == "", "Ray prints its own logs of a death, where a command's JSON document is"


def _comes_to_be(condition: Callable[[], bool]) -> bool:
    """Within the seconds that the head takes to notice a death."""
    end = time.monotonic() + 30
    while not condition() and time.monotonic() < end:
        time.sleep(0.1)
    return condition()


@pytest.mark.long
def test_the_last_worker_is_lost(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(work, "LOOK_SECONDS", 0.5)
    monkeypatch.setattr(work, "PATIENCE_SECONDS", 1.0)
    with ray_cluster({}) as cluster, connected(cluster.address):
        found = spread(Squares(tmp_path / "begun"), range(0, 400, 2), print)
        assert next(found) == 0
        cluster.remove_node(cluster.list_all_nodes()[-1], allow_graceful=False)
        with pytest.raises(UnavailableError, match="has lost its last worker"):
            list(found)
        with pytest.raises(UnavailableError, match="the Ray cluster has no CPUs to work on: add a machine"):
            list(spread(Squares(tmp_path / "begun"), [1], print))
