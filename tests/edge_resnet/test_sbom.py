"""The packages in a bundle's SBOM: held against what is installed here, and read back by the library."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from importlib.metadata import distribution, version
from typing import Any

import pytest
from cyclonedx.model.bom import Bom
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from edge_resnet import sbom as module
from edge_resnet.sbom import sbom


def components() -> dict[str, dict[str, Any]]:
    return {each["name"]: each for each in json.loads(sbom())["components"]}


def test_it_is_what_the_library_reads() -> None:
    document = json.loads(sbom())
    assert (document["bomFormat"], document["specVersion"]) == ("CycloneDX", "1.6")
    read = Bom.from_json(document)  # type: ignore[attr-defined]
    assert {each.name for each in read.components} == set(components())
    assert read.metadata.component.name == "edge-resnet"


def test_all_that_the_build_asks_for_is_in_it() -> None:
    """By packaging, which evaluates the markers that sbom passes over: what it finds and is installed must be there."""
    asked = [Requirement(line) for line in distribution("edge-resnet").requires or ()]
    wanted = {
        canonicalize_name(each.name)
        for each in asked
        if each.marker is None or any(each.marker.evaluate({"extra": extra}) for extra in ("build", "rtx"))
    }
    found = components()
    assert wanted <= set(found)
    assert {"torch", "onnx", "numpy", "protobuf"} <= set(found), "and what these ask for"
    for name in wanted:
        assert found[name]["version"] == version(name)
        assert found[name]["purl"] == f"pkg:pypi/{name}@{version(name).replace('+', '%2B')}"


def test_what_does_not_make_bundles_is_not_in_it() -> None:
    assert not {"pytest", "ruff", "matplotlib", "keras", "edge-resnet"} & set(components())


@pytest.mark.parametrize(
    ("name", "licence"),
    [("onnx", {"id": "Apache-2.0"}), ("safetensors", {"name": "Apache Software License"})],
)
def test_licences(name: str, licence: dict[str, str]) -> None:
    assert components()[name]["licenses"][0]["license"] == licence


def test_the_same_installation_gives_the_same_bytes() -> None:
    command = [sys.executable, "-c", "from edge_resnet.sbom import sbom; print(sbom().decode(), end='')"]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), "PYTHONHASHSEED": "7"}
    there = subprocess.run(command, env=environment, capture_output=True, check=True).stdout
    assert there == sbom()
    assert b"timestamp" not in there


def test_another_version_is_another_document(monkeypatch: pytest.MonkeyPatch) -> None:
    before = json.loads(sbom())["serialNumber"]
    monkeypatch.setattr(module.platform, "python_version", lambda: "3.99.0")
    assert json.loads(sbom())["serialNumber"] != before
