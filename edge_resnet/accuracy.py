"""Does the engine still answer as FP32 did? Both on the same images, and the paired interval of the difference."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from bisect import bisect_left
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from edge_resnet.errors import GateError, ModelError

Logits = npt.NDArray[np.float32]
"""float32 N×classes."""
Answers = npt.NDArray[np.float32]
"""Logits, or features N×channels or N×channels×h×w."""
Run = Callable[[npt.NDArray[np.uint8]], Answers]
"""uint8 frames N×H×W×C → answers."""
Pair = tuple[Answers, Answers]
"""FP32's answers to a batch, and an engine's to the same."""
Evaluated = Literal["measured", "predicted"]

Z95 = 1.959963984540054
"""The 97.5 % point of the standard normal distribution."""
LEAST_ALIKE = 0.5
"""Share of images that one network's INT8 and FP32 agree on at the very least: saturating sums, the worst that
``benchmarks`` met, left 0.9."""
MANY = 10_000_000
"""More images than anybody labels."""


@dataclass(frozen=True)
class TopK:
    """Accuracies, fractions from 0 to 1; None without labels. ``top5`` is None below six classes."""

    top1: float | None
    top5: float | None


@dataclass(frozen=True)
class Drop:
    """FP32 top-1 minus engine top-1, in points (positive: the engine is worse), with its 95 % interval."""

    points: float
    ci95: tuple[float, float]
    lost: int
    """Images that FP32 gets right and the engine wrong."""
    won: int
    """Images that the engine gets right and FP32 wrong."""


@dataclass(frozen=True)
class Report(ABC):
    """FP32 and one engine on the same images: what every comparison says, and the gate."""

    images: int
    evaluated: Evaluated
    """``measured``: the engine itself ran. ``predicted``: its Q/DQ graph was evaluated exactly in its place."""
    engine_name: str
    drop: Drop | None
    """None without labels."""
    max_drop: float
    strict: bool

    @property
    @abstractmethod
    def sqnr_db(self) -> float | None:
        """Signal to noise ratio of the answers; None when they are identical."""

    @property
    @abstractmethod
    def changed(self) -> float:
        """Share of images that are answered otherwise than by FP32, as far as that is known; else 1."""

    @property
    def unlike(self) -> bool:
        """Whether the answers differ by more than they say: these are two networks, or one is broken."""
        return self.sqnr_db is not None and self.sqnr_db <= 0

    @property
    def worst_drop(self) -> float:
        """Points that may be lost: the interval's upper end, or, without labels, every answer that changed."""
        return 100 * self.changed if self.drop is None else self.drop.ci95[1]

    @property
    def passed(self) -> bool:
        """Whether the drop, with ``strict`` the worst that it may be, is at most ``max_drop``, and the two are alike.

        Without labels the drop is not known, and only ``strict`` asks for it.
        """
        if self.unlike:
            return False
        if self.strict:
            return self.worst_drop <= self.max_drop
        return self.drop is None or self.drop.points <= self.max_drop

    @property
    def images_to_be_sure(self) -> int | None:
        """How many images would bring the interval's upper end to ``max_drop``, were the same share of them lost and
        won; None when it is there already, or when not even ``MANY`` would do.
        """
        if self.drop is None or self.drop.ci95[1] <= self.max_drop:
            return None
        lost, won = self.drop.lost / self.images, self.drop.won / self.images

        def enough(images: int) -> bool:
            return _ci95(lost * images, won * images, images)[1] <= self.max_drop

        return bisect_left(range(MANY), True, lo=self.images, key=enough) if enough(MANY) else None

    def to_json(self) -> dict[str, Any]:
        """The document that ``check --json`` prints."""
        document = asdict(self)
        if self.drop is not None:
            document["drop"]["ci95"] = list(self.drop.ci95)
        return {**document, "passed": self.passed, "images_to_be_sure": self.images_to_be_sure}


@dataclass(frozen=True)
class AccuracyReport(Report):
    """What a classifier's comparison says."""

    fp32: TopK
    engine: TopK
    agreement: float
    """Share of images whose most probable class is the same."""
    logit_sqnr_db: float | None
    """10·log10(Σz² / Σ(z − ẑ)²) over all images and classes; None when the logits are identical."""

    @property
    def sqnr_db(self) -> float | None:
        return self.logit_sqnr_db

    @property
    def changed(self) -> float:
        return 1 - self.agreement

    @property
    def unlike(self) -> bool:
        """Logits that lean to the same classes whatever the image have something in common, in any two networks."""
        return super().unlike or self.agreement < LEAST_ALIKE


def paired_drop(lost: int, won: int, images: int) -> Drop:
    """The drop in top-1 and its 95 % interval, from the images that only one of the two got right.

    Args:
        lost: images that FP32 gets right and the engine wrong.
        won: images that the engine gets right and FP32 wrong.
        images: all images.
    """
    return Drop(100 * (lost - won) / images, _ci95(lost, won, images), lost, won)


