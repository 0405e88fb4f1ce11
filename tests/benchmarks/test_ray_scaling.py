"""benchmarks/ray_scaling.py: the simulation, against cases worked out by hand: 1,024 images are four parts of 256."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import pytest

pytest.importorskip("ray", reason="spreading work needs the extra 'ray'")

SCRIPT = Path(__file__).resolve().parents[2] / "benchmarks" / "ray_scaling.py"
FAST = 1e18
"""Bytes a second: nothing waits for it."""


@pytest.fixture(scope="module")
def scaling() -> ModuleType:
    """The script, which is no package's module."""
    spec = importlib.util.spec_from_file_location("ray_scaling", SCRIPT)
    assert spec is not None and spec.loader is not None
    loaded = importlib.util.module_from_spec(spec)
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(SCRIPT.parent))  # for what benchmarks share
        patch.setitem(sys.modules, "ray_scaling", loaded)  # its dataclasses look themselves up
        spec.loader.exec_module(loaded)
    return loaded


@pytest.mark.parametrize(
    ("workers", "costs", "wires", "file_bytes", "seconds"),
    [
        (1, (7, 1, 0, 0), (FAST, FAST), 0, 7 + 1024),  # one worker computes all
        (2, (0, 1, 0, 0), (FAST, FAST), 0, 512),  # two parts each
        (3, (0, 1, 0, 0), (FAST, FAST), 0, 512),  # one of three has two
        (9, (0, 1, 0, 0), (FAST, FAST), 0, 256),  # more workers than parts
        (4, (0, 0, 100, 0), (10, FAST), 0, 40),  # all parts come in by one link
        (4, (0, 0, 0, 5), (FAST, FAST), 0, 20),  # and are merged by one machine
        (4, (0, 0, 0, 0), (FAST, 2), 1, 512),  # all images come from one place
        (2, (0, 0, 0, 0), (4, FAST), 1, 128),  # each worker reads two parts over its own link
        (1, (0, 1, 0, 256), (FAST, FAST), 0, 1024 + 256),  # what one part merges, the next one computes
    ],
)
def test_seconds(
    workers: int,
    costs: tuple[float, float, int, float],
    wires: tuple[float, float],
    file_bytes: float,
    seconds: float,
    scaling: ModuleType,
) -> None:
    found = scaling.simulated_seconds(workers, 1024, scaling.Costs(*costs), scaling.Wires(*wires), file_bytes)
    assert found == pytest.approx(seconds, abs=1e-9)
