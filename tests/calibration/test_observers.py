"""Observers: exact merging, numpy.percentile, and a brute-force search for the least error."""

from __future__ import annotations

import itertools
import math
import tracemalloc
from random import Random

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from edge_resnet.calibration.observers import (
    OBSERVERS,
    Histogram,
    MinMaxObserver,
    MseObserver,
    Observer,
    PercentileObserver,
    TensorRange,
    observer_named,
)
from edge_resnet.errors import CalibrationError

Values = npt.NDArray[np.float32]

every_observer = pytest.mark.parametrize("kind", OBSERVERS.values(), ids=OBSERVERS)
any_float32 = st.floats(width=32, allow_nan=False, allow_infinity=False)
tensors = hnp.arrays(
    np.float32, st.integers(1, 6), elements=any_float32 | st.sampled_from([0.0, 1.0, -1e-40, 1e-40, -2048.0, 3e38])
)


def observed(kind: type[Observer], *parts: Values) -> Observer:
    observer = kind()
    for part in parts:
        observer.observe(part, part)
    return observer


@st.composite
def dealt_out(draw: st.DrawFn) -> tuple[list[Values], list[list[Values]]]:
    """Some tensors, and the same ones shuffled and dealt out to a few piles."""
    parts = draw(st.lists(tensors, min_size=1, max_size=8))
    shuffled = draw(st.permutations(parts))
    cuts = sorted(draw(st.lists(st.integers(0, len(parts)), max_size=3)))
    bounds = [0, *cuts, len(parts)]
    return parts, [shuffled[start:end] for start, end in itertools.pairwise(bounds)]


class TestMerging:
    @every_observer
    @given(dealt_out())
    def test_any_split_in_any_order_gives_the_range_of_the_whole(
        self, kind: type[Observer], dealt: tuple[list[Values], list[list[Values]]]
    ) -> None:
        parts, piles = dealt
        merged = kind()
        for pile in piles:
            merged.merge(observed(kind, *pile))
        assert merged.range() == observed(kind, np.concatenate(parts)).range()

    @every_observer
    @pytest.mark.parametrize("order", ["as they come", "small ones first", "large ones first"])
    def test_large_tensors_as_well(self, kind: type[Observer], order: str) -> None:
        x = np.random.default_rng(0).standard_t(2, 50_000).astype(np.float32)
        whole = observed(kind, x).range()
        if order != "as they come":
            x = x[np.argsort(np.abs(x))][:: 1 if order == "small ones first" else -1]
        assert observed(kind, *np.array_split(x, 7)).range() == whole
        merged = kind()
        for part in np.array_split(x, 5):
            merged.merge(observed(kind, part))
        assert merged.range() == whole

    @given(st.lists(tensors, min_size=1, max_size=6), st.randoms())
    def test_a_histograms_counts_do_not_depend_on_the_order(self, parts: list[Values], random: Random) -> None:
        whole, in_turn, merged = Histogram(), Histogram(), Histogram()
        whole.add(np.concatenate(parts))
        for part in random.sample(parts, len(parts)):
            alone = Histogram()
            alone.add(part)
            in_turn.add(part)
            merged.merge(alone)
        for other in (in_turn, merged):
            assert (other.exponent, other.zeros) == (whole.exponent, whole.zeros)
            np.testing.assert_array_equal(other.counts, whole.counts)

    def test_two_kinds_do_not_merge(self) -> None:
        with pytest.raises(CalibrationError, match="cannot merge percentile statistics into mse ones"):
            observed(MseObserver, np.ones(1, np.float32)).merge(PercentileObserver())


class TestEveryObserver:
    @every_observer
    def test_memory_does_not_grow_with_the_images(self, kind: type[Observer]) -> None:
        x = np.random.default_rng(0).normal(size=100_000).astype(np.float32)
        observer = observed(kind, x)
        tracemalloc.start()
        for scale in range(1, 30):
            observer.observe(x * scale, x * scale)
        grown, _ = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        assert grown < x.nbytes / 4  # 29 images of 400 kB went in

    @every_observer
    @pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
    @pytest.mark.parametrize("seen", ["in the extremes", "in the sample alone"])
    def test_refuses_what_is_not_finite(self, kind: type[Observer], bad: float, seen: str) -> None:
        sample = np.array([0, 1, bad, 2], np.float32)
        values = sample if seen == "in the extremes" else np.array([0, 2], np.float32)
        with pytest.raises(CalibrationError, match="NaN or infinite") as caught:
            kind().observe(values, sample)
        assert "\n" not in str(caught.value)

    @every_observer
    def test_refuses_to_choose_from_nothing(self, kind: type[Observer]) -> None:
        with pytest.raises(CalibrationError, match="nothing was observed"):
            kind().range()

    @every_observer
    def test_all_zeros(self, kind: type[Observer]) -> None:
        assert observed(kind, np.zeros(9, np.float32)).range() == TensorRange(0, 0, 0, 0, 0)

    @every_observer
    @pytest.mark.parametrize("value", [3.0, -3.0, 1e-30])
    def test_a_constant_is_kept_within_a_step(self, kind: type[Observer], value: float) -> None:
        found = observed(kind, np.full(1000, value, np.float32)).range()
        assert found.minimum == found.maximum == np.float32(value)
        assert found.amax == pytest.approx(abs(value), rel=1 / 127)
        assert found.high >= value * (1 - 1 / 127) if value > 0 else found.low <= value * (1 - 1 / 127)

    @every_observer
    def test_extremes_are_those_of_all_values_though_the_sample_misses_them(self, kind: type[Observer]) -> None:
        observer = kind()
        observer.observe(np.array([-7, 9], np.float32), np.linspace(-1, 1, 99, dtype=np.float32))
        assert (observer.range().minimum, observer.range().maximum) == (-7, 9)

    @every_observer
    @given(st.lists(tensors, min_size=1, max_size=4))
    def test_nothing_beyond_the_seen_is_covered(self, kind: type[Observer], parts: list[Values]) -> None:
        found = observed(kind, *parts).range()
        everything = np.concatenate(parts)
        assert (found.minimum, found.maximum) == (everything.min(), everything.max())
        assert 0 <= found.amax <= np.abs(everything).max()
        assert min(0.0, found.minimum) <= found.low
        assert found.high <= max(0.0, found.maximum)


