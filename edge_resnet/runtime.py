"""The runtime: frames in, labelled predictions out. Needs numpy, Pillow and one backend; never torch, never onnx."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import overload

import numpy as np
import numpy.typing as npt
from PIL import Image

from edge_resnet.bundle import Bundle, open_bundle
from edge_resnet.companion import companion_engines
from edge_resnet.engines.engine import Engine
from edge_resnet.engines.registry import engine_class
from edge_resnet.engines.targets import Target, target_named
from edge_resnet.errors import ImageError, UnavailableError
from edge_resnet.images import read_image
from edge_resnet.preprocessing import Preprocessing

Frame = npt.NDArray[np.uint8] | Image.Image | str | Path
"""uint8 H×W×3 RGB or H×W grey, a Pillow image, or the path of an image file."""


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


@dataclass(frozen=True)
class RunnableEngine:
    """An engine of a bundle, and what it is for."""

    target: Target
    data: bytes


def find_engine(path: Path, bundle: Bundle, target: str | None) -> RunnableEngine:
    """Chooses the engine that runs here: one for a GPU before one for the CPU.

    Args:
        path: where the bundle is; engines compiled later lie beside it.
        bundle: the opened bundle.
        target: the target to use; None chooses.

    Raises:
        UnavailableError: none runs here; the message says why, for each.
    """
    engines = {entry.target: bundle.read(entry.member) for entry in bundle.manifest.engines if entry.member}
    engines |= companion_engines(path, bundle.digest)
    if target is not None:
        wanted = target_named(target).name
        if wanted not in engines:
            raise UnavailableError(
                f"{path} has no engine for '{wanted}' (it has {', '.join(engines) or 'none'}): "
                f"run `edge-resnet compile {path} --target {wanted}`"
            )
        engines = {wanted: engines[wanted]}
    reasons = []
    for name in sorted(engines, key=lambda name: target_named(name).kind == "onnxruntime"):
        found = target_named(name).at(bundle.manifest.precision)
        why_not = engine_class(found.kind).why_not_run(found)
        if why_not is None:
            return RunnableEngine(found, engines[name])
        reasons.append(f"{name}: {why_not}")
    raise UnavailableError(f"no engine of {path} runs here: {'; '.join(reasons) or 'it holds none'}")


class Classifier:
    """Classifies camera frames with a bundle's engine.

        with Classifier("model.edge") as classify:
            print(classify(frame).label)

    Args:
        path: a ``.edge`` bundle.
        target: which of its engines; by default the fastest kind that runs here.

    Raises:
        BundleError: the bundle is damaged or no bundle.
        UnavailableError: none of its engines runs here.
    """

    def __init__(self, path: str | Path, *, target: str | None = None) -> None:
        path = Path(path)
        bundle = open_bundle(path)
        found = find_engine(path, bundle, target)
        self.target = found.target.name
        self.labels = bundle.manifest.labels
        self.preprocessing = Preprocessing.from_json(bundle.manifest.preprocessing)
        self.engine: Engine = engine_class(found.target.kind)(found.data)

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
        return self._predict(frame) if isinstance(frame, list) else self._predict([frame])[0]

    def _predict(self, frames: list[Frame]) -> list[Prediction]:
        if len(frames) == 0:
            raise ImageError("an empty list of frames: give at least one")
        prepared = np.stack([self._prepare(frame, index) for index, frame in enumerate(frames)])
        limit = self.engine.input.max_batch or len(prepared)
        parts = [self.engine.run(prepared[start : start + limit]) for start in range(0, len(prepared), limit)]
        return [Prediction.of(logits, self.labels) for logits in np.concatenate(parts)]

    def _prepare(self, frame: Frame, index: int) -> npt.NDArray[np.uint8]:
        if isinstance(frame, (str, Path)):
            return self.preprocessing.prepare(read_image(Path(frame)), str(frame))
        return self.preprocessing.prepare(frame, f"frame {index}")

    def close(self) -> None:
        """Frees the engine; may be called again."""
        self.engine.close()

    def __enter__(self) -> Classifier:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
