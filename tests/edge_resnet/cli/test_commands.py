"""Commands that look at what has been built: their documents against the values themselves, and their exit codes."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edge_resnet import demo
from edge_resnet.bundle import open_bundle, write_bundle
from edge_resnet.classifier import Classifier
from edge_resnet.engines import cuda
from edge_resnet.engines.targets import all_targets
from edge_resnet.recipe import load_recipe

Cli = Callable[..., "subprocess.CompletedProcess[str]"]
CliJson = Callable[..., Any]
Refused = Callable[..., str]
needs_no_gpu = pytest.mark.skipif(cuda.gpu_sm() is not None, reason="this host has an NVIDIA GPU")


# check


def test_check_a_bundle(demo_bundle: Path, cli_json: CliJson) -> None:
    document = cli_json("check", demo_bundle, "--images", demo.TEST, "--limit", 200)
    keys = {"images", "evaluated", "fp32", "engine", "agreement", "drop", "logit_sqnr_db", "passed"}
    assert set(document) >= keys
    assert (document["images"], document["evaluated"], document["passed"]) == (200, "measured", True)
    assert document["fp32"]["top1"] > 0.9 and document["agreement"] > 0.98
    assert document["drop"]["points"] == pytest.approx(100 * (document["fp32"]["top1"] - document["engine"]["top1"]))
    low, high = document["drop"]["ci95"]
    assert low <= document["drop"]["points"] <= high


@needs_no_gpu
@pytest.mark.parametrize("target", ["rtx", "rtx-30", "jetson-orin-nano"])
def test_check_predicts_what_does_not_run_here(target: str, demo_bundle: Path, cli_json: CliJson, cli: Cli) -> None:
    arguments = ("check", demo_bundle, "--images", demo.TEST, "--limit", 50, "--target", target)
    document = cli_json(*arguments)
    assert (document["evaluated"], document["engine_name"]) == ("predicted", target)
    assert document["logit_sqnr_db"] > 30
    assert f"Accuracy of '{target}' on 50 images, PREDICTED: no such device here" in cli(*arguments).stdout


@needs_no_gpu
@pytest.mark.parametrize("precision", ["fp16", "fp32"])
def test_check_predicts_float_engines_too(
    precision: str, recipe_file: Callable[..., Path], cli_json: CliJson, few: Path
) -> None:
    built = cli_json("build", recipe_file(), "--precision", precision, "--target", "rtx", "-o", "rtx.edge")
    found = cli_json("check", "rtx.edge", "--images", few / "test")
    assert found.pop("notes") == []
    assert found == built["accuracy"]
    assert found["evaluated"] == "predicted"


def test_check_refuses_a_precision_that_the_target_has_not(demo_bundle: Path, refused: Refused) -> None:
    line = refused(2, "check", demo_bundle, "--images", demo.TEST, "--target", "rtx-20")
    assert line == "target 'rtx-20' has no int8: choose one of fp16"


def test_check_without_labels_knows_agreement_alone(demo_bundle: Path, cli_json: CliJson, cli: Cli) -> None:
    flat = demo.TEST / "bag"
    document = cli_json("check", demo_bundle, "--images", flat, "--max-drop", "0", "--strict")
    nothing = {"top1": None, "top5": None}
    assert (document["fp32"], document["engine"], document["drop"]) == (nothing, nothing, None)
    assert document["passed"] is True and 0.9 < document["agreement"] <= 1
    assert "no labels: accuracy is not known, agreement is" in cli("check", demo_bundle, "--images", flat).stdout


def test_a_failing_check_prints_its_document_and_exits_3(demo_bundle: Path, cli: Cli) -> None:
    arguments = ("check", demo_bundle, "--images", demo.TEST, "--limit", 50)
    failed = cli(*arguments, "--strict", "--json")
    document = json.loads(failed.stdout)
    assert (failed.returncode, document["passed"]) == (3, False)
    assert failed.stderr.count("\n") == 1 and "50 images are too few to be sure" in failed.stderr
    assert document["images_to_be_sure"] > 50
    assert cli(*arguments, "--max-drop", "100", "--strict").returncode == 0


@pytest.mark.parametrize("value", ["nan", "inf", "101", "-0.1"])
def test_max_drop_must_be_points(value: str, demo_bundle: Path, refused: Refused) -> None:
    line = refused(2, "check", demo_bundle, "--images", demo.TEST, "--limit", 10, "--max-drop", value)
    assert re.match("Invalid value for '--max-drop'|max_drop is nan: give points of top-1 accuracy", line)


def test_what_check_refuses(demo_bundle: Path, demo_onnx: Path, refused: Refused, few: Path) -> None:
    assert "give it with --reference" in refused(2, "check", demo_onnx, "--images", few / "test")
    assert "evaluation images were used for calibration" in refused(
        2, "check", demo_bundle, "--images", demo.CALIBRATION
    )
    line = refused(2, "check", demo_onnx, "--reference", demo_onnx, "--images", few / "test", "--target", "bogus")
    assert line.startswith("unknown target 'bogus'")


def test_classes_that_the_model_does_not_have(demo_bundle: Path, few: Path, refused: Refused, tmp_path: Path) -> None:
    shutil.copytree(few / "test", tmp_path / "test")
    (tmp_path / "test" / "bag").rename(tmp_path / "test" / "handbag")
    line = refused(2, "check", demo_bundle, "--images", tmp_path / "test")
    assert "class 'handbag' of" in line and "is not among the model's 10 labels" in line


# classify


def test_classify(demo_bundle: Path, cli_json: CliJson, cli: Cli, few: Path) -> None:
    images = sorted((few / "test").rglob("*.png"))[::7]
    document = cli_json("classify", demo_bundle, *images, "--target", "cpu", "--top", "3")
    with Classifier(demo_bundle, target="cpu") as classify:
        for entry, path in zip(document, images, strict=True):
            assert set(entry) >= {"image", "predictions"} and entry["image"] == str(path)
            assert entry["predictions"] == [
                {"label": p.label, "index": p.index, "probability": pytest.approx(p.probability)}
                for p in classify(path).top(3)
            ]
    shown = cli("classify", demo_bundle, images[0], "--target", "cpu").stdout
    assert document[0]["predictions"][0]["label"] in shown and "engine: cpu" in shown


@needs_no_gpu
def test_classify_with_an_engine_that_does_not_run_here(demo_bundle: Path, sneaker: Path, refused: Refused) -> None:
    line = refused(4, "classify", demo_bundle, sneaker, "--target", "rtx")
    assert "needs an NVIDIA GPU" in line
    line = refused(4, "classify", demo_bundle, sneaker, "--target", "rtx-30")
    assert line.endswith(f"run `edge-resnet compile {demo_bundle} --target rtx-30`")


# bench


def test_bench(demo_bundle: Path, cli_json: CliJson, cli: Cli) -> None:
    document = cli_json("bench", demo_bundle, "--target", "cpu", "--runs", "30")
    assert set(document) >= {"latency_ms", "per_second", "device"}
    latency = document["latency_ms"]
    assert 0 < latency["p50"] <= latency["p90"] <= latency["p99"]
    # By the mean, which is the maximum at most, and half the median at least, however busy the machine is.
    assert 1000 / latency["max"] <= document["per_second"] <= 2000 / latency["p50"]
    assert (document["runs"], document["target"]) == (30, "cpu")
    assert "30 frames" in cli("bench", demo_bundle, "--target", "cpu", "--runs", "30").stdout


def test_bench_against_another_precision(demo_bundle: Path, cli_json: CliJson, cli: Cli, refused: Refused) -> None:
    flags = ("--target", "cpu", "--runs", "30", "--against")
    document = cli_json("bench", demo_bundle, *flags, "fp32")
    other = document["against"]
    assert (document["precision"], other["precision"]) == ("int8", "fp32")
    assert other["speed_up"] == pytest.approx(other["latency_ms"]["p50"] / document["latency_ms"]["p50"])
    shown = cli("bench", demo_bundle, *flags, "fp32").stdout
    assert "times as fast as fp32, by medians of turns" in shown
    assert refused(2, "bench", demo_bundle, *flags, "int8") == "precision is 'int8': choose one of fp32, fp16, bf16"
    assert refused(2, "bench", demo_bundle, *flags, "fp16").startswith("target 'cpu' has no fp16")


@needs_no_gpu
def test_bench_without_the_device(demo_bundle: Path, refused: Refused) -> None:
    assert "needs an NVIDIA GPU" in refused(4, "bench", demo_bundle, "--target", "rtx")


# info


def test_info_of_a_bundle(demo_bundle: Path, cli_json: CliJson, cli: Cli) -> None:
    document = cli_json("info", demo_bundle)
    bundle = open_bundle(demo_bundle)
    assert (document["digest"], document["bytes"]) == (bundle.digest, demo_bundle.stat().st_size)
    assert document["members"] == {name: len(bundle.read(name)) for name in bundle.names}
    assert document["labels"] == list(bundle.manifest.labels)
    assert "verify" not in document
    shown = cli("info", demo_bundle)
    assert bundle.digest in shown.stdout and "ankle-boot" in shown.stdout


def test_info_verifies_engines_that_run_here(demo_bundle: Path, cli_json: CliJson) -> None:
    verified = {each["target"]: each for each in cli_json("info", demo_bundle, "--verify")["verify"]}
    assert verified["cpu"]["passed"] is True and verified["cpu"]["why_not"] is None
    if cuda.gpu_sm() is None:
        assert verified["rtx"]["passed"] is None and "needs an NVIDIA GPU" in verified["rtx"]["why_not"]


def test_an_engine_that_answers_otherwise_fails_verification(demo_bundle: Path, cli: Cli, tmp_path: Path) -> None:
    bundle = open_bundle(demo_bundle)
    members = {name: bundle.read(name) for name in bundle.names}
    head, logits = members["golden/cpu.npy"][:-320], np.frombuffer(members["golden/cpu.npy"][-320:], np.float32)
    swapped = head + np.roll(logits, 1).tobytes()
    write_bundle(tmp_path / "wrong.edge", bundle.manifest, {**members, "golden/cpu.npy": swapped})
    assert cli("info", "wrong.edge").returncode == 0
    failed = cli("info", "wrong.edge", "--verify", "--json")
    assert failed.returncode == 3
    assert json.loads(failed.stdout)["verify"][0]["passed"] is False
    assert failed.stderr == (
        "edge-resnet: wrong.edge: the engine for cpu does not answer its golden samples: build it again here\n"
    )


def test_info_of_an_engine_is_its_record(demo_bundle: Path, cli_json: CliJson, tmp_path: Path) -> None:
    shutil.copy(demo_bundle, tmp_path / "m.edge")
    compiled = cli_json("compile", "m.edge", "--target", "rtx-40")
    assert (compiled["engine"], compiled["kind"]) == ("m.rtx-40.engine", "tensorrt-rtx")
    record = cli_json("info", "m.rtx-40.engine")["record"]
    assert record["bundle"] == open_bundle(demo_bundle).digest
    assert (record["target"], record["kind"]) == ("rtx-40", "tensorrt-rtx")


def test_what_info_refuses(demo_onnx: Path, refused: Refused, tmp_path: Path) -> None:
    (tmp_path / "x.engine").write_bytes(b"engine")
    (tmp_path / "x.txt").write_bytes(b"text")
    assert refused(2, "info", "missing.edge") == "no file at missing.edge"
    assert "give one of .edge, .onnx, .json, .engine" in refused(2, "info", "x.txt")
    assert "has no readable record" in refused(2, "info", "x.engine")
    assert "only bundles hold golden samples" in refused(2, "info", demo_onnx, "--verify")


# init, devices


def test_init_writes_a_recipe_that_only_lacks_the_users_files(
    cli_json: CliJson, refused: Refused, tmp_path: Path
) -> None:
    (tmp_path / "robot").mkdir()
    assert cli_json("init", "robot") == {"recipe": "robot/edge-resnet.toml"}
    assert "'weights' in [model] is 'resnet50.pth': give a file that exists" in refused(
        2, "build", "robot/edge-resnet.toml"
    )
    for name in ("resnet50.pth", "images/calibration", "images/test"):
        path = tmp_path / "robot" / name
        path.parent.mkdir(exist_ok=True)
        path.touch() if path.suffix else path.mkdir()
    assert load_recipe(tmp_path / "robot" / "edge-resnet.toml").model.arch == "resnet50"
    assert "it exists already" in refused(2, "init", "robot")
    assert "does not exist: create it first" in refused(2, "init", "nowhere")


def test_devices(cli_json: CliJson, cli: Cli) -> None:
    rows = {row["target"]: row for row in cli_json("devices")}
    assert set(rows) == set(all_targets())
    for row in rows.values():
        assert set(row) >= {"target", "kind", "can_compile", "can_run", "why_not"}
        assert (row["why_not"] is None) == (row["can_compile"] and row["can_run"])
    assert rows["cpu"]["can_compile"] and rows["cpu"]["can_run"]
    assert rows["rtx"]["can_compile"], "TensorRT-RTX compiles without a GPU"
    assert rows["rtx"]["kind"] == "tensorrt-rtx" and rows["jetson-orin-nano"]["kind"] == "tensorrt"
    if cuda.gpu_sm() is None:
        assert not rows["rtx"]["can_run"] and "NVIDIA GPU" in rows["rtx"]["why_not"]
        assert not rows["jetson-orin-nano"]["can_compile"]
    assert all(name in cli("devices").stdout for name in rows)
