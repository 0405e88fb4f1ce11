"""Every name that we use of TensorRT's Python interface exists in every version that we say we support.

The names are found in our own source: attributes of ``trt``, and attributes of variables that are called like what
TensorRT makes (``builder``, ``engine``, …). The interfaces were read off the real packages; they are not part of this
repository, so the test is skipped where they are not beside it.
"""

from __future__ import annotations

import ast
import json
from pathlib import Path
from typing import Any

import pytest

from edge_resnet import engines

INTERFACES = Path(__file__).parents[3] / "shared" / "data" / "tensorrt-api"
SOURCES = Path(str(next(iter(engines.__path__))))
SHARED_BY_BOTH = ("_tensorrt.py", "_tensorrt_run.py", "_tensorrt_log.py", "_tensorrt_tensors.py")
"""The names that compiling uses are tested by compiling (``test_tensorrt_versions``)."""
VERSIONS = {
    "8.6.1": (*SHARED_BY_BOTH, "trt.py"),
    "10.3.0": (*SHARED_BY_BOTH, "trt.py"),
    "10.13.3": (*SHARED_BY_BOTH, "trt.py"),
    "10.16.1": (*SHARED_BY_BOTH, "trt.py"),
    "11.4.0": (*SHARED_BY_BOTH, "trt.py"),
    "rtx-1.7.1": (*SHARED_BY_BOTH, "trt_rtx.py"),
}
OUR_OWN = ("fresh", "text")
"""Methods of subclasses that TensorRT does not call."""
NEWER = {"8.6.1": {"IProgressMonitor"}}
"""Classes that are not used with a version, as ``_tensorrt_versions`` says."""
CLASSES = {
    "builder": "Builder",
    "network": "INetworkDefinition",
    "parser": "OnnxParser",
    "config": "IBuilderConfig",
    "profile": "IOptimizationProfile",
    "layer": "ILayer",
    "tensor": "ITensor",
    "error": "ParserError",
    "runtime": "Runtime",
    "engine": "ICudaEngine",
    "context": "IExecutionContext",
    "inspector": "EngineInspector",
}
"""What a variable of each name holds."""

pytestmark = pytest.mark.skipif(not INTERFACES.is_dir(), reason=f"TensorRT's interfaces are not here: {INTERFACES}")


def names_used(source: str) -> set[tuple[str, str]]:
    """(class, member) of every name used; the class is '' for a name of the package itself."""
    found = set()
    for node in ast.walk(ast.parse(source)):
        if not isinstance(node, ast.Attribute) or node.attr.startswith("__"):
            continue
        match node.value:
            case ast.Name(id="trt"):
                found.add(("", node.attr))
            case ast.Attribute(value=ast.Name(id="trt"), attr=owner) if owner != "__version__":
                found.add((owner, node.attr))
            case ast.Name(id=name) | ast.Attribute(value=ast.Name(id="self"), attr=name) if name.strip("_") in CLASSES:
                found.add((CLASSES[name.strip("_")], node.attr))
    return found


def overridden(source: str) -> set[tuple[str, str]]:
    """(class, method) of every method that a subclass of a TensorRT class overrides for TensorRT to call."""
    return {
        (base.attr, method.name)
        for node in ast.walk(ast.parse(source))
        if isinstance(node, ast.ClassDef)
        for base in node.bases
        if isinstance(base, ast.Attribute)
        for method in node.body
        if isinstance(method, ast.FunctionDef) and not method.name.startswith("_") and method.name not in OUR_OWN
    }


def test_finds_the_names_that_are_known_to_be_there() -> None:
    text = "".join((SOURCES / name).read_text(encoding="utf-8") for name in SHARED_BY_BOTH[:2])
    log = (SOURCES / "_tensorrt_log.py").read_text(encoding="utf-8")
    assert {
        ("", "Runtime"),
        ("TensorIOMode", "INPUT"),
        ("IExecutionContext", "execute_async_v3"),
    } <= names_used(text)
    assert overridden(log) == {
        ("ILogger", "log"),
        ("IProgressMonitor", "phase_start"),
        ("IProgressMonitor", "step_complete"),
        ("IProgressMonitor", "phase_finish"),
    }


@pytest.mark.parametrize("version", VERSIONS)
def test_every_name_exists(version: str) -> None:
    interface: dict[str, Any] = json.loads((INTERFACES / f"{version}.json").read_text(encoding="utf-8"))
    sources = [(SOURCES / name).read_text(encoding="utf-8") for name in VERSIONS[version]]
    used = set().union(*(names_used(source) | overridden(source) for source in sources))
    newer = NEWER.get(version, set())
    known = {owner: members(interface, owner) if owner else {*interface, "__version__"} for owner, _ in used}
    missing = [
        f"{owner}.{name}" for owner, name in sorted(used) if not {owner, name} & newer and name not in known[owner]
    ]
    assert missing == []


def members(interface: dict[str, Any], owner: str) -> set[str]:
    entry = interface.get(owner, {})
    return {*entry.get("members", ()), *entry.get("enum", ())}
