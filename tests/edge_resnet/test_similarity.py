"""The comparison of features against scikit-style definitions written out, and hand-worked cases."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest

from edge_resnet.check import require_passed
from edge_resnet.errors import GateError, ModelError
from edge_resnet.similarity import EmbeddingReport, compare_features, cosine_similarity, nearest_labels

Features = npt.NDArray[np.float32]


def report(fp32: Features, engine: Features, labels: list[int] | None, *, batch: int = 3) -> EmbeddingReport:
    """Compares two tables of features, a few rows at a time."""
    starts = range(0, len(fp32), batch)
    pairs = [(fp32[start : start + batch], engine[start : start + batch]) for start in starts]
    return compare_features(pairs, labels, engine_name="engine", evaluated="predicted")


def noisy(shape: tuple[int, ...], noise: float = 0.3) -> tuple[Features, Features]:
    random = np.random.default_rng(0)
    fp32 = random.standard_normal(shape).astype(np.float32)
    return fp32, (fp32 + noise * random.standard_normal(shape)).astype(np.float32)


def neighbour_by_hand(vectors: Features, labels: list[int], query: int) -> int:
    """The label of the nearest other vector by the angle between them, one pair after another."""
    best = max(
        (index for index in range(len(vectors)) if index != query),
        key=lambda index: (
            float(vectors[query] @ vectors[index]) / np.linalg.norm(vectors[query]) / np.linalg.norm(vectors[index])
        ),
    )
    return labels[best]


@pytest.mark.parametrize("shape", [(50, 16), (50, 8, 2, 3)])
def test_figures_are_those_of_the_definitions(shape: tuple[int, ...]) -> None:
    fp32, engine = noisy(shape)
    labels = [index % 5 for index in range(50)]
    found = report(fp32, engine, labels)
    flat, noised = fp32.reshape(50, -1).astype(float), engine.reshape(50, -1).astype(float)
    cosines = [a @ b / np.sqrt(a @ a) / np.sqrt(b @ b) for a, b in zip(flat, noised, strict=True)]
    assert found.cosine.mean == pytest.approx(np.mean(cosines))
    assert found.cosine.least == pytest.approx(min(cosines))
    assert found.feature_sqnr_db == pytest.approx(10 * np.log10((flat**2).sum() / ((flat - noised) ** 2).sum()))
    vectors = [features if features.ndim == 2 else features.mean((2, 3)) for features in (fp32, engine)]
    neighbours = [[neighbour_by_hand(part, labels, query) for query in range(50)] for part in vectors]
    right = np.array(neighbours) == labels
    assert found.nearest is not None and found.drop is not None
    assert (found.nearest.fp32, found.nearest.engine) == (right[0].mean(), right[1].mean())
    assert found.nearest.agreement == np.mean(np.array(neighbours[0]) == neighbours[1])
    assert found.drop.points == pytest.approx(100 * (right[0].mean() - right[1].mean()))
    assert found.drop.lost == (right[0] & ~right[1]).sum() > 0


def test_more_images_than_are_searched_together() -> None:
    random = np.random.default_rng(1)
    vectors = random.standard_normal((600, 4)).astype(np.float32)
    labels = random.integers(0, 9, 600)
    found = nearest_labels(vectors, labels)
    for query in (0, 255, 256, 599):
        assert found[query] == neighbour_by_hand(vectors, list(labels), query)


def test_lengths_do_not_matter_to_neighbours() -> None:
    vectors = np.array([[1, 0], [100, 1], [0, 1], [1, 50]], np.float32)
    assert nearest_labels(vectors, np.array([0, 1, 2, 3])).tolist() == [1, 0, 3, 2]


def test_vectors_of_zeros() -> None:
    zero, one = np.zeros((1, 3), np.float32), np.ones((1, 3), np.float32)
    assert [float(cosine_similarity(a, b)[0]) for a, b in ((zero, zero), (zero, one), (one, one), (one, -one))] == (
        pytest.approx([1, 0, 1, -1])
    )


def test_identical_features() -> None:
    fp32, _ = noisy((9, 4))
    found = report(fp32, fp32, [0, 1, 2] * 3)
    assert found.feature_sqnr_db is None and found.cosine.least == pytest.approx(1)
    assert found.nearest is not None and found.nearest.agreement == 1
    assert found.drop is not None and (found.drop.lost, found.drop.won) == (0, 0)


@pytest.mark.parametrize("labels", [None, [0]], ids=["no labels", "one image"])
def test_without_labels_or_others_there_are_no_neighbours(labels: list[int] | None) -> None:
    fp32, engine = noisy((1, 4))
    found = report(fp32, engine, labels)
    assert (found.nearest, found.drop, found.passed) == (None, None, True)
    assert found.to_json()["cosine"].keys() == {"mean", "least"}


def test_the_gate_judges_neighbours() -> None:
    fp32 = np.repeat(np.eye(4, dtype=np.float32) + 1, 3, axis=0)
    engine = fp32[[0, 3, 6, 9] * 3]
    found = report(fp32, engine, [index // 3 for index in range(12)])
    with pytest.raises(
        GateError, match=r"engine loses \d+.\d\d points of nearest-neighbour accuracy, more than max_drop 1"
    ):
        require_passed(found)


@pytest.mark.parametrize(("broken", "error"), [(0, ModelError), (1, GateError)])
def test_answers_that_are_not_numbers(broken: int, error: type[Exception]) -> None:
    tables = noisy((5, 4))
    tables[broken][3, 1] = np.nan
    with pytest.raises(error, match="answers NaN or infinity"):
        report(*tables, None)