def test_minmax_covers_all() -> None:
    found = observed(MinMaxObserver, np.array([-3, 1], np.float32), np.array([2], np.float32)).range()
    assert found == TensorRange(minimum=-3, maximum=2, amax=3, low=-3, high=2)


def test_unknown_method_lists_those_there_are() -> None:
    with pytest.raises(CalibrationError, match="'entropy': choose one of minmax, percentile, mse"):
        observer_named("entropy")


def distributions(count: int) -> dict[str, Values]:
    random = np.random.default_rng(1)
    made = {
        "normal": random.normal(size=count),
        "rectified": np.maximum(random.normal(size=count), 0),
        "laplace": random.laplace(size=count),
        "uniform": random.uniform(-1, 2, count),
        "student t, 2 degrees": random.standard_t(2, count),
        "lognormal": random.lognormal(0, 1.5, count),
        "shifted": random.normal(3, 1, count),
        "lopsided": np.where(random.random(count) < 0.1, -random.exponential(0.3, count), random.exponential(1, count)),
        "negative": -random.exponential(1, count),
        "one outlier": np.concatenate([random.normal(size=count - 1), [20]]),
    }
    return {name: values.astype(np.float32) for name, values in made.items()}


class TestPercentile:
    @pytest.mark.parametrize("name", distributions(1))
    def test_is_numpys_within_a_bin(self, name: str) -> None:
        x = distributions(60_007)[name]
        found = observed(PercentileObserver, x).range()
        width = float(np.abs(x).max()) / 1024  # a bin is at most that wide
        for ours, values in ((found.amax, np.abs(x)), (found.high, x), (-found.low, -x)):
            assert ours == pytest.approx(np.percentile(values, 99.99, method="inverted_cdf"), abs=width)

    def test_clips_a_ten_thousandth(self) -> None:
        x = np.r_[np.linspace(-1, 1, 99_995), np.full(5, 100.0)].astype(np.float32)
        assert observed(PercentileObserver, x).range().amax < 1.1
        x = np.r_[np.linspace(-1, 1, 99_985), np.full(15, 100.0)].astype(np.float32)
        assert observed(PercentileObserver, x).range().amax == 100


def squared_error(x: Values, low: float, high: float, levels: int) -> float:
    """Of quantizing x to ``levels`` steps over [low, high], 0 being one of them."""
    scale = (high - low) / levels
    lowest = np.rint(low / scale)
    return float(np.square(x - np.clip(np.rint(x / scale), lowest, lowest + levels) * scale, dtype=np.float64).sum())


class TestMse:
    TOLERANCE = 1.03

    @pytest.mark.parametrize("name", distributions(1))
    def test_symmetric_range_is_as_good_as_brute_force(self, name: str) -> None:
        x = distributions(20_000)[name]
        largest = float(np.abs(x).max())
        best = min(squared_error(x, -amax, amax, 254) for amax in np.linspace(0.02, 1.1, 400) * largest)
        amax = observed(MseObserver, x).range().amax
        assert squared_error(x, -amax, amax, 254) <= self.TOLERANCE * best

    @pytest.mark.parametrize("name", distributions(1))
    def test_asymmetric_range_is_as_good_as_brute_force(self, name: str) -> None:
        x = distributions(4_000)[name]
        lows, highs = (np.linspace(0.05, 1, 40) * end if end else [0] for end in (min(x.min(), 0), max(x.max(), 0)))
        best = min(squared_error(x, low, high, 255) for low in lows for high in highs)
        found = observed(MseObserver, x).range()
        assert squared_error(x, found.low, found.high, 255) <= self.TOLERANCE * best

    def test_clips_where_that_pays(self) -> None:
        """With n values uniform in a step of A/127 and one of 30 clipped, n·(A/127)²/12 + (30 − A)² is least where
        its derivative is 0.
        """
        count = 100_000
        x = np.r_[np.random.default_rng(0).normal(size=count), 30].astype(np.float32)
        wanted = 30 / (1 + count / (12 * 127**2))
        assert math.isclose(observed(MseObserver, x).range().amax, wanted, rel_tol=0.03)
