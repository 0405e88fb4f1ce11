"""The report against counts in numpy, and the interval against its published example, the raw definition, and chance."""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge_resnet.accuracy import AccuracyReport, Drop, Logits, compare_answers, paired_answers, paired_drop
from edge_resnet.check import Gate, require_passed
from edge_resnet.errors import GateError, ModelError, RecipeError

RANDOM = np.random.default_rng(0)


def report(
    fp32: Logits,
    engine: Logits,
    labels: list[int] | None,
    *,
    batch: int = 3,
    max_drop: float = 1.0,
    strict: bool = False,
) -> AccuracyReport:
    """Compares two tables of logits: the frames are numbers that say which row is meant."""

    def batches() -> Iterator[npt.NDArray[np.uint8]]:
        for start in range(0, len(fp32), batch):
            yield np.arange(start, min(start + batch, len(fp32)), dtype=np.uint8).reshape(-1, 1, 1, 1)

    return compare_answers(
        paired_answers(lambda frames: fp32[frames.ravel()], lambda frames: engine[frames.ravel()], batches()),
        labels,
        engine_name="engine",
        evaluated="predicted",
        max_drop=max_drop,
        strict=strict,
    )


def noisy(images: int = 200, classes: int = 10, noise: float = 1.0) -> tuple[Logits, Logits, list[int]]:
    fp32 = RANDOM.standard_normal((images, classes)).astype(np.float32)
    engine = (fp32 + noise * RANDOM.standard_normal(fp32.shape)).astype(np.float32)
    labels = np.where(RANDOM.random(images) < 0.7, fp32.argmax(1), RANDOM.integers(0, classes, images))
    return fp32, engine, [int(label) for label in labels]


# Counts.


@pytest.mark.parametrize("batch", [1, 7, 200])
def test_figures_are_those_of_numpy(batch: int) -> None:
    fp32, engine, labels = noisy()
    found = report(fp32, engine, labels, batch=batch)
    truth = np.array(labels)
    for logits, top in ((fp32, found.fp32), (engine, found.engine)):
        best = np.argsort(-logits, axis=1)
        assert top.top1 == pytest.approx((best[:, 0] == truth).mean())
        assert top.top5 == pytest.approx((best[:, :5] == truth[:, None]).any(1).mean())
    right, still = fp32.argmax(1) == truth, engine.argmax(1) == truth
    assert found.agreement == pytest.approx((fp32.argmax(1) == engine.argmax(1)).mean())
    signal, noise = (fp32.astype(float) ** 2).sum(), ((fp32.astype(float) - engine) ** 2).sum()
    assert found.logit_sqnr_db == pytest.approx(10 * np.log10(signal / noise))
    assert found.drop == paired_drop(int((right & ~still).sum()), int((~right & still).sum()), 200)
    assert found.drop is not None and found.drop.points == pytest.approx(100 * (right.mean() - still.mean()))
    assert (found.images, found.evaluated, found.engine_name) == (200, "predicted", "engine")


def test_of_equal_logits_the_first_is_the_answer_and_all_share_the_better_place() -> None:
    tied = np.array([[1, 1, 1, 1, 1, 1, 0]], np.float32)
    for label, top1 in ((0, 1.0), (1, 0.0), (5, 0.0)):
        found = report(tied, tied, [label]).fp32
        assert (found.top1, found.top5) == (top1, 1.0), "argmax takes the first; nothing is above any of the six"
    assert report(tied, tied, [6]).fp32.top5 == 0.0, "six are above it"
    above = np.array([[2, 2, 2, 2, 1, 1, 0]], np.float32)
    assert report(above, above, [5]).fp32.top5 == 1.0, "four are above it"


def test_top5_of_five_classes_says_nothing() -> None:
    fp32, engine, labels = noisy(classes=5)
    found = report(fp32, engine, labels)
    assert (found.fp32.top5, found.engine.top5) == (None, None)
    assert found.fp32.top1 is not None


def test_identical_logits_have_no_noise() -> None:
    fp32, _, labels = noisy()
    found = report(fp32, fp32.copy(), labels)
    assert found.logit_sqnr_db is None
    assert found.agreement == 1.0
    assert found.drop is not None and found.drop.points == 0


