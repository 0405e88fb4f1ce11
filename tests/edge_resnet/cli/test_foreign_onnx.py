"""A foreign ONNX through the commands: the demo's network as torch's own exporter writes it, with a Softmax."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from PIL import Image
from torch import nn

from edge_resnet import demo
from edge_resnet.bundle import FP32_MEMBER, open_bundle
from edge_resnet.calibration.simulate import exact_session, run_frames
from edge_resnet.onnx_file import parse_onnx
from edge_resnet.weights import load_model

Cli = Callable[..., "subprocess.CompletedProcess[str]"]
CliJson = Callable[..., Any]
Refused = Callable[..., str]
RecipeFile = Callable[..., Path]
WEIGHTS = demo.FOLDER / "resnet20-fashion-mnist.safetensors"
FLAGS = ("--preprocessing", "fashion-mnist")


@pytest.fixture(scope="module")
def foreign(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Opset 12, batch 1, float 1×1×28×28 in, probabilities out."""
    path = tmp_path_factory.mktemp("foreign") / "foreign.onnx"
    model = nn.Sequential(load_model("resnet20", WEIGHTS), nn.Softmax(1)).eval()
    torch.onnx.export(model, (torch.zeros(1, 1, 28, 28),), path, dynamo=False, opset_version=12, input_names=["image"])
    return path


def test_the_whole_line(foreign: Path, few: Path, cli: Cli, cli_json: CliJson) -> None:
    images, softmax = few / "calibration", "removed the closing Softmax '/1/Softmax': the result gives logits"
    done = cli("calibrate", foreign, *FLAGS, "--images", images, "-o", "t.json")
    assert done.returncode == 0
    notes = [softmax, "made the batch, which was fixed at 1, any", "brought opset 12 to 17"]
    assert [line.rstrip() for line in done.stderr.splitlines()] == notes
    made = cli_json("quantize", foreign, "--table", "t.json", "-o", "q.onnx")
    assert len(made["quantized_layers"]) == 19 and made["kept_float"] == ["/0/fc/Gemm"]
    checked = cli("check", "q.onnx", "--reference", foreign, "--images", few / "test", "--json")
    assert f"the folders of {few / 'test'}, sorted, are taken for 0, 1, 2 …" in " ".join(checked.stderr.split())
    report = json.loads(checked.stdout)
    assert report["images"] == 40 and report["agreement"] >= 0.95
    assert report["logit_sqnr_db"] > 20
    compiled = cli_json("compile", "q.onnx", "--target", "rtx-30")
    assert sum(layer["precision"] == "int8" for layer in compiled["layers"]) >= 19


def test_a_recipe_builds_a_bundle_that_classifies(
    foreign: Path, recipe_file: RecipeFile, cli: Cli, cli_json: CliJson, sneaker: Path
) -> None:
    labels = demo.FOLDER / "labels.txt"
    recipe = recipe_file(model=f'onnx = "{foreign}"\nlabels = "{labels}"', effort="standard")
    done = cli("build", recipe)
    assert done.returncode == 0, done.stderr
    assert "removed the closing Softmax '/1/Softmax'" in done.stderr
    (answer,) = cli_json("classify", "model.edge", sneaker)
    assert answer["predictions"][0]["label"] == "sneaker"
    found = open_bundle(Path("model.edge"))
    assert found.manifest.architecture is None
    frame = np.asarray(Image.open(sneaker))[np.newaxis, :, :, np.newaxis]
    logits = run_frames(exact_session(parse_onnx(found.read(FP32_MEMBER), "fp32")), frame)
    with torch.no_grad():
        pixels = (torch.from_numpy(frame.copy()).permute(0, 3, 1, 2) / 255 - 0.2860) / 0.3530
        wanted = load_model("resnet20", WEIGHTS).eval()(pixels).numpy()
    assert np.abs(logits - wanted).max() <= 1e-4 * np.abs(wanted).max()
    report = cli_json("check", "model.edge", "--reference", foreign, "--images", demo.TEST, "--limit", "50")
    assert report["agreement"] >= 0.95


