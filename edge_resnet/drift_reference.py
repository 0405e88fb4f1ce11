"""What frames and answers look like in numbers, and how those were distributed over the images of the build.

Of a frame as the network sees it, on a grid of about 32×32 of its pixels: ``brightness`` (mean), ``contrast`` (standard
deviation), ``sharpness`` (mean difference of neighbours) and, in colour, ``tint`` (first channel less third, which turns
when red and blue are exchanged). Of an answer: ``confidence`` (the greatest softmax probability) and ``entropy`` (of the
softmax, in nats). A network that gives features has the first kind alone.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from edge_resnet.bundle import Bundle
from edge_resnet.errors import BundleError
from edge_resnet.limits import parse_json

MEMBER = "drift.json"
"""Of a bundle; one that was built before there was a reference has none."""
FORMAT = 1
BINS = 10
"""The usual number for the population stability index; by deciles of the reference, so that none is empty there."""
MOST = 256
"""Images of the build that are looked at."""
GRID = 32
"""Pixels of a side that are looked at."""

Pixels = npt.NDArray[np.uint8]
Numbers = dict[str, float]


@dataclass(frozen=True)
class Distribution:
    """How one number was distributed over the images of the build."""

    mean: float
    deviation: float
    edges: tuple[float, ...]
    """Between bins, rising; values equal to an edge belong to the bin above."""
    shares: tuple[float, ...]
    """Of the images, in each bin; one more than there are edges."""

    @classmethod
    def of(cls, values: npt.NDArray[np.float64]) -> Distribution:
        """That of one number a picture; equal values share a bin, so there may be fewer than ``BINS``."""
        edges = np.unique(np.quantile(values, np.arange(1, BINS) / BINS))
        counts = np.bincount(np.searchsorted(edges, values, side="right"), minlength=len(edges) + 1)
        return cls(
            float(values.mean()), float(values.std()), tuple(edges.tolist()), tuple((counts / len(values)).tolist())
        )


@dataclass(frozen=True)
class Reference:
    """How frames and answers were distributed over the images of the build."""

    images: int
    distributions: dict[str, Distribution]

    @classmethod
    def of(cls, frames: Iterable[Pixels], run: Callable[[Pixels], npt.NDArray[np.float32]] | None) -> Reference:
        """Looks at frames and at the answers to them.

        Args:
            frames: batches N×H×W×C, as the network takes them.
            run: gives a batch's logits; None where it gives features.
        """
        found: list[Numbers] = []
        for batch in frames:
            answers = [None] * len(batch) if run is None else run(batch)
            for frame, answer in zip(batch, answers, strict=True):
                found.append(frame_numbers(frame) | ({} if answer is None else answer_numbers(answer)))
        columns = {name: np.array([each[name] for each in found]) for name in found[0]}
        return cls(len(found), {name: Distribution.of(values) for name, values in columns.items()})

    @classmethod
    def of_bundle(cls, bundle: Bundle) -> Reference:
        """That which a bundle was built with.

        Raises:
            BundleError: it has none, or a damaged one.
        """
        if MEMBER not in bundle.names:
            raise BundleError(
                f"bundle '{bundle.manifest.name}' does not say what its images looked like: build it again"
            )
        try:
            return cls.from_json(parse_json(bundle.read(MEMBER)))
        except (ValueError, TypeError, KeyError) as error:
            raise BundleError(
                f"{MEMBER} of bundle '{bundle.manifest.name}' is damaged ({error}): build it again"
            ) from error

    def to_json(self) -> dict[str, Any]:
        """For a bundle."""
        return {"format": FORMAT, **asdict(self)}

    def member(self) -> dict[str, bytes]:
        """The bundle member that holds it."""
        return {MEMBER: (json.dumps(self.to_json(), indent=1, sort_keys=True, allow_nan=False) + "\n").encode()}

    @classmethod
    def from_json(cls, found: Any) -> Reference:
        """Reads what ``to_json`` gave.

        Raises:
            ValueError: it is something else; also TypeError and KeyError.
        """
        if set(found) != {"format", "images", "distributions"} or found["format"] != FORMAT:
            raise ValueError("its keys, or its format, are others")
        distributions = {name: _distribution(values) for name, values in found["distributions"].items()}
        if not distributions or not isinstance(found["images"], int) or found["images"] < 1:
            raise ValueError("it is of no images")
        return cls(found["images"], distributions)


def _distribution(values: dict[str, Any]) -> Distribution:
    edges, shares = (tuple(float(each) for each in values[name]) for name in ("edges", "shares"))
    if len(shares) != len(edges) + 1 or list(edges) != sorted(set(edges)) or abs(sum(shares) - 1) > 1e-6:
        raise ValueError("edges and shares do not fit")
    return Distribution(float(values["mean"]), float(values["deviation"]), edges, shares)


def frame_numbers(frame: Pixels) -> Numbers:
    """A frame H×W×C in numbers, in grey levels."""
    step = max(1, min(frame.shape[:2]) // GRID)
    channels = frame.shape[2]
    left = frame[::step, : frame.shape[1] - 1 : step].astype(np.float32).reshape(-1, channels)
    right = frame[::step, 1::step].astype(np.float32).reshape(-1, channels)
    ones = np.ones(len(left), np.float32)  # sums by BLAS: a mean over an axis of three takes longer than all the rest
    means = (ones @ left / len(left)).tolist()
    brightness = sum(means) / channels
    flat = left.ravel()
    contrast = max(0.0, float(flat @ flat) / flat.size - brightness**2) ** 0.5
    sharpness = float((ones @ np.abs(right - left)).sum()) / flat.size
    numbers = {"brightness": brightness, "contrast": contrast, "sharpness": sharpness}
    return {**numbers, "tint": means[0] - means[2]} if channels == 3 else numbers


def answer_numbers(logits: npt.NDArray[np.float32]) -> Numbers:
    """Logits in numbers."""
    below = logits - logits.max()
    powers = np.exp(below)
    total = float(powers.sum())
    return {"confidence": 1 / total, "entropy": max(0.0, float(np.log(total) - float(powers @ below) / total))}
