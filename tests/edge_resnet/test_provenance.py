"""What a bundle says of its making, and that the same inputs make the same bundle, byte for byte."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from edge_resnet import demo
from edge_resnet.bundle import SBOM_MEMBER, open_bundle
from edge_resnet.chain import build
from edge_resnet.errors import ModelError
from edge_resnet.provenance import provenance_of
from edge_resnet.recipe import Recipe, load_recipe
from edge_resnet.sbom import sbom

BUILD = """
import sys, time
time.time = lambda start=time.time: start() + float(sys.argv[2])  # another day
import edge_resnet
from pathlib import Path
assert edge_resnet.build(edge_resnet.load_recipe(Path(sys.argv[1]))).failures == ()
"""


@pytest.fixture
def project(recipe_file: Callable[..., Path], few: Path, tmp_path: Path) -> Path:
    """A folder with a recipe and all that it names, by relative paths: to be copied elsewhere."""
    folder = tmp_path / "first"
    folder.mkdir()
    for source in (demo.FOLDER / "resnet20-fashion-mnist.safetensors", demo.FOLDER / "labels.txt"):
        shutil.copy(source, folder)
    for name in ("calibration", "test"):
        shutil.copytree(few / name, folder / name)
    text = recipe_file(accuracy='images = "test"', calibration=Path("calibration")).read_text(encoding="utf-8")
    (folder / "edge-resnet.toml").write_text(text.replace(f"{demo.FOLDER}{os.sep}", ""), encoding="utf-8")
    return folder


def test_the_same_inputs_give_the_same_bundle(project: Path) -> None:
    """In other folders, with other seeds of Python's hashes, on another day, and with other times on the files."""
    other = project.with_name("elsewhere")
    shutil.copytree(project, other, copy_function=shutil.copyfile)
    made = []
    for folder, seed, later in ((project, "1", "0"), (other, "2", "1e8")):
        command = [sys.executable, "-c", BUILD, str(folder / "edge-resnet.toml"), later]
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), "PYTHONHASHSEED": seed}
        done = subprocess.run(command, env=environment, cwd=folder, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        made.append(open_bundle(folder / "model.edge"))
    first, second = made
    assert {name: first.read(name) for name in first.names} == {name: second.read(name) for name in second.names}
    assert first.manifest == second.manifest
    assert first.digest == second.digest
    everything = (project / "model.edge").read_bytes()
    assert str(project.parent).encode() not in everything and b"elsewhere" not in everything


def test_what_it_was_made_from(small_recipe: Recipe, few: Path, cli_json: Callable[..., object]) -> None:
    assert build(small_recipe).failures == ()
    bundle = open_bundle(small_recipe.build.output)
    found = bundle.manifest.provenance
    assert found is not None
    weights = demo.FOLDER / "resnet20-fashion-mnist.safetensors"
    labels = demo.FOLDER / "labels.txt"
    assert found["sources"] == {
        "weights": {"file": weights.name, "sha256": hashlib.sha256(weights.read_bytes()).hexdigest()},
        "labels": {"file": labels.name, "sha256": hashlib.sha256(labels.read_bytes()).hexdigest()},
    }
    recipe = found["recipe"]
    assert isinstance(recipe, dict)
    assert recipe["calibration"] == {"images": "calibration", "limit": 512, "method": "mse"}
    assert recipe["build"] == {"precision": "int8", "targets": ["cpu"], "output": "model.edge"}
    evaluation = found["evaluation"]
    assert isinstance(evaluation, dict) and evaluation["images"] == 40
    assert str(few).encode() not in json.dumps(bundle.manifest.to_json()).encode()
    assert bundle.manifest.created_by["python"] == ".".join(map(str, sys.version_info[:3]))
    printed = cli_json("info", small_recipe.build.output, "--sbom")
    assert printed == json.loads(bundle.read(SBOM_MEMBER)) == json.loads(sbom())


def test_options_of_the_compiler_are_in_it(project: Path) -> None:
    path = project / "edge-resnet.toml"
    path.write_text(path.read_text(encoding="utf-8") + "\n[engine]\ntf32 = true\n", encoding="utf-8")
    found = provenance_of(load_recipe(path), None)
    assert json.loads(json.dumps(found)) == found
    assert found["recipe"]["engine"] == {"tf32": "true"}  # type: ignore[index]
    assert found["evaluation"] is None


def test_a_source_that_went_away(project: Path) -> None:
    recipe = load_recipe(project / "edge-resnet.toml")
    (project / "labels.txt").unlink()
    with pytest.raises(ModelError, match=r"labels.txt cannot be read: .*: leave it in place until the build is done"):
        provenance_of(recipe, None)
