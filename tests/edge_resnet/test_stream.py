"""Streams: order, what is dropped and what is not, where errors come out, and how a stream ends."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator
from pathlib import Path
from threading import Event, Thread, get_ident

import numpy as np
import pytest
from PIL import Image

from edge_resnet import Classifier
from edge_resnet.demo import TEST
from edge_resnet.errors import ImageError
from edge_resnet.frames import CameraFrame, FrameColor
from edge_resnet.stream import Stream, StreamStats


def test_every_frame_in_its_order_when_the_source_waits() -> None:
    with Stream(range(100), lambda frame: frame * 10, lambda ready: ready + 1, latest=False) as stream:
        assert list(stream) == [10 * frame + 1 for frame in range(100)]
        assert stream.stats == StreamStats(taken=100, answered=100, dropped=0)
    assert list(stream) == []


def test_a_frame_that_waits_gives_way_to_a_newer_one() -> None:
    """The engine is held until the source has given all: the first frame and the last are answered."""
    given = Event()

    def source() -> Iterator[int]:
        yield from range(50)
        given.set()

    def answer(frame: int) -> int:
        assert given.wait(10)
        return frame

    with Stream(source(), lambda frame: frame, answer, latest=True) as stream:
        answers = list(stream)
        assert answers == sorted(answers) and answers[-1] == 49
        assert len(answers) in (1, 2)
        assert stream.stats == StreamStats(taken=50, answered=len(answers), dropped=50 - len(answers))


def test_the_next_frame_is_prepared_while_the_engine_works() -> None:
    second = Event()
    threads = set()

    def prepare(frame: int) -> int:
        threads.add(get_ident())
        if frame == 1:
            second.set()
        return frame

    def answer(frame: int) -> bool:
        threads.add(get_ident())
        return second.wait(10)

    with Stream(range(2), prepare, answer, latest=False) as stream:
        assert next(stream) is True  # it would wait in vain if frame 1 were prepared only after frame 0 was answered
    assert len(threads) == 2


@pytest.mark.parametrize("latest", [True, False])
@pytest.mark.parametrize("where", ["source", "prepare", "answer"])
def test_an_error_comes_out_where_the_stream_is_read(where: str, latest: bool) -> None:
    def source() -> Iterator[int]:
        yield 0
        if where == "source":
            raise ConnectionError("the camera is gone")

    def failing(name: str) -> None:
        if where == name:
            raise ImageError(f"no good in {name}")

    def prepare(frame: int) -> int:
        failing("prepare")
        return frame

    def answer(frame: int) -> int:
        failing("answer")
        return frame

    with Stream(source(), prepare, answer, latest=latest) as stream:
        with pytest.raises((ConnectionError, ImageError), match="the camera is gone|no good in"):
            list(stream)
        assert stream.stats.answered == (1 if where == "source" else 0)


def test_closing_ends_it_for_reader_and_source() -> None:
    asked = []

    def source() -> Iterator[int]:
        for frame in range(1_000_000):
            asked.append(frame)
            yield frame

    stream = Stream(source(), lambda frame: frame, lambda ready: ready, latest=False)
    assert next(stream) == 0
    stream.close()
    stream.close()
    assert list(stream) == []
    stream._thread.join(10)
    assert not stream._thread.is_alive()
    assert len(asked) < 10


def test_closing_wakes_a_reader_that_waits() -> None:
    block = Event()

    def source() -> Iterator[int]:
        block.wait(10)
        yield 0

    stream = Stream(source(), lambda frame: frame, lambda ready: ready, latest=True)
    found: list[list[int]] = []
    reader = Thread(target=lambda: found.append(list(stream)))
    reader.start()
    time.sleep(0.05)
    stream.close()
    reader.join(10)
    assert found == [[]]
    block.set()


def photos() -> list[Path]:
    return [sorted(folder.iterdir())[1] for folder in sorted(TEST.iterdir())]


def test_a_stream_answers_as_single_calls_do(demo_bundle: Path) -> None:
    frames = [np.asarray(Image.open(path)) for path in photos()]
    now = time.monotonic()
    captured = [CameraFrame(frame[:, :, np.newaxis], FrameColor.GRAY, now, i) for i, frame in enumerate(frames)]
    with Classifier(demo_bundle, target="cpu") as classify:
        wanted = [classify(frame) for frame in frames]
        for source in (frames, photos(), captured):
            with classify.stream(source, latest=False) as stream:
                found = list(stream)
            for one, other in zip(found, wanted, strict=True):
                np.testing.assert_array_equal(one.logits, other.logits)
    assert [prediction.frame for prediction in found] == captured
    for prediction in found:
        timing = prediction.timing
        assert timing is not None and timing.age_ms is not None
        assert timing.age_ms >= timing.run_ms > 0
    assert wanted[0].timing is not None and wanted[0].timing.age_ms is None


@pytest.mark.parametrize("color", ["bgr", "rgba", "nv12"])
def test_a_colour_is_declared_once(demo_bundle: Path, color: str) -> None:
    """Grey pixels are the same in every colour: the answers must be too."""
    frame = np.asarray(Image.open(photos()[3]))
    rgb = np.repeat(frame[:, :, np.newaxis], 3, axis=2)
    luma = np.rint(16 + frame.astype(float) * 219 / 255).astype(np.uint8)  # ITU-R BT.601
    buffers = {
        "bgr": rgb,
        "rgba": np.dstack([rgb, np.full(frame.shape, 7, np.uint8)]),
        "nv12": np.concatenate([luma, np.full((14, 28), 128, np.uint8)]),
    }
    with Classifier(demo_bundle, target="cpu") as plain, Classifier(demo_bundle, target="cpu", color=color) as declared:
        found, wanted = declared(buffers[color]), plain(rgb)
        assert found.label == wanted.label
        np.testing.assert_allclose(found.logits, wanted.logits, atol=0.5)


def test_an_unknown_colour_is_refused(demo_bundle: Path) -> None:
    with pytest.raises(ImageError, match="color is 'yuv9': choose one of rgb, bgr, rgba, bgra, gray, nv12, "):
        Classifier(demo_bundle, color="yuv9")


def test_which_engine_runs_and_why(demo_bundle: Path) -> None:
    with Classifier(demo_bundle, target="cpu") as classify:
        assert (classify.target, classify.why) == ("cpu", "cpu: asked for")
    with Classifier(demo_bundle) as classify:
        assert (
            classify.why.startswith("cpu: others do not run here (rtx: needs an NVIDIA GPU") or classify.target != "cpu"
        )


def test_asyncio_programs_wait_without_blocking(demo_bundle: Path) -> None:
    async def both(classify: Classifier) -> list[str]:
        found = await asyncio.gather(*(classify.aclassify(path) for path in photos()[:4]))
        return [prediction.label for prediction in found]

    with Classifier(demo_bundle, target="cpu") as classify:
        assert asyncio.run(both(classify)) == [classify(path).label for path in photos()[:4]]


def test_many_threads_share_one_classifier(demo_bundle: Path) -> None:
    with Classifier(demo_bundle, target="cpu") as classify:
        wanted = [classify(path).logits for path in photos()]
        failures: list[int] = []

        def run(index: int) -> None:
            for _ in range(20):
                if not np.array_equal(classify(photos()[index]).logits, wanted[index]):
                    failures.append(index)

        threads = [Thread(target=run, args=(index,)) for index in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert failures == []
