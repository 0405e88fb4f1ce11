"""What works where only the runtime is installed: a device without torch and onnx."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

WITHOUT_BUILD_CHAIN = """
import sys
for name in ("onnx", "onnx_ir", "safetensors", "torch"):
    sys.modules[name] = None  # an import of it now raises ModuleNotFoundError, as if it were not installed
from edge_resnet.cli import main
main()
"""


def edge_resnet(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", WITHOUT_BUILD_CHAIN, *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=False)


@pytest.mark.parametrize("command", ["build", "export", "calibrate", "quantize", "compile", "check", "classify"])
def test_every_command_has_help(command: str) -> None:
    assert edge_resnet(command, "--help").returncode == 0


def test_classifies_verifies_and_measures(demo_bundle: Path) -> None:
    image = Path(__file__).parents[2] / "edge_resnet/demo/test/sneaker/00009.png"
    classified = edge_resnet("classify", demo_bundle, image, "--json")
    assert json.loads(classified.stdout)[0]["predictions"][0]["label"] == "sneaker", classified.stderr
    verified = edge_resnet("info", demo_bundle, "--verify", "--json")
    assert next(each["passed"] for each in json.loads(verified.stdout)["verify"]) is True, verified.stderr
    assert json.loads(edge_resnet("bench", demo_bundle, "--runs", "5", "--json").stdout)["runs"] == 5
    assert edge_resnet("devices", "--json").returncode == 0


def test_a_command_that_builds_says_what_to_install(tmp_path: Path) -> None:
    result = edge_resnet("build", "-o", tmp_path / "demo.edge")
    assert result.returncode == 4
    assert result.stderr.count("\n") == 1
    assert "pip install 'edge-resnet[build]'" in result.stderr
    assert list(tmp_path.iterdir()) == []
