"""What two networks answered to the same images, and the images that they disagree on."""

from __future__ import annotations

import base64
import io
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from edge_resnet.accuracy import Answers as Logits
from edge_resnet.accuracy import Run, softmax
from edge_resnet.errors import GateError
from edge_resnet.images import ImageSet, read_image

SHOWN = 24
"""Images that a report shows at most."""
THUMBNAIL = 112
"""Pixels of a thumbnail's longer side."""


class Recorded:
    """A ``Run`` that keeps the class it answered with and that class's probability, for every frame."""

    def __init__(self, run: Run) -> None:
        self._run = run
        self._classes: list[npt.NDArray[np.int64]] = []
        self._probabilities: list[npt.NDArray[np.float64]] = []

    def __call__(self, frames: npt.NDArray[np.uint8]) -> Logits:
        logits = self._run(frames)
        if not np.isfinite(logits).all():
            raise GateError("an answer is NaN or infinity: a value is beyond its range, keep layers float")
        self._classes.append(logits.argmax(1))
        self._probabilities.append(softmax(logits).max(1))
        return logits

    @property
    def answers(self) -> Answers:
        """All of them, in order."""
        return Answers(np.concatenate(self._classes), np.concatenate(self._probabilities))


@dataclass(frozen=True)
class Answers:
    """The most probable class of each image, and its probability."""

    classes: npt.NDArray[np.int64]
    probabilities: npt.NDArray[np.float64]


@dataclass(frozen=True)
class Changed:
    """One image that is answered otherwise than by FP32."""

    name: str
    thumbnail: str
    """A data URL."""
    truth: str | None
    before: str
    before_probability: float
    after: str
    after_probability: float

    @property
    def outcome(self) -> str:
        """``lost``, ``won``, or ``moved``: from one wrong class to another, or nobody knows."""
        if self.truth is None:
            return "moved"
        return "lost" if self.before == self.truth else "won" if self.after == self.truth else "moved"


@dataclass(frozen=True)
class Disagreement:
    """Where an engine and FP32 do not agree."""

    images: int
    outcomes: dict[str, int]
    """How many of the changed answers are ``lost``, ``won`` and ``moved``."""
    pairs: tuple[tuple[str, str, int], ...]
    """FP32's class, the engine's, and how often; most frequent first."""
    shown: tuple[Changed, ...]
    """Lost ones first, then won, then moved; of each those that FP32 was surest of."""


def disagreement(fp32: Answers, engine: Answers, images: ImageSet, labels: Sequence[str]) -> Disagreement:
    """Finds the images that changed class, and draws some of them.

    Args:
        fp32: of all images, in their order.
        engine: the same.
        images: labelled by ``labels``, or not.
        labels: the network's classes.

    Raises:
        ImageError: a file cannot be read any more.
    """
    differ = np.flatnonzero(fp32.classes != engine.classes)
    changed = {index: _change(index, fp32, engine, images, labels) for index in differ.tolist()}
    rank = {"lost": 0, "won": 1, "moved": 2}
    first = sorted(changed, key=lambda index: (rank[changed[index].outcome], -changed[index].before_probability))
    pairs = Counter((each.before, each.after) for each in changed.values())
    outcomes = Counter(each.outcome for each in changed.values())
    return Disagreement(
        len(fp32.classes),
        {name: outcomes[name] for name in rank},
        tuple((*pair, count) for pair, count in pairs.most_common()),
        tuple(_drawn(changed[index], images, index) for index in first[:SHOWN]),
    )


def _change(index: int, fp32: Answers, engine: Answers, images: ImageSet, labels: Sequence[str]) -> Changed:
    truth = None if images.labels is None else labels[images.labels[index]]
    return Changed(
        str(images.paths[index].relative_to(images.root) if images.root.is_dir() else images.paths[index].name),
        "",
        truth,
        labels[fp32.classes[index]],
        float(fp32.probabilities[index]),
        labels[engine.classes[index]],
        float(engine.probabilities[index]),
    )


def _drawn(changed: Changed, images: ImageSet, index: int) -> Changed:
    image = read_image(images.paths[index])
    image.thumbnail((THUMBNAIL, THUMBNAIL))
    file = io.BytesIO()
    image.convert("RGB").save(file, "JPEG", quality=85)
    url = "data:image/jpeg;base64," + base64.b64encode(file.getvalue()).decode()
    return replace(changed, thumbnail=url)
