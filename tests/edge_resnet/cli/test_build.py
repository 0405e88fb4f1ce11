"""``build``: its document, its exit codes, and that the bundle is the one that the document speaks of."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from edge_resnet import demo
from edge_resnet.bundle import open_bundle
from edge_resnet.engines import cuda

Cli = Callable[..., "subprocess.CompletedProcess[str]"]
CliJson = Callable[..., Any]
Refused = Callable[..., str]
RecipeFile = Callable[..., Path]
CHECK_KEYS = {"images", "evaluated", "fp32", "engine", "agreement", "drop", "logit_sqnr_db", "passed"}
TARGET_KEYS = {"target", "engine", "bytes", "seconds", "verified"}
no_orin = pytest.mark.skipif(cuda.gpu_sm() == 87, reason="this host is a Jetson Orin")


@pytest.mark.slow
def test_without_a_recipe_the_demo_is_built(tmp_path: Path, shared_cache: Path) -> None:
    """In a process of its own: nothing but the document comes out on stdout, not even from the compiler's C++."""
    command = [Path(sys.executable).with_name("edge-resnet"), "build", "--precision", "int8", "--json"]
    environment = {**os.environ, "EDGE_RESNET_CACHE": str(shared_cache)}
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False, env=environment)
    assert done.returncode == 0, done.stderr
    assert done.stderr.count("\n") == 1 and done.stderr.startswith("TensorRT-RTX leaves ")
    document = json.loads(done.stdout)
    assert set(document) >= {"bundle", "precision", "targets", "accuracy", "stages"}
    assert [target["target"] for target in document["targets"]] == ["cpu", "rtx"]
    assert document["accuracy"]["images"] == 1000 and document["accuracy"]["fp32"]["top1"] > 0.94
    assert (document["bundle"], document["report"]) == ("fashion-mnist.edge", "fashion-mnist.report.html")
    assert sorted(os.listdir(tmp_path)) == [document["bundle"], document["report"]]
    open_bundle(tmp_path / "fashion-mnist.edge").verify_members()


def test_the_document_of_a_recipe(recipe_file: RecipeFile, cli_json: CliJson, tmp_path: Path) -> None:
    recipe = recipe_file(build='targets = ["cpu", "rtx-40"]\noutput = "out.edge"')
    document = cli_json("build", recipe)
    assert set(document) >= {"bundle", "precision", "targets", "accuracy", "stages"}
    assert document["precision"] == "int8"
    assert all(set(target) >= TARGET_KEYS for target in document["targets"])
    assert set(document["accuracy"]) >= CHECK_KEYS and set(document["accuracy"]["drop"]) >= {"points", "ci95"}
    assert all(set(stage) == {"name", "seconds", "peak_mb", "cached"} for stage in document["stages"])
    assert Path(document["bundle"]) == tmp_path / "out.edge", "relative to the recipe"
    bundle = open_bundle(tmp_path / "out.edge")
    for target, entry in zip(document["targets"], bundle.manifest.engines, strict=True):
        assert (target["target"], target["engine"], target["verified"]) == (entry.target, entry.member, entry.verified)
        assert target["bytes"] == len(bundle.read(target["engine"]))
    assert bundle.manifest.accuracy is not None
    assert bundle.manifest.accuracy["cpu"] == document["accuracy"]


def test_flags_stand_in_the_recipes_place(recipe_file: RecipeFile, cli_json: CliJson, tmp_path: Path) -> None:
    recipe = recipe_file(build='targets = ["rtx"]\noutput = "not-this.edge"')
    flags = ("--precision", "fp32", "--target", "cpu", "--target", "rtx-50", "-o", tmp_path / "this.edge")
    document = cli_json("build", recipe, *flags)
    assert (document["precision"], [t["target"] for t in document["targets"]]) == ("fp32", ["cpu", "rtx-50"])
    assert sorted(os.listdir(tmp_path)) == ["edge-resnet.toml", "this.edge"]


