"""Folders for trtexec: the network in the form that each TensorRT takes, the line, and a build.sh that runs it."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import pytest
from onnx import numpy_helper

from edge_resnet.bundle import open_bundle
from edge_resnet.calibration.simulate import exact_session, run_frames
from edge_resnet.calibration.strip import strip_qdq
from edge_resnet.calibration.trt_cache import read_cache, version_digits, write_cache
from edge_resnet.chain import build
from edge_resnet.compiling import lowered_from_bundle
from edge_resnet.demo import demo_recipe
from edge_resnet.engines.options import BuildOptions
from edge_resnet.engines.registry import engine_class
from edge_resnet.errors import CalibrationError, EngineError
from edge_resnet.handover import HandoverOrder, hand_over
from edge_resnet.onnx_file import parse_onnx
from edge_resnet.preprocessing import NAMED, Preprocessing
from edge_resnet.quantize_files import open_table
from edge_resnet.recipe import AccuracyRecipe, BuildRecipe, CalibrationRecipe, QuantizeRecipe, Recipe

Cli = Callable[..., "subprocess.CompletedProcess[str]"]
CliJson = Callable[..., Any]
Refused = Callable[..., str]
Frames = npt.NDArray[np.uint8]
XAVIER = "jetson-xavier-nx"
TRTEXEC = """#!/bin/sh
pwd > {log}
for argument; do echo "$argument" >> {log}; done
exit {code}
"""


@pytest.fixture(scope="module")
def bundle(few: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """INT8, for the CPU: the Q/DQ network for TensorRT is in every INT8 bundle."""
    recipe = replace(
        demo_recipe(),
        calibration=CalibrationRecipe(few / "calibration"),
        quantize=QuantizeRecipe(effort="fast"),
        accuracy=AccuracyRecipe(None),
        build=BuildRecipe(targets=("cpu",), output=tmp_path_factory.mktemp("bundle") / "model.edge", report=False),
    )
    assert build(recipe).failures == ()
    return recipe.build.output


def answers(model: bytes, frames: Frames) -> npt.NDArray[np.float32]:
    return run_frames(exact_session(onnx.load_from_string(model)), frames)


def test_the_folder_for_jetpack_5(bundle: Path, ten_frames: Frames, cli_json: CliJson, tmp_path: Path) -> None:
    document = cli_json("export-trtexec", bundle, "--target", XAVIER, "-o", "xavier")
    folder = tmp_path / "xavier"
    files = {"README.txt", "build.sh", "labels.txt", "model.json", "model.onnx"}
    assert set(document["files"]) == {path.name for path in folder.iterdir()} == files
    assert (document["tensorrt"], document["precision"]) == ("8.5.2", "int8")
    assert document["command"][:5] == [
        "trtexec",
        "--onnx=model.onnx",
        "--saveEngine=model.engine",
        "--minShapes=frames:1x28x28x1",
        "--optShapes=frames:1x28x28x1",
    ]
    assert {"--int8", "--fp16", "--buildOnly"} <= set(document["command"])
    opened = open_bundle(bundle)
    assert (folder / "labels.txt").read_text().splitlines() == list(opened.manifest.labels or ())
    facts = json.loads((folder / "model.json").read_text())
    assert Preprocessing.from_json(facts["preprocessing"]) == NAMED["fashion-mnist"]

    model = (folder / "model.onnx").read_bytes()
    loaded = onnx.load_from_string(model)
    assert [(entry.domain, entry.version) for entry in loaded.opset_import] == [("", 17)]
    arrays = [numpy_helper.to_array(tensor) for tensor in loaded.graph.initializer]
    assert all(array.dtype != np.int8 or array.ndim < 2 for array in arrays), "TensorRT 8 wants weights float"
    assert np.array_equal(answers(model, ten_frames), answers(opened.read("model.qdq.onnx"), ten_frames))


@pytest.mark.parametrize("code", [0, 1])
def test_build_sh_runs_the_line_where_the_files_are(code: int, bundle: Path, cli_json: CliJson, tmp_path: Path) -> None:
    command = cli_json("export-trtexec", bundle, "--target", XAVIER, "-o", "x y", "--workspace", 512)["command"]
    tools, log = tmp_path / "tools", tmp_path / "log"
    tools.mkdir()
    (tools / "trtexec").write_text(TRTEXEC.format(log=log, code=code))
    (tools / "trtexec").chmod(0o755)
    path = f"{tools}:{os.environ['PATH']}"
    done = subprocess.run(["sh", "x y/build.sh"], env={"PATH": path}, capture_output=True, check=False)
    assert done.returncode == code
    where, *arguments = log.read_text().splitlines()
    assert Path(where) == tmp_path / "x y"
    assert arguments == command[1:] and "--memPoolSize=workspace:512" in arguments


def test_for_tensorrt_10_it_is_the_very_network_that_we_compile(bundle: Path) -> None:
    made = hand_over(HandoverOrder(bundle, "jetson-orin-nano", "6.2"))
    lowered = lowered_from_bundle(bundle, open_bundle(bundle), engine_class("tensorrt"))
    assert made.files["model.onnx"] == lowered.compiled_from
    assert "--stronglyTyped" in made.command and "--int8" not in made.command


def test_with_a_calibration_cache_every_name_is_a_tensor(bundle: Path) -> None:
    made = hand_over(HandoverOrder(bundle, XAVIER, implicit=True))
    model = onnx.load_from_string(made.files["model.onnx"])
    assert not any(node.op_type.endswith("QuantizeLinear") for node in model.graph.node)
    cache = read_cache(made.files["calibration.cache"].decode(), "cache")
    assert (cache.version, cache.algorithm) == ("8502", "EntropyCalibration2")
    stripped = strip_qdq(parse_onnx(open_bundle(bundle).read("model.qdq.onnx"), "q"))
    scales = {name: amax / 127 for name, amax in cache.amax.items()}
    assert scales == pytest.approx(stripped.quantized | stripped.between)
    assert set(scales) <= {name for node in model.graph.node for name in node.output}
    assert {"--int8", "--fp16", "--calib=calibration.cache"} <= set(made.command)


def test_dla_takes_the_fp32_network_and_its_table(
    bundle: Path, demo_onnx: Path, few: Path, ten_frames: Frames, cli_json: CliJson, refused: Refused
) -> None:
    cli_json("calibrate", demo_onnx, "--images", few / "calibration", "-o", "t.json")
    flags = ("--target", XAVIER, "--dla", 0, "-o", "dla")
    document = cli_json("export-trtexec", demo_onnx, "--table", "t.json", *flags, "--batch", 4)
    assert document["command"][3:6] == [f"--{which}Shapes=frames:4x28x28x1" for which in ("min", "opt", "max")]
    assert document["command"][-3:] == ["--useDLACore=0", "--allowGPUFallback", "--noTF32"]
    assert Path("dla/calibration.cache").read_text() == write_cache(open_table(Path("t.json")), "8502")
    model = Path("dla/model.onnx").read_bytes()
    assert np.array_equal(answers(model, ten_frames), answers(demo_onnx.read_bytes(), ten_frames))

    line = refused(2, "export-trtexec", bundle, "--target", XAVIER, "--dla", 0, "--batch", 1, "-o", "no")
    assert "takes INT8 from a calibration cache, for a network with its ReLUs" in line and "--table" in line
    line = refused(2, "export-trtexec", bundle, "--target", "jetson-thor", "--dla", 0, "--batch", 1, "-o", "no")
    assert line == "jetson-thor has no DLA: leave --dla out"
    orin = ("--target", "jetson-agx-orin", "--dla", 0, "--batch", 1, "-o", "no")
    line = refused(2, "export-trtexec", demo_onnx, "--table", "t.json", *orin)
    assert line == (
        "TensorRT 10.16.2 of JetPack 7.2 does not know DLA: leave --dla out, or give a --jetpack whose does "
        "(5.1 to 5.1.6, 6.0, 6.1, 6.2, 6.2.1, 6.2.2)"
    )
    assert "--table T.json" in refused(2, "export-trtexec", bundle, *orin, "--jetpack", "6.2.2")
    assert "it exists already" in refused(2, "export-trtexec", bundle, "--target", XAVIER, "-o", "dla")


def test_fp16_is_a_flag_for_tensorrt_8_and_a_type_for_10(small_recipe: Recipe) -> None:
    recipe = replace(small_recipe, build=replace(small_recipe.build, targets=("jetson-orin-nano",), precision="fp16"))
    assert build(recipe).failures == ()
    path = recipe.build.output
    old, new = (hand_over(HandoverOrder(path, "jetson-orin-nano", version)) for version in ("6.0", "6.1"))
    assert "--fp16" in old.command and "--skipInference" in old.command and "--stronglyTyped" in new.command
    assert old.files["model.onnx"] == open_bundle(path).read("model.fp32.onnx")
    types = [
        {tensor.data_type for tensor in onnx.load_from_string(made.files["model.onnx"]).graph.initializer}
        for made in (old, new)
    ]
    assert onnx.TensorProto.FLOAT16 not in types[0] and onnx.TensorProto.FLOAT16 in types[1]
    with pytest.raises(EngineError, match="is fp16: a calibration cache is for INT8; leave it out"):
        hand_over(HandoverOrder(path, XAVIER, implicit=True))


def test_explain_prints_the_line_and_compiles_nothing(
    bundle: Path, cli: Cli, cli_json: CliJson, refused: Refused, tmp_path: Path
) -> None:
    before = sorted(tmp_path.iterdir())
    document = cli_json("compile", bundle, "--target", "jetson-agx-orin", "--jetpack", "6.1", "--explain")
    made = hand_over(HandoverOrder(bundle, "jetson-agx-orin", "6.1"))
    assert document["command"] == made.command and document["tensorrt"] == "10.3.0"
    assert f"export-trtexec {bundle} --target jetson-agx-orin --jetpack 6.1" in document["files_from"]
    old = cli_json("compile", bundle, "--target", XAVIER, "--explain", "--workspace", "64")["files_from"]
    assert old == f"edge-resnet export-trtexec {bundle} --target {XAVIER} --jetpack 5.1 --workspace 64 -o FOLDER"
    assert hand_over(HandoverOrder(bundle, XAVIER, "5.1")).jetpack.version.startswith("5.1 to ")
    shown = cli("compile", bundle, "--target", "jetson-agx-orin", "--explain").stdout.splitlines()
    assert shown[0].startswith("trtexec --onnx=model.onnx ") and "JetPack 7.2" in shown[1]
    assert sorted(tmp_path.iterdir()) == before
    line = refused(2, "compile", bundle, "--target", "rtx", "--explain")
    assert line.startswith("target 'rtx' is compiled by tensorrt-rtx, for which there is no trtexec line")
    line = refused(2, "compile", bundle, "--target", XAVIER, "--explain", "-o", "x.engine")
    assert line == "--explain writes nothing: leave -o out"
    line = refused(2, "compile", bundle, "--target", "rtx-30", "--jetpack", "6.1")
    assert line == "--jetpack is for --explain: what compiles here is the TensorRT that is installed"
    assert "no JetPack '4.6'" in refused(2, "compile", bundle, "--target", XAVIER, "--explain", "--jetpack", "4.6")


def test_versions_as_caches_have_them() -> None:
    assert [version_digits(version) for version in ("8.5.2", "8.6.2", "10.3.0", "10.16.2")] == [
        *("8502", "8602", "100300", "101602")
    ]
    with pytest.raises(CalibrationError, match="TensorRT's version is '8.5': give three numbers, as in 8.5.2"):
        version_digits("8.5")


def test_a_flag_that_the_devices_trtexec_has_not_is_refused(bundle: Path) -> None:
    options = BuildOptions(optimization_level=5)
    with pytest.raises(EngineError, match="trtexec of TensorRT 8.5.2 has no --builderOptimizationLevel"):
        hand_over(HandoverOrder(bundle, XAVIER, options=options))
