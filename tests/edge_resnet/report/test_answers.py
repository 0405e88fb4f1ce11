"""Which answers changed, and how they are told."""

from __future__ import annotations

import base64
import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from edge_resnet.images import ImageSet, open_images
from edge_resnet.report.answers import SHOWN, THUMBNAIL, Answers, Recorded, disagreement

LABELS = ("cat", "dog", "fox")


@pytest.fixture
def images(tmp_path: Path) -> ImageSet:
    """Two images a class, of different sizes."""
    for index, label in enumerate(LABELS):
        (tmp_path / label).mkdir()
        for number in range(2):
            Image.new("RGB", (300, 100 + 50 * number), (80 * index, 0, 0)).save(tmp_path / label / f"{number}.png")
    return open_images(tmp_path).with_labels_of(LABELS)


def answers(*classes: int) -> Answers:
    return Answers(np.array(classes), np.linspace(0.5, 1.0, len(classes)))


def test_what_was_recorded_is_what_was_answered() -> None:
    logits = np.array([[1.0, 3.0, 0.0], [2.0, 0.0, 0.0], [0.0, 0.0, 9.0]], np.float32)
    recorded = Recorded(lambda frames: logits[: len(frames)] if len(frames) == 2 else logits[2:])
    np.testing.assert_array_equal(recorded(np.zeros((2, 1, 1, 1), np.uint8)), logits[:2])
    recorded(np.zeros((1, 1, 1, 1), np.uint8))
    assert recorded.answers.classes.tolist() == [1, 0, 2]
    softmax = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    np.testing.assert_allclose(recorded.answers.probabilities, softmax.max(1), rtol=1e-6)


def test_changes_are_lost_won_or_moved(images: ImageSet) -> None:
    #            cat cat dog dog fox fox
    fp32 = answers(0, 1, 1, 1, 0, 1)
    int8 = answers(0, 0, 0, 0, 1, 2)
    found = disagreement(fp32, int8, images, LABELS)
    assert found.images == 6
    assert found.outcomes == {"lost": 2, "won": 2, "moved": 1}
    assert found.pairs[0] == ("dog", "cat", 3) and sum(count for *_, count in found.pairs) == 5
    assert [each.outcome for each in found.shown] == ["lost", "lost", "won", "won", "moved"]
    surest = found.shown[0]
    assert (surest.name, surest.truth, surest.before, surest.after) == ("dog/1.png", "dog", "dog", "cat")
    assert surest.before_probability == pytest.approx(0.8)
    assert found.shown[1].before_probability == pytest.approx(0.7)
    header, data = surest.thumbnail.split(",")
    assert header == "data:image/jpeg;base64"
    with Image.open(io.BytesIO(base64.b64decode(data))) as drawn:
        assert drawn.size == (THUMBNAIL, THUMBNAIL // 2)


def test_without_labels_nobody_lost(images: ImageSet) -> None:
    unlabelled = ImageSet(images.root, images.paths, None, None)
    found = disagreement(answers(0, 0, 0, 0, 0, 0), answers(0, 0, 0, 0, 0, 1), unlabelled, LABELS)
    assert found.outcomes == {"lost": 0, "won": 0, "moved": 1}
    assert found.shown[0].truth is None


def test_all_are_counted_and_some_are_shown(images: ImageSet) -> None:
    many = ImageSet(images.root, images.paths * 10, None, None)
    found = disagreement(answers(*[0] * 60), answers(*[1] * 60), many, LABELS)
    assert found.pairs == (("cat", "dog", 60),) and len(found.shown) == SHOWN
