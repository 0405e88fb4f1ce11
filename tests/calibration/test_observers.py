"""Observers: exact merging, numpy.percentile, and a brute-force search for the least error."""

from __future__ import annotations

import itertools
import math
import tracemalloc
from random import Random

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from edge_resnet.calibration.observers import (
    OBSERVERS,
    EntropyObserver,
    Histogram,
    MinMaxObserver,
    MovingAverageObserver,
    MseObserver,
    Observer,
    PercentileObserver,
    TensorRange,
    divergences,
    observer_named,
)
from edge_resnet.errors import CalibrationError

Values = npt.NDArray[np.float32]

every_observer = pytest.mark.parametrize("kind", OBSERVERS.values(), ids=OBSERVERS)
ORDERLESS = {name: kind for name, kind in OBSERVERS.items() if kind is not MovingAverageObserver}
every_orderless_observer = pytest.mark.parametrize("kind", ORDERLESS.values(), ids=ORDERLESS)
any_float32 = st.floats(width=32, allow_nan=False, allow_infinity=False)
untimed = settings(deadline=None)  # what else the machine is doing fails no test
tensors = hnp.arrays(
    np.float32, st.integers(1, 6), elements=any_float32 | st.sampled_from([0.0, 1.0, -1e-40, 1e-40, -2048.0, 3e38])
)
short_fractions = hnp.arrays(np.float32, st.integers(1, 6), elements=st.integers(-4096, 4096).map(lambda n: n / 64))
"""Tensors that lose nothing when scaled by a power of two, 2¹⁰⁰ or 2⁻¹⁰⁰ among them."""


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
    @every_orderless_observer
    @untimed
    @given(dealt_out())
    def test_any_split_in_any_order_gives_the_range_of_the_whole(
        self, kind: type[Observer], dealt: tuple[list[Values], list[list[Values]]]
    ) -> None:
        parts, piles = dealt
        merged = kind()
        for pile in piles:
            merged.merge(observed(kind, *pile))
        assert merged.range() == observed(kind, np.concatenate(parts)).range()

    @every_orderless_observer
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

    @untimed
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
    @untimed
    @given(any_float32.filter(bool), st.integers(1, 1000), st.integers(1, 3))
    def test_a_constant_is_kept_within_a_step(self, kind: type[Observer], value: float, size: int, images: int) -> None:
        found = observed(kind, *[np.full(size, value, np.float32)] * images).range()
        assert found.minimum == found.maximum == value
        assert found.amax == pytest.approx(abs(value), rel=1 / 127, abs=0)
        end = found.high if value > 0 else found.low
        assert end == pytest.approx(value, rel=1 / 127, abs=0)

    @every_observer
    @untimed
    @given(st.lists(short_fractions, min_size=1, max_size=4), st.integers(-100, 100))
    def test_scaling_by_a_power_of_two_scales_the_range(
        self, kind: type[Observer], images: list[Values], exponent: int
    ) -> None:
        found = observed(kind, *images).range()
        scaled = observed(kind, *[np.ldexp(image, exponent) for image in images]).range()
        assert scaled.to_json() == {name: math.ldexp(end, exponent) for name, end in found.to_json().items()}

    @every_observer
    @pytest.mark.parametrize("outlier", [1e30, -3e38])
    def test_an_absurd_outlier_leaves_a_range_that_can_be_used(self, kind: type[Observer], outlier: float) -> None:
        images = [np.random.default_rng(0).normal(size=1000).astype(np.float32), np.float32([0, outlier])]
        found = observed(kind, *images).range()
        assert 0 < found.amax <= np.float32(abs(outlier))
        assert found.minimum <= found.low < 0 < found.high <= found.maximum

    @every_observer
    def test_extremes_are_those_of_all_values_though_the_sample_misses_them(self, kind: type[Observer]) -> None:
        observer = kind()
        observer.observe(np.array([-7, 9], np.float32), np.linspace(-1, 1, 99, dtype=np.float32))
        assert (observer.range().minimum, observer.range().maximum) == (-7, 9)

    @every_observer
    @untimed
    @given(st.lists(tensors, min_size=1, max_size=4))
    def test_nothing_beyond_the_seen_is_covered(self, kind: type[Observer], parts: list[Values]) -> None:
        found = observed(kind, *parts).range()
        everything = np.concatenate(parts)
        assert (found.minimum, found.maximum) == (everything.min(), everything.max())
        assert 0 <= found.amax <= np.abs(everything).max()
        assert min(0.0, found.minimum) <= found.low <= found.high <= max(0.0, found.maximum)


