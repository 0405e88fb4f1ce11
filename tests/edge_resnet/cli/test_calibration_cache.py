"""TensorRT's calibration cache through the commands: written from a table, read back as one, ours and foreign files."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import onnx
import pytest

from edge_resnet import demo

Cli = Callable[..., "subprocess.CompletedProcess[str]"]
CliJson = Callable[..., Any]
Refused = Callable[..., str]
FLAGS = ("--preprocessing", "fashion-mnist")


@pytest.fixture
def table(demo_onnx: Path, few: Path, cli_json: CliJson, tmp_path: Path) -> Path:
    cli_json("calibrate", demo_onnx, "--images", few / "calibration", "--method", "entropy", "-o", "t.json")
    return tmp_path / "t.json"


@pytest.fixture
def cache(demo_onnx: Path, table: Path, cli_json: CliJson, tmp_path: Path) -> Path:
    cli_json("export-cache", demo_onnx, "--table", table, "--trt-version", "8502", "-o", "c.cache")
    return tmp_path / "c.cache"


def test_there_and_back(
    demo_onnx: Path, table: Path, few: Path, cli: Cli, cli_json: CliJson, refused: Refused, tmp_path: Path
) -> None:
    written = cli_json("export-cache", demo_onnx, "--table", table, "--trt-version", "100300", "-o", "c.cache")
    wanted = json.loads(table.read_text())
    assert written == {"cache": "c.cache", "tensors": len(wanted["ranges"]), "unknown": []}
    first, *lines = (tmp_path / "c.cache").read_text().splitlines()
    assert first == "TRT-100300-EntropyCalibration2"
    assert [line.rpartition(": ")[0] for line in lines] == list(wanted["ranges"])

    images = few / "calibration"
    read = cli_json("import-cache", demo_onnx, "--cache", "c.cache", "--images", images, "-o", "back.json")
    method = "TensorRT EntropyCalibration2"
    assert read == {"table": "back.json", "method": method, "tensors": len(wanted["ranges"]), "unknown": []}
    back = json.loads(Path("back.json").read_text())
    assert {key: back[key] for key in ("model", "images", "preprocessing")} == {
        key: wanted[key] for key in ("model", "images", "preprocessing")
    }
    for name, found in back["ranges"].items():
        assert found["amax"] == pytest.approx(wanted["ranges"][name]["amax"], rel=2.0**-23)

    made = cli_json("quantize", demo_onnx, "--table", "back.json", "-o", "q.onnx")
    assert len(made["quantized_layers"]) == 19
    line = refused(2, "check", "q.onnx", "--reference", demo_onnx, "--images", images)
    assert line.startswith("30 of 30 evaluation images were used for calibration")
    assert (
        f"{len(back['ranges'])} tensors"
        in cli("export-cache", demo_onnx, "--table", table, "--trt-version", "8502", "-o", "c.cache").stdout
    )


def test_a_foreign_files_image_goes_by_its_own_name(few: Path, cli: Cli, cli_json: CliJson) -> None:
    weights, images = demo.FOLDER / "resnet20-fashion-mnist.safetensors", ("--images", few / "calibration")
    shape = ("--float-input", "--input-shape", "28,28,1")
    cli_json("export", "--arch", "resnet20", "--weights", weights, *shape, "-o", "f.onnx")
    (image,) = (source.name for source in onnx.load("f.onnx").graph.input)
    cli_json("calibrate", "f.onnx", *FLAGS, *images, "-o", "t.json")
    assert (
        cli_json("export-cache", "f.onnx", "--table", "t.json", "--trt-version", "8502", "-o", "c.cache")["unknown"]
        == []
    )
    assert Path("c.cache").read_text().splitlines()[1].startswith(f"{image}: ")

    with open("c.cache", "a") as file:
        file.write("stranger: 3c010a14\n")
    read = cli_json("import-cache", "f.onnx", "--cache", "c.cache", *FLAGS, *images, "-o", "back.json")
    assert read["unknown"] == ["stranger"]
    ranges = {name: json.loads(Path(name).read_text())["ranges"] for name in ("t.json", "back.json")}
    assert set(ranges["back.json"]) == set(ranges["t.json"])
    shown = cli("import-cache", "f.onnx", "--cache", "c.cache", *FLAGS, *images, "-o", "back.json").stdout
    assert "f.onnx has no tensors of these names, which were left aside: stranger" in shown


def test_tensors_that_the_file_does_not_have_are_told(
    demo_onnx: Path, few: Path, cli: Cli, cli_json: CliJson, tmp_path: Path
) -> None:
    """As where folding a foreign file made one."""
    cli_json("calibrate", demo_onnx, "--images", few / "calibration", "-o", "t.json")
    document = json.loads(Path("t.json").read_text())
    document["ranges"]["elsewhere"] = document["ranges"]["relu"]
    Path("t.json").write_text(json.dumps(document))
    arguments = ("export-cache", demo_onnx, "--table", "t.json", "--trt-version", "8502", "-o", "c.cache")
    assert cli_json(*arguments)["unknown"] == ["elsewhere"]
    assert "has no tensors of these names, which TensorRT will pass over: elsewhere" in cli(*arguments).stdout


def test_what_export_cache_refuses(demo_onnx: Path, table: Path, cli_json: CliJson, refused: Refused) -> None:
    version = ("--trt-version", "8502", "-o", "new.cache")
    line = refused(2, "export-cache", demo_onnx, "--table", table, "--trt-version", "8.5.2", "-o", "new.cache")
    assert line == (
        "TensorRT's version is '8.5.2': give its digits as in its own caches, 8502 for 8.5.2, 100300 for 10.3.0"
    )
    assert "no calibration table at gone.json" in refused(
        2, "export-cache", demo_onnx, "--table", "gone.json", *version
    )
    cli_json("export", "--arch", "resnet20", *FLAGS, "-o", "other.onnx")
    line = refused(2, "export-cache", "other.onnx", "--table", table, *version)
    assert line.startswith("the calibration table was made for another model")


def test_what_import_cache_refuses(
    demo_onnx: Path, cache: Path, few: Path, cli_json: CliJson, refused: Refused, tmp_path: Path
) -> None:
    rest = ("--images", few / "calibration", "-o", "new.json")
    assert "no calibration cache at gone" in refused(2, "import-cache", demo_onnx, "--cache", "gone", *rest)
    line = refused(2, "import-cache", demo_onnx, "--cache", cache, *rest, "--preprocessing", "imagenet")
    assert "the flags contradict the preprocessing that" in line
    cli_json("export", "--arch", "resnet32", *FLAGS, "-o", "other.onnx")
    line = refused(2, "import-cache", "other.onnx", "--cache", cache, *rest)
    assert "the cache lacks 18 of the 47 tensors that INT8 needs (layer1.3.relu1, layer1.3.relu2" in line
    for damage, reason in {
        b"\x00\xff": "broken line 1 is",
        b"TRT-8502-EntropyCalibration2\nrelu: 3c01\xff\n": "broken line 2 is 'relu: 3c01",
    }.items():
        (tmp_path / "broken").write_bytes(damage)
        assert reason in refused(2, "import-cache", demo_onnx, "--cache", "broken", *rest)
