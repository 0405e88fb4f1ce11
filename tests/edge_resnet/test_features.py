"""A network without its classifier through the whole line: export, INT8, engines, bundle, embedder, check."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch

import edge_resnet
from edge_resnet import demo
from edge_resnet.bundle import FP32_MEMBER, open_bundle
from edge_resnet.images import open_images
from edge_resnet.preprocessing import NAMED
from edge_resnet.weights import load_model

WEIGHTS = demo.FOLDER / "resnet20-fashion-mnist.safetensors"
MODEL = f'arch = "resnet20"\nweights = "{WEIGHTS}"\ninclude_top = false\n'
SHAPES = {"avg": (64,), "max": (64,), "none": (64, 7, 7)}


@pytest.fixture(scope="module")
def frames() -> np.ndarray:
    return open_images(demo.TEST, 20).pixels(NAMED["fashion-mnist"])


def torch_features(frames: np.ndarray, pooling: str) -> np.ndarray:
    """The last feature map of the network with its classifier, taken before its pooling, and pooled by hand."""
    model, seen = load_model("resnet20", WEIGHTS), []
    model.avgpool.register_forward_pre_hook(lambda module, inputs: seen.append(inputs[0]))
    spec = NAMED["fashion-mnist"]
    with torch.no_grad():
        model((torch.from_numpy(frames).permute(0, 3, 1, 2) / 255 - spec.mean[0]) / spec.std[0])
    features = seen[0].numpy()
    return {"avg": features.mean((2, 3)), "max": features.max((2, 3)), "none": features}[pooling]


@pytest.mark.parametrize("pooling", SHAPES)
@pytest.mark.parametrize(
    ("precision", "effort"),
    [("fp32", "fast"), ("int8", "fast"), pytest.param("int8", "standard", marks=pytest.mark.long)],
)
def test_the_whole_line(
    pooling: str,
    precision: str,
    effort: str,
    recipe_file: Callable[..., Path],
    cli_json: Callable[..., Any],
    frames: np.ndarray,
) -> None:
    recipe = recipe_file(model=f'{MODEL}pooling = "{pooling}"', build='targets = ["cpu", "rtx-30"]', effort=effort)
    built = cli_json("build", recipe, "--precision", precision, "-o", "backbone.edge")
    assert [target["verified"] for target in built["targets"]] == ["measured", "predicted"]
    wanted = torch_features(frames, pooling)
    with edge_resnet.Embedder("backbone.edge") as embed:
        assert embed.engine.output == SHAPES[pooling]
        found = embed([frame[:, :, 0] for frame in frames])
        np.testing.assert_allclose(embed(frames[3, :, :, 0]), found[3], rtol=0, atol=1e-5)
    assert found.shape == (20, *SHAPES[pooling]) and found.dtype == np.float32
    flat = found.reshape(20, -1).astype(float), wanted.reshape(20, -1).astype(float)
    cosines = [a @ b / np.linalg.norm(a) / np.linalg.norm(b) for a, b in zip(*flat, strict=True)]
    assert min(cosines) > (0.99 if precision == "int8" else 1 - 1e-6)
    accuracy = built["accuracy"]
    assert accuracy["passed"] and accuracy["cosine"]["mean"] > 0.99
    assert accuracy["nearest"]["fp32"] > 0.6
    bundle = open_bundle(Path("backbone.edge"))
    assert bundle.manifest.labels is None
    assert onnx.load_from_string(bundle.read(FP32_MEMBER)).graph.output[0].name == "features"


@pytest.fixture(scope="module")
def backbone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bundle of the demo's network without its classifier, in FP32."""
    from dataclasses import replace

    from edge_resnet.demo import demo_recipe

    recipe = demo_recipe()
    model = replace(recipe.model, include_top=False, pooling="avg", labels=None)
    build = replace(
        recipe.build, precision="fp32", targets=("cpu",), output=tmp_path_factory.mktemp("b") / "backbone.edge"
    )
    edge_resnet.build(replace(recipe, model=model, build=build, accuracy=replace(recipe.accuracy, images=None)))
    return build.output


def test_embed_writes_a_row_an_image(backbone: Path, cli_json: Callable[..., Any], tmp_path: Path) -> None:
    paths = open_images(demo.TEST, 3).paths
    document = cli_json("embed", backbone, *paths, "-o", "features.npy")
    found = np.load(tmp_path / "features.npy")
    assert document["shape"] == list(found.shape) == [3, 64]
    folder = cli_json("embed", backbone, demo.TEST / "bag", "-o", "folder.npy")
    assert folder["images"] == [str(path) for path in open_images(demo.TEST / "bag").paths]
    with edge_resnet.Embedder(backbone) as embed:
        np.testing.assert_allclose(found, embed(list(paths)), rtol=0, atol=1e-5)


