"""The slot: nothing is lost unless it is to be, and everything is counted."""

from __future__ import annotations

import threading
import time

import numpy as np
import pytest

from edge_resnet.camera.slot import FrameSlot
from edge_resnet.errors import CameraError
from edge_resnet.frames import FrameColor

PIXELS = np.zeros((2, 2, 3), np.uint8)


def put(slot: FrameSlot, count: int) -> None:
    for _ in range(count):
        assert slot.put(PIXELS, FrameColor.RGB)


def test_the_newest_takes_the_place_of_what_nobody_fetched() -> None:
    slot = FrameSlot(1, newest_wins=True)
    put(slot, 3)
    frame = slot.take()
    assert frame is not None
    assert (frame.index, slot.counts()) == (2, (3, 1, 2))


def test_where_nothing_is_to_be_lost_the_source_waits() -> None:
    slot = FrameSlot(2, newest_wins=False)
    thread = threading.Thread(target=put, args=(slot, 5))
    thread.start()
    time.sleep(0.1)
    assert slot.counts() == (3, 0, 0), "two wait, and one waits for room"
    assert [frame.index for frame in (slot.take() for _ in range(5)) if frame] == [0, 1, 2, 3, 4]
    thread.join(2)
    assert (thread.is_alive(), slot.counts()) == (False, (5, 5, 0))


def test_what_waits_at_the_end_is_still_delivered_then_the_error_raised() -> None:
    slot = FrameSlot(4, newest_wins=False)
    put(slot, 2)
    slot.end(CameraError("torn cable"))
    slot.end(CameraError("comes too late"))
    assert slot.take() and slot.take()
    for _ in range(2):
        with pytest.raises(CameraError, match="torn cable"):
            slot.take()


def test_closing_wakes_both_sides_and_counts_what_waited_as_dropped() -> None:
    full, empty = FrameSlot(1, newest_wins=False), FrameSlot(1, newest_wins=True)
    put(full, 1)
    results: list[object] = []
    threads = [
        threading.Thread(target=lambda: results.append(full.put(PIXELS, FrameColor.RGB))),
        threading.Thread(target=lambda: results.append(empty.take())),
    ]
    for thread in threads:
        thread.start()
    time.sleep(0.1)
    full.close()
    empty.close()
    for thread in threads:
        thread.join(2)
    assert sorted(map(str, results)) == ["False", "None"]
    assert full.counts() == (2, 0, 2)