def _ci95(lost: float, won: float, images: int) -> tuple[float, float]:
    """The interval of the drop, in points.

    The adjusted Wald interval for paired proportions: one discordant pair is added on each side, and the Wald interval
    is taken of the result (Bonett and Price, "Adjusted Wald Confidence Interval for a Difference of Binomial
    Proportions Based on Paired Data", Journal of Educational and Behavioral Statistics 37(4), 2012, equation 4).
    """
    p_lost, p_won = (lost + 1) / (images + 2), (won + 1) / (images + 2)
    middle = p_lost - p_won
    half = Z95 * math.sqrt((p_lost + p_won - middle**2) / (images + 2))
    return 100 * max(-1.0, middle - half), 100 * min(1.0, middle + half)


class _Tally:
    """Running counts of one comparison."""

    def __init__(self) -> None:
        self.images = self.agreed = self.lost = self.won = 0
        self.top1, self.top5 = [0, 0], [0, 0]
        self.signal = self.noise = 0.0

    def add(self, reference: Logits, answer: Logits, labels: npt.NDArray[np.int64] | None) -> None:
        self.images += len(reference)
        self.agreed += int((reference.argmax(1) == answer.argmax(1)).sum())
        self.signal += float(np.square(reference, dtype=np.float64).sum())
        self.noise += float(np.square(reference.astype(np.float64) - answer).sum())
        if labels is None:
            return
        right = [logits.argmax(1) == labels for logits in (reference, answer)]
        for index, logits in enumerate((reference, answer)):
            self.top1[index] += int(right[index].sum())
            self.top5[index] += int(_among_first(logits, labels, 5).sum())
        self.lost += int((right[0] & ~right[1]).sum())
        self.won += int((right[1] & ~right[0]).sum())


def _among_first(logits: Logits, labels: npt.NDArray[np.int64], k: int) -> npt.NDArray[np.bool_]:
    own = np.take_along_axis(logits, labels[:, None], axis=1)
    return np.asarray((logits > own).sum(1) < k)


def compare_answers(
    pairs: Iterable[Pair],
    labels: Sequence[int] | None,
    *,
    engine_name: str,
    evaluated: Evaluated,
    max_drop: float = 1.0,
    strict: bool = False,
    advance: Callable[[int], None] = lambda done: None,
) -> AccuracyReport:
    """Holds an engine's answers against FP32's, and counts.

    Args:
        pairs: FP32's answers to a batch of frames and the engine's to the same, batch after batch (``paired_answers``).
        labels: a class index a frame, in the frames' order, or None.
        engine_name: for the report.
        evaluated: whether the engine itself runs.
        max_drop: the gate, in points of top-1.
        strict: whether the interval's upper end must pass the gate too.
        advance: called with the number of images done.

    Raises:
        ModelError: the reference answers NaN or infinity.
        GateError: the engine does.
    """
    tally, classes = _Tally(), 0
    for wanted, answers in finite_answers(pairs, engine_name, advance):
        classes, end = wanted.shape[1], tally.images + len(wanted)
        tally.add(wanted, answers, None if labels is None else np.asarray(labels[tally.images : end], np.int64))
    n = tally.images
    fp32, quantized = (
        TopK(tally.top1[i] / n, tally.top5[i] / n if classes > 5 else None) if labels is not None else TopK(None, None)
        for i in (0, 1)
    )
    return AccuracyReport(
        images=n,
        evaluated=evaluated,
        engine_name=engine_name,
        fp32=fp32,
        engine=quantized,
        agreement=tally.agreed / n,
        logit_sqnr_db=ratio_db(tally.signal, tally.noise),
        drop=None if labels is None else paired_drop(tally.lost, tally.won, n),
        max_drop=max_drop,
        strict=strict,
    )


def paired_answers(reference: Run, engine: Run, batches: Iterable[npt.NDArray[np.uint8]]) -> Iterator[Pair]:
    """Runs both on the same frames: FP32's answers and the engine's."""
    return ((reference(frames), engine(frames)) for frames in batches)


def finite_answers(pairs: Iterable[Pair], engine_name: str, advance: Callable[[int], None]) -> Iterator[Pair]:
    """The pairs, as long as all in them is finite.

    Raises:
        ModelError: the reference answers NaN or infinity.
        GateError: the engine does.
    """
    for wanted, answers in pairs:
        if not np.isfinite(wanted).all():
            raise ModelError("the FP32 network itself answers NaN or infinity: judge a network that works")
        if not np.isfinite(answers).all():
            raise GateError(f"{engine_name} answers NaN or infinity: a value is beyond its range, keep layers float")
        yield wanted, answers
        advance(len(wanted))


def softmax(logits: npt.NDArray[np.float32]) -> npt.NDArray[np.float64]:
    """Probabilities of classes, the last axis; in float64."""
    powers = np.exp(logits.astype(np.float64) - logits.max(-1, keepdims=True))
    return np.asarray(powers / powers.sum(-1, keepdims=True))


def ratio_db(signal: float, noise: float) -> float | None:
    """Signal to quantization noise ratio of two sums of squares, in dB; None without noise, or without a signal."""
    return 10 * math.log10(signal / noise) if noise > 0 and signal > 0 else None
