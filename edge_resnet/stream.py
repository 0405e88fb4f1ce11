"""A stream of frames through an engine: the next is captured and prepared while the engine works on the one before."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from threading import Condition, Thread
from types import TracebackType
from typing import Any, TypeVar

Given = TypeVar("Given")
Prepared = TypeVar("Prepared")
Answer = TypeVar("Answer", covariant=True)


@dataclass(frozen=True)
class StreamStats:
    """What became of the frames so far: each was answered, dropped, failed, or is on its way; at the end, none is."""

    taken: int
    answered: int
    dropped: int
    """Prepared, and then replaced by a newer one before the engine was free, or the stream was closed."""
    failed: int = 0
    """It could not be prepared, or the engine failed: the stream ended with it."""


class Stream(Iterator[Answer]):
    """Answers one frame after another, in their order, until the source ends; close it, or use it in a ``with`` block.

    Frames are taken and prepared on a thread of its own, one at a time; the engine runs on the thread that iterates. The
    first error, of the source, of preparing or of the engine, is raised where the stream is read, and ends it.

    Args:
        source: gives frames; may block.
        prepare: makes one ready.
        answer: answers one that is ready.
        latest: whether a frame that waits for the engine gives way to a newer one. Else the source waits, and none is lost.
    """

    def __init__(
        self,
        source: Iterable[Given],
        prepare: Callable[[Given], Prepared],
        answer: Callable[[Prepared], Answer],
        *,
        latest: bool,
    ) -> None:
        self._source, self._prepare, self._answer, self._latest = source, prepare, answer, latest
        self._changed = Condition()
        self._slot: list[Any] = []
        self._failure: BaseException | None = None
        self._ended = self._closed = False
        self._taken = self._answered = self._dropped = self._failed = 0
        self._thread = Thread(target=self._fill, name="edge-resnet-stream", daemon=True)
        self._thread.start()

    def _fill(self) -> None:
        try:
            for frame in self._source:
                with self._changed:
                    self._taken += 1
                if not self._put(self._counted(self._prepare, frame)):
                    return
        except BaseException as error:  # raised again where the stream is read
            self._failure = error
        finally:
            with self._changed:
                self._ended = True
                self._changed.notify_all()

    def _counted(self, work: Callable[[Any], Any], frame: Any) -> Any:
        """Does something with a frame; where that fails, the frame has failed."""
        try:
            return work(frame)
        except BaseException:
            with self._changed:
                self._failed += 1
            raise

    def _put(self, prepared: Any) -> bool:
        """Leaves a frame for the engine; whether anybody still wants one."""
        with self._changed:
            if self._latest:
                self._dropped += len(self._slot)
                self._slot.clear()
            self._changed.wait_for(lambda: self._closed or not self._slot)
            if self._closed:
                self._dropped += 1
                return False
            self._slot.append(prepared)
            self._changed.notify_all()
            return True

    def __next__(self) -> Answer:
        with self._changed:
            self._changed.wait_for(lambda: self._closed or self._slot or self._ended)
            if self._closed:
                raise StopIteration
            if not self._slot:
                self._closed = True
                if self._failure is not None:
                    raise self._failure
                raise StopIteration
            prepared = self._slot.pop()
            self._changed.notify_all()
        try:
            answer: Answer = self._counted(self._answer, prepared)
        except BaseException:
            self.close()
            raise
        with self._changed:
            self._answered += 1
        return answer

    @property
    def stats(self) -> StreamStats:
        """What became of the frames so far."""
        with self._changed:
            return StreamStats(self._taken, self._answered, self._dropped, self._failed)

    def close(self) -> None:
        """Ends the stream; may be called again, and from any thread. A source that blocks is left behind when it ends."""
        with self._changed:
            self._closed = True
            self._dropped += len(self._slot)
            self._slot.clear()
            self._changed.notify_all()

    def __enter__(self) -> Stream[Answer]:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()
