"""The last minute in steps of a quarter of a second."""

from __future__ import annotations

import numpy as np
import pytest

from edge_resnet.classifier import Prediction
from edge_resnet.runtime import Timing
from edge_resnet.web.history import STEPS, History

LABELS = tuple("abcdefg")


def prediction(index: int, age_ms: float, run_ms: float) -> Prediction:
    logits = np.full(len(LABELS), -50, np.float32)
    logits[index] = 0
    return Prediction.of(logits, LABELS, Timing(0.0, run_ms, age_ms))


def test_a_step_sums_up_what_happened_in_it() -> None:
    history = History(100.0)
    for at, index, age, run in ((100.01, 2, 5.0, 1.0), (100.1, 2, 90.0, 2.0), (100.2, 4, 7.0, 9.0)):
        history.put(prediction(index, age, run), at)
    assert history.since(-1, 100.24) == [], "it is not over"
    (step,) = history.since(-1, 100.26)
    assert (step.number, step.frames, step.age_ms, step.age_max_ms, step.run_ms) == (0, 3, 7.0, 90.0, 2.0)
    assert [index for index, _ in step.top[:2]] == [2, 4] and len(step.top) == 5
    assert [value for _, value in step.top[:2]] == pytest.approx([2 / 3, 1 / 3])
    assert step.to_json()[:5] == [0, 3, 7.0, 90.0, 2.0]


def test_steps_without_an_answer_are_left_out_and_old_ones_forgotten() -> None:
    history = History(0.0)
    history.put(prediction(0, 1, 1), 0.1)
    history.put(prediction(0, 1, 1), 2.1)
    assert [step.number for step in history.since(-1, 3.0)] == [0, 8]
    assert [step.number for step in history.since(0, 3.0)] == [8]
    minute = STEPS * 0.25
    assert [step.number for step in history.since(-1, minute + 1.0)] == [8]
    assert history.since(-1, minute + 5.0) == []
