"""Observers: streaming statistics of one tensor, in constant memory, merged exactly.

Each sees images, can be merged with another of its kind, and gives a ``TensorRange`` at the end. The state is integer
counts and exact extremes, so that the range does not depend on how images were split into batches or in which order
parts were merged; the moving average alone depends on the images' order, and refuses to be merged.
"""

from __future__ import annotations

import math
import sys
from abc import ABC, abstractmethod
from dataclasses import asdict, dataclass, fields
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt

from edge_resnet.errors import CalibrationError

Values = npt.NDArray[np.float32]


@dataclass(frozen=True)
class TensorRange:
    """What is known of one tensor, and the ranges chosen for it."""

    minimum: float
    """Smallest value seen."""
    maximum: float
    """Largest value seen."""
    amax: float
    """Chosen for symmetric INT8: covers [−amax, amax]."""
    low: float
    """Chosen for asymmetric UINT8: lower end."""
    high: float
    """Chosen for asymmetric UINT8: upper end."""

    def to_json(self) -> dict[str, float]:
        return asdict(self)

    @classmethod
    def from_json(cls, values: Any) -> TensorRange:
        """Reads what ``to_json`` gave.

        Raises:
            CalibrationError: it is something else, or not all of it is finite.
        """
        wanted = [field.name for field in fields(cls)]
        numbers = isinstance(values, dict) and all(
            isinstance(v, (int, float)) and abs(v) <= sys.float_info.max for v in values.values()
        )
        if not numbers or set(values) != set(wanted):
            raise CalibrationError(f"a tensor's range is {values}: it needs the finite numbers {', '.join(wanted)}")
        return cls(**{name: float(value) for name, value in values.items()})


class Observer(ABC):
    """Statistics of one tensor."""

    name: ClassVar[str]
    mergeable: ClassVar[bool] = True
    """Whether parts of the images, observed apart, give the same range."""

    def __init__(self) -> None:
        self.minimum = math.inf
        self.maximum = -math.inf

    def observe(self, values: Values, sample: Values) -> None:
        """Takes one image's tensor.

        Args:
            values: all of it, for the extremes.
            sample: the part of it that a distribution is estimated from; may be all of it.

        Raises:
            CalibrationError: a value is not finite.
        """
        # Reductions in the runtime that gave the extremes may pass a NaN over; the sample has it.
        low, high = float(np.minimum(values.min(), sample.min())), float(np.maximum(values.max(), sample.max()))
        if not (math.isfinite(low) and math.isfinite(high)):
            raise CalibrationError("a value is NaN or infinite: check the weights and the preprocessing")
        self.minimum, self.maximum = min(self.minimum, low), max(self.maximum, high)
        self._take_image(low, high, sample)

    def merge(self, other: Observer) -> None:
        """Adds what another observer of the same kind has seen.

        Raises:
            CalibrationError: it is of another kind, or of one whose range depends on the order of images.
        """
        if type(other) is not type(self):
            raise CalibrationError(f"cannot merge {other.name} statistics into {self.name} ones")
        self._merge(other)
        self.minimum = min(self.minimum, other.minimum)
        self.maximum = max(self.maximum, other.maximum)

    def range(self) -> TensorRange:
        """The chosen ranges.

        Raises:
            CalibrationError: nothing was observed.
        """
        if self.minimum > self.maximum:
            raise CalibrationError("nothing was observed: give at least one image")
        amax, low, high = self._choose()
        return TensorRange(self.minimum, self.maximum, amax, low, high)

    @abstractmethod
    def _take_image(self, low: float, high: float, sample: Values) -> None:
        """Adds an image's tensor: its extremes, and a sample of its distribution."""

    @abstractmethod
    def _merge(self, other: Any) -> None:
        """Adds what the other holds besides extremes."""

    @abstractmethod
    def _choose(self) -> tuple[float, float, float]:
        """(amax, low, high)."""