def test_without_labels_classes_are_numbers(
    foreign: Path, recipe_file: RecipeFile, cli: Cli, cli_json: CliJson, sneaker: Path
) -> None:
    recipe = recipe_file(model=f'onnx = "{foreign}"', accuracy="")
    assert cli("build", recipe, "--precision", "fp32").returncode == 0
    (answer,) = cli_json("classify", "model.edge", sneaker)
    labels = (demo.FOLDER / "labels.txt").read_text().split()
    assert answer["predictions"][0]["label"] == str(labels.index("sneaker"))


def test_what_is_missing_or_contradicts_is_said(
    foreign: Path,
    few: Path,
    demo_onnx: Path,
    recipe_file: RecipeFile,
    cli_json: CliJson,
    refused: Refused,
    tmp_path: Path,
) -> None:
    images = ("--images", few / "calibration", "-o", "t.json")
    line = refused(2, "calibrate", foreign, *images)
    assert line.endswith(
        "foreign.onnx holds no preprocessing: give --preprocessing, or --size, --mean and --std; in a recipe, "
        "[preprocessing]"
    )
    recipe = recipe_file(model=f'onnx = "{foreign}"')
    text = recipe.read_text()
    recipe.write_text(text[: text.index("[preprocessing]")] + text[text.index("[calibration]") :])
    assert "holds no preprocessing" in refused(2, "build", recipe)
    line = refused(2, "calibrate", foreign, "--size", "32", "--mean", "0.5", "--std", "0.5", *images)
    assert line.endswith("foreign.onnx takes 28×28 pixels, the preprocessing makes 32×32: give its size")
    line = refused(2, "calibrate", foreign, "--preprocessing", "imagenet", *images)
    assert "foreign.onnx takes 1 channels, the preprocessing makes 3" in line
    line = refused(2, "calibrate", demo_onnx, "--size", "28", "--mean", "0.5", "--std", "0.5", *images)
    assert line.endswith("demo.onnx was exported with: leave them out")
    assert "does not take uint8 frames" in refused(2, "compile", foreign, "--target", "cpu")
    cli_json("calibrate", foreign, *FLAGS, *images)
    line = refused(2, "quantize", demo_onnx, "--table", "t.json", "-o", "q.onnx")
    assert line.startswith("the calibration table was made for another model")


def test_what_was_changed_is_not_said_of_what_fails(foreign: Path, recipe_file: RecipeFile, refused: Refused) -> None:
    recipe = recipe_file(model=f'onnx = "{foreign}"', accuracy=f'images = "{demo.CALIBRATION}"')
    assert "evaluation images were used for calibration" in refused(2, "build", recipe)


def test_a_foreign_operator_is_named(few: Path, refused: Refused, tmp_path: Path) -> None:
    model = onnx.parser.parse_model("""<ir_version: 8, opset_import: ["": 17]>
        g (float[N,1,28,28] x) => (float[N,1] y) { e = Erf(x) m = GlobalAveragePool(e) y = Flatten(m) }""")
    model.graph.node[0].name = "odd"
    onnx.save(model, tmp_path / "odd.onnx")
    line = refused(2, "calibrate", "odd.onnx", *FLAGS, "--images", few / "calibration", "-o", "t.json")
    assert "odd.onnx: node 'odd' is of the operator Erf, not supported: " in line


def test_info_describes_it(foreign: Path, cli_json: CliJson) -> None:
    document = cli_json("info", foreign)
    assert (document["kind"], document["opset"], document["producer"]) == ("onnx", 12, "pytorch")
    assert document["inputs"] == ["image: float 1×1×28×28"] and document["preprocessing"] is None
    assert document["outputs"][0].endswith("×10")
    assert document["operators"]["Conv"] == 19 and len(document["layers"]) == 20
