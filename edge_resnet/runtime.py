"""What classifier and embedder share: a bundle's engine, chosen for this host, and frames made ready for it.

Needs numpy, Pillow and one backend; never torch, never onnx.
"""

from __future__ import annotations

import logging
import time
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
from edge_resnet.frames import CameraFrame, FrameColor, FrameFormat, color_named
from edge_resnet.golden import replay
from edge_resnet.images import read_image
from edge_resnet.preprocessing import Preprocessing

_LOG = logging.getLogger(__name__)


class OnGpu(Protocol):
    """An array on the GPU, of CuPy, torch, numba, jetson-utils and others; some have ``__dlpack__`` too."""

    @property
    def __cuda_array_interface__(self) -> dict[str, Any]: ...


Frame = npt.NDArray[np.uint8] | Image.Image | str | Path | OnGpu
"""uint8 H×W×3 RGB or H×W grey, a Pillow image, or the path of an image file. Where the engine prepares frames itself, or
they are prepared: an array on the GPU as the engine takes it, uint8 H×W×C."""


@dataclass(frozen=True)
class Timing:
    """Where the time of one answer went."""

    prepare_ms: float
    run_ms: float
    """Of the whole batch."""
    age_ms: float | None = None
    """From the frame's capture to its answer; None where nobody knows when it was captured."""


@dataclass(frozen=True)
class ReadyFrame:
    """A frame as the engine takes it."""

    given: Frame | CameraFrame
    pixels: npt.NDArray[np.uint8] | OnGpu
    prepare_ms: float

    def timing(self, run_ms: float) -> Timing:
        """That of its answer, which is there now."""
        captured = self.given.captured if isinstance(self.given, CameraFrame) else None
        return Timing(self.prepare_ms, run_ms, None if captured is None else 1e3 * (time.monotonic() - captured))


@dataclass(frozen=True)
class RunnableEngine:
    """An engine of a bundle, and what it is for."""

    target: Target
    data: bytes
    frames: FrameFormat | None
    """What its camera gives, if its graph prepares frames itself."""
    why: str
    """Why it was chosen, in one line."""


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
    reasons: list[str] = []
    for name in sorted(engines, key=lambda name: target_named(name).kind == "onnxruntime"):
        found = target_named(name).at(bundle.manifest.precision)
        why_not = engine_class(found.kind).why_not_run(found)
        if why_not is None:
            return RunnableEngine(found, engines[name].data, engines[name].frames, _why(name, target, reasons))
        reasons.append(f"{name}: {why_not}")
    raise UnavailableError(f"no engine of {path} runs here: {'; '.join(reasons) or 'it holds none'}")


