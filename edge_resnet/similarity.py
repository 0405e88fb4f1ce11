"""Does the engine still see images as FP32 did? The comparison of feature extractors."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from edge_resnet.accuracy import Answers, Evaluated, Pair, Report, finite_answers, paired_drop, ratio_db

Vectors = npt.NDArray[np.float32]
"""float32 N×channels."""
_ROWS = 256
"""Images whose neighbours are searched together, which bounds the memory for distances."""


@dataclass(frozen=True)
class Cosine:
    """Cosine similarity of an image's features in FP32 and from the engine, 1 at best: over all images."""

    mean: float
    least: float


@dataclass(frozen=True)
class Nearest:
    """Share of images whose nearest other image, by cosine similarity of features, has their label."""

    fp32: float
    engine: float
    agreement: float
    """Share of images whose nearest image has the same label in both."""


@dataclass(frozen=True)
class EmbeddingReport(Report):
    """What a feature extractor's comparison says; its drop is that of the nearest neighbour's label."""

    cosine: Cosine
    feature_sqnr_db: float | None
    """10·log10(Σf² / Σ(f − f̂)²) over all images and features; None when they are identical."""
    nearest: Nearest | None
    """None without labels, or with one image alone."""

    @property
    def sqnr_db(self) -> float | None:
        return self.feature_sqnr_db

    @property
    def changed(self) -> float:
        return 1.0 if self.nearest is None else 1 - self.nearest.agreement


class _Tally:
    """Running sums of one comparison, and each image's vector, which its neighbours are searched among."""

    def __init__(self) -> None:
        self.signal = self.noise = 0.0
        self.cosines: list[npt.NDArray[np.float64]] = []
        self.fp32: list[Vectors] = []
        self.engine: list[Vectors] = []

    def add(self, reference: Answers, answers: Answers) -> None:
        self.signal += float(np.square(reference, dtype=np.float64).sum())
        self.noise += float(np.square(reference.astype(np.float64) - answers).sum())
        self.cosines.append(cosine_similarity(reference, answers))
        self.fp32.append(_vectors(reference))
        self.engine.append(_vectors(answers))


def cosine_similarity(a: Answers, b: Answers) -> npt.NDArray[np.float64]:
    """Of each image's features in ``a`` and ``b``, N×…; of two that are all zero 1, of one such 0."""
    x, y = (features.reshape(len(features), -1).astype(np.float64) for features in (a, b))
    norms = np.linalg.norm(x, axis=1), np.linalg.norm(y, axis=1)
    product = norms[0] * norms[1]
    safe = np.where(product > 0, product, 1)
    return np.asarray(np.where(product > 0, (x * y).sum(1) / safe, norms[0] == norms[1]), np.float64)


def _vectors(features: Answers) -> Vectors:
    """N×channels: a feature map's averages over height and width."""
    return features if features.ndim == 2 else features.mean(axis=(2, 3))


def nearest_labels(vectors: Vectors, labels: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """For each image the label of the nearest other one, by cosine similarity; N ≥ 2."""
    lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
    unit = vectors / np.where(lengths > 0, lengths, 1)
    found = np.empty(len(unit), np.int64)
    for start in range(0, len(unit), _ROWS):
        rows = np.arange(start, min(start + _ROWS, len(unit)))
        similarity = unit[rows] @ unit.T
        similarity[np.arange(len(rows)), rows] = -np.inf
        found[rows] = labels[similarity.argmax(1)]
    return found


def compare_features(
    pairs: Iterable[Pair],
    labels: Sequence[int] | None,
    *,
    engine_name: str,
    evaluated: Evaluated,
    max_drop: float = 1.0,
    strict: bool = False,
    advance: Callable[[int], None] = lambda done: None,
) -> EmbeddingReport:
    """Holds an engine's features against FP32's; arguments and errors as in ``accuracy.compare_answers``.

    The neighbours of feature maps are judged by the maps' averages over height and width.
    """
    tally = _Tally()
    for wanted, answers in finite_answers(pairs, engine_name, advance):
        tally.add(wanted, answers)
    cosines = np.concatenate(tally.cosines)
    nearest, drop = None, None
    if labels is not None and len(cosines) > 1:
        truth = np.asarray(labels, np.int64)
        fp32, quantized = (nearest_labels(np.concatenate(part), truth) for part in (tally.fp32, tally.engine))
        right = fp32 == truth, quantized == truth
        nearest = Nearest(float(right[0].mean()), float(right[1].mean()), float((fp32 == quantized).mean()))
        drop = paired_drop(int((right[0] & ~right[1]).sum()), int((right[1] & ~right[0]).sum()), len(truth))
    return EmbeddingReport(
        images=len(cosines),
        evaluated=evaluated,
        engine_name=engine_name,
        drop=drop,
        max_drop=max_drop,
        strict=strict,
        cosine=Cosine(float(cosines.mean()), float(cosines.min())),
        feature_sqnr_db=ratio_db(tally.signal, tally.noise),
        nearest=nearest,
    )
