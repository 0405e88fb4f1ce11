"""A control loop of 50 Hz that never waits for the network: it sees the newest answer, and how old that is.

    python examples/robot_loop.py model.edge photos/ --seconds 5

A thread of its own classifies, always the newest frame; the loop shows it frames and asks what it has. In place of the
files put your camera's newest frame, and in place of ``steer`` your robot.
"""

from __future__ import annotations

import argparse
import itertools
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType

import numpy as np

import edge_resnet
from edge_resnet.images import SUFFIXES, read_image

RATE = 50.0
"""Of the loop, in Hz."""
TOO_OLD = 0.5
"""Seconds: what the camera saw this long ago is nothing to act on."""


@dataclass(frozen=True)
class Answer:
    """What the network said of a frame."""

    prediction: edge_resnet.Prediction
    seen: float
    """When the frame was shown, in seconds of ``time.monotonic``."""


class Background:
    """Classifies in a thread of its own. ``show`` and ``answer`` return at once, however long the network takes.

    Args:
        classify: a ``Classifier``, or any function of a frame.
    """

    def __init__(self, classify: Callable[[np.ndarray], edge_resnet.Prediction]) -> None:
        self._classify = classify
        self._waiting: tuple[np.ndarray, float] | None = None
        self._answer: Answer | None = None
        self._error: Exception | None = None
        self._stopped = False
        self._changed = threading.Condition()
        self._thread = threading.Thread(target=self._work, name="classify")
        self._thread.start()

    def show(self, frame: np.ndarray) -> None:
        """Gives the newest frame; one that still waits is dropped."""
        with self._changed:
            self._waiting = frame, time.monotonic()
            self._changed.notify()

    def answer(self) -> Answer | None:
        """The newest answer; None until there is one.

        Raises:
            Exception: the network failed, with whatever it raised.
        """
        if self._error is not None:
            raise self._error
        return self._answer

    def _work(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._waiting is not None or self._stopped)
                if self._stopped:
                    return
                (frame, seen), self._waiting = self._waiting, None
            try:
                self._answer = Answer(self._classify(frame), seen)
            except (
                Exception
            ) as error:  # a thread that dies in silence would leave the robot with an old answer for ever
                self._error = error
                return

    def __enter__(self) -> Background:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        with self._changed:
            self._stopped = True
            self._changed.notify()
        self._thread.join()


def run(
    background: Background, frame: Callable[[], np.ndarray], steer: Callable[[Answer | None], None], ticks: int
) -> float:
    """The loop: a tick each 1/RATE seconds, on a fixed grid, so that a late one does not delay those behind it.

    Args:
        background: where frames go and answers come from.
        frame: gives the camera's newest frame without waiting.
        steer: acts on the newest answer, if it is new enough; None where there is none.
        ticks: how often.

    Returns:
        By how much the latest tick was late, in seconds.
    """
    start, worst = time.monotonic(), 0.0
    for tick in range(ticks):
        due = start + tick / RATE
        time.sleep(max(0.0, due - time.monotonic()))
        worst = max(worst, time.monotonic() - due)
        background.show(frame())
        answer = background.answer()
        fresh = answer is not None and time.monotonic() - answer.seen < TOO_OLD
        steer(answer if fresh else None)
    return worst


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("bundle", type=Path)
    parser.add_argument("images", type=Path, help="a folder: its pictures stand for a camera's")
    parser.add_argument("--seconds", type=float, default=5.0)
    args = parser.parse_args()

    paths = sorted(path for path in args.images.rglob("*") if path.suffix.lower() in SUFFIXES)[:100]
    if not paths:
        parser.error(f"{args.images} holds no picture: give a folder with some")
    frames = itertools.cycle([np.asarray(read_image(path)) for path in paths])
    ticks = itertools.count()

    def steer(answer: Answer | None) -> None:
        if next(ticks) % (RATE // 2) == 0:  # here the robot would act; people read twice a second
            age = f"{1e3 * (time.monotonic() - answer.seen):.0f} ms old" if answer else ""
            print(f"{answer.prediction.label} {answer.prediction.probability:.0%}, {age}" if answer else "nothing yet")

    with edge_resnet.Classifier(args.bundle) as classify, Background(classify) as background:
        worst = run(background, lambda: next(frames), steer, int(args.seconds * RATE))
    print(f"{int(args.seconds * RATE)} ticks of {1e3 / RATE:.0f} ms; the latest was {1e3 * worst:.1f} ms late")


if __name__ == "__main__":
    main()
