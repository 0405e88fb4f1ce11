"""What the tests on a GPU leave behind: one record of the machine, of what passed there, and of what was measured.

    python -m pytest tests/gpu --record docs/tested-on/NAME.json

runs them on any machine with an NVIDIA GPU; ``python benchmarks/tested_on.py`` then makes ``docs/tested-on.md`` of all
records.
"""

from __future__ import annotations

import json
import platform
import subprocess
from collections import Counter
from collections.abc import Callable
from datetime import datetime, timezone
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import pytest

from edge_resnet.engines.cuda import cuda_api, gpu_sm

PACKAGES = ("edge-resnet", "cuda-bindings", "pycuda", "tensorrt", "tensorrt-rtx-cu12", "numpy")
Record = Callable[[str, float, str], None]


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--record", type=Path, metavar="F.json", help="Write what ran, where, and what was measured.")


@pytest.fixture(scope="session")
def figures() -> list[dict[str, object]]:
    return []


@pytest.fixture
def record(figures: list[dict[str, object]], request: pytest.FixtureRequest) -> Record:
    """Keeps a figure for the record: what, how much, in which unit."""

    def keep(what: str, value: float, unit: str) -> None:
        figures.append({"what": what, "value": float(f"{value:.4g}"), "unit": unit})
        request.config.stash.setdefault(_FIGURES, figures)

    return keep


_FIGURES: pytest.StashKey[list[dict[str, object]]] = pytest.StashKey()
_OUTCOMES: pytest.StashKey[dict[str, Counter[str]]] = pytest.StashKey()


def pytest_configure(config: pytest.Config) -> None:
    config.stash[_OUTCOMES] = {}
    config.pluginmanager.register(_Outcomes(config.stash[_OUTCOMES]), "gpu-outcomes")


class _Outcomes:
    """Counts outcomes by test file."""

    def __init__(self, counts: dict[str, Counter[str]]) -> None:
        self._counts = counts

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        file = report.nodeid.split("::")[0]
        if "tests/gpu/" in file and (report.when == "call" or report.skipped or (report.failed and report.when)):
            self._counts.setdefault(file, Counter())[report.outcome] += 1


def pytest_sessionfinish(session: pytest.Session) -> None:
    place: Path | None = session.config.getoption("--record", default=None)
    if place is None or gpu_sm() is None:
        return
    document = {
        "date": datetime.now(timezone.utc).strftime("%Y-%m-%d"),
        **machine(),
        "outcomes": {file: dict(counts) for file, counts in sorted(session.config.stash[_OUTCOMES].items())},
        "figures": session.config.stash.get(_FIGURES, []),
    }
    place.parent.mkdir(parents=True, exist_ok=True)
    place.write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")


def machine() -> dict[str, object]:
    """The GPU, its driver and clocks, and the versions of what ran."""
    api = cuda_api()
    with api.current():
        gpu, driver = api.gpu(), api.driver_version()
    return {
        "gpu": gpu.name,
        "sm": gpu.sm,
        "integrated": gpu.integrated,
        "cuda": f"{driver // 1000}.{driver % 1000 // 10}",
        "driver": _asked("driver_version"),
        "clocks_mhz": _asked("clocks.sm,clocks.mem,clocks.max.sm,clocks.max.mem"),
        "machine": platform.machine(),
        "python": platform.python_version(),
        "packages": {name: found for name in PACKAGES if (found := _version(name)) is not None},
    }


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def _asked(query: str) -> str | None:
    """What nvidia-smi says; None where there is none, as on a Jetson."""
    command = ["nvidia-smi", f"--query-gpu={query}", "--format=csv,noheader,nounits", "--id=0"]
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True, timeout=30).stdout.strip()
    except (OSError, subprocess.SubprocessError):
        return None
