"""The compiler's options through `compile` and `build`, and what comes out beside the engine."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from edge_resnet.bundle import open_bundle
from edge_resnet.engines import cuda

CliJson = Callable[..., Any]
Cli = Callable[..., Any]
Refused = Callable[..., str]
RecipeFile = Callable[..., Path]

NOTE = "TensorRT-RTX leaves part of each INT8 layer to a kernel of its own"
no_orin = pytest.mark.skipif(cuda.gpu_sm() == 87, reason="this host is a Jetson Orin")


def test_compile_writes_a_log_and_counts_layers(demo_onnx: Path, cli_json: CliJson, tmp_path: Path) -> None:
    flags = ("--batch", "2", "--workspace", "128", "--optimization-level", "1", "--tf32")
    document = cli_json("compile", demo_onnx, "--target", "rtx-30", *flags, "-o", "m.rtx-30.engine")
    assert document["versions"]["options"] == "batches=2,2,2 workspace_mb=128 optimization_level=1 tf32=true"
    assert document["log"] == "m.rtx-30.log" and sorted(os.listdir(tmp_path)) == ["m.rtx-30.engine", "m.rtx-30.log"]
    assert (tmp_path / "m.rtx-30.log").read_text().count("\nName: ") >= len(document["layers"])
    assert sum(document["layers_by_precision"].values()) == len(document["layers"])
    assert set(document["layers_by_precision"]) <= {"fp32", "uint8"}
    assert (document["beside_dla"], document["notes"]) == ([], [])


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (("--dla", "0", "--batch", "1"), "has no option dla_core, and it is 0: leave it out (there are: batches, "),
        (("--dla", "0"), "dla_core is 0 and batches are 1,1,8: a DLA takes one size of batch, such as 1,1,1"),
        (("--hardware-compatible", "ampere-plus"), "has no option hardware_compatibility, and it is ampere-plus"),
        (("--hardware-compatible", "all"), "--hardware-compatible is 'all': choose one of none, same-compute-"),
        (("--optimization-level", "9"), "optimization_level is 9: give a whole number from 0 to 5"),
        (("--batch", "8,1,1"), "batches are 8,1,1: give smallest, typical and largest, rising"),
        (
            ("--version-compatible",),
            "has no option version_compatible, and it is true: leave it out (there are: batches",
        ),
        (("--workspace", "1"), "cannot compile the model for rtx-30: "),
    ],
)
def test_what_cannot_be_had_is_refused(demo_onnx: Path, refused: Refused, flags: tuple[str, ...], message: str) -> None:
    assert message in refused(2, "compile", demo_onnx, "--target", "rtx-30", *flags, "-o", "m.engine")


@pytest.mark.skipif(cuda.gpu_sm() is not None, reason="this host has an NVIDIA GPU")
@pytest.mark.parametrize("flag", ["--refit", "--strip-weights"])
def test_what_needs_a_gpu_is_refused_before_any_work(demo_onnx: Path, refused: Refused, flag: str) -> None:
    line = refused(4, "compile", demo_onnx, "--target", "rtx-30", flag, "-o", "m.engine")
    option = flag[2:].replace("-", "_")
    assert f" has {option} only where there is an NVIDIA GPU, and this host has none: leave it out" in line
    line = refused(4, "build", "--target", "rtx-30", flag, "-o", "m.edge")
    assert line.startswith("target 'rtx-30': TensorRT-RTX ") and "CUDA_SUCCESS" not in line


def test_the_cpu_has_no_options(demo_onnx: Path, refused: Refused) -> None:
    line = refused(2, "compile", demo_onnx, "--target", "cpu", "--workspace", "64", "-o", "m.onnx")
    assert line.startswith("ONNX Runtime ") and line.endswith("leave it out (there are: none)")


def test_a_bundle_has_no_network_for_the_cpu_but_the_engine_it_came_with(demo_bundle: Path, refused: Refused) -> None:
    for frames in ((), ("--frames", "1080x1920:nv12")):
        line = refused(2, "compile", demo_bundle, "--target", "cpu", *frames)
        assert line.startswith(f"{demo_bundle} holds Q/DQ for TensorRT alone: ")
        assert "`edge-resnet build RECIPE --target cpu`" in line and line.endswith("without --frames")


def test_build_takes_the_table_and_flags_in_its_place(
    recipe_file: RecipeFile, cli_json: CliJson, cli: Cli, tmp_path: Path
) -> None:
    table = "[engine]\nbatches = [1, 1, 4]\nworkspace_mb = 256\n"
    recipe = recipe_file(build=f'targets = ["rtx-30"]\noutput = "out.edge"\n{table}')
    document = cli_json("build", recipe, "--batch", "1,2,2", "--no-tf32")
    (target,) = document["targets"]
    assert sum(target["layers_by_precision"].values()) > 20 and target["layers_by_precision"]["int8"] == 19
    assert target["beside_dla"] == []
    assert [note for note in document["notes"] if note.startswith(NOTE)], document["notes"]
    bundle = open_bundle(tmp_path / "out.edge")
    assert bundle.manifest.engines[0].versions["options"] == "batches=1,2,2 workspace_mb=256"
    assert "\nName: " in bundle.read("logs/rtx-30.log").decode()
    compiled = cli_json("compile", "out.edge", "--target", "rtx-40")
    (note,) = compiled["notes"]
    assert note.startswith(NOTE)
    assert compiled["log"] == "out.rtx-40.log" and "options" not in compiled["versions"]
    assert note in cli("compile", "out.edge", "--target", "rtx-40").stderr


@no_orin
def test_what_is_compiled_later_is_compiled_with_the_same_options(recipe_file: RecipeFile, cli_json: CliJson) -> None:
    recipe = recipe_file(build='targets = ["jetson-orin-nano"]\noutput = "out.edge"')
    (target,) = cli_json("build", recipe, "--precision", "fp32", "--workspace", "512", "--batch", "4")["targets"]
    assert target["next"] == "edge-resnet compile out.edge --target jetson-orin-nano --batch 4,4,4 --workspace 512"


def test_a_target_that_lacks_an_option_is_refused_before_any_work(recipe_file: RecipeFile, refused: Refused) -> None:
    recipe = recipe_file(build='targets = ["rtx-30", "cpu"]')
    line = refused(2, "build", recipe, "--workspace", "512", "-o", "out.edge")
    assert line.startswith("target 'cpu': ONNX Runtime ") and line.endswith("or build this target without the others")
