"""The whole line by single commands, each reading what the one before it wrote; JSON keys are the design's."""

from __future__ import annotations

import hashlib
import json
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest

from edge_resnet import demo
from edge_resnet.calibration.simulate import exact_session, run_frames
from edge_resnet.engines import cuda
from edge_resnet.images import open_images
from edge_resnet.preprocessing import NAMED

Cli = Callable[..., "subprocess.CompletedProcess[str]"]
CliJson = Callable[..., Any]
Refused = Callable[..., str]
WEIGHTS, LABELS = demo.FOLDER / "resnet20-fashion-mnist.safetensors", demo.FOLDER / "labels.txt"
CHECK_KEYS = {"images", "evaluated", "fp32", "engine", "agreement", "drop", "logit_sqnr_db", "passed"}


@pytest.fixture
def exported(cli_json: CliJson) -> Path:
    flags = ("--arch", "resnet-20", "--weights", WEIGHTS, "--labels", LABELS, "--preprocessing", "fashion-mnist")
    document = cli_json("export", *flags, "-o", "f.onnx")
    assert set(document) >= {"onnx", "parameters", "max_abs_error"}
    assert document["onnx"] == "f.onnx"
    assert document["parameters"] == 269_434  # 0.27 million for colour in He et al., table 6; less 288 for grey
    assert 0 <= document["max_abs_error"] < 1e-4
    return Path("f.onnx").absolute()


@pytest.fixture
def table(exported: Path, cli_json: CliJson) -> Path:
    document = cli_json("calibrate", exported, "--images", demo.CALIBRATION, "--limit", 60, "-o", "t.json")
    assert set(document) >= {"table", "method", "images", "seconds", "peak_mb"}
    assert (document["table"], document["method"], document["images"]) == ("t.json", "mse", 60)
    assert document["seconds"] > 0 and document["peak_mb"] > 10
    return Path("t.json").absolute()


def test_the_line_for_tensorrt(exported: Path, table: Path, cli_json: CliJson) -> None:
    document = cli_json("quantize", exported, "--table", table, "-o", "q.onnx")
    assert set(document) >= {"onnx", "scheme", "quantized_layers", "kept_float"}
    assert (document["onnx"], document["scheme"]) == ("q.onnx", "tensorrt")
    convolutions = [node.name for node in onnx.load("f.onnx").graph.node if node.op_type == "Conv"]
    assert document["quantized_layers"] == convolutions and len(convolutions) == 19
    assert document["kept_float"] == ["fc"]

    compiled = cli_json("compile", "q.onnx", "--target", "rtx-30")
    assert set(compiled) >= {"engine", "kind", "seconds", "layers"}
    assert compiled["kind"] == "tensorrt-rtx"
    assert Path(compiled["engine"]).read_bytes()[:4] != b"PK\x03\x04" and Path(compiled["engine"]).stat().st_size > 1e5
    assert all(set(layer) >= {"name", "precision"} for layer in compiled["layers"])
    assert sum(layer["precision"] == "int8" for layer in compiled["layers"]) >= 19

    checked = cli_json("check", "q.onnx", "--reference", "f.onnx", "--images", demo.TEST, "--limit", 100)
    assert set(checked) >= CHECK_KEYS
    assert (checked["images"], checked["evaluated"], checked["passed"]) == (100, "predicted", True)
    assert set(checked["fp32"]) == set(checked["engine"]) == {"top1", "top5"}
    assert set(checked["drop"]) >= {"points", "ci95"} and len(checked["drop"]["ci95"]) == 2
    by_hand(checked)


def by_hand(checked: dict[str, Any]) -> None:
    """The same figures from both files, evaluated here."""
    images = open_images(demo.TEST, 100).with_labels_of(tuple(LABELS.read_text().split()))
    frames, truth = images.pixels(NAMED["fashion-mnist"]), np.array(images.labels)
    fp32 = onnxruntime.InferenceSession("f.onnx").run(None, {"frames": frames})[0]
    int8 = run_frames(exact_session(onnx.load("q.onnx")), frames)
    assert checked["fp32"]["top1"] == pytest.approx((fp32.argmax(1) == truth).mean())
    assert checked["engine"]["top1"] == pytest.approx((int8.argmax(1) == truth).mean(), abs=0.011)
    assert checked["agreement"] == pytest.approx((fp32.argmax(1) == int8.argmax(1)).mean(), abs=0.011)
    sqnr = 10 * np.log10(np.square(fp32).sum() / np.square(fp32 - int8).sum())
    assert checked["logit_sqnr_db"] == pytest.approx(sqnr, abs=0.2)
    assert sqnr > 27


