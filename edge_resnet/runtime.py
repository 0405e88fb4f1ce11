"""What classifier and embedder share: a bundle's engine, chosen for this host, and frames made ready for it.

Needs numpy, Pillow and one backend; never torch, never onnx.
"""

from __future__ import annotations

import logging
import math
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from threading import Lock
from types import TracebackType
from typing import Any, Protocol, TypeGuard, TypeVar

import numpy as np
import numpy.typing as npt
from PIL import Image

from edge_resnet.bundle import Bundle, open_bundle
from edge_resnet.engines.engine import Engine
from edge_resnet.errors import BundleError, EngineError, ImageError
from edge_resnet.frames import CameraFrame, FrameColor, color_named
from edge_resnet.images import read_image
from edge_resnet.loading import Fallback, LoadPlan, Verify, chosen, load
from edge_resnet.preprocessing import Preprocessing

_LOG = logging.getLogger(__name__)


class OnGpu(Protocol):
    """An array on the GPU, of CuPy, torch, numba, jetson-utils and others; some have ``__dlpack__`` too."""

    @property
    def __cuda_array_interface__(self) -> dict[str, Any]: ...


Frame = npt.NDArray[np.uint8] | Image.Image | str | Path | OnGpu
"""uint8 H×W×3 RGB or H×W grey, a Pillow image, or the path of an image file. Where the engine prepares frames itself, or
they are prepared: an array on the GPU as the engine takes it, uint8 H×W×C."""


@dataclass(frozen=True, slots=True)
class Timing:
    """Where the time of one answer went."""

    prepare_ms: float
    run_ms: float
    """Of the whole batch."""
    age_ms: float | None = None
    """From the frame's capture to its answer; None where nobody knows when it was captured."""


@dataclass(frozen=True, slots=True)
class ReadyFrame:
    """A frame as the engine takes it."""

    given: Frame | CameraFrame
    pixels: npt.NDArray[np.uint8] | OnGpu
    prepare_ms: float

    def timing(self, run_ms: float) -> Timing:
        """That of its answer, which is there now."""
        captured = self.given.captured if isinstance(self.given, CameraFrame) else None
        return Timing(self.prepare_ms, run_ms, None if captured is None else 1e3 * (time.monotonic() - captured))


class Watcher(Protocol):
    """Sees the answers of a runtime as they come: a drift monitor, shadow mode, or one of your own."""

    def observe(self, answer: npt.NDArray[np.float32], pixels: Callable[[], npt.NDArray[np.uint8] | None]) -> None:
        """Takes one answer; called on the thread that asked for it, which waits.

        Args:
            answer: the engine's, of one frame.
            pixels: gives that frame as the network sees it, uint8 H×W×C, not to be written to; costs a preparation where
                the engine prepares frames itself. None of a frame on the GPU.
        """


@dataclass(frozen=True)
class RuntimeStats:
    """What became of the frames that a runtime was given; each is in one of these, or at work."""

    answered: int = 0
    refused: int = 0
    """They could not be prepared: another dtype, shape or colour, or no image."""
    failed: int = 0
    """The engine raised an error."""
    not_finite: int = 0
    """The engine gave NaN or infinity for one of their batch, of which no prediction is made."""


