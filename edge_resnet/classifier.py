"""Frames in, labelled predictions out."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from typing import overload

import numpy as np
import numpy.typing as npt

from edge_resnet.errors import BundleError
from edge_resnet.frames import CameraFrame
from edge_resnet.runtime import Frame, ReadyFrame, Runtime, Timing
from edge_resnet.stream import Stream


@dataclass(frozen=True, slots=True)
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
    timing: Timing | None = field(default=None, repr=False, compare=False)
    """Where the time went; None where it was not measured."""
    frame: CameraFrame | None = field(default=None, repr=False, compare=False)
    """The frame of a stream that it is about."""

    @property
    def probabilities(self) -> npt.NDArray[np.float64]:
        """Softmax probabilities, one for each class."""
        powers = _powers(self.logits, int(self.logits.argmax()))
        return np.asarray(powers / powers.sum())

    def top(self, k: int = 5) -> list[Prediction]:
        """The ``k`` most probable classes, most probable first (fewer if there are fewer)."""
        order = np.argsort(-self.logits, kind="stable")[:k]
        probabilities = self.probabilities
        return [
            replace(self, label=self.labels[i], index=int(i), probability=float(probabilities[i]))
            for i in order.tolist()
        ]

    @classmethod
    def of(
        cls,
        logits: npt.NDArray[np.float32],
        labels: tuple[str, ...],
        timing: Timing | None = None,
        frame: CameraFrame | None = None,
    ) -> Prediction:
        """The prediction that logits, one a class, make."""
        index = int(logits.argmax())
        probability = 1 / float(np.add.reduce(_powers(logits, index)))  # the largest logit's own power is 1
        return cls(labels[index], index, probability, logits, labels, timing, frame)


def _powers(logits: npt.NDArray[np.float32], largest: int) -> npt.NDArray[np.float64]:
    """exp(logit - largest logit): softmax before it is divided by its sum."""
    powers = logits.astype(np.float64)
    powers -= powers[largest]
    return np.exp(powers, out=powers)


class Classifier(Runtime):
    """Classifies camera frames with a bundle's engine.

        with Classifier("model.edge") as classify:
            print(classify(frame).label)

    Args:
        path: a ``.edge`` bundle.
        target: which of its engines; by default the fastest kind that runs here. ``target`` and ``why`` say which it is.
        color: of the arrays that it is called with: ``rgb``, ``bgr``, ``rgba``, ``gray``, ``nv12``, …
        cuda: the Python binding of CUDA that an engine on a GPU shall use; see ``Runtime``.
        trust: a folder of public keys, of which one must have signed the bundle; see ``Runtime``.
        verify: when the engine must answer the golden samples before it is used: ``unmeasured`` (where it was not
            measured on this device with this version of its library) or ``golden`` (always).
        fallback: what to do when it cannot be loaded or answers otherwise: ``refuse``, or ``next`` for the next engine.

    Raises:
        BundleError: the bundle is damaged or no bundle, or its network gives features.
        TrustError: no trusted key has signed it.
        UnavailableError: none of its engines runs here.
        EngineError: the engine was compiled by another version or for another GPU, or the library refuses it.
        GateError: the engine answers the golden samples otherwise here.
    """

    labels: tuple[str, ...]

    def _check_kind(self, labels: tuple[str, ...] | None) -> None:
        if labels is None:
            raise BundleError(f"bundle '{self.path}' gives features, not classes: open it with edge_resnet.Embedder")

    @overload
    def __call__(self, frame: Frame | CameraFrame) -> Prediction: ...
    @overload
    def __call__(self, frame: list[Frame]) -> list[Prediction]: ...
    def __call__(self, frame: Frame | CameraFrame | list[Frame]) -> Prediction | list[Prediction]:
        """Classifies one frame, or a list of frames as one batch.

        Args:
            frame: uint8 H×W×3 RGB or H×W grey of any size (or as ``color`` says), a Pillow image, a path, or a list of
                these, which need not be of one size.

        Raises:
            ImageError: a frame has another dtype or shape, or a file is no image.
        """
        if isinstance(frame, list):
            return self._predictions([self.ready(each, name=f"frame {index}") for index, each in enumerate(frame)])
        return self._predictions([self.ready(frame, name="frame 0")])[0]

    def _predictions(self, ready: Sequence[ReadyFrame]) -> list[Prediction]:
        logits, run_ms = self._run(ready)
        return [
            Prediction.of(
                each, self.labels, frame.timing(run_ms), frame.given if isinstance(frame.given, CameraFrame) else None
            )
            for each, frame in zip(logits, ready, strict=True)
        ]

    async def aclassify(self, frame: Frame | CameraFrame) -> Prediction:
        """Classifies one frame on another thread, for asyncio programs; errors are those of a call."""
        return await asyncio.to_thread(self, frame)

    def stream(self, camera: Iterable[Frame | CameraFrame], *, latest: bool = True) -> Stream[Prediction]:
        """Classifies frame after frame: the next is captured and prepared while the engine works.

            with open_camera("rtsp://…") as camera, classify.stream(camera) as predictions:
                for prediction in predictions:
                    print(prediction.label, prediction.timing.age_ms)

        Args:
            camera: gives frames; one of ``edge_resnet.camera``, or anything else that can be iterated over.
            latest: whether a frame that waits for the engine gives way to a newer one, as in a control loop. Else the
                camera waits, and every frame is answered.

        Raises:
            ImageError: a frame has another dtype or shape; the stream ends with it.
        """
        return Stream(camera, self.ready, lambda ready: self._predictions([ready])[0], latest=latest)
