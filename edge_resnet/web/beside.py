"""What FP32 says of the frames that a bundle's engine has answered."""

from __future__ import annotations

import time
from dataclasses import dataclass

import numpy as np

from edge_resnet.bundle import FP32_MEMBER, Bundle
from edge_resnet.classifier import Prediction
from edge_resnet.engines.engine import Engine
from edge_resnet.engines.registry import engine_class
from edge_resnet.engines.targets import target_named
from edge_resnet.preprocessing import Preprocessing
from edge_resnet.runtime import Timing


@dataclass(frozen=True)
class Compared:
    """One frame's two answers, and how often they were the same so far."""

    given: Prediction
    """The engine's."""
    fp32: Prediction
    compared: int
    """Frames so far."""
    agreed: int
    """Of these, those with the same most probable class."""


class Fp32Beside:
    """Answers frames with the bundle's FP32 network on the CPU; only ever called from one thread.

    The network is opened by the first call, so that the threads of ONNX Runtime are as nice as the caller.

    Args:
        bundle: whose FP32 network it is.
        labels: of its classes.
    """

    def __init__(self, bundle: Bundle, labels: tuple[str, ...]) -> None:
        self._model, self._labels = bundle.read(FP32_MEMBER), labels
        self._preprocessing = Preprocessing.from_json(bundle.manifest.preprocessing)
        self._engine: Engine | None = None
        self._compared = self._agreed = 0

    def __call__(self, prediction: Prediction) -> Compared:
        """Answers the frame of a stream's prediction again.

        Raises:
            EngineError: ONNX Runtime refuses the network.
        """
        frame = prediction.frame
        assert frame is not None  # a stream's, of a camera
        self._engine = self._engine or engine_class(target_named("cpu").kind)(self._model)
        started = time.perf_counter()
        pixels = self._preprocessing.prepare(frame.pixels, f"frame {frame.index}", frame.color)
        ready = time.perf_counter()
        logits = self._engine.run(pixels[np.newaxis])[0]
        timing = Timing(1e3 * (ready - started), 1e3 * (time.perf_counter() - ready))
        fp32 = Prediction.of(logits, self._labels, timing, frame)
        self._compared += 1
        self._agreed += fp32.index == prediction.index
        return Compared(prediction, fp32, self._compared, self._agreed)