_Opened = TypeVar("_Opened", bound="Runtime")


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
        verify: when the engine must answer the golden samples first, one of ``Verify`` or its value.
        fallback: what to do when the engine cannot be loaded or answers otherwise, one of ``Fallback`` or its value; a
            ``target`` that was asked for is never exchanged for another.

    Raises:
        BundleError: the bundle is damaged or no bundle.
        TrustError: no trusted key has signed the bundle, or an engine beside it.
        ImageError: there is no such colour.
        UnavailableError: none of its engines runs here.
        EngineError: the engine was compiled by another version or for another GPU, or the library refuses it.
        GateError: the engine answers the golden samples otherwise here.
    """

    def __init__(
        self,
        path: str | Path,
        *,
        target: str | None = None,
        color: str = "rgb",
        cuda: str | None = None,
        trust: str | Path | None = None,
        verify: str | Verify = Verify.UNMEASURED,
        fallback: str | Fallback = Fallback.REFUSE,
    ) -> None:
        path = Path(path)
        self.path = path
        self.color = color_named(color)
        plan = LoadPlan(chosen(Verify, "verify", verify), chosen(Fallback, "fallback", fallback), cuda)
        bundle = open_bundle(path, trust)
        self.digest = bundle.digest
        """SHA-256 of the bundle that the engine is of, in hex."""
        self._trust = trust
        self._check_kind(bundle.manifest.labels)
        self.engine: Engine
        found, self.engine = load(path, bundle, target, plan)
        self.target, self.why = found.target.name, found.why
        _LOG.info("%s runs on %s", path, found.why)
        self.labels = bundle.manifest.labels
        """The classes' names; None where the network gives features."""
        self.preprocessing = Preprocessing.from_json(bundle.manifest.preprocessing)
        self.frames = found.frames
        """What the camera gives, where the engine's graph prepares frames itself: then it takes no others."""
        self.device = self.engine.device()
        """What the engine runs on, in words."""
        self._watchers: tuple[Watcher, ...] = ()
        self._failed_watchers: set[int] = set()
        self._lock, self._counts = Lock(), Counter[str]()

    def _check_kind(self, labels: tuple[str, ...] | None) -> None:
        """Refuses a bundle that is not for this class, by its labels, before its engine is loaded."""

    def reopen(self) -> Bundle:
        """Opens the bundle again, by the same trust, for what else is in it: the runtime keeps its engine alone.

        Raises:
            BundleError: another one lies there by now, which this engine is not of; or it cannot be read any more.
            TrustError: no trusted key has signed what lies there.
        """
        bundle = open_bundle(self.path, self._trust)
        if bundle.digest != self.digest:
            raise BundleError(f"bundle '{self.path}' has become another one since its engine was loaded: start again")
        return bundle

    @property
    def camera_color(self) -> FrameColor:
        """What a camera should give: the engine's own, where it prepares frames itself, else RGB."""
        return FrameColor.RGB if self.frames is None else self.frames.color

    def watch(self, *watchers: Watcher) -> None:
        """Shows every answer from now on to watchers; what one of them raises is logged, and harms no answer."""
        self._watchers += watchers

    @property
    def stats(self) -> RuntimeStats:
        """What became of the frames so far."""
        with self._lock:
            return RuntimeStats(**self._counts)

    def _count(self, what: str, frames: int) -> None:
        with self._lock:
            self._counts[what] += frames

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
        try:
            pixels = frame if _on_gpu(frame) else self._prepared(frame, color or self.color, name)
        except Exception:  # counted, whatever a frame's own class does
            self._count("refused", 1)
            raise
        return ReadyFrame(frame, pixels, 1e3 * (time.perf_counter() - start))

    def _run(self, ready: Sequence[ReadyFrame]) -> tuple[npt.NDArray[np.float32], float]:
        """Answers, and the milliseconds that they took.

        Raises:
            EngineError: the engine failed, or gave NaN or infinity: no answer is made of those.
        """
        if not ready:
            raise ImageError("an empty list of frames: give at least one")
        start = time.perf_counter()
        try:
            found = self._answered([frame.pixels for frame in ready])
        except ImageError:  # some frames are on the GPU, and some are not
            self._count("refused", len(ready))
            raise
        except Exception:  # counted, whatever the library calls it
            self._count("failed", len(ready))
            raise
        run_ms = 1e3 * (time.perf_counter() - start)
        self._require_finite(found)
        self._count("answered", len(ready))
        for watcher in self._watchers:
            self._show(watcher, ready, found)
        return found, run_ms

    def _require_finite(self, answers: npt.NDArray[np.float32]) -> None:
        if math.isfinite(np.add.reduce(answers, axis=None, dtype=np.float64)):  # one pass: a sum keeps NaN and infinity
            return
        self._count("not_finite", len(answers))
        first = int(np.argmin(np.isfinite(answers).reshape(len(answers), -1).all(axis=1)))
        raise EngineError(
            f"the engine for {self.target} gave NaN or infinity for frame {first} of {len(answers)}: open it again "
            f"with verify='golden'; if that passes, doubt the device's memory"
        )

    def _show(self, watcher: Watcher, ready: Sequence[ReadyFrame], answers: npt.NDArray[np.float32]) -> None:
        for frame, answer in zip(ready, answers, strict=True):
            try:
                watcher.observe(answer, partial(self._as_the_network_sees, frame.pixels))
            except Exception:  # the program's own: no answer is lost for it
                # With its traceback once: a watcher that fails on every frame would fill the disk.
                level = logging.DEBUG if id(watcher) in self._failed_watchers else logging.ERROR
                self._failed_watchers.add(id(watcher))
                _LOG.log(level, "a watcher failed, and missed frames: %s", type(watcher).__name__, exc_info=True)

    def _as_the_network_sees(self, pixels: npt.NDArray[np.uint8] | OnGpu) -> npt.NDArray[np.uint8] | None:
        if not isinstance(pixels, np.ndarray):
            return None
        if self.frames is None:
            return pixels
        return self.preprocessing.prepare(pixels, "a frame to be watched", self.frames.color)

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

    def __enter__(self: _Opened) -> _Opened:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()


def _on_gpu(frame: object) -> TypeGuard[OnGpu]:
    return not isinstance(frame, (np.ndarray, Image.Image, str, Path, CameraFrame)) and (
        hasattr(frame, "__cuda_array_interface__") or hasattr(frame, "__dlpack__")
    )
