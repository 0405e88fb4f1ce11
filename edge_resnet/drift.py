"""Drift watch: whether what the network sees, and says, still looks as it did when the bundle was built.

A monitor keeps the last ``window`` frames in numbers (``drift_reference``) and compares the distribution of each number
with the reference's by the population stability index, PSI = Σ (p − q) · ln(p / q) over ten bins (Siddiqi, "Credit Risk
Scorecards", 2006; Kullback's J divergence). Its customary reading: below 0.1 no change, above 0.25 a shift that wants
action. Of two samples of one population, of n and m, PSI / (1/n + 1/m) has about the chi-squared distribution of (bins − 1)
degrees of freedom (Yurdakul and Naranjo, "Statistical properties of the population stability index", 2020). Its mean is
taken off first, so that the reading does not depend on the window, and a number has drifted only where ``ERRORS`` of its
standard deviations are passed too: with 256 of each that is 0.2, and of few images only a larger shift is certain. An empty
bin counts as half a frame.

The index compares populations: a window has to hold what the camera usually meets. A robot that stands still sees one
scene, which is no sample of anything. So take one frame in ``every``, such that the window spans minutes to hours.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Callable
from dataclasses import dataclass
from threading import Lock

import numpy as np
import numpy.typing as npt

from edge_resnet.bundle import Bundle
from edge_resnet.drift_reference import Numbers, Reference, answer_numbers, frame_numbers
from edge_resnet.errors import BundleError

_LOG = logging.getLogger(__name__)

ENTER = 0.25
"""PSI from which a number has drifted."""
ERRORS = 6
BACK = 0.4
"""It is back below this part of what it had to pass: a number at the limit does not come and go."""
STEP = 8
"""Frames between two comparisons."""


@dataclass(frozen=True)
class Reading:
    """One number over the window."""

    mean: float | None
    """None before there is a frame that has it: one on the GPU has no brightness here."""
    usual: float
    """Its mean over the images of the build."""
    psi: float | None
    """Less what chance makes; None until the window is full."""
    drifted: bool


@dataclass(frozen=True)
class DriftChange:
    """A number that left what is usual, or came back."""

    name: str
    """``brightness``, ``contrast``, ``sharpness``, ``tint``, ``confidence`` or ``entropy``."""
    reading: Reading

    def __str__(self) -> str:
        now = self.reading
        state = "has drifted" if now.drifted else "is as usual again"
        return f"{self.name} {state}: {now.mean:.3g} on average, {now.usual:.3g} in the build (PSI {now.psi:.2f})"


@dataclass(frozen=True)
class DriftStats:
    """What a monitor saw so far."""

    frames: int
    """That it was shown."""
    watched: int
    """That it looked at: one in ``every``."""
    alarms: int
    """How often a number drifted."""
    readings: dict[str, Reading]

    @property
    def drifted(self) -> tuple[str, ...]:
        """The numbers that are not as usual now."""
        return tuple(name for name, reading in self.readings.items() if reading.drifted)


class _Window:
    """The last values of one number, as a ring; how many are in each bin."""

    def __init__(self, name: str, reference: Reference, size: int) -> None:
        self.name, self._usual = name, reference.distributions[name]
        self._edges = np.array(self._usual.edges)
        self._values, self._bins = np.zeros(size), np.zeros(size, np.intp)
        self._counts, self._seen = np.zeros(len(self._usual.shares)), 0
        self._log_usual = np.log(self._smoothed(np.array(self._usual.shares) * reference.images))
        freedom, scale = len(self._counts) - 1, 1 / size + 1 / reference.images
        self._chance = freedom * scale
        self.enter = max(ENTER, ERRORS * math.sqrt(2 * freedom) * scale)
        self.drifted = False

    @staticmethod
    def _smoothed(counts: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
        """Shares, half a frame put into each bin."""
        shares: npt.NDArray[np.float64] = (counts + 0.5) / (counts.sum() + 0.5 * len(counts))
        return shares

    @property
    def full(self) -> bool:
        return self._seen >= len(self._values)

    def add(self, value: float) -> None:
        place = self._seen % len(self._values)
        if self.full:
            self._counts[self._bins[place]] -= 1
        found = int(self._edges.searchsorted(value, side="right"))
        self._values[place], self._bins[place] = value, found
        self._counts[found] += 1
        self._seen += 1

    def psi(self) -> float | None:
        if not self.full:
            return None
        shares = self._smoothed(self._counts)
        log_shares = np.log(shares)
        index = float((shares - np.exp(self._log_usual)) @ (log_shares - self._log_usual))
        return max(0.0, index - self._chance)

    def reading(self) -> Reading:
        known = self._values[: min(self._seen, len(self._values))]
        return Reading(float(known.mean()) if len(known) else None, self._usual.mean, self.psi(), self.drifted)

    def changed(self) -> bool:
        """Compares; whether it has just drifted or come back."""
        psi = self.psi()
        before = self.drifted
        if psi is not None:
            self.drifted = psi >= (BACK * self.enter if before else self.enter)
        return self.drifted is not before


class DriftMonitor:
    """Watches a runtime's frames and answers for drift; in constant memory, from any number of threads.

        with Classifier("model.edge") as classify:
            drift = DriftMonitor(classify.reopen(), every=30, notify=print)
            classify.watch(drift)

    Args:
        bundle: the one that runs.
        window: frames that are compared, at least 64: fewer have no distribution.
        every: one frame in so many is looked at; see the module on how to choose it.
        notify: called when a number drifts or comes back, on the thread of the frame that showed it. It must not block.

    Raises:
        BundleError: the bundle was built before there was a reference; or ``window`` or ``every`` is too small.
    """

    def __init__(
        self,
        bundle: Bundle,
        *,
        window: int = 256,
        every: int = 1,
        notify: Callable[[DriftChange], None] = lambda change: None,
    ) -> None:
        if window < 64 or every < 1:
            raise BundleError(
                f"window is {window} and every {every}: give a window of 64 or more, and every of 1 or more"
            )
        reference = Reference.of_bundle(bundle)
        self.every, self._notify = every, notify
        self._answers = "confidence" in reference.distributions
        self._windows = {name: _Window(name, reference, window) for name in reference.distributions}
        self._lock = Lock()
        self._frames = self._watched = self._alarms = 0

    def observe(self, answer: npt.NDArray[np.float32], pixels: Callable[[], npt.NDArray[np.uint8] | None]) -> None:
        """Takes one answer; a runtime calls it."""
        with self._lock:
            self._frames += 1
            looks = (self._frames - 1) % self.every == 0
        if not looks:
            return
        frame = pixels()
        numbers = {} if frame is None else frame_numbers(frame)
        if self._answers:
            numbers |= answer_numbers(answer)
        for change in self._taken(numbers):
            _LOG.warning("%s", change)
            self._notify(change)

    def _taken(self, numbers: Numbers) -> list[DriftChange]:
        with self._lock:
            for name, value in numbers.items():
                self._windows[name].add(value)
            self._watched += 1
            if self._watched % STEP:
                return []
            changes = [DriftChange(each.name, each.reading()) for each in self._windows.values() if each.changed()]
            self._alarms += sum(change.reading.drifted for change in changes)
            return changes

    @property
    def stats(self) -> DriftStats:
        """What it saw so far."""
        with self._lock:
            readings = {name: window.reading() for name, window in self._windows.items()}
            return DriftStats(self._frames, self._watched, self._alarms, readings)