def test_minmax_covers_all() -> None:
    found = observed(MinMaxObserver, np.array([-3, 1], np.float32), np.array([2], np.float32)).range()
    assert found == TensorRange(minimum=-3, maximum=2, amax=3, low=-3, high=2)


class TestMovingAverage:
    @untimed
    @given(st.lists(tensors, min_size=1, max_size=12))
    def test_is_the_weighted_sum_of_the_images_extremes(self, images: list[Values]) -> None:
        """The last of n images has weight 0.01, the one before it 0.01 · 0.99, …, and the first what is left."""
        weights = 0.01 * 0.99 ** np.arange(len(images), dtype=np.float64)[::-1]
        weights[0] = 0.99 ** (len(images) - 1)
        lows, highs = np.float64([image.min() for image in images]), np.float64([image.max() for image in images])
        found = observed(MovingAverageObserver, *images).range()
        rounding = 1e-12 * max(np.abs(lows).max(), np.abs(highs).max())
        assert found.low == pytest.approx(float(weights @ lows), rel=0, abs=rounding)
        assert found.high == pytest.approx(float(weights @ highs), rel=0, abs=rounding)
        assert found.amax == max(abs(found.low), abs(found.high))

    @untimed
    @given(st.lists(tensors, min_size=1, max_size=12))
    def test_averages_lie_within_the_extremes(self, images: list[Values]) -> None:
        found = observed(MovingAverageObserver, *images).range()
        assert found.minimum <= found.low <= found.high <= found.maximum

    @untimed
    @given(any_float32, st.integers(1, 50))
    def test_images_that_are_all_alike_leave_no_rounding(self, value: float, count: int) -> None:
        found = observed(MovingAverageObserver, *[np.float32([value])] * count).range()
        assert (found.low, found.high) == (value, value)

    def test_one_wild_image_counts_a_hundredth(self) -> None:
        images = [np.float32([-1, 1])] * 5 + [np.float32([-1, 101])]
        found = observed(MovingAverageObserver, *images).range()
        assert (found.maximum, found.high, found.low) == (101, pytest.approx(2), -1)

    def test_refuses_to_be_merged(self) -> None:
        ones = np.ones(1, np.float32)
        observer = observed(MovingAverageObserver, ones)
        before = observer.range()
        with pytest.raises(CalibrationError, match="which depend on the order of the images: collect them in one go$"):
            observer.merge(observed(MovingAverageObserver, 2 * ones))
        assert observer.range() == before


def test_unknown_method_lists_those_there_are() -> None:
    with pytest.raises(CalibrationError, match="'kl': choose one of minmax, percentile, mse, entropy, moving-average"):
        observer_named("kl")


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


