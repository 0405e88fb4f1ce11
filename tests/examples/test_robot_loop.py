"""A control loop beside a network that is slow, fails, or is real."""

from __future__ import annotations

import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest
import robot_loop
from robot_loop import Answer, Background, run

from edge_resnet.errors import ImageError

FRAME = np.zeros((2, 2, 3), np.uint8)


def test_the_loop_goes_on_while_the_network_takes_its_time() -> None:
    """Ticks are counted until the network is through with its first frame, which it is not before the loop is."""
    through = threading.Event()
    steered: list[Answer | None] = []
    with Background(lambda frame: through.wait(30)) as background:
        try:
            run(background, lambda: FRAME, steered.append, ticks=20)
        finally:
            through.set()
    assert steered == [None] * 20


def test_ticks_stand_on_a_fixed_grid() -> None:
    """One tick that takes as long as three delays none behind it."""
    times = []

    def steer(answer: Answer | None) -> None:
        times.append(time.monotonic())
        if len(times) == 5:
            time.sleep(3 / robot_loop.RATE)

    start = time.monotonic()
    with Background(lambda frame: "a label") as background:
        worst = run(background, lambda: FRAME, steer, ticks=25)
    assert worst > 1.5 / robot_loop.RATE
    for tick, moment in enumerate(times):
        assert moment - start >= tick / robot_loop.RATE  # none comes too early
    assert times[-1] - start < 25 / robot_loop.RATE + 0.3  # and the last not late by what one took (on a busy machine)


def test_frames_that_waited_too_long_are_dropped_for_the_newest() -> None:
    seen: list[int] = []
    numbers = iter(range(1000))

    def slow(frame: np.ndarray) -> int:
        seen.append(int(frame[0, 0, 0]))
        time.sleep(0.1)
        return seen[-1]

    steered: list[Answer | None] = []
    with Background(slow) as background:
        run(background, lambda: np.full((1, 1, 3), next(numbers), np.uint8), steered.append, ticks=40)
    assert seen == sorted(set(seen))
    assert 3 <= len(seen) <= 10  # of 40 shown in 0.8 seconds
    assert seen[-1] >= 30
    answered = [answer.prediction for answer in steered if answer]
    assert answered == sorted(answered) and set(answered) <= set(seen)


def test_an_answer_that_is_too_old_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(robot_loop, "TOO_OLD", 0.1)
    first, rest = threading.Event(), threading.Event()

    def stuck_on_the_second(frame: np.ndarray) -> str:
        if first.is_set():
            rest.wait(30)
        first.set()
        return "seen"

    steered: list[Answer | None] = []
    with Background(stuck_on_the_second) as background:
        try:
            run(background, lambda: FRAME, steered.append, ticks=30)
        finally:
            rest.set()
    assert steered[-1] is None


def test_a_network_that_fails_is_not_taken_for_silence() -> None:
    def fails(frame: np.ndarray) -> str:
        raise ImageError("frame 0 is empty")

    with (
        pytest.raises(ImageError, match="frame 0 is empty"),
        Background(fails) as background,
    ):
        run(background, lambda: FRAME, lambda answer: None, ticks=50)


def test_it_runs_as_its_first_lines_say(
    quick_bundle: Path, few: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(
        sys, "argv", ["robot_loop.py", str(quick_bundle), str(few / "test" / "bag"), "--seconds", "1.2"]
    )
    robot_loop.main()
    *said, last = capsys.readouterr().out.splitlines()
    assert len(said) == 3
    assert said[-1].startswith("bag ") and said[-1].endswith(" ms old")
    assert last.startswith("60 ticks of 20 ms; the latest was ")