def test_without_labels_only_agreement_and_noise_are_known() -> None:
    fp32, engine, _ = noisy(noise=0.8)
    found = report(fp32, engine, None, max_drop=-100)
    document = found.to_json()
    nulls = (document["fp32"], document["engine"], document["drop"], document["images_to_be_sure"])
    assert nulls == ({"top1": None, "top5": None}, {"top1": None, "top5": None}, None, None)
    assert found.agreement < 1
    assert found.passed
    require_passed(found)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_answers_that_are_no_numbers_are_never_called_identical(value: float) -> None:
    fp32, engine, labels = noisy(noise=0.0)
    broken = engine.copy()
    broken[100, 3] = value
    with pytest.raises(GateError, match="^engine answers NaN or infinity"):
        report(fp32, broken, None)
    with pytest.raises(ModelError, match="the FP32 network itself answers NaN or infinity"):
        report(broken, engine, labels)


# The interval.


def test_the_interval_is_that_of_a_published_example() -> None:
    """Complete response before and after therapy (Cavo et al. 2012): 6 and 16 discordant of 161, and the interval that
    Fagerland, Lydersen and Laake, "Statistical Analysis of Contingency Tables" (2017), chapter 8, give for it.
    """
    found = paired_drop(6, 16, 161)
    assert found.points == pytest.approx(-6.21, abs=0.005)
    assert found.ci95 == pytest.approx((-11.95, -0.32), abs=0.005)


@given(st.integers(0, 60), st.integers(0, 60), st.integers(0, 1000))
def test_the_interval_is_the_wald_interval_of_the_images_and_two_more(lost: int, won: int, same: int) -> None:
    images = lost + won + same
    if images == 0:
        return
    differences = np.array([1] * (lost + 1) + [-1] * (won + 1) + [0] * same)
    middle, half = differences.mean(), 1.959964 * differences.std() / math.sqrt(len(differences))
    expected = np.clip((middle - half, middle + half), -1, 1)
    found = paired_drop(lost, won, images)
    np.testing.assert_allclose(found.ci95, 100 * expected, atol=1e-4)
    assert found.points == pytest.approx(100 * (lost - won) / images)
    mirrored = paired_drop(won, lost, images).ci95
    assert found.ci95 == pytest.approx((-mirrored[1], -mirrored[0]))


def coverage(lost: float, won: float, images: int = 200, repeats: int = 20_000) -> float:
    """The share of simulated checks whose interval holds the true drop; the seed is fixed."""
    counts = np.random.default_rng(1).multinomial(images, [lost, won, 1 - lost - won], repeats)
    outcomes, frequencies = np.unique(counts[:, :2], axis=0, return_counts=True)
    intervals = [paired_drop(int(outcome[0]), int(outcome[1]), images).ci95 for outcome in outcomes]
    held = [low <= 100 * (lost - won) <= high for low, high in intervals]
    return float(frequencies[held].sum() / repeats)


@pytest.mark.parametrize(("lost", "won"), [(0.04, 0.01), (0.05, 0.02), (0.06, 0.04), (0.08, 0.08), (0.10, 0.02)])
def test_the_interval_holds_the_true_drop_in_95_of_100_checks(lost: float, won: float) -> None:
    assert 0.935 <= coverage(lost, won) <= 0.97


@pytest.mark.parametrize(("lost", "won"), [(0.0, 0.0), (0.005, 0.0), (0.01, 0.01), (0.02, 0.005), (0.03, 0.03)])
def test_the_interval_errs_to_the_safe_side_where_few_images_differ(lost: float, won: float) -> None:
    assert coverage(lost, won) >= 0.95


# The gate.


def judged(lost: int, won: int, images: int, *, max_drop: float = 1.0, strict: bool = False) -> AccuracyReport:
    """A report of an FP32 network that is always right but for ``won`` images."""
    fp32, engine = np.zeros((images, 2), np.float32), np.zeros((images, 2), np.float32)
    fp32[:, 0] = engine[:, 0] = 1
    fp32[lost : lost + won] = engine[:lost] = (0, 1)
    return compare_answers(
        [(fp32, engine)],
        [0] * images,
        engine_name="rtx",
        evaluated="measured",
        max_drop=max_drop,
        strict=strict,
    )


