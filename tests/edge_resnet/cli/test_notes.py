"""What commands note on stderr, and under ``notes`` in their JSON: calibration images that will not do as they are."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

Cli = Callable[..., Any]
CliJson = Callable[..., Any]


@pytest.fixture
def dark(few: Path, tmp_path: Path) -> Path:
    """The test images at a third of their light."""
    for path in (few / "test").rglob("*.png"):
        made = tmp_path / "dark" / path.parent.name / path.name
        made.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.asarray(Image.open(path)) // 3).save(made)
    return tmp_path / "dark"


def test_classes_without_images_are_named(demo_onnx: Path, few: Path, tmp_path: Path, cli_json: CliJson) -> None:
    whole = cli_json("calibrate", demo_onnx, "--images", few / "calibration", "--limit", 5, "-o", "t.json")
    assert whole["notes"] == [], "fewer images than classes are a matter of --limit"
    shutil.copytree(few / "calibration", tmp_path / "some")
    for name in ("bag", "sneaker"):
        shutil.rmtree(tmp_path / "some" / name)
    (note,) = cli_json("calibrate", demo_onnx, "--images", "some", "-o", "t.json")["notes"]
    assert note.startswith("calibration images are of 8 of the model's 10 classes (none of sneaker, bag): ")
    counts = json.loads(Path("t.json").read_text())["images"]["classes"]
    assert len(counts) == 8 and set(counts.values()) == {3}
    for index, folder in enumerate(sorted((tmp_path / "some").iterdir())):
        folder.rename(folder.with_name(f"place {index}"))
    (note,) = cli_json("calibrate", demo_onnx, "--images", "some", "-o", "t.json")["notes"]
    assert note.startswith("calibration images are of 8 of the model's 10 classes: ")


def test_unlabelled_images_have_no_classes_to_cover(demo_onnx: Path, few: Path, cli_json: CliJson) -> None:
    flat = few / "calibration" / "bag"
    assert cli_json("calibrate", demo_onnx, "--images", flat, "-o", "t.json")["notes"] == []


def test_the_table_says_what_its_images_look_like_and_what_made_it(
    demo_onnx: Path, few: Path, cli_json: CliJson
) -> None:
    cli_json("calibrate", demo_onnx, "--images", few / "calibration", "-o", "t.json")
    images = json.loads(Path("t.json").read_text())["images"]
    assert images["created_by"] == {"edge-resnet": version("edge-resnet")}
    pixels = np.stack([np.asarray(Image.open(path)) for path in sorted((few / "calibration").rglob("*.png"))])
    assert images["appearance"]["images"] == 30
    assert images["appearance"]["mean"][0] == pytest.approx(pixels.mean(), abs=1e-3)


def test_check_notes_evaluation_images_that_look_unlike(
    demo_onnx: Path, few: Path, dark: Path, cli: Cli, cli_json: CliJson
) -> None:
    cli_json("calibrate", demo_onnx, "--images", few / "calibration", "-o", "t.json")
    cli_json("quantize", demo_onnx, "--table", "t.json", "--effort", "fast", "-o", "q.onnx")
    command = ("check", "q.onnx", "--reference", demo_onnx, "--max-drop", 100)
    assert cli_json(*command, "--images", few / "test")["notes"] == []
    (note,) = cli_json(*command, "--images", dark)["notes"]
    assert note.startswith("calibration images look unlike the evaluation images: ")
    assert note in cli(*command, "--images", dark).stderr


def test_build_notes_both_and_so_does_check_of_its_bundle(
    recipe_file: Callable[..., Path], few: Path, dark: Path, tmp_path: Path, cli_json: CliJson
) -> None:
    shutil.copytree(few / "calibration", tmp_path / "some")
    shutil.rmtree(tmp_path / "some" / "bag")
    accuracy = f'images = "{dark}"\nmax_drop = 100'
    recipe = recipe_file(calibration=tmp_path / "some", accuracy=accuracy, build='targets = ["cpu"]')
    covered, unlike = cli_json("build", recipe, "-o", "m.edge")["notes"]
    assert "are of 9 of the model's 10 classes (none of bag)" in covered and "look unlike" in unlike
    assert cli_json("check", "m.edge", "--images", dark, "--max-drop", 100)["notes"] == [unlike]
    assert cli_json("check", "m.edge", "--images", few / "test", "--max-drop", 100)["notes"] == []
    assert cli_json("build", recipe, "--precision", "fp32", "-o", "f.edge")["notes"] == [], "nothing is calibrated"
