"""The types of TensorRT's objects, made of every version's real interface: mypy finds each name that a version lacks.

Compiling and running are written once for all versions. What one version lacks stands behind a property of its line in
``_tensorrt_versions``, which a type checker does not see through: those names are listed here, and no others may miss.
The interfaces were read off the real packages; they are no part of this repository, so the test is skipped without them.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
INTERFACES = ROOT.parent / "shared" / "data" / "tensorrt-api"
CHECKED = tuple(f"edge_resnet/engines/_tensorrt_{part}.py" for part in ("build", "config", "run"))
ATTRIBUTE = re.compile(r'error: "(\w+)" has no attribute "(\w+)"')
LACKS = {
    "8.6.1": {
        "IBuilderConfig.progress_monitor",
        "OnnxParser.set_builder_config",
        "ParserError.node_name",
        "ParserError.node_operator",
    },
    "10.3.0": {"OnnxParser.set_builder_config"},
    "10.13.3": {"OnnxParser.set_builder_config"},
    "10.16.1": set(),
    "11.4.0": set(),
    "rtx-1.7.1": set(),
}

pytestmark = pytest.mark.skipif(not INTERFACES.is_dir(), reason=f"TensorRT's interfaces are not here: {INTERFACES}")


def stub_of(version: str) -> str:
    """A stub of the package: its classes, with the members that they have."""
    interface = json.loads((INTERFACES / f"{version}.json").read_text(encoding="utf-8"))
    lines = ["from typing import Any"]
    for name, entry in interface.items():
        if not name.isidentifier():  # a class inside another, none of which we annotate with
            continue
        members = [*entry.get("members", ()), *entry.get("enum", ())]
        lines += [f"class {name}:", *(f"    {member}: Any" for member in members if member.isidentifier()), "    ..."]
    return "\n".join(lines) + "\n"


def missing(stub: str, folder: Path, *sources: str | Path) -> set[str]:
    """Class and name of every attribute that mypy does not find."""
    package = folder / "tensorrt"
    package.mkdir(parents=True)
    (package / "__init__.pyi").write_text(stub, encoding="utf-8")
    flags = ["--config-file=", "--follow-imports=skip", "--cache-dir=/dev/null", "--check-untyped-defs"]
    ended = subprocess.run(
        [sys.executable, "-m", "mypy", *flags, *map(str, sources), str(package / "__init__.pyi")],
        capture_output=True,
        text=True,
        cwd=ROOT,
        check=False,
    )
    assert "Success" in ended.stdout or ATTRIBUTE.search(ended.stdout), ended.stdout + ended.stderr
    return {f"{owner}.{name}" for owner, name in ATTRIBUTE.findall(ended.stdout)}


@pytest.mark.parametrize("version", LACKS)
def test_only_what_a_line_guards_is_missing(version: str, tmp_path: Path) -> None:
    assert missing(stub_of(version), tmp_path, *CHECKED) == LACKS[version]


def test_a_name_that_is_not_there_is_found(tmp_path: Path) -> None:
    wrong = tmp_path / "wrong.py"
    wrong.write_text(
        "from __future__ import annotations\nimport tensorrt\n\n"
        "def level(config: tensorrt.IBuilderConfig) -> None:\n    config.builder_optimisation_level = 3\n",
        encoding="utf-8",
    )
    assert missing(stub_of("10.3.0"), tmp_path / "stub", wrong) == {"IBuilderConfig.builder_optimisation_level"}
