"""Times the stages of a build, shows them, and leaves out those that an earlier build has finished."""

from __future__ import annotations

import resource
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace

from edge_resnet.progress import Progress
from edge_resnet.stage_cache import NO_CACHE, Members, StageCache, Work


@dataclass(frozen=True)
class Stage:
    """What one stage took."""

    name: str
    seconds: float
    peak_mb: float
    """The process's peak resident memory up to the end of this stage, in MB (10⁶ bytes)."""
    cached: bool = False
    """Whether an earlier build had finished it, and its result was kept."""


class Stages:
    """A clock for stages that follow each other."""

    def __init__(self, progress: Progress, cache: StageCache = NO_CACHE) -> None:
        self.progress = progress
        self.done: list[Stage] = []
        self._cache = cache
        self._why_not_kept: str | None = None

    def beside(self) -> Stages:
        """A clock for stages that follow each other in another thread, at the same time as these."""
        return Stages(self.progress.beside(), self._cache)

    @contextmanager
    def stage(self, name: str, total: int | None = None) -> Iterator[None]:
        """Times what happens while the context is open; ``total`` steps, where that is known."""
        start = time.perf_counter()
        with self.progress.stage(name, total):
            yield
        self.done.append(Stage(name, time.perf_counter() - start, peak_mb()))

    def kept(self, work: Work, make: Callable[[], Members], total: int | None = None) -> Members:
        """A stage's result: out of the cache, or made now and kept."""
        why_not = None
        with self.stage(work.stage, total):
            found = self._cache.get(work)
            members = make() if found is None else found
            if found is None:
                why_not = self._cache.keep(work, members)
        if found is not None:
            self.done[-1] = replace(self.done[-1], cached=True)
        if why_not is not None and self._why_not_kept is None:  # once is enough
            self._why_not_kept = why_not
            self.progress.note(why_not)
        return members


def peak_mb() -> float:
    """The process's peak resident memory so far, in MB (10⁶ bytes)."""
    unit = 1 if sys.platform == "darwin" else 1024  # bytes on macOS, KiB on Linux (getrusage(2))
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 1e6