class MinMaxObserver(Observer):
    """The full range that was seen: nothing is clipped (Jacob et al., arXiv:1712.05877, section 3.1)."""

    name = "minmax"

    def _take_image(self, low: float, high: float, sample: Values) -> None:
        pass

    def _merge(self, other: MinMaxObserver) -> None:
        pass

    def _choose(self) -> tuple[float, float, float]:
        return max(abs(self.minimum), abs(self.maximum)), self.minimum, self.maximum


class MovingAverageObserver(Observer):
    """Exponential moving averages of each image's extremes, in the order of the images (Jacob et al., arXiv:1712.05877,
    section 3.1).

    The first image starts both averages, and each later one moves them by a hundredth of the way: the last hundred or so
    decide, and of fewer images the first weighs most.
    """

    name = "moving-average"
    mergeable = False
    MOMENTUM = 0.99

    def __init__(self) -> None:
        super().__init__()
        self._averages: tuple[float, float] | None = None

    def _take_image(self, low: float, high: float, sample: Values) -> None:
        before_low, before_high = self._averages or (low, high)
        step = 1 - self.MOMENTUM
        # Rounded or not, average + step · (new − average) lies between the two, so within the extremes.
        self._averages = before_low + step * (low - before_low), before_high + step * (high - before_high)

    def _merge(self, other: MovingAverageObserver) -> None:
        raise CalibrationError(
            f"cannot merge {self.name} statistics, which depend on the order of the images: collect them in one go"
        )

    def _choose(self) -> tuple[float, float, float]:
        assert self._averages is not None
        low, high = self._averages
        return max(abs(low), abs(high)), low, high


