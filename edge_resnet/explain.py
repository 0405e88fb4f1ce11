"""Explaining a prediction: where FP32 and the quantized network look for a class, and how far that moved."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import numpy.typing as npt
import onnx
import onnxruntime

from edge_resnet.accuracy import softmax
from edge_resnet.attention import activation_map, head_of, occlusion_map, with_features
from edge_resnet.bundle import FP32_MEMBER, QDQ_MEMBER, Bundle, open_bundle
from edge_resnet.calibration.simulate import exact_session, fast_session
from edge_resnet.errors import BundleError
from edge_resnet.images import read_image
from edge_resnet.onnx_file import parse_onnx
from edge_resnet.preprocessing import Preprocessing


@dataclass(frozen=True)
class View:
    """What one network says of a frame, and where it looks."""

    precision: str
    logits: npt.NDArray[np.float32]
    map: npt.NDArray[np.float32]
    """h×w: what of the class's logit comes from each part of the frame: its mean, plus the bias, is the logit (``cam``);
    or what the logit loses when the part is covered (``occlusion``)."""

    @cached_property
    def probabilities(self) -> npt.NDArray[np.float64]:
        """Softmax of the logits."""
        return softmax(self.logits)

    @property
    def answer(self) -> int:
        """The most probable class."""
        return int(self.logits.argmax())


@dataclass(frozen=True)
class Explanation:
    """The same class of the same frame, seen by FP32 and by the quantized network."""

    frame: npt.NDArray[np.uint8]
    """H×W×C, as the networks saw it."""
    preprocessing: Preprocessing
    labels: tuple[str, ...]
    index: int
    """The class that is explained."""
    method: str
    """``cam`` or ``occlusion``."""
    fp32: View
    quantized: View
    """Evaluated exactly from the Q/DQ graph: a compiled engine gives no map, so this is a prediction of it."""

    @property
    def correlation(self) -> float | None:
        """Pearson's, of the two maps; None where one of them is the same everywhere."""
        one, other = (each.map.astype(np.float64).ravel() for each in (self.fp32, self.quantized))
        if np.ptp(one) == 0 or np.ptp(other) == 0:
            return None
        return float(np.corrcoef(one, other)[0, 1])

    @property
    def largest_change(self) -> float:
        """The largest difference of the maps, as a share of the largest value in FP32's; 0 where both are 0."""
        most = float(np.abs(self.fp32.map).max())
        change = float(np.abs(self.quantized.map - self.fp32.map).max())
        return change / most if most > 0 else float(change > 0)

    def maximum(self, view: View) -> tuple[float, float]:
        """Where a map is largest: x and y of the middle of that part, in pixels of the frame."""
        row, column = np.unravel_index(int(view.map.argmax()), view.map.shape)
        (height, width), (rows, columns) = self.frame.shape[:2], view.map.shape
        return (int(column) + 0.5) * width / columns, (int(row) + 0.5) * height / rows

    @property
    def shift(self) -> float:
        """How far the maximum moved, in pixels of the frame."""
        return math.dist(self.maximum(self.fp32), self.maximum(self.quantized))


def explain(path: Path, image: Path, label: str | None = None, trust: Path | None = None) -> Explanation:
    """Maps one image's class for FP32 and for the quantized network of a bundle.

    Networks that end in a global average and a linear layer give class activation maps, all others occlusion maps.

    Args:
        path: a ``.edge`` bundle in INT8 or FP8.
        image: an image file.
        label: the class; None: the one that FP32 answers with.
        trust: public keys, of which one must have signed the bundle; None asks for none.

    Raises:
        BundleError: the bundle is damaged, gives features, has no quantized network, or does not know the label.
        ImageError: the image cannot be read.
        TrustError: no trusted key has signed the bundle.
    """
    bundle = open_bundle(path, trust)
    labels = _labels(path, bundle)
    preprocessing = Preprocessing.from_json(bundle.manifest.preprocessing)
    frame = preprocessing.prepare(read_image(image), str(image))
    fp32, quantized = (parse_onnx(bundle.read(name), name) for name in (FP32_MEMBER, QDQ_MEMBER))
    sighted = head_of(fp32) is not None and head_of(quantized) is not None
    cover = None if sighted else np.rint(255 * np.array(preprocessing.mean)).astype(np.uint8)
    index = _answer(fp32, frame) if label is None else _index(label, labels)
    views = [
        View("fp32", *_seen(fp32, fast_session, frame, index, cover)),
        View(bundle.manifest.precision, *_seen(quantized, exact_session, frame, index, cover)),
    ]
    return Explanation(frame, preprocessing, labels, index, "cam" if sighted else "occlusion", *views)


def _labels(path: Path, bundle: Bundle) -> tuple[str, ...]:
    if bundle.manifest.labels is None:
        raise BundleError(f"{path} gives features, not classes: there is no answer to explain; give a classifier")
    if QDQ_MEMBER not in bundle.names:
        raise BundleError(
            f"{path} is {bundle.manifest.precision} and holds no quantized network to compare with: build it with "
            "--precision int8"
        )
    return bundle.manifest.labels


def _index(label: str, labels: tuple[str, ...]) -> int:
    if labels.count(label) != 1:
        known = ", ".join(labels[:10]) + (", …" if len(labels) > 10 else "")
        raise BundleError(
            f"class '{label}' is {labels.count(label)} of the {len(labels)} labels: choose one of {known}"
        )
    return labels.index(label)


def _answer(model: onnx.ModelProto, frame: npt.NDArray[np.uint8]) -> int:
    session = fast_session(model)
    return int(session.run(None, {session.get_inputs()[0].name: frame[np.newaxis]})[0].argmax())


def _seen(
    model: onnx.ModelProto,
    opened: Callable[[onnx.ModelProto], onnxruntime.InferenceSession],
    frame: npt.NDArray[np.uint8],
    index: int,
    cover: npt.NDArray[np.uint8] | None,
) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]]:
    """The logits and the map; ``cover`` None: a class activation map."""
    if cover is not None:
        return occlusion_map(opened(model), frame, index, cover)
    head = head_of(model)
    assert head is not None
    return activation_map(opened(with_features(model, head)), head, frame, index)
