"""Work beside the loop: on the newest prediction alone, only while watched, and never at the loop's cost."""

from __future__ import annotations

import os
import threading
import time

import numpy as np
from live_page import until

from edge_resnet.classifier import Prediction
from edge_resnet.web.newest import NICENESS, NewestWorker


def prediction(index: int) -> Prediction:
    return Prediction.of(np.array([index, 0], np.float32), ("a", "b"))


def test_the_loop_never_waits_and_what_comes_in_between_is_passed_over() -> None:
    working, go_on = threading.Event(), threading.Event()
    seen: list[Prediction] = []

    def work(given: Prediction) -> int:
        seen.append(given)
        working.set()
        go_on.wait()
        return len(seen)

    worker = NewestWorker(work, 1000, "test")
    with worker.watched():
        sent = [prediction(i) for i in range(500)]
        worker.put(sent[0])
        working.wait()
        start = time.monotonic()
        for each in sent[1:]:
            worker.put(each)
        assert time.monotonic() - start < 0.5, "its work goes on all the while"
        go_on.set()
        until(lambda: worker.result == 2)
    worker.close()
    assert seen[0] is sent[0] and seen[1] is sent[-1] and len(seen) == 2


def test_equal_predictions_of_two_frames_are_two() -> None:
    seen: list[Prediction] = []
    worker = NewestWorker(seen.append, 1000, "test")
    with worker.watched():
        for count in (1, 2):
            worker.put(prediction(1))
            until(lambda count=count: len(seen) == count)
    worker.close()


def test_nobody_watches_nothing_is_done() -> None:
    seen: list[Prediction] = []
    worker = NewestWorker(seen.append, 1000, "test")
    worker.put(prediction(1))
    time.sleep(0.05)
    assert seen == []
    with worker.watched():
        until(lambda: len(seen) == 1)
    assert worker.watchers == 0
    worker.close()


def test_an_error_is_kept_and_stops_it() -> None:
    worker = NewestWorker(lambda given: 1 / 0, 1000, "test")
    with worker.watched():
        worker.put(prediction(1))
        until(lambda: worker.failure is not None)
    assert worker.failure == "division by zero"
    worker.put(prediction(2))
    worker.close()


def test_it_stands_back_as_do_the_threads_that_it_starts() -> None:
    found: list[int] = []

    def niceness() -> None:
        found.append(os.getpriority(os.PRIO_PROCESS, threading.get_native_id()))

    def work(given: Prediction) -> None:
        niceness()
        other = threading.Thread(target=niceness)
        other.start()
        other.join()

    before = os.getpriority(os.PRIO_PROCESS, 0)
    worker = NewestWorker(work, 1000, "test")
    with worker.watched():
        worker.put(prediction(1))
        until(lambda: len(found) == 2)
    worker.close()
    assert found == [NICENESS, NICENESS] and os.getpriority(os.PRIO_PROCESS, 0) == before
