"""What every camera does, with sources whose behaviour the test sets: order, counts, stalls, reconnects, closing."""

from __future__ import annotations

import gc
import itertools
import logging
import threading
import time
import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import numpy as np
import pytest

from edge_resnet.camera import Camera, Retry, Shot, Source, open_camera
from edge_resnet.errors import CameraError, CameraUnavailableError, EdgeResnetError
from edge_resnet.frames import FrameColor

QUICK = Retry(connect_s=1, stall_s=0.2, first_wait_s=0.02, longest_wait_s=0.05)


def shot(value: int) -> Shot:
    return Shot(np.full((2, 2, 3), value, np.uint8))


class Scripted(Source):
    """A live source: each connection is the next of some generator functions."""

    live = True

    def __init__(self, *connections: Callable[[], Iterator[Shot]]) -> None:
        self.name, self.color = "scripted", FrameColor.RGB
        self._connections = iter(connections)
        self.opened = 0

    @classmethod
    def parse(cls, address: str, color: FrameColor) -> Source:
        raise NotImplementedError

    @contextmanager
    def connect(self) -> Iterator[Iterator[Shot]]:
        self.opened += 1
        yield next(self._connections)()


def gives(*values: int) -> Callable[[], Iterator[Shot]]:
    return lambda: map(shot, values)


def loses(*values: int) -> Callable[[], Iterator[Shot]]:
    def shots() -> Iterator[Shot]:
        yield from map(shot, values)
        raise CameraUnavailableError("the cable is out")

    return shots


def hangs(*values: int, woken: threading.Event) -> Callable[[], Iterator[Shot]]:
    """Falls silent; when woken at last, gives a frame that is long stale."""

    def shots() -> Iterator[Shot]:
        yield from map(shot, values)
        woken.wait(10)
        yield shot(99)

    return shots


def absent() -> Iterator[Shot]:
    raise CameraUnavailableError("nothing there")


def reached(camera: Camera, captured: int) -> None:
    """Waits until a camera has captured so many frames."""
    deadline = time.monotonic() + 10
    while camera.stats.captured < captured:
        assert time.monotonic() < deadline, camera.stats
        time.sleep(0.001)


def values_of(camera: Camera, count: int) -> list[int]:
    return [int(frame.pixels[0, 0, 0]) for frame in itertools.islice(camera, count)]


def test_it_goes_on_after_a_loss_and_after_an_end(caplog: pytest.LogCaptureFixture) -> None:
    source = Scripted(loses(1, 2), gives(3), gives(4))
    with caplog.at_level(logging.WARNING), Camera(source, latest=False, retry=QUICK) as camera:
        assert values_of(camera, 4) == [1, 2, 3, 4]
        stats = camera.stats
    assert (stats.reconnects, stats.stalled, stats.captured, stats.delivered) == (2, 0, 4, 4)
    assert "the cable is out: next attempt in 0.0 s" in caplog.messages
    assert "scripted ended: next attempt in 0.0 s" in caplog.messages
    assert caplog.messages.count("scripted is connected again") == 2


def test_a_loss_leaves_nothing_in_memory() -> None:
    """What stood in a lost connection's functions is freed at once, and not when Python next looks for rings."""
    held: list[weakref.ref[threading.Event]] = []

    def shots() -> Iterator[Shot]:
        token = threading.Event()
        held.append(weakref.ref(token))
        yield shot(len(held))
        raise CameraUnavailableError("gone")

    gc.disable()
    try:
        with Camera(Scripted(*[shots] * 4), latest=False, retry=QUICK) as camera:
            assert values_of(camera, 4) == [1, 2, 3, 4]
            assert [each() for each in held[:3]] == [None] * 3
    finally:
        gc.enable()


def test_a_silent_source_is_left_and_what_it_gives_later_is_not_taken() -> None:
    woken = threading.Event()
    began = time.monotonic()
    with Camera(Scripted(hangs(1, woken=woken), gives(2), gives(3)), latest=False, retry=QUICK) as camera:
        assert values_of(camera, 2) == [1, 2]
        assert 0.2 <= time.monotonic() - began < 2
        woken.set()
        assert values_of(camera, 1) == [3], "not the stale one"
        assert (camera.stats.stalled, camera.stats.last_error) == (1, "scripted ended")


def test_a_slow_loop_is_no_stall() -> None:
    woken = threading.Event()
    with Camera(Scripted(hangs(*range(8), woken=woken)), latest=False, retry=QUICK) as camera:
        first = values_of(camera, 1)
        time.sleep(0.5)  # the source waits for room, longer than it may be silent
        assert camera.stats.stalled == 0
        assert first + values_of(camera, 6) == list(range(7))
    woken.set()


def test_a_first_attempt_that_fails_is_told_at_once() -> None:
    source = Scripted(absent)
    with pytest.raises(CameraUnavailableError, match="nothing there") as told:
        Camera(source, latest=True, retry=QUICK)
    assert (told.value.exit_code, source.opened) == (4, 1)


def test_or_tried_again_where_that_is_wanted() -> None:
    retry = Retry(first_wait_s=0.02, from_start=True)
    with Camera(Scripted(absent, absent, gives(7)), latest=True, retry=retry) as camera:
        assert values_of(camera, 1) == [7]
        assert camera.stats.reconnects == 0