def test_check_of_files(few: Path, cli: Callable[..., Any], cli_json: Callable[..., Any], tmp_path: Path) -> None:
    export = ("export", "--arch", "resnet20", "--weights", WEIGHTS, "--preprocessing", "fashion-mnist", "--no-top")
    cli_json(*export, "--pooling", "avg", "-o", "f.onnx")
    cli_json("calibrate", "f.onnx", "--images", few / "calibration", "-o", "t.json")
    cli_json("quantize", "f.onnx", "--table", "t.json", "--scheme", "tensorrt", "--effort", "fast", "-o", "q.onnx")
    report = cli_json("check", "q.onnx", "--reference", "f.onnx", "--images", few / "test", "--max-drop", "20")
    assert report["cosine"]["least"] > 0.9 and report["feature_sqnr_db"] > 15
    shown = cli("check", "q.onnx", "--reference", "f.onnx", "--images", few / "test", "--max-drop", "20").stdout
    assert f"mean {report['cosine']['mean']:.4f}" in shown and "nearest neighbour right, FP32" in shown


def test_classifier_and_embedder_know_each_others_bundles(
    backbone: Path, demo_bundle: Path, sneaker: Path, refused: Callable[..., str]
) -> None:
    assert refused(2, "classify", backbone, sneaker) == (
        f"bundle '{backbone}' gives features, not classes: open it with edge_resnet.Embedder"
    )
    assert refused(2, "embed", demo_bundle, sneaker, "-o", "x.npy") == (
        f"bundle '{demo_bundle}' classifies: open it with Classifier, or build it with include_top = false"
    )


@pytest.mark.parametrize(
    ("model", "message"),
    [
        (f'{MODEL}pooling = "mean"', "pooling"),
        (MODEL.replace("false", "true") + 'pooling = "avg"', "[model] has pooling, which is for features"),
        (f"{MODEL}classes = 10", "[model] has classes, and features have none"),
        (f'{MODEL}labels = "{demo.FOLDER / "labels.txt"}"', "labels are for a classifier"),
    ],
)
def test_recipes_that_contradict_themselves(
    model: str, message: str, recipe_file: Callable[..., Path], refused: Callable[..., str]
) -> None:
    assert message in refused(2, "build", recipe_file(model=model))


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (("--pooling", "avg"), "--pooling avg is for features: add --no-top"),
        (("--no-top", "--pooling", "mean"), "--pooling is 'mean': choose one of none, avg, max"),
        (("--no-top", "--classes", "5"), "--classes 5 is for a classifier: leave it out, or --no-top"),
        (("--no-top", "--labels", demo.FOLDER / "labels.txt"), "labels are for a classifier"),
    ],
)
def test_flags_that_contradict_each_other(flags: tuple[Any, ...], message: str, refused: Callable[..., str]) -> None:
    given = ("export", "--arch", "resnet20", "--weights", WEIGHTS, "--preprocessing", "fashion-mnist", "-o", "x.onnx")
    assert message in refused(2, *given, *flags)


@pytest.mark.parametrize("key", ["classes = 64", f'labels = "{demo.FOLDER / "labels.txt"}"'])
def test_an_onnx_of_features_has_neither_classes_nor_labels(
    key: str, cli_json: Callable[..., Any], recipe_file: Callable[..., Path], refused: Callable[..., str]
) -> None:
    export = ("export", "--arch", "resnet20", "--weights", WEIGHTS, "--preprocessing", "fashion-mnist", "--no-top")
    cli_json(*export, "--pooling", "avg", "-o", "f.onnx")
    line = refused(2, "build", recipe_file(model=f'onnx = "{Path("f.onnx").absolute()}"\n{key}'))
    name = key.split()[0]
    assert line.startswith(f"[model] has {name}, but ")
    assert line.endswith(f"f.onnx gives features, which have none: leave {name} out")


def test_a_foreign_onnx_of_features(
    recipe_file: Callable[..., Path], cli_json: Callable[..., Any], refused: Callable[..., str], frames: np.ndarray
) -> None:
    torch.onnx.export(
        load_model("resnet20", WEIGHTS, head="avg"),
        (torch.zeros(1, 1, 28, 28),),
        "f.onnx",
        dynamo=False,
        opset_version=17,
    )
    model = f'onnx = "{Path("f.onnx").absolute()}"\ninclude_top = false'
    built = cli_json("build", recipe_file(model=model), "-o", "f.edge")
    assert built["accuracy"]["cosine"]["mean"] > 0.99
    with edge_resnet.Embedder("f.edge") as embed:
        found = embed([frame[:, :, 0] for frame in frames])
    wanted = torch_features(frames, "avg")
    assert np.square(found - wanted).sum() < 1e-2 * np.square(wanted).sum()
    cli_json("export", "--arch", "resnet20", "--weights", WEIGHTS, "--preprocessing", "fashion-mnist", "-o", "top.onnx")
    model = model.replace("f.onnx", "top.onnx")
    line = refused(2, "build", recipe_file(model=model))
    assert line.endswith("top.onnx was exported with its top: leave it out")


def test_info_and_bench_of_a_feature_extractor(backbone: Path, cli_json: Callable[..., Any]) -> None:
    assert cli_json("info", backbone, "--verify")["labels"] is None
    assert json.dumps(cli_json("bench", backbone)["latency_ms"])
