"""What the README shows runs as it stands there."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

from edge_resnet.cli import COMMANDS
from edge_resnet.engines.targets import all_targets

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")


def test_the_python_example_prints_labels(demo_bundle: Path, tmp_path: Path) -> None:
    (example,) = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
    shutil.copy(demo_bundle, tmp_path / "model.edge")
    result = subprocess.run([sys.executable, "-c", example], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    labels = set((ROOT / "edge_resnet/demo/labels.txt").read_text().split())
    printed = [line.split()[0] for line in result.stdout.splitlines()]
    assert len(printed) == 4
    assert set(printed) <= labels


def test_every_command_and_file_it_names_exists() -> None:
    named = set(re.findall(r"edge-resnet ([a-z]+)", README)) | set(re.findall(r"\| `([a-z]+)` \|", README))
    assert named - {"takes"} - set(all_targets()) <= set(COMMANDS)
    for target in re.findall(r"\]\((?!https?:)([^)#]+)\)", README):
        assert (ROOT / target).exists(), target


def test_the_two_commands_are_what_the_makefile_has() -> None:
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    for command in re.findall(r"^    make ([a-z]+)", README, re.MULTILINE):
        assert re.search(rf"^{command}: (setup|\$\(BUILDS\))$", makefile, re.MULTILINE), command
