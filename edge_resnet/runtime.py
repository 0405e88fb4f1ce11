"""What classifier and embedder share: a bundle's engine, chosen for this host, and frames made ready for it.

Needs numpy, Pillow and one backend; never torch, never onnx.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Protocol, TypeGuard

import numpy as np
import numpy.typing as npt
from PIL import Image

from edge_resnet.bundle import MEASURED_ON, Bundle, open_bundle
from edge_resnet.companion import engines_of
from edge_resnet.engines.engine import Engine
from edge_resnet.engines.registry import engine_class
from edge_resnet.engines.targets import Target, target_named
from edge_resnet.errors import GateError, ImageError, UnavailableError
from edge_resnet.frames import FrameFormat
from edge_resnet.golden import replay
from edge_resnet.images import read_image
from edge_resnet.preprocessing import Preprocessing


class OnGpu(Protocol):
    """An array on the GPU, of CuPy, torch, numba, jetson-utils and others; some have ``__dlpack__`` too."""

    @property
    def __cuda_array_interface__(self) -> dict[str, Any]: ...


Frame = npt.NDArray[np.uint8] | Image.Image | str | Path | OnGpu
"""uint8 H×W×3 RGB or H×W grey, a Pillow image, or the path of an image file. Where the engine prepares frames itself, or
they are prepared: an array on the GPU as the engine takes it, uint8 H×W×C."""


@dataclass(frozen=True)
class RunnableEngine:
    """An engine of a bundle, and what it is for."""

    target: Target
    data: bytes
    frames: FrameFormat | None
    """What its camera gives, if its graph prepares frames itself."""


def find_engine(path: Path, bundle: Bundle, target: str | None) -> RunnableEngine:
    """Chooses the engine that runs here: one for a GPU before one for the CPU.

    Args:
        path: where the bundle is; engines compiled later lie beside it.
        bundle: the opened bundle.
        target: the target to use; None chooses.

    Raises:
        UnavailableError: none runs here; the message says why, for each.
    """
    engines = engines_of(path, bundle)
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
            return RunnableEngine(found, engines[name].data, engines[name].frames)
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
        cuda: the Python binding of CUDA that an engine on a GPU shall use, ``cuda-bindings`` or ``pycuda``; None takes
            the environment's ``EDGE_RESNET_CUDA``, else the one that is installed.

    Raises:
        BundleError: the bundle is damaged or no bundle.
        UnavailableError: none of its engines runs here.
        GateError: this is another device than the bundle was built on, and the engine answers otherwise on it.
    """

    def __init__(self, path: str | Path, *, target: str | None = None, cuda: str | None = None) -> None:
        path = Path(path)
        bundle = open_bundle(path)
        found = find_engine(path, bundle, target)
        self.target = found.target.name
        self.labels = bundle.manifest.labels
        """The classes' names; None where the network gives features."""
        self.preprocessing = Preprocessing.from_json(bundle.manifest.preprocessing)
        self.frames = found.frames
        """What the camera gives, where the engine's graph prepares frames itself: then it takes no others."""
        self.engine: Engine = engine_class(found.target.kind)(found.data, cuda=cuda)
        try:
            _verify_on_another_device(path, bundle, self.target, self.engine)
        except BaseException:
            self.engine.close()
            raise

    def answers(self, frames: Sequence[Frame]) -> npt.NDArray[np.float32]:
        """Prepares frames and runs them, in batches as large as the engine takes.

        Args:
            frames: at least one; they need not be of one size. Frames on the GPU run one by one, and are not mixed with
                others.

        Returns:
            float32, one answer a frame, of the shape that the engine gives.

        Raises:
            ImageError: a frame has another dtype or shape, or a file is no image.
        """
        if len(frames) == 0:
            raise ImageError("an empty list of frames: give at least one")
        if all(map(_on_gpu, frames)):
            return np.concatenate([self.engine.run_device(frame) for frame in frames])
        prepare = self._prepare if self.frames is None else self._as_the_camera_gives
        limit = self.engine.input.max_batch or len(frames)
        prepared = [prepare(frame, index) for index, frame in enumerate(frames)]
        if len(prepared) == 1:
            return self.engine.run(
                prepared[0][np.newaxis]
            )  # one frame, as from a camera, is copied once, by the engine
        batches = (np.stack(prepared[start : start + limit]) for start in range(0, len(prepared), limit))
        return np.concatenate([self.engine.run(batch) for batch in batches])

    def _prepare(self, frame: Frame, index: int) -> npt.NDArray[np.uint8]:
        if isinstance(frame, (str, Path)):
            return self.preprocessing.prepare(read_image(Path(frame)), str(frame))
        return self.preprocessing.prepare(frame, f"frame {index}")  # type: ignore[arg-type]  # it refuses others

    def _as_the_camera_gives(self, frame: Frame, index: int) -> npt.NDArray[np.uint8]:
        assert self.frames is not None
        found = frame[:, :, np.newaxis] if isinstance(frame, np.ndarray) and frame.ndim == 2 else frame
        if not isinstance(found, np.ndarray) or found.dtype != np.uint8 or found.shape != self.frames.shape:
            is_a = (
                f"{found.dtype} {found.shape}" if isinstance(found, np.ndarray) else f"of type {type(frame).__name__}"
            )
            raise ImageError(
                f"frame {index} is {is_a}: this engine was compiled for frames of {self.frames}, uint8 "
                f"{self.frames.shape}; for others, compile without --frames"
            )
        return found

    def close(self) -> None:
        """Frees the engine; may be called again."""
        self.engine.close()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()


def _on_gpu(frame: Frame) -> TypeGuard[OnGpu]:
    return not isinstance(frame, (np.ndarray, Image.Image, str, Path)) and (
        hasattr(frame, "__cuda_array_interface__") or hasattr(frame, "__dlpack__")
    )
