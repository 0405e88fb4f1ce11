"""Workers of a Ray cluster as the farm of a build: each target on a node that offers its name as a resource."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import ray
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from edge_resnet import __version__
from edge_resnet.build_target import BuiltTarget, Wanted, failed
from edge_resnet.engines.options import BuildOptions
from edge_resnet.engines.targets import Target
from edge_resnet.errors import UnavailableError
from edge_resnet.farm.farm import Farm, Make
from edge_resnet.farm.remote import RemoteCompiler, WorkerLostError, answer
from edge_resnet.farm.workshop import STANDING, Workshop
from edge_resnet.stages import Stages

_LOOK_S = 1.0
"""How often a target that waits for a device asks whether there still is one."""
_RAY: Any = ray
"""Of which some functions have no types."""
_Workshop = _RAY.remote(concurrency_groups={STANDING: 1})(Workshop)


@dataclass(frozen=True)
class _Worker:
    """A process on a node, which holds the node's device for one target."""

    workshop: Any
    name: str
    node: str


class RayFarm(Farm):
    """Compiles on the cluster that this process is connected to, targets of different devices at the same time.

    A worker takes one CPU of its node and one of the target's resource, so that builds which want the same device wait
    for each other. Targets that no node offers are built here meanwhile.
    """

    def __init__(self) -> None:
        self._workshops: list[Any] = []
        self._stopped = False

    def check_options(self, target: Target, options: BuildOptions) -> None:
        """Leaves it to the worker, whose version and device decide, where one offers the target."""
        if not _offering(target):
            super().check_options(target, options)

    def build(
        self, wanted: Sequence[Wanted], prepare: Callable[[Wanted], None], make: Make, stages: Stages
    ) -> list[BuiltTarget]:
        offered = {each.target.name: each for each in wanted if _offering(each.target)}
        for each in offered.values():
            prepare(each)
        clocks = {name: stages.beside() for name in offered}
        with ThreadPoolExecutor(max(len(offered), 1)) as threads:
            try:
                away = {name: threads.submit(self._away, offered[name], make, clocks[name]) for name in offered}
                here = {
                    each.target.name: _here(each, make, stages) for each in wanted if each.target.name not in offered
                }
                built = {**here, **{name: made.result() for name, made in away.items()}}
            except BaseException:  # Ctrl-C too
                self._stop()  # the threads end when their workers do
                raise
        stages.done += [stage for clock in clocks.values() for stage in clock.done]
        return [built[each.target.name] for each in wanted]

    def _stop(self) -> None:
        self._stopped = True
        for workshop in list(self._workshops):
            ray.kill(workshop)

    def _away(self, wanted: Wanted, make: Make, stages: Stages) -> BuiltTarget:
        """Builds a target on a worker, and anew on another node where that is lost."""
        target, tried = wanted.target, list[_Worker]()
        for _ in _offering(target):
            try:
                with self._worker(target, tried, stages) as worker:
                    tried.append(worker)
                    made = make(replace(wanted, engine=RemoteCompiler(target.kind, worker.workshop)), stages)
                    return replace(made, result=replace(made.result, worker=worker.name))
            except UnavailableError as error:
                return failed(target, error)
            except WorkerLostError:
                if self._stopped:
                    raise
                stages.progress.note(f"{target.name}: {_names(tried)} was lost")
        return failed(
            target,
            UnavailableError(
                f"{_names(tried)} was lost while it built for {target.name}, and no other worker offers that: "
                f"see that it runs (`ray status`) and has the memory to compile, and build again"
            ),
        )

    @contextmanager
    def _worker(self, target: Target, tried: list[_Worker], stages: Stages) -> Iterator[_Worker]:
        """A worker, as soon as a device is free; on a node where none has been lost.

        Raises:
            UnavailableError: it has another version of edge-resnet, or none.
            WorkerLostError: it ended before it could say who it is, or there is no node left.
        """
        spared = [worker.node for worker in tried]
        nodes = [node for node in _offering(target) if node not in spared]
        if not nodes:
            raise WorkerLostError
        free: Any = NodeAffinitySchedulingStrategy(nodes[0], soft=False) if spared else "DEFAULT"
        options = {"num_cpus": 1, "resources": {target.name: 1}, "scheduling_strategy": free}
        workshop = _Workshop.options(**options).remote(target.kind)
        self._workshops.append(workshop)
        try:
            with stages.stage(f"worker for {target.name}"):
                found = _introduced(workshop, target)
            if found["version"] != __version__:
                raise UnavailableError(
                    f"the worker {found['name']} has edge-resnet {found['version']}, and this is {__version__}: "
                    f"install the same version there, and start its `ray start` anew"
                )
            yield _Worker(workshop, found["name"], found["node"])
        finally:
            self._workshops.remove(workshop)
            ray.kill(workshop)


def _introduced(workshop: Any, target: Target) -> dict[str, str]:
    """Waits until a worker has its device, and says who it is."""
    reference = workshop.introduce.remote()
    while not ray.wait([reference], timeout=_LOOK_S)[0]:
        if not _offering(target):
            raise WorkerLostError
    found: dict[str, str] = answer(reference)
    return found


def _here(wanted: Wanted, make: Make, stages: Stages) -> BuiltTarget:
    """Builds a target here; what cannot be compiled here either is deferred, and the cluster's lack is a reason too."""
    made = make(wanted, stages)
    if made.result.verified != "deferred":
        return made
    why = f"{made.result.why}; and no worker of the cluster offers {wanted.target.name}"
    return replace(made, result=replace(made.result, why=why))


def _offering(target: Target) -> list[str]:
    """Nodes that are alive and have a target's device, in use or not."""
    return [
        node["NodeID"]
        for node in _RAY.nodes()
        if node["Alive"] and min(node["Resources"].get(target.name, 0), node["Resources"].get("CPU", 0)) >= 1
    ]


def _names(tried: Sequence[_Worker]) -> str:
    return " and then ".join(f"the worker {each.name}" for each in tried) or "the worker"
