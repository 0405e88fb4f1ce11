"""Engines compiled after the bundle, beside it: found, bound to it, and refused when anything differs."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnxruntime
import pytest

from edge_resnet import demo
from edge_resnet.bundle import open_bundle
from edge_resnet.chain import build
from edge_resnet.classifier import Classifier
from edge_resnet.companion import companion_path, engines_of, read_record
from edge_resnet.compiling import compile_source, default_output, write_engine
from edge_resnet.errors import BundleError, UnavailableError
from edge_resnet.images import open_images
from edge_resnet.recipe import Recipe


@pytest.fixture
def bundle(small_recipe: Recipe) -> Path:
    """A bundle whose only engine is yet to be made on a Jetson; FP32, so that it can be made here for the CPU too."""
    recipe = replace(small_recipe, build=replace(small_recipe.build, targets=("jetson-orin-nano",), precision="fp32"))
    assert build(recipe).failures == ()
    return recipe.build.output


@pytest.fixture
def engine(bundle: Path) -> Path:
    """The CPU engine beside it."""
    place = default_output(bundle, "cpu")
    write_engine(compile_source(bundle, "cpu"), place)
    return place


def test_a_bundle_gains_an_engine_without_being_edited(bundle: Path, sneaker: Path) -> None:
    before = bundle.read_bytes()
    with pytest.raises(UnavailableError, match="no engine of .*model.edge runs here: it holds none"):
        Classifier(bundle)
    place = default_output(bundle, "CPU")
    write_engine(compile_source(bundle, "cpu"), place)
    assert sorted(path.name for path in bundle.parent.iterdir()) == ["model.cpu.engine", "model.cpu.json", "model.edge"]
    assert bundle.read_bytes() == before
    with Classifier(bundle) as classify:
        assert (classify.target, classify(sneaker).label) == ("cpu", "sneaker")


def test_the_engine_answers_as_the_bundles_network(engine: Path, bundle: Path, demo_onnx: Path) -> None:
    images = open_images(demo.TEST, 10)
    with Classifier(bundle, target="cpu") as classify:
        found = np.stack([prediction.logits for prediction in classify(list(images.paths))])
        frames = images.pixels(classify.preprocessing)
    wanted = onnxruntime.InferenceSession(str(demo_onnx)).run(None, {"frames": frames})[0]
    np.testing.assert_allclose(found, wanted, rtol=0, atol=1e-4)


def test_the_record_names_bundle_engine_and_versions(engine: Path, bundle: Path) -> None:
    record = read_record(engine)
    assert record["bundle"] == open_bundle(bundle).digest
    assert record["engine"] == hashlib.sha256(engine.read_bytes()).hexdigest()
    assert (record["target"], record["kind"]) == ("cpu", "onnxruntime")
    assert "onnxruntime" in record["versions"]
    assert companion_path(bundle, "cpu") == engine


def edited(**changes: object) -> Callable[[Path], None]:
    def edit(engine: Path) -> None:
        path = engine.with_suffix(".json")
        path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))

    return edit


def rewritten(text: str) -> Callable[[Path], None]:
    return lambda engine: (engine.with_suffix(".json").write_text(text), None)[1]


def flipped(engine: Path) -> None:
    data = bytearray(engine.read_bytes())
    data[len(data) // 2] ^= 1
    engine.write_bytes(data)


DAMAGES: dict[str, tuple[Callable[[Path], None], str]] = {
    "no record": (lambda engine: engine.with_suffix(".json").unlink(), "has no readable record"),
    "no JSON": (rewritten("{"), "has no readable record"),
    "nested for ever": (rewritten("[" * 100_000), "has no readable record"),
    "another JSON": (rewritten("[]"), "has a record of another kind"),
    "a newer record": (edited(format=3), "has a record of another kind"),
    "of another bundle": (edited(bundle="0" * 64), "was compiled for another target or from another bundle"),
    "for another target": (edited(target="rtx"), "was compiled for another target or from another bundle"),
    "another engine": (edited(engine="0" * 64), "is not the engine that its record names"),
    "a changed byte": (flipped, "is not the engine that its record names"),
    "cut short": (lambda engine: engine.write_bytes(engine.read_bytes()[:-1]) and None, "is not the engine that its"),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_an_engine_that_differs_from_its_record_is_not_loaded(damage: str, engine: Path, bundle: Path) -> None:
    change, reason = DAMAGES[damage]
    change(engine)
    with pytest.raises(BundleError, match=reason) as caught:
        Classifier(bundle)
    assert "remove it, or make it again with `edge-resnet compile`" in str(caught.value)
    engine.unlink()
    with pytest.raises(UnavailableError):
        Classifier(bundle)


def test_the_engine_of_a_bundle_that_was_built_again_is_not_loaded(
    engine: Path, bundle: Path, small_recipe: Recipe
) -> None:
    assert engines_of(bundle, open_bundle(bundle)).keys() == {"cpu"}
    build(replace(small_recipe, build=replace(small_recipe.build, targets=("jetson-orin-nano",))))
    with pytest.raises(BundleError, match="from another bundle"):
        Classifier(bundle)