class Histogram:
    """Counts of values in bins [i·2ᵏ, (i+1)·2ᵏ), |i| ≤ ``BINS``; k grows with the largest value seen.

    Doubling the width joins bins 2i and 2i + 1, exactly, so the final k and the counts depend on the values alone and
    not on their order. Exact zeros are counted apart: every quantizer keeps them, and after a ReLU they are half of all.
    """

    BINS = 2048

    def __init__(self) -> None:
        self.exponent: int | None = None
        self.counts = np.zeros(2 * self.BINS, np.int64)
        self.zeros = 0

    def add(self, values: Values) -> None:
        zeros = int(np.count_nonzero(values == 0))
        self.zeros += zeros
        if zeros < values.size:
            self._widen(self._exponent_for(float(max(values.max(), -values.min()))))
            bins = np.floor(self._in_widths(values.ravel())) + self.BINS
            self.counts += np.bincount(bins.astype(np.int32), minlength=2 * self.BINS)
            self.counts[self.BINS] -= zeros

    def _in_widths(self, values: Values) -> npt.NDArray[np.floating[Any]]:
        """Values in units of a bin's width, exactly: in float64 where −1e-45 might become 0, or a factor be infinite."""
        assert self.exponent is not None
        if -127 <= self.exponent <= 0:
            return np.asarray(values * np.float32(math.ldexp(1.0, -self.exponent)))
        return np.ldexp(values.astype(np.float64), -self.exponent)

    def merge(self, other: Histogram) -> None:
        self.zeros += other.zeros
        if other.exponent is None:
            return
        self._widen(other.exponent)
        counts = other.counts
        assert self.exponent is not None
        for _ in range(self.exponent - other.exponent):
            counts = self._halved(counts)
        self.counts = self.counts + counts

    @property
    def centres(self) -> npt.NDArray[np.float64]:
        """The middle of each bin."""
        middles = np.arange(-self.BINS, self.BINS, dtype=np.float64) + 0.5
        return np.ldexp(middles, self.exponent or 0)

    @property
    def width(self) -> float:
        """Of one bin."""
        return math.ldexp(1.0, self.exponent or 0)

    @property
    def magnitudes(self) -> npt.NDArray[np.int64]:
        """Counts of |x| in ``BINS`` bins from 0 on, exact zeros aside."""
        return np.asarray(self.counts[self.BINS :] + self.counts[: self.BINS][::-1])

    @classmethod
    def _exponent_for(cls, largest: float) -> int:
        exponent = math.frexp(largest)[1]  # largest = mantissa · 2^exponent, mantissa in [0.5, 1)
        return exponent - (cls.BINS.bit_length() - 1)

    def _widen(self, exponent: int) -> None:
        if self.exponent is None:
            self.exponent = exponent
        while self.exponent < exponent:
            self.counts = self._halved(self.counts)
            self.exponent += 1

    @classmethod
    def _halved(cls, counts: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
        joined = counts.reshape(-1, 2).sum(1)
        return np.pad(joined, cls.BINS // 2)


class HistogramObserver(Observer):
    """Base of the observers that choose from a histogram."""

    def __init__(self) -> None:
        super().__init__()
        self.histogram = Histogram()

    def _take_image(self, low: float, high: float, sample: Values) -> None:
        self.histogram.add(sample)

    def _merge(self, other: HistogramObserver) -> None:
        self.histogram.merge(other.histogram)


class PercentileObserver(HistogramObserver):
    """Clips the largest 0.01 % of the values on each side (McKinstry et al., arXiv:1809.04191, section 3.1.2)."""

    name = "percentile"
    PERCENTILE = 99.99

    def _choose(self) -> tuple[float, float, float]:
        counts, zeros = self.histogram.counts, self.histogram.zeros
        total = counts.sum() + zeros
        kept = total * self.PERCENTILE / 100
        width, middle = self.histogram.width, Histogram.BINS
        upper = np.cumsum(counts)
        upper[middle:] += zeros
        lower = np.cumsum(counts[::-1])
        lower[middle:] += zeros
        amax = (np.searchsorted(np.cumsum(self.histogram.magnitudes) + zeros, kept) + 1) * width
        high = (np.searchsorted(upper, kept) + 1 - middle) * width
        low = -(np.searchsorted(lower, kept) + 1 - middle) * width
        largest = max(abs(self.minimum), abs(self.maximum))
        return min(amax, largest), max(low, self.minimum), min(high, self.maximum)


class MseObserver(HistogramObserver):
    """The range with the least mean squared quantization error over the histogram.

    Clipping fewer values costs resolution, clipping more costs the clipped ones; the optimum is found by search
    (Sung et al., arXiv:1511.06488; Banner et al., arXiv:1810.05723 derive it for known distributions).
    """

    name = "mse"
    STEPS = 100

    def _choose(self) -> tuple[float, float, float]:
        used = self.histogram.counts > 0
        counts = self.histogram.counts[used].astype(np.float64)
        centres = self.histogram.centres[used]
        nearest = np.empty_like(centres)
        largest = max(abs(self.minimum), abs(self.maximum))
        if not counts.size:
            return largest, self.minimum, self.maximum

        def error(low: float, high: float, levels: int) -> float:
            scale = (high - low) / levels
            if scale <= 0:
                return math.inf
            lowest = np.rint(low / scale)
            steps = np.divide(centres, scale, out=nearest)
            np.rint(steps, out=steps)
            np.maximum(steps, lowest, out=steps)
            np.minimum(steps, lowest + levels, out=steps)
            steps *= scale
            steps -= centres
            steps *= steps
            return float(np.dot(counts, steps))

        shares = np.linspace(1.0, 0.02, self.STEPS)
        amax = largest * min(shares, key=lambda share: error(-largest * share, largest * share, 254))
        low, high = min(self.minimum, 0.0), max(self.maximum, 0.0)
        both = min(shares, key=lambda share: error(low * share, high * share, 255))
        low, high = low * both, high * both
        if low < 0 < high:  # the two tails differ: each end alone, around the joint optimum
            finer = np.linspace(1.2, 0.5, self.STEPS // 2)
            high *= min(finer, key=lambda share: error(low, high * share, 255))
            low *= min(finer, key=lambda share: error(low * share, high, 255))
        return amax, max(low, min(self.minimum, 0.0)), min(high, max(self.maximum, 0.0))


class EntropyObserver(HistogramObserver):
    """Clips where 128 levels differ least from what was seen, by Kullback and Leibler's divergence.

    NVIDIA's open rule (Migacz, "8-bit Inference with TensorRT", GTC 2017; ModelOpt's entropy calibrator). |x| lies in
    bins, and bin 0 counts as bin 1 does: zeros cost nothing. For every i from 128 on, P is the first i bins, all that
    lies beyond them added to the last one; Q is the same bins without it, in 128 levels, bin b in level ⌊128·b / i⌋, of
    which each nonempty bin has its level's mean. The i with the least KL(P‖Q) is kept, the largest of equals.

    The rule lays its 2048 bins over [0, largest]. Here they lie over [0, 2ᵐ], the next power of two, because such bins
    merge exactly, and i ends at the bin that holds the largest: bins are up to twice as wide as the rule's, and amax is
    at least 2ᵐ / 16.

    The asymmetric range is [−amax, amax] within what was seen: [0, amax] behind a ReLU.

    Where few values hold most of a tensor, as a plain background does behind the stem, the rule clips far too much:
    ``mse`` does not.
    """

    name = "entropy"
    LEVELS = 128

    def _choose(self) -> tuple[float, float, float]:
        largest = max(abs(self.minimum), abs(self.maximum))
        used = np.flatnonzero(self.histogram.magnitudes)
        if not used.size:
            return largest, self.minimum, self.maximum
        bins = self.histogram.magnitudes[: used[-1] + 1].astype(np.float64)
        bins[0] = bins[1]
        backwards = divergences(bins, self.LEVELS)[::-1]
        amax = min((bins.size - int(np.argmin(backwards))) * self.histogram.width, largest)
        return amax, max(-amax, min(self.minimum, 0.0)), min(amax, max(self.maximum, 0.0))


def divergences(bins: npt.NDArray[np.float64], levels: int) -> npt.NDArray[np.float64]:
    """KL(P‖Q), in nats, of each candidate of the entropy rule.

    With b a bin's count in P, M a level's mass in P and q the mean of its nonempty bins in Q:
    KL = (Σ b·log b − Σ M·log q) / ΣP + log(ΣQ / ΣP). The sums are differences of running totals, so that a candidate
    costs its levels, not its bins.

    Args:
        bins: counts, N of them, at least ``levels``.
        levels: of Q.

    Returns:
        For ``levels``, …, N kept bins; infinite where P has something in its last bin and Q has nothing.
    """
    total = bins.sum()
    kept = np.arange(levels, bins.size + 1)
    last, beyond = bins[kept - 1], total - _running_total(bins)[kept]
    first_bins = -(-kept[:, np.newaxis] * np.arange(levels + 1) // levels)  # of each level: ⌈level · i / levels⌉
    mass, nonempty = (np.diff(_running_total(each)[first_bins]) for each in (bins, bins > 0))
    mean = mass / np.maximum(nonempty, 1)
    mass[:, -1] += beyond
    information = _running_total(_times_log(bins, bins))[kept - 1] + _times_log(last + beyond, last + beyond)
    share = np.where((last == 0) & (beyond > 0), np.inf, (total - beyond) / total)
    return np.asarray((information - _times_log(mass, mean).sum(1)) / total + np.log(share))


def _running_total(values: npt.NDArray[Any]) -> npt.NDArray[np.float64]:
    """The sum of the first 0, 1, …, N values."""
    return np.concatenate([[0.0], np.cumsum(values)])


def _times_log(x: npt.NDArray[np.float64], y: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Gives x · log y, and 0 where y is 0."""
    return x * np.log(y, where=y > 0, out=np.zeros_like(y))


OBSERVERS: dict[str, type[Observer]] = {
    cls.name: cls for cls in (MinMaxObserver, PercentileObserver, MseObserver, EntropyObserver, MovingAverageObserver)
}
"""Every observer by the name that ``--method`` takes."""


def observer_named(name: str) -> type[Observer]:
    """Looks an observer up.

    Raises:
        CalibrationError: there is none of this name; the message lists those that exist.
    """
    if name not in OBSERVERS:
        raise CalibrationError(f"unknown calibration method '{name}': choose one of {', '.join(OBSERVERS)}")
    return OBSERVERS[name]
