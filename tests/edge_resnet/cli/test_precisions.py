"""Each precision through `build` and `compile`, for the RTX cards that have it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from edge_resnet.bundle import open_bundle
from edge_resnet.engines import cuda

CliJson = Callable[..., Any]
Refused = Callable[..., str]
RecipeFile = Callable[..., Path]

COVERED = {"fp32": 19, "fp16": 19, "bf16": 19, "int8": 19, "fp8": 18}
"""ResNet-20's convolutions; FP8 leaves the first one float."""
PREDICTED = "predicted" if cuda.gpu_sm() is None else None


@pytest.mark.parametrize("precision", ["bf16", "fp8"])
def test_builds_and_compiles_again_from_its_bundle(
    recipe_file: RecipeFile, cli_json: CliJson, tmp_path: Path, precision: str
) -> None:
    recipe = recipe_file(build='targets = ["rtx-40", "jetson-thor"]\noutput = "out.edge"', effort="standard")
    document = cli_json("build", recipe, "--precision", precision)
    target, thor = document["targets"]
    assert target["layers_by_precision"][precision] >= COVERED[precision] - 2, "fused layers may be one"
    assert PREDICTED in (None, target["verified"]) and target["accuracy"]["agreement"] > 0.95
    assert thor["verified"] in ("deferred", "measured")
    bundle = open_bundle(tmp_path / "out.edge")
    assert (bundle.manifest.precision, "model.qdq.onnx" in bundle.names) == (precision, precision == "fp8")
    compiled = cli_json("compile", "out.edge", "--target", "rtx-50")
    assert compiled["layers_by_precision"] == target["layers_by_precision"]


def test_an_fp8_onnx_is_checked_for_what_it_shall_compute_in(
    demo_onnx: Path, few: Path, cli_json: CliJson, refused: Refused
) -> None:
    cli_json("calibrate", demo_onnx, "--images", few / "calibration", "-o", "t.json")
    command = ("quantize", demo_onnx, "--table", "t.json", "--effort", "fast", "--scheme", "fp8", "-o", "q.onnx")
    made = cli_json(*command)
    assert (made["scheme"], len(made["quantized_layers"]), made["refinements"]) == ("fp8", 18, [])
    assert cli_json("compile", "q.onnx", "--target", "rtx-40")["layers_by_precision"]["fp8"] == 18
    line = refused(2, "compile", "q.onnx", "--target", "rtx-30", "-o", "e.engine")
    assert line == "target 'rtx-30' has no fp8: choose one of fp32, fp16, bf16, int8"
    check = ("check", "q.onnx", "--reference", demo_onnx, "--images", few / "test", "--max-drop", "100")
    assert cli_json(*check)["logit_sqnr_db"] > 20
