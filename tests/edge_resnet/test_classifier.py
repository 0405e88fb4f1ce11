"""The runtime on the demo bundle, against ONNX Runtime run by hand on the pixels that ``check`` sees."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnxruntime
import pytest
from PIL import Image

import edge_resnet
from edge_resnet import demo
from edge_resnet.bundle import MEASURED_ON, open_bundle, write_bundle
from edge_resnet.classifier import Classifier
from edge_resnet.engines import cuda
from edge_resnet.engines.ort import OrtEngine
from edge_resnet.engines.processor import cpu_name
from edge_resnet.errors import (
    BundleError,
    EdgeResnetError,
    EngineError,
    GateError,
    ImageError,
    UnavailableError,
)
from edge_resnet.images import open_images
from edge_resnet.preprocessing import NAMED

LABELS = ("t-shirt", "trouser", "pullover", "dress", "coat", "sandal", "shirt", "sneaker", "bag", "ankle-boot")
needs_no_gpu = pytest.mark.skipif(cuda.gpu_sm() is not None, reason="this host has an NVIDIA GPU")


@pytest.fixture(scope="module")
def classify(demo_bundle: Path) -> Classifier:
    return Classifier(demo_bundle, target="cpu")


def by_hand(bundle: Path, frames: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
    """The CPU engine's logits, from the engine as it lies in the bundle."""
    session = onnxruntime.InferenceSession(open_bundle(bundle).read("engines/cpu.onnx"))
    return session.run(None, {"frames": frames})[0]


def test_the_same_logits_as_check_sees_from_every_kind_of_frame(classify: Classifier, demo_bundle: Path) -> None:
    images = open_images(demo.TEST, 20)
    wanted = by_hand(demo_bundle, images.pixels(NAMED["fashion-mnist"]))
    for path, logits in zip(images.paths, wanted, strict=True):
        image = Image.open(path)
        pixels = np.asarray(image)
        for frame in (path, str(path), image, pixels, pixels[:, :, np.newaxis], np.asfortranarray(pixels)):
            found = classify(frame)
            np.testing.assert_allclose(found.logits, logits, rtol=0, atol=1e-4)
            assert found.index == logits.argmax()
            assert found.label == LABELS[found.index]


def test_most_of_the_demo_is_right(classify: Classifier) -> None:
    images = open_images(demo.TEST, 200).with_labels_of(LABELS)
    assert images.labels is not None
    found = classify(list(images.paths))
    assert np.mean([p.index == label for p, label in zip(found, images.labels, strict=True)]) > 0.9


def test_a_list_is_answered_as_its_frames_one_by_one(classify: Classifier) -> None:
    paths = open_images(demo.TEST, 10).paths
    large = Image.open(paths[0]).resize((300, 200))
    mixed: list[Path | str | Image.Image | npt.NDArray[np.uint8]] = [*paths[:3], str(paths[3]), large]
    mixed.append(np.asarray(large.convert("RGB")))
    together, single = classify(mixed), [classify(frame) for frame in mixed]
    assert [p.index for p in together] == [p.index for p in single]
    for one, other in zip(together, single, strict=True):
        np.testing.assert_allclose(one.logits, other.logits, rtol=0, atol=1e-4)
    assert isinstance(classify([paths[0]]), list)


def test_a_colour_frame_is_luma_for_a_grey_network(classify: Classifier, demo_bundle: Path) -> None:
    colour = np.random.default_rng(0).integers(0, 256, (28, 28, 3), np.uint8)
    luma = np.round(colour @ np.array([0.299, 0.587, 0.114]))  # ITU-R 601-2, as Pillow's L up to rounding
    wanted = by_hand(demo_bundle, luma.astype(np.uint8)[np.newaxis, :, :, np.newaxis])[0]
    found = classify(colour).logits
    assert np.abs(found - wanted).max() < 0.05 * np.abs(wanted).max()
    grey = np.repeat(colour[:, :, :1], 3, axis=2)
    np.testing.assert_allclose(classify(grey).logits, classify(colour[:, :, 0]).logits, rtol=0, atol=1e-4)


def test_probabilities_are_the_softmax_of_the_logits(classify: Classifier, sneaker: Path) -> None:
    found = classify(sneaker)
    powers = [math.exp(float(logit)) for logit in found.logits]
    ranked = found.top(10)
    for prediction in ranked:
        assert prediction.probability == pytest.approx(powers[prediction.index] / sum(powers), rel=1e-12)
        assert prediction.label == LABELS[prediction.index]
    assert sum(p.probability for p in ranked) == pytest.approx(1)
    assert sorted(p.index for p in ranked) == list(range(10))
    assert [p.probability for p in ranked] == sorted((p.probability for p in ranked), reverse=True)
    assert (ranked[0], found.label) == (found, "sneaker")
    assert [len(found.top(k)) for k in (1, 3, 5, 10, 99)] == [1, 3, 5, 10, 10]
    assert len(found.top()) == 5
    assert found.top(3) == ranked[:3]