def test_the_gate_looks_at_the_drop_and_strictly_at_the_interval() -> None:
    assert judged(2, 0, 200).passed, "1 point is not more than 1"
    assert not judged(3, 0, 200).passed
    assert judged(0, 50, 200).passed
    assert judged(3, 0, 200, max_drop=1.5).passed
    assert not judged(0, 0, 100, strict=True).passed
    assert judged(0, 0, 400, strict=True).passed
    assert judged(0, 0, 400, strict=True).drop == Drop(0.0, paired_drop(0, 0, 400).ci95, 0, 0)


def test_what_the_gate_says() -> None:
    with pytest.raises(GateError, match=r"^rtx loses 1\.50 points of top-1, more than max_drop 1: calibrate"):
        require_passed(judged(3, 0, 200))
    with pytest.raises(GateError, match=r"may lose up to 2\.72 points .* 100 images are too few to be sure: about 276"):
        require_passed(judged(0, 0, 100, strict=True))
    with pytest.raises(GateError, match="1000 images are too few to be sure$"):
        require_passed(judged(10, 0, 1000, strict=True))
    require_passed(judged(2, 0, 200))


def test_without_labels_strict_counts_every_changed_answer_as_lost() -> None:
    fp32, engine, _ = noisy(noise=0.8)
    changed = 100 * float((fp32.argmax(1) != engine.argmax(1)).mean())
    assert report(fp32, engine, None, max_drop=changed, strict=True).passed
    refused = report(fp32, engine, None, max_drop=changed - 0.01, strict=True)
    with pytest.raises(GateError, match=rf"^engine answers {changed:.2f} % of the images otherwise .* give labelled"):
        require_passed(refused)


@pytest.mark.parametrize("labelled", [True, False])
def test_answers_that_have_nothing_to_do_with_fp32_never_pass(labelled: bool) -> None:
    fp32, _, labels = noisy()
    other = fp32[::-1].copy()
    found = report(fp32, other, labels if labelled else None, max_drop=100)
    assert found.logit_sqnr_db is not None and found.logit_sqnr_db < 0 and not found.passed
    with pytest.raises(GateError, match=r"^engine answers nothing like FP32 \(SQNR -\d"):
        require_passed(found)


def test_two_networks_that_lean_to_the_same_classes_do_not_pass() -> None:
    leaning = np.linspace(4, 0, 10, dtype=np.float32)
    fp32, engine = (leaning + np.eye(10, dtype=np.float32)[RANDOM.permuted(np.arange(200) % 10)] * 9 for _ in range(2))
    found = report(fp32, engine, None)
    assert found.logit_sqnr_db is not None and found.logit_sqnr_db > 0 and found.agreement < 0.2
    with pytest.raises(
        GateError, match=r"^engine answers nothing like FP32 \(SQNR .* dB, \d\d % of the answers changed"
    ):
        require_passed(found)


@pytest.mark.parametrize(
    ("lost", "won", "images"), [(0, 0, 50), (0, 0, 100), (1, 0, 200), (3, 2, 500), (20, 15, 1000), (60, 50, 1500)]
)
def test_so_many_images_do_and_one_less_does_not(lost: int, won: int, images: int) -> None:
    enough = judged(lost, won, images).images_to_be_sure
    assert enough is not None

    def upper(count: int) -> float:
        p, q = (lost / images * count + 1) / (count + 2), (won / images * count + 1) / (count + 2)
        return 100 * (p - q + 1.959964 * math.sqrt((p + q - (p - q) ** 2) / (count + 2)))

    assert upper(enough) <= 1.0 < upper(enough - 1)
    if lost == won == 0:
        assert judged(0, 0, enough, strict=True).passed


def test_no_number_of_images_helps_against_a_drop_that_is_too_large_or_just_there() -> None:
    assert judged(3, 0, 200).images_to_be_sure is None
    assert judged(2, 0, 200).images_to_be_sure is None
    assert judged(0, 0, 400).images_to_be_sure is None, "these are enough"
    assert judged(3, 0, 1000, max_drop=0.3 + 1e-12).images_to_be_sure is None, "more than anybody has"


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf, 101.0, -101.0])
def test_a_gate_needs_points(value: float) -> None:
    with pytest.raises(RecipeError, match="max_drop is .*: give points of top-1 accuracy, from -100 to 100"):
        Gate(value, strict=False)
