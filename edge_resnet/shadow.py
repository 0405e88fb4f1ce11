"""Shadow mode: one frame in N also through FP32, beside the answers.

So a fleet sees when INT8 has stopped answering as FP32. The FP32 network is in every bundle; ONNX Runtime runs it on one
thread of low priority. Frames wait for it in a short queue: where that is full a frame is skipped and counted, for an
answer never waits for its shadow.
"""

from __future__ import annotations

import logging
import math
import os
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from threading import Condition, Thread, get_native_id

import numpy as np
import numpy.typing as npt

from edge_resnet.accuracy import Z95
from edge_resnet.bundle import FP32_MEMBER, Bundle
from edge_resnet.engines.ort import SideOrtEngine
from edge_resnet.errors import BundleError

_LOG = logging.getLogger(__name__)
NICE = 10
"""How much the shadow's thread stands back, as ``nice`` counts."""
FEWEST = 100
"""Frames below which nothing is told."""


@dataclass(frozen=True)
class ShadowStats:
    """What shadow mode saw so far; each frame that was taken is compared, skipped, failed, or waits."""

    frames: int
    """That it was shown."""
    compared: int
    skipped: int
    """The queue was full, or the frame is on the GPU alone."""
    failed: int
    """FP32 could not be run on them."""
    agreement: float | None
    """Share of the last frames whose most probable class is FP32's; None where none was compared."""
    interval: tuple[float, float] | None
    """Its 95 % interval (Wilson, "Probable Inference", 1927)."""
    sqnr_db: float | None
    """Signal to noise ratio of the last frames' logits; None where none was compared, infinite where they are equal."""
    diverging: bool
    """Whether even the interval's upper end is below what was asked for."""


@dataclass(frozen=True)
class _Waiting:
    pixels: npt.NDArray[np.uint8]
    answer: npt.NDArray[np.float32]


