"""Frames in, labelled predictions out."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import overload

import numpy as np
import numpy.typing as npt

from edge_resnet.errors import BundleError
from edge_resnet.runtime import Frame, Runtime


@dataclass(frozen=True)
class Prediction:
    """What the network says of one frame."""

    label: str
    """The most probable class's name."""
    index: int
    """Its index."""
    probability: float
    """Its softmax probability, 0 to 1."""
    logits: npt.NDArray[np.float32] = field(repr=False, compare=False)
    """One for each class."""
    labels: tuple[str, ...] = field(repr=False, compare=False)

    def top(self, k: int = 5) -> list[Prediction]:
        """The ``k`` most probable classes, most probable first (fewer if there are fewer)."""
        order = np.argsort(-self.logits, kind="stable")[:k]
        probabilities = _softmax(self.logits)
        return [Prediction(self.labels[i], int(i), float(probabilities[i]), self.logits, self.labels) for i in order]

    @classmethod
    def of(cls, logits: npt.NDArray[np.float32], labels: tuple[str, ...]) -> Prediction:
        """The prediction that logits, one a class, make."""
        index = int(logits.argmax())
        return cls(labels[index], index, float(_softmax(logits)[index]), logits, labels)


def _softmax(logits: npt.NDArray[np.float32]) -> npt.NDArray[np.float64]:
    powers = np.exp(logits.astype(np.float64) - logits.max())
    return np.asarray(powers / powers.sum())


class Classifier(Runtime):
    """Classifies camera frames with a bundle's engine.

        with Classifier("model.edge") as classify:
            print(classify(frame).label)

    Args:
        path: a ``.edge`` bundle.
        target: which of its engines; by default the fastest kind that runs here.
        cuda: the Python binding of CUDA that an engine on a GPU shall use; see ``Runtime``.

    Raises:
        BundleError: the bundle is damaged or no bundle, or its network gives features.
        UnavailableError: none of its engines runs here.
    """

    labels: tuple[str, ...]

    def __init__(self, path: str | Path, *, target: str | None = None, cuda: str | None = None) -> None:
        super().__init__(path, target=target, cuda=cuda)
        if self.labels is None:
            self.close()
            raise BundleError(f"bundle '{path}' gives features, not classes: open it with edge_resnet.Embedder")

    @overload
    def __call__(self, frame: Frame) -> Prediction: ...
    @overload
    def __call__(self, frame: list[Frame]) -> list[Prediction]: ...
    def __call__(self, frame: Frame | list[Frame]) -> Prediction | list[Prediction]:
        """Classifies one frame, or a list of frames as one batch.

        Args:
            frame: uint8 H×W×3 RGB or H×W grey of any size, a Pillow image, a path, or a list of these, which
                need not be of one size.

        Raises:
            ImageError: a frame has another dtype or shape, or a file is no image.
        """
        if isinstance(frame, list):
            return [Prediction.of(logits, self.labels) for logits in self.answers(frame)]
        return Prediction.of(self.answers([frame])[0], self.labels)

    def __enter__(self) -> Classifier:
        return self