def entropy_rule(x: Values) -> float:
    """NVIDIA's rule as it is described, candidate by candidate: amax, of 2048 bins up to the next power of two."""
    magnitudes = np.abs(x.astype(np.float64))
    largest = float(magnitudes.max())
    counts, edges = np.histogram(magnitudes, bins=2048, range=(0, 2.0 ** (math.floor(math.log2(largest)) + 1)))
    counts[0] = counts[1]
    best, amax = math.inf, 0.0
    for i in range(128, int(counts.nonzero()[0].max()) + 2):
        kept, beyond = counts[:i].astype(np.float64), counts[i:].sum()
        p = kept.copy()
        p[-1] += beyond
        if beyond and not kept[-1]:
            continue  # infinite
        level = np.floor(np.arange(i) / (i / 128) + 1e-9).astype(int)
        q = np.zeros(i)
        for one in range(128):
            inside = np.flatnonzero((level == one) & (kept > 0))
            q[inside] = kept[inside].sum() / max(len(inside), 1)
        p, q = p / p.sum(), q / q.sum()
        divergence = float(np.sum(p[p > 0] * np.log(p[p > 0] / q[p > 0])))
        if divergence <= best:
            best, amax = divergence, min(float(edges[i]), largest)
    return amax


def entropy_cases() -> dict[str, Values]:
    cases = {**distributions(20_000), "half-normal": np.abs(distributions(20_000)["normal"])}
    cases["far outliers"] = np.r_[cases["half-normal"], np.float32([40, 41, 100])]
    cases["constant"] = np.full(100, 0.3, np.float32)
    cases["constant, a power of two"] = np.full(100, -4, np.float32)
    cases["few values"] = np.repeat(np.float32([0.1, -0.5, 1, 7]), [40, 30, 20, 1])
    cases["one value and zeros"] = np.float32([0, 0, 0, 1e-12])
    return cases


class TestEntropy:
    @pytest.mark.parametrize("name", entropy_cases())
    def test_is_the_rule(self, name: str) -> None:
        x = entropy_cases()[name]
        assert observed(EntropyObserver, x).range().amax == entropy_rule(x)

    def test_clips_where_the_rule_clips(self) -> None:
        """Or the test above would compare full ranges alone."""
        cases = entropy_cases()
        shares = {name: observed(EntropyObserver, x).range().amax / np.abs(x).max() for name, x in cases.items()}
        assert shares["uniform"] > 0.98
        assert shares["constant"] == shares["few values"] == 1
        assert shares["laplace"] < 0.9
        assert shares["student t, 2 degrees"] < 0.5
        assert shares["far outliers"] < 0.5

    def test_divergences_by_hand(self) -> None:
        """Two levels. Of 1 3 2 2: P = 1 7, Q = 1 3; P = 1 3 4, Q = 2 2 2; P = 1 3 2 2, Q = 2 2 2 2, each over its sum."""
        two = (1 * math.log(1 / 2) + 7 * math.log(7 / 6)) / 8
        three = (1 * math.log(3 / 8) + 3 * math.log(9 / 8) + 4 * math.log(12 / 8)) / 8
        four = (1 * math.log(1 / 2) + 3 * math.log(3 / 2)) / 8
        assert divergences(np.array([1.0, 3, 2, 2]), 2) == pytest.approx([two, three, four])

    def test_divergences_by_hand_with_an_empty_bin(self) -> None:
        """Of 2 4 0 2: P = 2 6, Q = 2 4; then P's last bin is empty in Q; then P = 2 4 0 2, Q = 3 3 0 2."""
        two = (2 * math.log(6 / 8) + 6 * math.log(36 / 32)) / 8
        four = (2 * math.log(2 / 3) + 4 * math.log(4 / 3)) / 8
        assert divergences(np.array([2.0, 4, 0, 2]), 2) == pytest.approx([two, math.inf, four])

    def test_both_sides_are_clipped_alike_and_zero_is_the_end_behind_a_relu(self) -> None:
        cases = entropy_cases()
        found = observed(EntropyObserver, cases["laplace"]).range()
        assert (found.low, found.high) == (-found.amax, found.amax)
        found = observed(EntropyObserver, cases["rectified"]).range()
        assert (found.low, found.high) == (0, found.amax)
        found = observed(EntropyObserver, cases["negative"]).range()
        assert (found.low, found.high) == (-found.amax, 0)
        found = observed(EntropyObserver, cases["lopsided"]).range()
        assert (found.low, found.high) == (found.minimum, found.amax)
