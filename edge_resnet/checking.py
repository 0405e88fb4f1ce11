"""``check`` on files: a bundle, or a Q/DQ ONNX with the FP32 one it was made from."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from edge_resnet.accuracy import Evaluated
from edge_resnet.adoption import open_network
from edge_resnet.appearance import Appearance
from edge_resnet.bundle import BUNDLE_SUFFIX, FP32_MEMBER, Bundle, open_bundle
from edge_resnet.calibration.qdq import is_fp8
from edge_resnet.calibration_images import labelled
from edge_resnet.check import Gate, Judgement
from edge_resnet.check import judged as judged_pairs
from edge_resnet.compiling import lowered_from_bundle
from edge_resnet.engines.registry import engine_class
from edge_resnet.engines.targets import target_named
from edge_resnet.errors import ModelError
from edge_resnet.images import ImageSet, check_disjoint
from edge_resnet.loading import check_loadable, find_engine
from edge_resnet.onnx_file import gives_features, load_onnx, parse_onnx, read_metadata
from edge_resnet.preprocessing import Preprocessing
from edge_resnet.progress import Progress
from edge_resnet.trust import refuse_trust
from edge_resnet.workforce import (
    THIS_MACHINE,
    Answering,
    EngineNetwork,
    ExactNetwork,
    FloatNetwork,
    Workforce,
)


@dataclass(frozen=True)
class Judged:
    """What is to be judged."""

    source: Path
    """A ``.edge`` bundle or Q/DQ ONNX."""
    reference: Path | None = None
    """The FP32 ONNX; a bundle holds its own."""
    target: str | None = None
    """Which engine of a bundle, by default the first; what an ONNX file's prediction is for."""
    trust: Path | None = None
    """Of the bundle, as ``open_bundle`` takes it."""


@dataclass(frozen=True)
class Rival:
    """An engine to be judged, and what answers for it wherever that is run."""

    name: str
    network: Answering
    evaluated: Evaluated


def check_file(
    judged: Judged, images: ImageSet, gate: Gate, progress: Progress, workforce: Workforce = THIS_MACHINE
) -> Judgement:
    """Holds a bundle's engine, or a Q/DQ ONNX, against FP32.

    Args:
        judged: the file, and which of its engines.
        images: the evaluation images, labelled or not.
        gate: how much may be lost.
        progress: told of the images done, what labels were taken to mean, and images that look unlike calibration's.
        workforce: answers.

    Raises:
        ImageError: an evaluation image was used for calibration.
        ModelError: an ONNX file without ``reference``.
        TrustError: no trusted key has signed the bundle.
    """
    matching = _of_bundle if judged.source.suffix == BUNDLE_SUFFIX else _of_onnx
    matched = matching(judged, images, progress)
    answers = workforce.answers((matched.reference, matched.rival.network), matched.images, matched.preprocessing)
    pairs = ((wanted, found) for wanted, found in answers)
    features, labels = matched.features, matched.images.labels
    return judged_pairs(pairs, labels, matched.rival, gate, progress.advance, features=features)


@dataclass(frozen=True)
class _Match:
    """Two networks, and the images that they shall answer."""

    reference: Answering
    rival: Rival
    images: ImageSet
    preprocessing: Preprocessing
    features: bool


def _of_onnx(judged: Judged, images: ImageSet, progress: Progress) -> _Match:
    source, reference, target = judged.source, judged.reference, judged.target
    refuse_trust(source, judged.trust)
    if reference is None:
        raise ModelError(f"{source} holds no FP32 network to compare with: give it with --reference F.onnx")
    quantized = load_onnx(source)
    precision = "fp8" if is_fp8(quantized) else "int8"
    name = source.name if target is None else target_named(target).at(precision).name
    found = read_metadata(quantized, str(source))
    network = open_network(reference, found.preprocessing)
    if found.calibration is not None:
        check_disjoint(found.calibration["sha256"], images)
        _compare_looks(found.calibration, images, network.preprocessing, progress)
    labels = network.labels or found.labels
    rival = Rival(name, ExactNetwork(quantized), "predicted")
    known = images if labels is None else labelled(images, labels, progress)
    features = gives_features(network.model)
    if labels is None and images.labels is not None and not features:
        progress.note(f"{reference} names no classes: the folders of {images.root}, sorted, are taken for 0, 1, 2 …")
    return _Match(FloatNetwork(network.model), rival, known, network.preprocessing, features)


def _of_bundle(judged: Judged, images: ImageSet, progress: Progress) -> _Match:
    source, reference, target = judged.source, judged.reference, judged.target
    bundle = open_bundle(source, judged.trust)
    preprocessing = Preprocessing.from_json(bundle.manifest.preprocessing)
    original = (
        parse_onnx(bundle.read(FP32_MEMBER), FP32_MEMBER)
        if reference is None
        else open_network(reference, preprocessing).model
    )
    compare_with_calibration(bundle, images, progress)
    rival = rival_of(source, bundle, target or bundle.manifest.engines[0].target)
    labels = bundle.manifest.labels
    known = images if labels is None else labelled(images, labels, progress)
    return _Match(FloatNetwork(original), rival, known, preprocessing, labels is None)


def compare_with_calibration(bundle: Bundle, images: ImageSet, progress: Progress) -> None:
    """Notes when images look unlike those that a bundle was calibrated on.

    Raises:
        ImageError: some of them are those.
    """
    if bundle.manifest.calibration is not None:
        seen = bundle.manifest.calibration["images"]
        assert isinstance(seen, dict)
        check_disjoint(seen["sha256"], images)
        pruned = (bundle.manifest.provenance or {}).get("compression")
        if isinstance(pruned, dict):  # fine-tuned on images, maybe on others
            check_disjoint(pruned["images"]["sha256"], images)
        _compare_looks(seen, images, Preprocessing.from_json(bundle.manifest.preprocessing), progress)


def _compare_looks(
    calibrated: Mapping[str, object], images: ImageSet, preprocessing: Preprocessing, progress: Progress
) -> None:
    """Notes when the images look unlike those of calibration, where a file says what those look like."""
    if "appearance" in calibrated:
        looks = Appearance.from_json(calibrated["appearance"])
        note = looks.note_on(Appearance.of(images, preprocessing), preprocessing.color)
        if note is not None:
            progress.note(note)


def rival_of(path: Path, bundle: Bundle, target: str) -> Rival:
    """The engine itself, where it runs; else the exact evaluation of the graph that it is made from."""
    wanted = target_named(target).at(bundle.manifest.precision)
    engine = engine_class(wanted.kind)
    if engine.why_not_run(wanted) is None:
        found = find_engine(path, bundle, target)
        check_loadable(path, found)
        return Rival(wanted.name, EngineNetwork(found.target.kind, found.data), "measured")
    return Rival(wanted.name, ExactNetwork(lowered_from_bundle(path, bundle, engine).evaluated_as), "predicted")