def test_the_line_for_the_cpu(exported: Path, table: Path, cli_json: CliJson, cli: Cli) -> None:
    document = cli_json("quantize", exported, "--table", table, "--scheme", "cpu", "--effort", "fast", "-o", "q.onnx")
    assert (document["scheme"], len(document["quantized_layers"])) == ("cpu", 19)
    compiled = cli_json("compile", "q.onnx", "--target", "cpu", "-o", "cpu.engine")
    assert (compiled["engine"], compiled["kind"]) == ("cpu.engine", "onnxruntime")
    assert {layer["name"] for layer in compiled["layers"] if layer["precision"] == "int8"} >= {
        "conv1",
        "layer3.2.conv2",
    }
    assert onnxruntime.InferenceSession("cpu.engine").get_inputs()[0].type == "tensor(uint8)"
    table_of_layers = cli("compile", "q.onnx", "--target", "cpu")
    assert "int8" in table_of_layers.stdout and "wrote q.cpu.engine" in table_of_layers.stdout


def test_the_files_know_where_they_come_from(exported: Path, table: Path, cli_json: CliJson) -> None:
    cli_json("quantize", exported, "--table", table, "--images", demo.CALIBRATION, "--limit", 20, "-o", "q.onnx")
    hashes = json.loads({e.key: e.value for e in onnx.load("q.onnx").metadata_props}["edge_resnet.calibration"])[
        "sha256"
    ]
    known = {hashlib.sha256(path.read_bytes()).hexdigest() for path in demo.CALIBRATION.rglob("*.png")}
    assert len(hashes) == 60 and set(hashes) <= known
    assert sorted(json.loads(table.read_text())["images"]["sha256"]) == sorted(hashes)
    info = cli_json("info", "q.onnx")
    assert (info["kind"], info["architecture"], info["opset"]) == ("onnx", "resnet20", 17)
    assert info["labels"] == LABELS.read_text().split()
    assert info["preprocessing"] == NAMED["fashion-mnist"].to_json()
    described = cli_json("info", table)
    assert (described["kind"], described["images"]["images"]) == ("calibration table", 60)


def test_refinement_finds_the_images_of_the_table_by_their_hashes(
    exported: Path, table: Path, cli_json: CliJson, refused: Refused, few: Path, tmp_path: Path
) -> None:
    cli_json("quantize", exported, "--table", table, "-o", "by-path.onnx")
    cli_json("quantize", exported, "--table", table, "--images", demo.CALIBRATION, "-o", "by-hash.onnx")
    assert Path("by-path.onnx").read_bytes() == Path("by-hash.onnx").read_bytes()
    line = refused(2, "quantize", exported, "--table", table, "--images", few / "test", "-o", "no.onnx")
    assert "holds none of the 60 images that the table was made from" in line
    moved = tmp_path / "elsewhere"
    moved.mkdir()
    table.rename(moved / "t.json")
    line = refused(2, "quantize", exported, "--table", moved / "t.json", "-o", "no.onnx")
    assert "give --images, or --effort fast to do without" in line
    cli_json("quantize", exported, "--table", moved / "t.json", "--effort", "fast", "-o", "fast.onnx")


