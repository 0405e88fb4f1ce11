"""Engines compiled after the bundle, beside it: found, bound to it, and refused when anything differs."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest

from edge_resnet import demo, loading
from edge_resnet.bundle import EngineEntry, open_bundle, write_bundle
from edge_resnet.chain import build
from edge_resnet.classifier import Classifier
from edge_resnet.companion import companion_path, engines_of, read_record, write_companion
from edge_resnet.compiling import compile_source, default_output, write_engine
from edge_resnet.errors import BundleError, TrustError, UnavailableError
from edge_resnet.images import open_images
from edge_resnet.inspection import verify_bundle
from edge_resnet.recipe import Recipe
from edge_resnet.signing import SigningKey, load_key, make_keys, sign_bundle


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


def killed_at(step: int, work: Callable[[], None]) -> bool:
    """Does work in a process that dies before a step of writing; whether it came so far."""
    child = os.fork()
    if child == 0:
        left = iter(range(step - 1))

        def mortal(function: Callable[..., Any]) -> Callable[..., Any]:
            def called(*arguments: Any, **named: Any) -> Any:
                if next(left, None) is None:
                    os._exit(9)
                return function(*arguments, **named)

            return called

        try:
            os.replace, os.fsync = mortal(os.replace), mortal(os.fsync)
            Path.unlink = mortal(Path.unlink)  # type: ignore[method-assign]
            work()
        finally:
            os._exit(0)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 9


@pytest.mark.parametrize("there", ["nothing", "an older engine"])
def test_compiling_that_is_killed_as_it_writes_leaves_no_engine_that_is_refused(
    engine: Path, bundle: Path, there: str, caplog: pytest.LogCaptureFixture
) -> None:
    """At every step: none of it, or all of it; where the record alone is there, that is said."""
    opened, data, record = open_bundle(bundle), engine.read_bytes(), engine.with_suffix(".json").read_bytes()
    made = compile_source(bundle, "cpu").compiled
    new = replace(made, data=made.data + b"\x82\x01\x00")  # of an unknown field
    outcomes = []
    for step in range(1, 20):
        for path in (engine, engine.with_suffix(".json")):
            path.unlink(missing_ok=True)
        if there == "an older engine":
            engine.write_bytes(data)
            engine.with_suffix(".json").write_bytes(record)
        killed = killed_at(step, lambda: write_companion(engine, "cpu", opened.digest, new, None))
        caplog.clear()
        kept = engines_of(bundle, opened).get("cpu")
        outcomes.append({None: "none", data: "old", new.data: "new"}[kept and kept.data])
        alone = not engine.exists() and engine.with_suffix(".json").exists()
        assert ("is not there, but its record is: compile it again" in caplog.text) == alone
        if not killed:
            break
    assert not killed and outcomes[-1] == "new"
    assert outcomes[0] == ("none" if there == "nothing" else "old")
    assert outcomes == sorted(outcomes, key=["old", "none", "new"].index), "once it is there, it stays"


# Where a bundle must be signed, so must an engine beside it: whoever can write the folder can write its record.


def never() -> str:
    raise AssertionError("nobody is asked for a passphrase")


@pytest.fixture
def keys(bundle: Path) -> Path:
    """A folder that trusts the build server's key, which has signed the bundle, and this device's own."""
    folder = bundle.parent / "keys"
    folder.mkdir()
    for name in ("server", "device", "stranger"):
        make_keys(bundle.with_name(name))
    for name in ("server", "device"):
        bundle.with_name(f"{name}.pub").rename(folder / f"{name}.pub")
    sign_bundle(bundle, key_of(bundle, "server"))
    return folder


def key_of(bundle: Path, name: str) -> SigningKey:
    return load_key(bundle.with_name(f"{name}.key"), never)


def test_an_engine_that_the_device_signed_is_trusted(bundle: Path, keys: Path, sneaker: Path) -> None:
    write_engine(compile_source(bundle, "cpu", trust=keys), default_output(bundle, "cpu"), key_of(bundle, "device"))
    with Classifier(bundle, trust=keys) as classify:
        assert classify(sneaker).label == "sneaker"


@pytest.mark.parametrize(
    "forged", ["unsigned", "stranger", "other record", "bundle's signature", "no signature at all"]
)
def test_an_engine_of_nobodys_is_refused_before_it_is_loaded(
    engine: Path, bundle: Path, keys: Path, forged: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    signature = engine.with_suffix(".sig")
    if forged in ("stranger", "other record"):
        name = "stranger" if forged == "stranger" else "device"
        write_engine(compile_source(bundle, "cpu"), engine, key_of(bundle, name))
    if forged == "other record":  # as whoever replaces the engine has to make it
        engine.write_bytes(b"another engine")
        edited(engine=hashlib.sha256(b"another engine").hexdigest())(engine)
    if forged == "bundle's signature":
        signature.write_bytes(bundle.read_bytes()[bundle.read_bytes().rindex(b"ed25519 ") :])
    if forged == "no signature at all":
        signature.write_bytes(b"trust me")
    reasons = {
        "stranger": "is signed by .*, and .*keys has device.pub",
        "other record": "has a signature of device.pub .* that is not over these bytes",
        "bundle's signature": "has a signature of server.pub .* that is not over these bytes",
    }
    monkeypatch.setattr(loading, "engine_class", lambda kind: pytest.fail("an engine was to be loaded"))
    with pytest.raises(TrustError, match=f"^engine .*model.cpu.engine {reasons.get(forged, 'is not signed')}"):
        Classifier(bundle, trust=keys)


def test_an_engine_is_not_loaded_from_a_bundle_of_nobodys(
    small_recipe: Recipe, keys: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = replace(small_recipe, build=replace(small_recipe.build, precision="fp32"))
    assert build(recipe).failures == ()
    monkeypatch.setattr(loading, "engine_class", lambda kind: pytest.fail("an engine was to be loaded"))
    with pytest.raises(TrustError, match="model.edge' is not signed"):
        Classifier(recipe.build.output, trust=keys)


def test_a_new_engine_leaves_no_old_signature(engine: Path, bundle: Path, keys: Path) -> None:
    made = compile_source(bundle, "cpu")
    write_engine(made, engine, key_of(bundle, "device"))
    assert engine.with_suffix(".sig").is_file()
    write_engine(made, engine)
    assert not engine.with_suffix(".sig").exists()


def test_verification_runs_an_engine_that_was_deferred_and_lies_beside_the_bundle(bundle: Path) -> None:
    opened = open_bundle(bundle)
    deferred = EngineEntry("cpu", "onnxruntime", "fp32", None, {}, "deferred")
    manifest = replace(opened.manifest, engines=(*opened.manifest.engines, deferred))
    write_bundle(bundle, manifest, {name: opened.read(name) for name in opened.names})
    assert {each["target"]: each["passed"] for each in verify_bundle(bundle)} == {"jetson-orin-nano": None, "cpu": None}
    write_engine(compile_source(bundle, "cpu"), default_output(bundle, "cpu"))
    found = {each["target"]: each for each in verify_bundle(bundle)}
    assert (found["jetson-orin-nano"]["passed"], found["cpu"]["passed"]) == (None, True)
    opened_again = open_bundle(bundle)
    write_bundle(bundle, opened.manifest, {name: opened_again.read(name) for name in opened_again.names})
    write_engine(compile_source(bundle, "cpu"), default_output(bundle, "cpu"))
    assert [each["target"] for each in verify_bundle(bundle)] == ["jetson-orin-nano", "cpu"], "also one not listed"
