"""A build with [prune]: engines of the smaller network, held against the original, and what each step cost."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edge_resnet.bundle import COMPRESSED_MEMBER, FP32_MEMBER, QDQ_MEMBER, open_bundle
from edge_resnet.calibration.simulate import fast_session, run_frames
from edge_resnet.calibration.sparsity import sparse_convolutions
from edge_resnet.chain import BuildResult, build
from edge_resnet.compression.counting import macs_of
from edge_resnet.demo import demo_recipe
from edge_resnet.errors import ImageError, RecipeError
from edge_resnet.estimate import estimate
from edge_resnet.golden import read_golden
from edge_resnet.images import open_images
from edge_resnet.onnx_file import parse_onnx, serialise
from edge_resnet.preprocessing import NAMED
from edge_resnet.progress import Progress
from edge_resnet.recipe import (
    AccuracyRecipe,
    BuildRecipe,
    CalibrationRecipe,
    PruneRecipe,
    QuantizeRecipe,
    Recipe,
    load_recipe,
)
from edge_resnet.source import load_source
from edge_resnet.stage_cache import StageCache
from edge_resnet.stages import Stages
from edge_resnet.tuning.workshop import Workshop

CliJson = Callable[..., Any]
Refused = Callable[..., str]
Built = tuple[Recipe, BuildResult, StageCache]


@pytest.fixture(scope="module")
def built(few: Path, tmp_path_factory: pytest.TempPathFactory) -> Built:
    folder = tmp_path_factory.mktemp("pruned")
    recipe = replace(
        demo_recipe(),
        calibration=CalibrationRecipe(few / "calibration"),
        prune=PruneRecipe(macs=0.8, sparsity="2:4", steps=4),
        quantize=QuantizeRecipe(effort="fast"),
        accuracy=AccuracyRecipe(few / "test", max_drop=100.0),
        build=BuildRecipe(targets=("cpu", "rtx-30", "jetson-orin-nano"), output=folder / "model.edge"),
    )
    cache = StageCache(folder / "stages")
    return recipe, build(recipe, cache=cache), cache


def test_engines_are_made_of_the_smaller_network_and_held_against_the_original(built: Built) -> None:
    recipe, result, _ = built
    bundle, source = open_bundle(recipe.build.output), load_source(recipe)
    small = parse_onnx(bundle.read(COMPRESSED_MEMBER), "small")
    assert bundle.read(FP32_MEMBER) == serialise(source.model)
    wanted = set(macs_of(source.model)) - {"conv1", "fc"}
    assert set(sparse_convolutions(small)) == wanted
    assert set(sparse_convolutions(parse_onnx(bundle.read(QDQ_MEMBER), "q"))) == wanted
    frames = read_golden(bundle, "frames")
    for name, model in (("fp32", source.model), ("compressed", small)):
        found = run_frames(fast_session(model), frames)
        np.testing.assert_allclose(read_golden(bundle, name), found, atol=1e-4 * np.abs(found).max())
    options = {entry.target: entry.versions.get("options") for entry in bundle.manifest.engines}
    assert options == {"cpu": None, "rtx-30": "sparse_weights=true", "jetson-orin-nano": None}
    assert result.accuracy is not None and result.accuracy.changed > 0
    assert bundle.compiled_member == COMPRESSED_MEMBER
    dense = sum(macs_of(source.model).values())
    assert sum(layer.mmac for layer in estimate(str(recipe.build.output), "rtx-30", precision="fp16").layers) < dense


def test_each_step_says_what_it_cost(built: Built) -> None:
    recipe, result, _ = built
    document = result.to_json()["compression"]
    assert [step["step"] for step in document["steps"]] == [
        "channels",
        "channels, fine-tuned",
        "2:4",
        "2:4, fine-tuned",
    ]
    assert document["dense_layers"] == ["conv1", "fc"] and document["judged_on"] == "accuracy"
    assert document["images"] == 30
    last = document["steps"][-1]
    assert 0.7 < last["macs"] <= 0.8 and last["zeros"] > 0.49 and last["images"] == 40
    bundle, test = open_bundle(recipe.build.output), open_images(recipe.accuracy.images or Path())
    frames = test.pixels(NAMED["fashion-mnist"])
    whole, small = (
        run_frames(fast_session(parse_onnx(bundle.read(name), name)), frames).argmax(1)
        for name in (FP32_MEMBER, COMPRESSED_MEMBER)
    )
    assert last["agreement"] == pytest.approx((whole == small).mean())
    told = (bundle.manifest.provenance or {})["compression"]
    assert isinstance(told, dict) and told["steps"] == document["steps"] and told["images"]["images"] == 30
    assert result.report is not None
    page = Path(result.report).read_text(encoding="utf-8")
    assert "What did pruning cost?" in page and "Not 2:4 sparse: conv1, fc." in page
    assert f"{100 * last['macs']:.1f} %" in page


def test_the_slow_stage_is_kept(built: Built) -> None:
    recipe, result, cache = built
    again = build(replace(recipe, build=replace(recipe.build, targets=("cpu",), report=False)), cache=cache)
    assert next(stage for stage in again.stages if stage.name == "prune").cached
    assert not next(stage for stage in result.stages if stage.name == "prune").cached
    assert again.compression is not None and result.compression is not None
    assert again.compression.to_json() == result.compression.to_json()


def test_an_image_that_it_was_fine_tuned_on_judges_nothing(built: Built, few: Path, refused: Refused) -> None:
    recipe = built[0]
    assert recipe.prune is not None
    with pytest.raises(ImageError):
        build(replace(recipe, prune=replace(recipe.prune, images=few / "test")), cache=built[2])


def test_tune_says_how_to_tune_a_pruned_network(built: Built) -> None:
    with pytest.raises(RecipeError, match="the recipe has \\[prune\\], .*: prune once with `edge-resnet prune`"):
        Workshop(built[0], "cpu", Stages(Progress()))


@pytest.mark.parametrize(
    ("lines", "says"),
    [
        ("", "[prune]: there is nothing to prune: give macs"),
        ("macs = 1.5", "[prune]: macs is 1.5: give the share of multiply-adds to keep, between 0 and 1"),
        ('macs = "half"', "'macs' in [prune] is 'half': give a number"),
        ('sparsity = "4:8"', "[prune]: sparsity is '4:8': choose one of 2:4"),
        ("macs = 0.7\nsteps = -1", "'steps' in [prune] is -1: give a whole number, 0 or more"),
        ("macs = 0.7\nkeep = 1", "unknown key 'keep' in [prune]"),
        ('macs = 0.7\nimages = "nowhere"', "'images' in [prune] is 'nowhere'"),
    ],
)
def test_a_recipe_that_makes_no_sense_is_one_line(recipe_file: Callable[..., Path], lines: str, says: str) -> None:
    path = recipe_file()
    path.write_text(f"{path.read_text()}\n[prune]\n{lines}\n")
    with pytest.raises(RecipeError) as caught:
        load_recipe(path)
    assert str(caught.value).startswith(f"{path}: {says}") and "\n" not in str(caught.value)


def test_a_recipe_says_how_far(recipe_file: Callable[..., Path]) -> None:
    path = recipe_file()
    path.write_text(f'{path.read_text()}\n[prune]\nmacs = 0.7\nsparsity = "2:4"\nrounds = 2\nsteps = 0\nlimit = 9\n')
    assert load_recipe(path).prune == PruneRecipe(0.7, "2:4", rounds=2, steps=0, images=None, limit=9)


def test_the_command(demo_onnx: Path, few: Path, cli_json: CliJson, cli: Callable[..., Any], refused: Refused) -> None:
    asked = ("prune", demo_onnx, "--images", few / "calibration", "--macs", "0.8", "--steps", "0")
    document = cli_json(*asked, "--sparsity", "2:4", "--check", few / "test", "-o", "p.onnx")
    assert [step["step"] for step in document["steps"]] == ["channels", "2:4"]
    assert document["onnx"] == "p.onnx" and document["judged_on"] == "accuracy"
    table = cli_json("calibrate", "p.onnx", "--images", few / "calibration", "-o", "t.json")["table"]
    made = cli_json("quantize", "p.onnx", "--table", table, "--effort", "fast", "-o", "q.onnx")
    assert "layer1.0.conv1" in made["quantized_layers"]
    line = cli_json("compile", "q.onnx", "--target", "jetson-orin-nano", "--explain")["command"]
    assert "--sparsity=enable" in line
    assert (
        "--sparsity=enable" not in cli_json("compile", "q.onnx", "--target", "jetson-xavier-nx", "--explain")["command"]
    )
    shown = cli(*asked, "-o", "p2.onnx").stdout
    assert "the images that it was fine-tuned on" in shown and "wrote p2.onnx" in shown
    assert "there is nothing to prune" in refused(2, "prune", demo_onnx, "--images", few, "-o", "p3.onnx")
