"""Which trials are ended early: those that one with a result beats in both, and no others."""

from __future__ import annotations

import pytest

optuna = pytest.importorskip("optuna", reason="needs the extra 'tune'")
from optuna.trial import TrialState, create_trial  # noqa: E402

from edge_resnet.tuning.search import LATENCY, OWN, Beaten  # noqa: E402


@pytest.mark.parametrize(
    ("latency", "sqnr", "own", "ends"),
    [
        (10, 28.9, False, True),
        (10, 29.1, False, False),  # within the margin: more images may turn it round
        (9, 10.0, False, False),  # faster than all: it may be on the front
        (11, 28.9, False, True),
        (11, 28.9, True, False),
    ],
)
def test_beaten_is_who_is_no_faster_and_further_off(latency: float, sqnr: float, own: bool, ends: bool) -> None:
    study = optuna.create_study(direction="maximize")
    study.add_trial(create_trial(value=31.0, user_attrs={LATENCY: 10}, intermediate_values={50: 30.0, 100: 31.0}))
    running = create_trial(
        state=TrialState.PRUNED,
        user_attrs={LATENCY: latency, **({OWN: True} if own else {})},
        intermediate_values={50: sqnr},
    )
    assert Beaten().prune(study, running) is ends