def test_a_person_gets_a_table(recipe_file: RecipeFile, cli: Cli) -> None:
    result = cli("build", recipe_file(build='targets = ["cpu", "rtx-30"]\noutput = "out.edge"'))
    assert result.returncode == 0
    assert result.stderr.count("\n") == 1 and result.stderr.startswith("TensorRT-RTX leaves part of each INT8 layer")
    for text in (
        "int8 engines",
        "Accuracy of 'cpu' on 40 images, measured",
        "agreement with FP32",
        "passed",
        "out.edge",
    ):
        assert text in result.stdout
    if cuda.gpu_sm() is None:
        assert "Accuracy of 'rtx-30' on 40 images, PREDICTED" in result.stdout
    assert "40 images are too few to be sure that the drop is below 1 point; about" in result.stdout
    with pytest.raises(ValueError):
        json.loads(result.stdout)


# Gates: exit code 3.


def test_too_few_images_fail_a_strict_build(recipe_file: RecipeFile, cli: Cli, tmp_path: Path) -> None:
    recipe = recipe_file(build='output = "out.edge"')
    (tmp_path / "out.edge").write_bytes(b"an older bundle")
    result = cli("build", recipe, "--strict", "--json")
    assert result.returncode == 3
    assert result.stderr.count("\n") == 1 and "40 images are too few to be sure: about" in result.stderr
    document = json.loads(result.stdout)
    assert document["accuracy"]["passed"] is False and document["bundle"] is None
    (target,) = document["targets"]
    assert (target["engine"], target["verified"]) == (None, "failed") and target["why"] in result.stderr
    assert (tmp_path / "out.edge").read_bytes() == b"an older bundle"
    assert sorted(os.listdir(tmp_path)) == ["edge-resnet.toml", "out.edge"]
    shown = cli("build", recipe, "--strict")
    assert shown.returncode == 3 and "FAILED" in shown.stdout and "nothing was written" in shown.stdout


def test_the_recipe_can_be_strict_too(recipe_file: RecipeFile, cli: Cli, few: Path) -> None:
    recipe = recipe_file(accuracy=f'images = "{few / "test"}"\nstrict = true\nmax_drop = 20')
    assert cli("build", recipe).returncode == 0
    recipe = recipe_file(accuracy=f'images = "{few / "test"}"\nstrict = true')
    assert cli("build", recipe).returncode == 3


# What cannot be built for here: exit code 0.


@no_orin
def test_a_deferred_target_is_no_failure_and_says_what_to_do(
    recipe_file: RecipeFile, cli_json: CliJson, cli: Cli, tmp_path: Path
) -> None:
    recipe = recipe_file(build='targets = ["jetson-orin-nano"]\noutput = "out.edge"')
    document = cli_json("build", recipe)
    (target,) = document["targets"]
    assert (target["target"], target["engine"], target["verified"]) == ("jetson-orin-nano", None, "deferred")
    assert target["next"] == "edge-resnet compile out.edge --target jetson-orin-nano"
    assert document["accuracy"] is None and Path(document["bundle"]).is_file()
    command = target["next"].split()[1:]
    result = cli(*command)
    assert (result.returncode, result.stdout) == (4, ""), "the command is a real one, and needs the device"
    assert "next, on the device: edge-resnet compile out.edge" in cli("build", recipe).stdout
    predicted = cli_json("check", "out.edge", "--images", demo.TEST, "--limit", 50)
    assert (predicted["evaluated"], predicted["passed"]) == ("predicted", True)


# Wrong input: exit code 2, nothing written.


@pytest.mark.parametrize(
    ("flags", "line"),
    [
        (["--precision", "int4"], "--precision is 'int4': choose one of int8, fp8, fp16, bf16, fp32"),
        (["--target", "jetson-orin"], "unknown target 'jetson-orin': did you mean 'jetson-orin-n"),
        (["--target", "rtx-20"], "target 'rtx-20' has no int8"),
        (["--target", "cpu", "--target", "rtx-20"], "target 'rtx-20' has no int8"),
        (
            ["-o", "missing/x.edge"],
            "cannot write 'missing/x.edge': the folder 'missing' does not exist: create it first",
        ),
        (["-o", "."], "it is a folder: give the name of a file"),
    ],
)
def test_wrong_flags_are_refused(flags: list[str], line: str, recipe_file: RecipeFile, refused: Refused) -> None:
    assert line in refused(2, "build", recipe_file(), *flags)


def test_a_missing_recipe(refused: Refused) -> None:
    assert refused(2, "build", "other.toml") == "other.toml does not exist: write one with 'edge-resnet init'"
