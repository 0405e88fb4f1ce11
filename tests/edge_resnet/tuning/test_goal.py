"""What is best, what is nearest, and what is on the front: worked by hand."""

from __future__ import annotations

import pytest

from edge_resnet.errors import RecipeError
from edge_resnet.tuning.goal import AS_FAST, Goal, front
from edge_resnet.tuning.tried import Figures, Settings, Tried


def tried(number: int, latency_ms: float, sqnr_db: float, drop: float = 0.0) -> Tried:
    settings = Settings("mse", "fast", (), (), None, None)
    return Tried(number, settings, Figures(100, sqnr_db, 0.99, 0.9, drop, (drop - 1, drop + 1)), latency_ms)


OWN, SLOW, FAST, LOSSY = tried(0, 10, 30), tried(1, 20, 40), tried(2, 8, 28), tried(3, 5, 20, 2.0)
ALL = (OWN, SLOW, FAST, LOSSY)


def test_the_best_is_the_nearest_to_fp32_of_those_that_meet_the_goal() -> None:
    assert Goal(None, 0.5).best(ALL, OWN) == OWN, "SLOW is slower than the recipe as it stands"
    assert Goal(50, 0.5).best(ALL, OWN) == SLOW, "20 ms are 50 FPS"
    assert Goal(51, 0.5).best(ALL, OWN) == OWN
    assert Goal(101, 0.5).best(ALL, OWN) == FAST
    assert Goal(126, 0.5).best(ALL, OWN) is None, "LOSSY is fast enough, and loses two points"
    assert Goal(126, 2.0).best(ALL, OWN) == LOSSY


def test_of_equals_the_faster_and_then_the_earlier() -> None:
    assert Goal(1, 1).best((OWN, tried(4, 9, 30), tried(5, 9, 30)), OWN) == tried(4, 9, 30)


def test_what_falls_short_least() -> None:
    assert Goal(1000, 0.5).nearest((OWN, SLOW, FAST), OWN) == FAST
    assert Goal(126, 0.5).nearest(ALL, OWN) == FAST, "0.8 % too slow, against 1.5 points too much"


def test_without_a_speed_it_is_the_recipes_own() -> None:
    assert Goal(None, 1).least_fps(OWN) == pytest.approx(AS_FAST * 100)


def test_the_front() -> None:
    beaten = tried(6, 9, 27)
    assert front((*ALL, beaten)) == (LOSSY, FAST, OWN, SLOW)
    assert front((OWN, tried(7, 10, 30))) == (OWN,)


@pytest.mark.parametrize("fps", [0, -1, float("nan"), float("inf")])
def test_goals_that_are_none(fps: float) -> None:
    with pytest.raises(RecipeError, match="--min-fps is"):
        Goal(fps, 1)
