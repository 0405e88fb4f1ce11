"""What importing brings along, and that imports between the three packages run one way."""

from __future__ import annotations

import ast
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
BUILD_ONLY = {"cryptography", "cyclonedx", "torch", "onnx", "onnx_ir", "safetensors"}
HEAVY = BUILD_ONLY | {
    "av",
    "numpy",
    "onnxruntime",
    "PIL",
    "tensorrt_rtx",
    "tensorrt",
    "cuda",
    "typer",
    "rich",
    "starlette",
    "uvicorn",
}
MAY_IMPORT = {
    "engines": {"engines"},
    "calibration": {"calibration", "engines"},
}
"""Package at the top → the packages of edge_resnet that it may import; ``edge_resnet.errors`` is open to all."""


def modules_after(script: str, *arguments: Path) -> set[str]:
    """The top-level packages that a fresh interpreter has loaded after a script."""
    ending = "\nimport json as _j, sys as _s\nprint(_j.dumps([m.partition('.')[0] for m in _s.modules]))"
    command = [sys.executable, "-c", script + ending, *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return set(json.loads(done.stdout.splitlines()[-1]))


def test_importing_the_package_loads_nothing_heavy() -> None:
    assert modules_after("import edge_resnet; edge_resnet.__version__; dir(edge_resnet)") & HEAVY == set()


def test_the_command_line_starts_without_what_its_commands_need() -> None:
    assert modules_after("import edge_resnet.cli") & (HEAVY - {"typer", "rich", "numpy", "PIL"}) == set()


def test_catching_errors_and_reading_bundles_needs_the_standard_library_alone(demo_bundle: Path) -> None:
    script = """
import sys, edge_resnet
try:
    edge_resnet.open_bundle(__import__("pathlib").Path("missing.edge"))
except edge_resnet.EdgeResnetError:
    edge_resnet.open_bundle(__import__("pathlib").Path(sys.argv[1]))
"""
    assert modules_after(script, demo_bundle) & HEAVY == set()


def test_a_classification_loads_neither_torch_nor_onnx(demo_bundle: Path, sneaker: Path) -> None:
    script = """
import sys, edge_resnet
with edge_resnet.Classifier(sys.argv[1]) as classify:
    assert classify(sys.argv[2]).label == "sneaker"
"""
    loaded = modules_after(script, demo_bundle, sneaker)
    assert loaded & BUILD_ONLY == set()
    assert {"numpy", "PIL"} <= loaded, "or the test looks at nothing"


def test_a_camera_of_arrays_needs_numpy_alone() -> None:
    script = """
import numpy as np
from edge_resnet.camera import open_camera
with open_camera([np.zeros((2, 2, 3), np.uint8)]) as camera:
    assert len(list(camera)) == 1
"""
    assert modules_after(script) & HEAVY == {"numpy"}


def test_commands_of_the_runtime_load_neither(demo_bundle: Path, sneaker: Path) -> None:
    script = """
import sys
from edge_resnet.cli import main
bundle, image = sys.argv[1:]
for words in (["classify", bundle, image, "--json"], ["bench", bundle, "--runs", "2"], ["devices"], ["info", bundle]):
    sys.argv = ["edge-resnet", *words]
    try:
        main()
    except SystemExit as ended:
        assert not ended.code, words
"""
    assert modules_after(script, demo_bundle, sneaker) & BUILD_ONLY == set()


def imported(path: Path) -> Iterator[str]:
    """Every module that a file imports, wherever in it; names taken from a package count as modules of it."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path} imports by a relative name"
            yield node.module or ""
            yield from (f"{node.module}.{alias.name}" for alias in node.names if node.module == "edge_resnet")


@pytest.mark.parametrize("package", MAY_IMPORT)
def test_imports_run_one_way(package: str) -> None:
    files = sorted((ROOT / package).rglob("*.py"))
    assert len(files) > 5
    for path in files:
        for name in imported(path):
            first, _, rest = name.partition(".")
            assert first not in ("calibration", "engines"), f"{path} imports '{name}' by its short name"
            if first == "edge_resnet" and rest:
                part = rest.split(".")[0]
                assert part == "errors" or part in MAY_IMPORT[package], f"{path} imports {name}"


def test_neither_engines_nor_calibration_knows_torch_image_files_or_the_command_line() -> None:
    """What learns may import torch."""
    learning = {
        *("torch_graph.py", "gradients.py", "noise.py", "balance.py"),
        *("fake_quant.py", "reconstruct.py", "distill.py"),
    }
    for package in MAY_IMPORT:
        for path in sorted((ROOT / package).rglob("*.py")):
            found = {name.partition(".")[0] for name in imported(path)}
            unwanted = {"PIL", "typer", "rich"} | (set() if path.name in learning else {"torch"})
            assert found.isdisjoint(unwanted), path


def test_errors_import_nothing() -> None:
    assert list(imported(ROOT / "edge_resnet" / "errors.py")) == []