class Shadow:
    """Compares a runtime's answers with FP32's; close it, or use it in a ``with`` block.

        with Classifier("model.edge") as classify, Shadow(classify.reopen(), every=100, least=0.95) as shadow:
            classify.watch(shadow)

    Args:
        bundle: the one that runs.
        every: one frame in so many is compared.
        window: the last so many comparisons make the agreement.
        least: agreement that is expected; told when, by the 95 % interval, it is missed.
        queue: frames that may wait for FP32.
        notify: called when the agreement falls below ``least``, and when it is back, on the shadow's own thread.

    Raises:
        BundleError: the network gives features, which agree in no class; or a number is out of range.
    """

    def __init__(
        self,
        bundle: Bundle,
        *,
        every: int = 100,
        window: int = 1000,
        least: float = 0.9,
        queue: int = 4,
        notify: Callable[[ShadowStats], None] = lambda stats: None,
    ) -> None:
        if bundle.manifest.labels is None:
            raise BundleError(f"bundle '{bundle.manifest.name}' gives features: shadow mode compares classes")
        if every < 1 or window < FEWEST or queue < 1 or not 0 < least <= 1:
            raise BundleError(
                f"every is {every}, window {window}, queue {queue}, least {least}: give every and queue of 1 or more, a "
                f"window of {FEWEST} or more, and a share up to 1"
            )
        self.every, self._least, self._limit, self._notify = every, least, queue, notify
        self._engine = SideOrtEngine(bundle.read(FP32_MEMBER))
        self._changed = Condition()
        self._queue: deque[_Waiting] = deque()
        self._agreed: deque[bool] = deque(maxlen=window)
        self._powers: deque[tuple[float, float]] = deque(maxlen=window)
        self._frames = self._compared = self._skipped = self._failed = 0
        self._diverging = self._closed = self._busy = False
        self._thread = Thread(target=self._work, name="edge-resnet-shadow", daemon=True)
        self._thread.start()

    def observe(self, answer: npt.NDArray[np.float32], pixels: Callable[[], npt.NDArray[np.uint8] | None]) -> None:
        """Takes one answer; a runtime calls it."""
        with self._changed:
            self._frames += 1
            if (self._frames - 1) % self.every or self._closed:
                return
            if len(self._queue) >= self._limit:
                self._skipped += 1
                return
        frame = pixels()
        with self._changed:
            if frame is None or self._closed or len(self._queue) >= self._limit:
                self._skipped += 1
            else:
                self._queue.append(_Waiting(frame, answer.copy()))  # the caller has it too, and may change it
                self._changed.notify_all()

    def _work(self) -> None:
        with suppress(OSError):  # a container may forbid it
            os.setpriority(os.PRIO_PROCESS, get_native_id(), NICE)
        while (waiting := self._next()) is not None:
            try:
                changed = self._compare(waiting)
            except Exception:  # whatever one frame does to FP32: the next is compared
                _LOG.exception("shadow mode failed on a frame")
                with self._changed:
                    self._failed += 1
            else:
                self._tell(changed)

    def _next(self) -> _Waiting | None:
        with self._changed:
            self._busy = False
            self._changed.notify_all()
            self._changed.wait_for(lambda: self._closed or self._queue)
            if self._closed:
                return None
            self._busy = True
            return self._queue.popleft()

    def _compare(self, waiting: _Waiting) -> ShadowStats | None:
        """Counts one frame; the statistics where it changed the verdict."""
        wanted = self._engine.run(waiting.pixels[np.newaxis])[0].astype(np.float64)
        noise = wanted - waiting.answer
        with self._changed:
            self._compared += 1
            self._agreed.append(int(wanted.argmax()) == int(waiting.answer.argmax()))
            self._powers.append((float(wanted @ wanted), float(noise @ noise)))
            return self._stats() if self._judge() else None

    def _tell(self, changed: ShadowStats | None) -> None:
        if changed is None:
            return
        _LOG.warning("the engine %s", _said(changed))
        try:
            self._notify(changed)
        except Exception:  # the program's own: it costs no comparison
            _LOG.exception("what shadow mode was to notify failed")

    def _judge(self) -> bool:
        """Whether it has just begun, or ceased, to diverge; back only where the share itself is as wanted."""
        before = self._diverging
        if len(self._agreed) >= FEWEST:
            share, (_, high) = sum(self._agreed) / len(self._agreed), wilson(sum(self._agreed), len(self._agreed))
            self._diverging = share < self._least if before else high < self._least
        return self._diverging is not before

    @property
    def stats(self) -> ShadowStats:
        """What it saw so far."""
        with self._changed:
            return self._stats()

    def _stats(self) -> ShadowStats:
        counts = (self._frames, self._compared, self._skipped, self._failed)
        if not self._agreed:
            return ShadowStats(*counts, None, None, None, self._diverging)
        signal, noise = (sum(column) for column in zip(*self._powers, strict=True))
        decibels = math.inf if noise == 0 else 10 * math.log10(signal / noise) if signal > 0 else -math.inf
        share, interval = sum(self._agreed) / len(self._agreed), wilson(sum(self._agreed), len(self._agreed))
        return ShadowStats(*counts, share, interval, decibels, self._diverging)

    def drain(self, seconds: float) -> bool:
        """Waits until nothing waits for FP32, so long at most; whether that is so."""
        with self._changed:
            return self._changed.wait_for(lambda: not self._queue and not self._busy, seconds)

    def close(self) -> None:
        """Ends it; what waits is not compared. May be called again."""
        with self._changed:
            self._closed = True
            self._skipped += len(self._queue)
            self._queue.clear()
            self._changed.notify_all()
        self._thread.join()
        self._engine.close()

    def __enter__(self) -> Shadow:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def wilson(hits: int, trials: int) -> tuple[float, float]:
    """The 95 % interval of a share, by Wilson's score; also right near 0 and 1, where agreement is."""
    share, z2 = hits / trials, Z95**2
    middle = (share + z2 / (2 * trials)) / (1 + z2 / trials)
    half = Z95 / (1 + z2 / trials) * math.sqrt(share * (1 - share) / trials + z2 / (4 * trials**2))
    return max(0.0, middle - half), min(1.0, middle + half)


def _said(stats: ShadowStats) -> str:
    state = "no longer answers as FP32" if stats.diverging else "answers as FP32 again"
    return f"{state}: {100 * (stats.agreement or 0):.1f} % of the last frames agree, logit SQNR {stats.sqnr_db:.1f} dB"