def _why(name: str, asked: str | None, passed_over: list[str]) -> str:
    if asked is not None:
        return f"{name}: asked for"
    return f"{name}: " + (f"others do not run here ({'; '.join(passed_over)})" if passed_over else "it runs here")


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
    """A bundle's engine and the preprocessing in front of it. It may be called from any number of threads.

    Args:
        path: a ``.edge`` bundle.
        target: which of its engines; by default the fastest kind that runs here.
        color: of the arrays that it is called with, one of ``FrameColor``'s values; frames of a stream say their own.
        cuda: the Python binding of CUDA that an engine on a GPU shall use, ``cuda-bindings`` or ``pycuda``; None takes
            the environment's ``EDGE_RESNET_CUDA``, else the one that is installed.
        trust: whose bundles are taken, a folder of ``.pub`` files or one of them; see ``open_bundle``. An engine beside
            the bundle must be signed too. All of this is checked before any engine is loaded.

    Raises:
        BundleError: the bundle is damaged or no bundle.
        TrustError: no trusted key has signed the bundle, or an engine beside it.
        ImageError: there is no such colour.
        UnavailableError: none of its engines runs here.
        GateError: this is another device than the bundle was built on, and the engine answers otherwise on it.
    """

    def __init__(
        self,
        path: str | Path,
        *,
        target: str | None = None,
        color: str = "rgb",
        cuda: str | None = None,
        trust: str | Path | None = None,
    ) -> None:
        path = Path(path)
        self.color = color_named(color)
        bundle = open_bundle(path, trust)
        found = find_engine(path, bundle, target)
        self.target, self.why = found.target.name, found.why
        _LOG.info("%s runs on %s", path, found.why)
        self.labels = bundle.manifest.labels
        """The classes' names; None where the network gives features."""
        self.preprocessing = Preprocessing.from_json(bundle.manifest.preprocessing)
        self.frames = found.frames
        """What the camera gives, where the engine's graph prepares frames itself: then it takes no others."""
        self.engine: Engine = engine_class(found.target.kind)(found.data, cuda=cuda)
        try:
            _verify_on_another_device(path, bundle, self.target, self.engine)
            _warm_up(self.engine)
        except BaseException:
            self.engine.close()
            raise

    def answers(self, frames: Sequence[Frame | CameraFrame]) -> npt.NDArray[np.float32]:
        """Prepares frames and runs them, in batches as large as the engine takes.

        Args:
            frames: at least one; they need not be of one size. Frames on the GPU run one by one, and are not mixed with
                others.

        Returns:
            float32, one answer a frame, of the shape that the engine gives.

        Raises:
            ImageError: a frame has another dtype or shape, or a file is no image.
        """
        return self._run([self.ready(frame, name=f"frame {index}") for index, frame in enumerate(frames)])[0]

    def ready(self, frame: Frame | CameraFrame, color: FrameColor | None = None, name: str = "the frame") -> ReadyFrame:
        """Prepares a frame for the engine.

        Args:
            frame: as ``answers`` takes it.
            color: of an array; None is the one that was declared. A ``CameraFrame`` says its own.
            name: what messages call it.

        Raises:
            ImageError: the frame has another dtype or shape, or the file is no image.
        """
        start = time.perf_counter()
        pixels = frame if _on_gpu(frame) else self._prepared(frame, color or self.color, name)
        return ReadyFrame(frame, pixels, 1e3 * (time.perf_counter() - start))

    def _run(self, ready: Sequence[ReadyFrame]) -> tuple[npt.NDArray[np.float32], float]:
        """Answers, and the milliseconds that they took."""
        if not ready:
            raise ImageError("an empty list of frames: give at least one")
        start = time.perf_counter()
        found = self._answered([frame.pixels for frame in ready])
        return found, 1e3 * (time.perf_counter() - start)

    def _answered(self, frames: Sequence[npt.NDArray[np.uint8] | OnGpu]) -> npt.NDArray[np.float32]:
        on_gpu = [frame for frame in frames if _on_gpu(frame)]
        if on_gpu:
            if len(on_gpu) < len(frames):
                raise ImageError("some frames are on the GPU and some are not: give them in lists of their own")
            return np.concatenate([self.engine.run_device(frame) for frame in on_gpu])
        prepared = [frame for frame in frames if isinstance(frame, np.ndarray)]
        if len(prepared) == 1:
            return self.engine.run(
                prepared[0][np.newaxis]
            )  # one frame, as from a camera, is copied once, by the engine
        limit = self.engine.input.max_batch or len(prepared)
        batches = (np.stack(prepared[start : start + limit]) for start in range(0, len(prepared), limit))
        return np.concatenate([self.engine.run(batch) for batch in batches])

    def _prepared(self, frame: Frame | CameraFrame, color: FrameColor, name: str) -> npt.NDArray[np.uint8]:
        if isinstance(frame, CameraFrame):
            return self._prepared(frame.pixels, frame.color, f"frame {frame.index}")
        if self.frames is not None:
            return self._as_the_camera_gives(frame, color, name)
        if isinstance(frame, (str, Path)):
            return self.preprocessing.prepare(read_image(Path(frame)), str(frame))
        array = isinstance(frame, np.ndarray)
        return self.preprocessing.prepare(frame, name, color if array else FrameColor.RGB)  # type: ignore[arg-type]

    def _as_the_camera_gives(self, frame: Frame, color: FrameColor, name: str) -> npt.NDArray[np.uint8]:
        assert self.frames is not None
        found = frame[:, :, np.newaxis] if isinstance(frame, np.ndarray) and frame.ndim == 2 else frame
        if not isinstance(found, np.ndarray) or found.dtype != np.uint8 or found.shape != self.frames.shape:
            is_a = (
                f"{found.dtype} {found.shape}" if isinstance(found, np.ndarray) else f"of type {type(frame).__name__}"
            )
            raise ImageError(
                f"{name} is {is_a}: this engine was compiled for frames of {self.frames}, uint8 {self.frames.shape}; for "
                f"others, compile without --frames"
            )
        if color is not self.frames.color:
            raise ImageError(
                f"{name} is {color.value}: this engine was compiled for frames of {self.frames}; give "
                f"color='{self.frames.color.value}', or compile for the camera's colour"
            )
        return found

    def close(self) -> None:
        """Frees the engine; may be called again."""
        self.engine.close()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()


def _warm_up(engine: Engine) -> None:
    """The first runs are slow: memory is taken, and on a GPU kernels are loaded and the second run becomes a graph."""
    spec = engine.input
    frame = np.zeros((1, spec.height, spec.width, spec.channels), np.uint8)
    for _ in range(2):
        engine.run(frame)


def _on_gpu(frame: object) -> TypeGuard[OnGpu]:
    return not isinstance(frame, (np.ndarray, Image.Image, str, Path, CameraFrame)) and (
        hasattr(frame, "__cuda_array_interface__") or hasattr(frame, "__dlpack__")
    )