def test_the_refinements_that_are_named_are_the_ones_applied(
    exported: Path, table: Path, cli_json: CliJson, refused: Refused
) -> None:
    fast = cli_json("quantize", exported, "--table", table, "--effort", "fast", "-o", "fast.onnx")
    named = cli_json("quantize", exported, "--table", table, "--refine", "exact-input", "-o", "exact.onnx")
    assert fast["refinements"] == named["refinements"] == ["exact-input"]
    assert Path("exact.onnx").read_bytes() == Path("fast.onnx").read_bytes()
    biased = ("--refine", "exact-input", "--refine", "bias", "--limit", 4)
    assert cli_json("quantize", exported, "--table", table, *biased, "-o", "q.onnx")["refinements"] == [
        "exact-input",
        "bias",
    ]
    assert Path("q.onnx").read_bytes() != Path("fast.onnx").read_bytes()
    command = ("quantize", exported, "--table", table, "-o", "no.onnx")
    assert "unknown refinement 'smooth': choose of exact-input, " in refused(2, *command, "--refine", "smooth")
    assert "name each once, in the order" in refused(2, *command, "--refine", "bias", "--refine", "round")
    assert "'bias' looks at images" in refused(2, *command, "--refine", "bias", "--effort", "fast")


def test_a_kept_layer_stays_float(exported: Path, table: Path, cli_json: CliJson) -> None:
    flags = ("--keep-float", "conv1", "--keep-float", "layer2.0.conv1")
    document = cli_json("quantize", exported, "--table", table, "--effort", "fast", *flags, "-o", "q.onnx")
    assert set(document["kept_float"]) == {"conv1", "layer2.0.conv1", "fc"}
    assert len(document["quantized_layers"]) == 17


def test_calibration_images_are_no_evaluation_images(
    exported: Path, table: Path, cli_json: CliJson, refused: Refused
) -> None:
    cli_json("quantize", exported, "--table", table, "--effort", "fast", "-o", "q.onnx")
    line = refused(2, "check", "q.onnx", "--reference", exported, "--images", demo.CALIBRATION)
    assert line.startswith("60 of 500 evaluation images were used for calibration")


def test_a_table_of_another_model_is_refused(exported: Path, table: Path, cli_json: CliJson, refused: Refused) -> None:
    cli_json("export", "--arch", "resnet20", "--preprocessing", "fashion-mnist", "-o", "other.onnx")
    line = refused(2, "quantize", "other.onnx", "--table", table, "-o", "q.onnx")
    assert line.startswith("the calibration table was made for another model")


def test_an_export_for_other_tools(cli_json: CliJson) -> None:
    cli_json(
        "export", "--arch", "resnet18", "--input-shape", "32,48,1", "--classes", "3", "--float-input", "-o", "f.onnx"
    )
    session = onnxruntime.InferenceSession("f.onnx")
    assert (session.get_inputs()[0].type, session.get_inputs()[0].shape) == ("tensor(float)", ["batch", 1, 32, 48])
    assert session.get_outputs()[0].shape == ["batch", 3]


def test_preprocessing_by_flags_is_the_preprocessing_in_the_file(cli_json: CliJson) -> None:
    flags = ("--input-shape", "32,40,3", "--resize", "44", "--mean", ".5,.4,.3", "--std", ".2,.3,.4")
    cli_json("export", "--arch", "resnet20", *flags, "-o", "f.onnx")
    assert cli_json("info", "f.onnx")["preprocessing"] == {
        "size": [32, 40],
        "resize": 44,
        "crop": "center",
        "interpolation": "bilinear",
        "color": "rgb",
        "mean": [0.5, 0.4, 0.3],
        "std": [0.2, 0.3, 0.4],
    }
    session = onnxruntime.InferenceSession("f.onnx")
    assert (session.get_inputs()[0].type, session.get_inputs()[0].shape) == ("tensor(uint8)", ["batch", 32, 40, 3])


@pytest.mark.skipif(cuda.gpu_sm() == 87, reason="this host is a Jetson Orin")
def test_compiling_needs_the_device_where_it_does(exported: Path, refused: Refused) -> None:
    line = refused(4, "compile", exported, "--target", "jetson-orin-nano")
    assert "TensorRT compiles only on the device itself" in line and line.endswith(
        "run the same command there (docs/jetson.md)"
    )
    line = refused(4, "compile", exported, "--target", "jetson-xavier-nx", "--workspace", "512")
    assert line.endswith(
        f"run `edge-resnet export-trtexec {exported} --target jetson-xavier-nx --workspace 512 -o jetson-xavier-nx`"
    )
    line = refused(2, "compile", exported, "--target", "jetson-orin-nano", "--dla", "0", "--batch", "1")
    assert line == "jetson-orin-nano has no DLA: leave --dla out"
