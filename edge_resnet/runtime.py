"""What classifier and embedder share: a bundle's engine, chosen for this host, and frames made ready for it.

Needs numpy, Pillow and one backend; never torch, never onnx.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType

import numpy as np
import numpy.typing as npt
from PIL import Image

from edge_resnet.bundle import MEASURED_ON, Bundle, open_bundle
from edge_resnet.companion import companion_engines
from edge_resnet.engines.engine import Engine
from edge_resnet.engines.registry import engine_class
from edge_resnet.engines.targets import Target, target_named
from edge_resnet.errors import GateError, ImageError, UnavailableError
from edge_resnet.golden import replay
from edge_resnet.images import read_image
from edge_resnet.preprocessing import Preprocessing

Frame = npt.NDArray[np.uint8] | Image.Image | str | Path
"""uint8 H×W×3 RGB or H×W grey, a Pillow image, or the path of an image file."""


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


def _verify_on_another_device(path: Path, bundle: Bundle, target: str, engine: Engine) -> None:
    """Replays the golden samples where the engine was measured on another device: kernels differ, and INT8 sums with them.

    Raises:
        GateError: the engine answers otherwise here.
    """
    measured_on = {entry.target: entry.versions.get(MEASURED_ON) for entry in bundle.manifest.engines}.get(target)
    if measured_on in (None, engine.device()):
        return
    result = replay(bundle, target, engine)
    if not result.passed:
        raise GateError(
            f"{path}: the engine for {target} answers the golden samples {result.sqnr_db:.1f} dB off on this device "
            f"({engine.device()}; it was built on {measured_on}): build the bundle here"
        )


class Runtime:
    """A bundle's engine and the preprocessing in front of it.

    Args:
        path: a ``.edge`` bundle.
        target: which of its engines; by default the fastest kind that runs here.

    Raises:
        BundleError: the bundle is damaged or no bundle.
        UnavailableError: none of its engines runs here.
        GateError: this is another device than the bundle was built on, and the engine answers otherwise on it.
    """

    def __init__(self, path: str | Path, *, target: str | None = None) -> None:
        path = Path(path)
        bundle = open_bundle(path)
        found = find_engine(path, bundle, target)
        self.target = found.target.name
        self.labels = bundle.manifest.labels
        """The classes' names; None where the network gives features."""
        self.preprocessing = Preprocessing.from_json(bundle.manifest.preprocessing)
        self.engine: Engine = engine_class(found.target.kind)(found.data)
        try:
            _verify_on_another_device(path, bundle, self.target, self.engine)
        except BaseException:
            self.engine.close()
            raise

    def answers(self, frames: Sequence[Frame]) -> npt.NDArray[np.float32]:
        """Prepares frames and runs them, in batches as large as the engine takes.

        Args:
            frames: at least one; they need not be of one size.

        Returns:
            float32, one answer a frame, of the shape that the engine gives.

        Raises:
            ImageError: a frame has another dtype or shape, or a file is no image.
        """
        if len(frames) == 0:
            raise ImageError("an empty list of frames: give at least one")
        prepared = np.stack([self._prepare(frame, index) for index, frame in enumerate(frames)])
        limit = self.engine.input.max_batch or len(prepared)
        parts = [self.engine.run(prepared[start : start + limit]) for start in range(0, len(prepared), limit)]
        return np.concatenate(parts)

    def _prepare(self, frame: Frame, index: int) -> npt.NDArray[np.uint8]:
        if isinstance(frame, (str, Path)):
            return self.preprocessing.prepare(read_image(Path(frame)), str(frame))
        return self.preprocessing.prepare(frame, f"frame {index}")

    def close(self) -> None:
        """Frees the engine; may be called again."""
        self.engine.close()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()
