"""Do two sets of images look alike? Calibration learns ranges from one; the engine is judged, and used, on another.

Each image is a vector: mean and deviation of each channel over its pixels, and, in colour, the differences between the
channels' means. Two sets are compared number by number, by the difference of their means in units of the pooled standard
deviation (Cohen, "Statistical Power Analysis for the Behavioral Sciences", 1988, section 2.5: d).

They count as unlike where some d is at least ``LEAST`` and at least ``ERRORS`` of its standard errors, √(1/n + 1/m).
Measured with 256 images of each set, a thousand draws: CIFAR-10 against its own test set stays below 0.34, Fashion-MNIST
below 0.26; CIFAR-10 inverted gives 0.83 in the median, with red and blue exchanged 0.69 (found in 99 % of the draws), with
pixels squared 1.4, at 0.7 of the exposure 1.3. Of few images only a larger d is certain: of 32, one of 1.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from edge_resnet.errors import CalibrationError
from edge_resnet.images import ImageSet
from edge_resnet.preprocessing import Color, Pixels, Preprocessing

Vectors = npt.NDArray[np.float64]
MOST = 256
"""Images that are looked at; more would tell smaller differences than those that matter."""
FEWEST = 16
"""Images below which nothing is said."""
LEAST = 0.5
ERRORS = 4
FLOOR = 1.0
"""Grey levels: the least standard deviation, so that sets of equal images are not unlike by a trace of noise."""
BATCH = 16
_CHANNELS = {Color.RGB: ("red", "green", "blue"), Color.BGR: ("blue", "green", "red"), Color.GRAY: ("brightness",)}


@dataclass(frozen=True)
class Appearance:
    """How a set of images looks."""

    images: int
    mean: tuple[float, ...]
    """Over the images, of each number of their vectors, in grey levels from 0 to 255."""
    deviation: tuple[float, ...]
    """Their standard deviations."""

    @classmethod
    def of(cls, images: ImageSet, preprocessing: Preprocessing) -> Appearance:
        """Looks at ``MOST`` images of a set, prepared for the network.

        Raises:
            ImageError: a file cannot be used; the message names it.
        """
        batches = images.draw(MOST).batches(preprocessing, BATCH)
        return cls.of_vectors([image_vectors(batch) for batch in batches])

    @classmethod
    def of_vectors(cls, parts: Sequence[Vectors]) -> Appearance:
        """Of images whose vectors are known, in parts of any length, in the set's order."""
        vectors = np.concatenate(parts)
        return cls(len(vectors), _rounded(vectors.mean(axis=0)), _rounded(vectors.std(axis=0)))

    def to_json(self) -> dict[str, object]:
        """For a table or bundle."""
        return {"images": self.images, "mean": list(self.mean), "deviation": list(self.deviation)}

    @classmethod
    def from_json(cls, found: object) -> Appearance:
        """Reads what ``to_json`` wrote.

        Raises:
            CalibrationError: it is something else.
        """
        if isinstance(found, Mapping) and set(found) == {"images", "mean", "deviation"}:
            images, mean, deviation = found["images"], found["mean"], found["deviation"]
            if isinstance(images, int) and images > 0 and _numbers(mean) and _numbers(deviation):
                return cls(images, tuple(mean), tuple(deviation))
        raise CalibrationError("what the calibration images look like is damaged: calibrate again")

    def note_on(self, others: Appearance, color: Color) -> str | None:
        """What a person should know when evaluation images look unlike these, one line; None where they do not.

        Raises:
            CalibrationError: the two are of other channels.
        """
        names = list(_names(color))
        if not len(names) == len(self.mean) == len(self.deviation) == len(others.mean):
            raise CalibrationError("the calibration images are of other channels than the network's: calibrate again")
        if min(self.images, others.images) < FEWEST:
            return None
        distances = [self._distance(others, index) for index in range(len(names))]
        worst = max(range(len(names)), key=distances.__getitem__)
        if distances[worst] < max(LEAST, ERRORS * math.sqrt(1 / self.images + 1 / others.images)):
            return None
        return (
            f"calibration images look unlike the evaluation images: {names[worst]} is {self.mean[worst]:.0f} on average, "
            f"there {others.mean[worst]:.0f}, {distances[worst]:.1f} standard deviations apart: calibrate on images of "
            f"the same camera and light"
        )

    def _distance(self, others: Appearance, index: int) -> float:
        """Cohen's d of one number."""
        pooled = math.sqrt((self.deviation[index] ** 2 + others.deviation[index] ** 2) / 2)
        return abs(self.mean[index] - others.mean[index]) / max(pooled, FLOOR)


def image_vectors(frames: Pixels) -> Vectors:
    """Frames N×H×W×C → N×(2·C), in colour N×9; each image's is the same whatever it is in a batch with."""
    values = frames.astype(np.float64)
    means, deviations = values.mean(axis=(1, 2)), values.std(axis=(1, 2))
    differences = [means[:, [i]] - means[:, [j]] for i, j in _pairs(means.shape[1])]
    return np.concatenate([means, deviations, *differences], axis=1)


def _names(color: Color) -> Iterator[str]:
    """What each number of a vector is."""
    channels = _CHANNELS[color]
    yield from channels
    yield from (f"the contrast of {name}" for name in channels)
    yield from (f"{channels[i]} less {channels[j]}" for i, j in _pairs(len(channels)))


def _pairs(channels: int) -> list[tuple[int, int]]:
    return [(i, j) for i in range(channels) for j in range(i + 1, channels)]


def _rounded(values: npt.NDArray[np.float64]) -> tuple[float, ...]:
    """To what a person can read; far below what matters."""
    return tuple(round(float(value), 3) for value in values)


def _numbers(found: Any) -> bool:
    """Whether it is a list of grey levels, or differences of them."""
    return isinstance(found, list) and all(isinstance(v, (int, float)) and -255 <= v <= 255 for v in found)