def test_attempts_come_to_an_end_in_one_error_for_the_loop() -> None:
    retry = Retry(first_wait_s=0.01, longest_wait_s=0.02, attempts=3)
    source = Scripted(gives(1), absent, absent, absent, gives(2))
    with Camera(source, latest=False, retry=retry) as camera:
        assert values_of(camera, 1) == [1]
        with pytest.raises(CameraUnavailableError, match="nothing there; gave up after 3 attempts without a frame"):
            next(camera)
    assert source.opened == 3, "the end of the first, then two that failed"


def test_the_newest_frame_wins_under_a_slow_loop_and_the_counts_add_up() -> None:
    """Five frames come while the loop is at work: by the test's hand, since a busy machine keeps no rhythm."""
    tick = threading.Semaphore(0)

    def ticking() -> Iterator[Shot]:
        for value in range(40):
            tick.acquire()
            yield shot(value)

    with Camera(Scripted(ticking), latest=True, retry=Retry(stall_s=30)) as camera:
        for newest in range(4, 40, 5):
            tick.release(4)
            reached(camera, newest)
            before = time.monotonic()
            tick.release()
            reached(camera, newest + 1)
            frame = next(camera)
            assert (frame.index, int(frame.pixels[0, 0, 0])) == (newest, newest), "it waited in a queue"
            assert before <= frame.captured <= time.monotonic()
    stats = camera.stats
    assert (stats.captured, stats.delivered, stats.dropped) == (40, 8, 32)


@pytest.mark.parametrize("latest", [True, False])
def test_closing_from_another_thread_ends_a_loop_that_waits(latest: bool) -> None:
    woken = threading.Event()
    camera = Camera(Scripted(hangs(1, woken=woken)), latest=latest, retry=Retry(stall_s=30))
    assert values_of(camera, 1) == [1]
    closer = threading.Timer(0.1, camera.close)
    closer.start()
    began = time.monotonic()
    assert list(camera) == []
    assert time.monotonic() - began < 2
    closer.join()
    woken.set()
    camera.close()
    assert camera.stats.captured == camera.stats.delivered == 1


def test_closing_ends_the_threads() -> None:
    def ours() -> list[threading.Thread]:
        return [thread for thread in threading.enumerate() if "scripted" in thread.name]

    for latest in (True, False):
        camera = Camera(Scripted(lambda: map(shot, itertools.cycle([1]))), latest=latest)
        next(camera)
        assert len(ours()) == 2
        camera.close()
        assert ours() == []
        with pytest.raises(StopIteration):
            next(camera)


def test_closing_does_not_wait_for_the_next_attempt() -> None:
    camera = Camera(Scripted(gives(1)), latest=False, retry=Retry(first_wait_s=60, longest_wait_s=60))
    assert values_of(camera, 1) == [1]
    time.sleep(0.05)
    began = time.monotonic()
    camera.close()
    assert time.monotonic() - began < 5


def test_arrays_come_in_order_and_stay_as_they_were() -> None:
    def reusing() -> Iterator[np.ndarray]:
        buffer = np.zeros((4, 6, 3), np.uint8)
        for value in range(20):
            buffer[:] = value
            yield buffer

    with open_camera(reusing()) as camera:
        frames = list(camera)
    assert [int(frame.pixels.max()) for frame in frames] == list(range(20))
    assert [frame.index for frame in frames] == list(range(20))
    assert (np.diff([frame.captured for frame in frames]) >= 0).all()
    assert camera.stats.dropped == 0


def test_arrays_may_be_views_and_grey_without_a_channel() -> None:
    wide = np.arange(4 * 8 * 3, dtype=np.uint8).reshape(4, 8, 3)
    with open_camera([wide[:, ::2]], color="bgr") as camera:
        frame = next(camera)
    assert (frame.color, frame.pixels.tolist()) == (FrameColor.BGR, wide[:, ::2].tolist())
    with open_camera([wide[:, :, 0]], color=FrameColor.GRAY) as camera:
        assert next(camera).pixels.shape == (4, 8, 1)


@pytest.mark.parametrize(
    ("array", "color", "message"),
    [
        (np.zeros((4, 6, 3), np.float32), "rgb", r"iterable 'list' gave float32 (4, 6, 3), declared as 'rgb'"),
        (np.zeros((4, 6, 3), np.uint8), "nv12", r"gave uint8 (4, 6, 3), declared as 'nv12'"),
        (np.zeros((4, 6, 4), np.uint8), "bgr", r"gave uint8 (4, 6, 4), declared as 'bgr'"),
        (np.zeros((7, 6, 1), np.uint8), "nv12", r"gave uint8 (7, 6, 1), declared as 'nv12'"),
        (np.zeros(6, np.uint8), "rgb", r"gave uint8 (6,), declared as 'rgb'"),
    ],
)
def test_arrays_of_another_colour_are_refused(array: np.ndarray, color: str, message: str) -> None:
    with open_camera([array], color=color) as camera, pytest.raises(EdgeResnetError) as told:
        next(camera)
    assert message in str(told.value)
    assert isinstance(told.value, CameraError)


def test_an_iterators_own_error_reaches_the_loop_after_its_frames() -> None:
    def broken() -> Iterator[np.ndarray]:
        yield np.zeros((2, 2, 3), np.uint8)
        raise RuntimeError("sensor on fire")

    with open_camera(broken()) as camera:
        next(camera)
        with pytest.raises(CameraError, match="iterable 'generator' failed: RuntimeError: sensor on fire") as told:
            next(camera)
    assert isinstance(told.value.__cause__, RuntimeError)