@pytest.mark.parametrize(
    ("frame", "reason"),
    [
        (np.zeros((28, 28), np.float32), "frame 0 has dtype float32: give uint8"),
        (np.zeros((28, 28), np.int64), "frame 0 has dtype int64: give uint8"),
        (np.zeros((2, 28, 28, 1), np.uint8), "frame 0 has shape (2, 28, 28, 1): give one frame"),
        (np.zeros(28, np.uint8), "frame 0 has shape (28,): give one frame"),
        (np.zeros((28, 28, 2), np.uint8), "2 channels: give H×W×3 RGB or H×W grey"),
        (np.zeros((28, 28, 4), np.uint8), "frame 0 has 4 channels: give its 3 colours"),
        (np.zeros((0, 28, 3), np.uint8), "it is empty, give at least one pixel"),
        (b"JPEG", "frame 0 is of type bytes"),
        (None, "frame 0 is of type NoneType"),
        ([], "an empty list of frames: give at least one"),
        ([np.zeros((28, 28), np.uint8), np.zeros((28, 28), bool)], "frame 1 has dtype bool: give uint8"),
        ("missing.png", "missing.png does not exist: check the path"),
    ],
)
def test_frames_that_are_refused(frame: object, reason: str, classify: Classifier) -> None:
    with pytest.raises(ImageError) as caught:
        classify(frame)  # type: ignore[call-overload]
    assert reason in str(caught.value)


def test_what_a_classifier_says_of_itself(classify: Classifier) -> None:
    assert (classify.target, classify.labels) == ("cpu", LABELS)
    assert classify.preprocessing == NAMED["fashion-mnist"]
    assert edge_resnet.Classifier is Classifier


def test_a_closed_classifier_says_so(demo_bundle: Path, sneaker: Path) -> None:
    with Classifier(demo_bundle, target="cpu") as classify:
        assert classify(sneaker).label == "sneaker"
    with pytest.raises(EngineError, match="this engine is closed"):
        classify(sneaker)
    classify.close()


# Which engine.


@needs_no_gpu
def test_the_engine_that_runs_here_is_chosen(demo_bundle: Path) -> None:
    assert Classifier(demo_bundle).target == "cpu"


def test_a_target_that_the_bundle_has_no_engine_for(demo_bundle: Path) -> None:
    with pytest.raises(EngineError, match="unknown target 'cqu': did you mean 'cpu'"):
        Classifier(demo_bundle, target="cqu")
    with pytest.raises(UnavailableError, match="has no engine for 'jetson-orin-nano' .it has cpu, rtx.: run `edge-res"):
        Classifier(demo_bundle, target="jetson_orin_nano")


@needs_no_gpu
def test_a_bundle_for_another_device_alone(demo_bundle: Path, tmp_path: Path) -> None:
    bundle = open_bundle(demo_bundle)
    elsewhere = replace(bundle.manifest, engines=bundle.manifest.engines[1:])
    write_bundle(tmp_path / "rtx.edge", elsewhere, {name: bundle.read(name) for name in bundle.names})
    for target in (None, "rtx"):
        with pytest.raises(UnavailableError, match="rtx.edge runs here: rtx: needs an NVIDIA GPU") as caught:
            Classifier(tmp_path / "rtx.edge", target=target)
        assert caught.value.exit_code == 4
        assert "SM 75" not in str(caught.value), "an INT8 engine is not for Turing, whatever else the target is for"


def test_files_that_are_no_bundle(demo_onnx: Path, tmp_path: Path) -> None:
    with pytest.raises(BundleError, match="not an edge-resnet bundle"):
        Classifier(demo_onnx)
    with pytest.raises(BundleError, match="does not exist"):
        Classifier(tmp_path / "missing.edge")
    for error in (BundleError, ImageError, EngineError, UnavailableError):
        assert issubclass(error, EdgeResnetError), "one class to catch"


# Another device than the bundle was built on.


def test_the_bundle_says_where_its_engine_was_measured(demo_build: edge_resnet.BuildResult) -> None:
    engines = {entry.target: entry.versions for entry in open_bundle(Path(str(demo_build.bundle))).manifest.engines}
    assert engines["cpu"][MEASURED_ON] == cpu_name()


def test_an_engine_that_answers_otherwise_on_another_cpu_is_refused(
    demo_build: edge_resnet.BuildResult, monkeypatch: pytest.MonkeyPatch
) -> None:
    built_here, answer = str(demo_build.bundle), OrtEngine._run

    def saturated(self: OrtEngine, frames: npt.NDArray[np.uint8], *rest: Any) -> npt.NDArray[np.float32]:
        return np.minimum(answer(self, frames, *rest), 1)

    monkeypatch.setattr(OrtEngine, "_run", saturated)
    Classifier(built_here, target="cpu").close()  # the same CPU: nothing is run
    monkeypatch.setattr(OrtEngine, "device", lambda self: "Haswell")
    with pytest.raises(
        GateError, match=r"the engine for cpu answers the golden samples -?\d+\.\d dB off .* \(Haswell; it"
    ):
        Classifier(built_here, target="cpu")
    monkeypatch.setattr(OrtEngine, "_run", answer)
    Classifier(built_here, target="cpu").close()
