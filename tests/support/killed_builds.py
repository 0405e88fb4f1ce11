"""Kills builds over and over, and looks at what each leaves: ``killed_builds.py RECIPE FOLDER KILLS SEED``.

Two recipes, of which one has one image less, take turns to build the same bundle. Half of the builds are killed at a
moment, the moments spread evenly over a build; half at a step of writing a file: before and after each call, and half way
through its bytes. Every fifth has a second build beside it that is left alone. Prints a JSON document.
"""

from __future__ import annotations

import json
import mmap
import os
import random
import shutil
import signal
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import edge_resnet.chain
import edge_resnet.export
import edge_resnet.weights
from edge_resnet import output
from edge_resnet.recipe import Recipe, load_recipe
from edge_resnet.stage_cache import StageCache

STEPS = mmap.mmap(-1, 4)
"""How many steps of writing the latest whole build took; a child tells its parent."""


@dataclass(frozen=True)
class Death:
    """When a build is killed: after seconds, or at a step; neither: not at all."""

    after_s: float | None = None
    at_step: int | None = None


class Mortal:
    """Counts the steps of writing, and dies at one."""

    def __init__(self, last: int | None) -> None:
        self._step, self._last = 0, last

    def step(self) -> bool:
        self._step += 1
        STEPS[:] = self._step.to_bytes(4, "little")
        return self._step == self._last

    def around(self, function: Callable[..., Any]) -> Callable[..., Any]:
        def wrapped(*arguments: Any, **named: Any) -> Any:
            if self.step():
                die()
            found = function(*arguments, **named)
            if self.step():
                die()
            return found

        return wrapped

    def half(self, function: Callable[..., Any]) -> Callable[..., Any]:
        def wrapped(file: Any, data: bytes) -> None:
            if self.step():
                file.write(memoryview(data)[: len(data) // 2])
                die()
            function(file, data)

        return wrapped


def die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def start(recipe: Recipe, cache: StageCache, at_step: int | None = None) -> int:
    child = os.fork()
    if child:
        return child
    code = 1
    try:
        mortal = Mortal(at_step)
        output._created, output._write_all = mortal.around(output._created), mortal.half(output._write_all)
        os.fsync, os.replace = mortal.around(os.fsync), mortal.around(os.replace)
        result = edge_resnet.chain.build(recipe, cache=cache)
        code = 0 if result.bundle else 1
    finally:
        os._exit(code)


def survives(recipe: Recipe, cache: StageCache, death: Death) -> float | None:
    """Seconds that the build took; None when it was killed."""
    child, began = start(recipe, cache, death.at_step), time.perf_counter()
    while death.after_s is None or time.perf_counter() - began < death.after_s:
        pid, status = os.waitpid(child, os.WNOHANG)
        if pid:
            assert status in (0, signal.SIGKILL), status
            return time.perf_counter() - began if status == 0 else None
        time.sleep(0.001)
    os.kill(child, signal.SIGKILL)
    return time.perf_counter() - began if os.waitpid(child, 0)[1] == 0 else None


def at(recipe: Recipe, path: Path) -> Recipe:
    return replace(recipe, build=replace(recipe.build, output=path))


def only_ours(folder: Path, *others: Path) -> bool:
    """Whether a folder holds nothing but these and what killed builds may leave."""
    names = {path.name for path in folder.iterdir()} - {path.name for path in others}
    return all(name.startswith(".edge-resnet-") and name.endswith(".partial") for name in names)


class Builds:
    """Two recipes for one bundle, and what each makes of it when nobody kills it."""

    def __init__(self, recipe: Recipe, folder: Path) -> None:
        self.bundle = folder / "model.edge"
        less = replace(recipe, calibration=replace(recipe.calibration, limit=29))
        self.recipes = [at(each, self.bundle) for each in (recipe, less)]
        self.cache = StageCache(folder.parent / "stages")
        self.whole = []
        for each in self.recipes:
            took = survives(each, StageCache(None), Death())
            assert took is not None
            self.whole.append(self.bundle.read_bytes())
        assert self.whole[0] != self.whole[1]
        self.cold = Timed(took, 0)
        self.clear()
        assert survives(self.recipes[0], self.cache, Death()) is not None
        self.cold = Timed(took, int.from_bytes(STEPS, "little"))

    def clear(self) -> None:
        if self.cache.folder is not None:
            shutil.rmtree(self.cache.folder, ignore_errors=True)

    def there(self) -> int:
        """Which of the two lies there; another thing is the failure that is looked for."""
        return self.whole.index(self.bundle.read_bytes())


@dataclass(frozen=True)
class Timed:
    """What a build takes that finds nothing in the cache."""

    seconds: float
    steps: int


def kill(builds: Builds, kills: int, rng: random.Random) -> dict[str, int]:
    counts = {"killed": 0, "survived": 0, "old": 0, "new": 0}
    moments = [Death(after_s=builds.cold.seconds * (i + rng.random()) / (kills / 2)) for i in range(kills // 2)]
    steps = [Death(at_step=1 + rng.randrange(builds.cold.steps)) for _ in range(kills - len(moments))]
    deaths = [*moments, *steps]
    rng.shuffle(deaths)
    attempt = 0
    while counts["killed"] < kills:
        attempt += 1
        death = deaths[attempt % len(deaths)]
        if attempt % 3 == 0:
            builds.clear()
        old = builds.there()
        beside = start(builds.recipes[old], builds.cache) if attempt % 5 == 0 else None
        took = survives(builds.recipes[1 - old], builds.cache, death)
        if beside is not None:
            assert os.waitpid(beside, 0)[1] == 0, "a build beside a killed one must not notice"
        counts["killed" if took is None else "survived"] += 1
        found = builds.there()
        counts["old" if found == old else "new"] += 1
        assert took is None or beside is not None or found != old
        assert only_ours(builds.bundle.parent, builds.bundle)
        for path in builds.cache.folder.glob("*.stage") if builds.cache.folder else ():
            assert path.name in {Path(each.path).name for each in builds.cache.entries()}, "a stage is kept by half"
    return counts


def resume(builds: Builds) -> int:
    """Kills a build when its first stage is kept; gives how many are then, which the next build must not make again."""
    builds.clear()
    child = start(builds.recipes[0], builds.cache)
    while not builds.cache.entries():
        time.sleep(0.001)
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    kept = len(builds.cache.entries())
    found = edge_resnet.chain.build(builds.recipes[0], cache=builds.cache)
    assert [stage.cached for stage in found.stages].count(True) == kept, found.stages
    assert builds.there() == 0
    return kept


if __name__ == "__main__":
    made = Builds(load_recipe(Path(sys.argv[1])), Path(sys.argv[2]))
    counted = kill(made, int(sys.argv[3]), random.Random(int(sys.argv[4])))
    print(json.dumps({**counted, "steps": made.cold.steps, "kept": resume(made)}))
