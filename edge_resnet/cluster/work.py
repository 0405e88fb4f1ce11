"""Work over the workers of a cluster: an ordered map, few tasks ahead, that outlives workers. Needs the extra ``ray``."""

from __future__ import annotations

import platform
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from typing import Any, Generic, Protocol, TypeVar

from edge_resnet.engines.processor import kernel_flags
from edge_resnet.errors import EdgeResnetError, UnavailableError

Task = TypeVar("Task")
Result = TypeVar("Result")
_TaskIn = TypeVar("_TaskIn", contravariant=True)
_ResultOut = TypeVar("_ResultOut", covariant=True)

AHEAD = 2
"""Tasks a CPU that are sent before the first of them is done: none waits for the next one, and results do not pile up."""
RETRIES = 8
"""Deaths of workers that one task survives. Where it is the task that kills them, by memory or a crash, this ends it."""
LOOK_SECONDS = 5.0
PATIENCE_SECONDS = 120.0
"""For which a cluster may have no worker at all, as while its nodes are replaced."""
LIBRARIES = ("edge-resnet", "numpy", "onnx", "onnxruntime", "pillow")
"""Whose other versions may give other floats or pixels. Of Ray and Python, Ray itself refuses others."""


class Job(Protocol[_TaskIn, _ResultOut]):
    """What a worker is told once: pickled, it carries what all tasks need."""

    def begin(self) -> Callable[[_TaskIn], _ResultOut]:
        """Makes ready, such as by loading a network; what is given does tasks until another job begins."""
        ...


@dataclass(frozen=True)
class Libraries:
    """What results depend on besides the task."""

    versions: dict[str, str]
    kernels: str

    @classmethod
    def here(cls) -> Libraries:
        """Those of this process."""
        return cls({name: _version(name) for name in LIBRARIES}, kernel_flags())

    def check_same(self, others: Libraries) -> None:
        """Refuses to work with other versions than those of whoever sent the work.

        Raises:
            UnavailableError: the first that differs is named.
        """
        for name, mine in self.versions.items():
            if others.versions[name] != mine:
                raise UnavailableError(
                    f"worker {platform.node()} has {name} {mine}, here is {others.versions[name]}, and results could "
                    f"differ: install the same on all machines"
                )


@dataclass(frozen=True)
class _Done(Generic[Result]):
    result: Result
    worker: str
    kernels: str


def spread(job: Job[Task, Result], tasks: Sequence[Task], note: Callable[[str], None]) -> Iterator[Result]:
    """Does tasks on the workers of the connected cluster, each on one CPU; gives results in the tasks' order.

    A task whose worker dies is done again by another one. Workers that join take part.

    Args:
        job: sent once to each node; each process of a worker begins it once.
        tasks: small: what is large belongs into the job.
        note: told of a worker whose CPU computes otherwise than this one, once.

    Raises:
        EdgeResnetError: what a task raised, of the first that did in the tasks' order.
        UnavailableError: the cluster has no workers, or loses those that a task runs on again and again.
    """
    import ray

    here = Libraries.here()
    if cpus() < 1:
        raise UnavailableError(
            "the Ray cluster has no CPUs to work on: add a machine with `ray start --address=HOST:PORT`"
        )
    remote = ray.remote(num_cpus=1, max_retries=RETRIES)(_work)
    sent = [ray.put(job)]  # in a list, so that it is not fetched anew for every task
    waiting: deque[Any] = deque()
    left = iter(tasks)
    unlike: set[str] = set()
    for _ in tasks:
        while len(waiting) < AHEAD * max(1, cpus()) and (task := next(left, _NONE)) is not _NONE:
            waiting.append(remote.remote(sent, here, task))
        done = _fetched(waiting.popleft())
        if done.kernels != here.kernels and done.worker not in unlike:
            unlike.add(done.worker)
            note(f"the CPU of worker {done.worker} is {done.kernels}, here {here.kernels}: last digits may differ")
        yield done.result
    # Where this ends early, tasks ahead are left to end: Ray 2.60 aborts where one that is cancelled has just ended.


_NONE: Any = object()


def cpus() -> int:
    """CPUs of the connected cluster, as it is now."""
    import ray

    found: dict[str, float] = ray.cluster_resources()  # type: ignore[no-untyped-call]
    return int(found.get("CPU", 0))


def _fetched(reference: Any) -> _Done[Any]:
    """What a task gave.

    Raises:
        EdgeResnetError: what it raised; or UnavailableError, as ``spread`` says.
    """
    import ray
    from ray.exceptions import RayError, RayTaskError

    alone = 0.0
    while not ray.wait([reference], timeout=LOOK_SECONDS)[0]:
        alone = 0.0 if cpus() else alone + LOOK_SECONDS
        if alone >= PATIENCE_SECONDS:
            raise UnavailableError("the Ray cluster has lost its last worker: start others, and the command again")
    try:
        done: _Done[Any] | EdgeResnetError = ray.get(reference)
    except RayTaskError as error:
        if isinstance(error.cause, ImportError):
            raise UnavailableError(
                f"a worker cannot load edge-resnet ({error.cause}): install the same version on all machines"
            ) from error
        raise  # a bug, with the worker's own traceback
    except RayError as error:
        reason = str(error).strip().splitlines()[0]
        raise UnavailableError(
            f"a task has lost its worker {RETRIES + 1} times ({reason}): look for one that crashes, or lacks memory"
        ) from error
    if isinstance(done, EdgeResnetError):
        raise done
    return done


_BEGUN: dict[str, Callable[[Any], Any]] = {}
"""In a worker's process: the job that it has begun last, by its reference."""


def _work(sent: list[Any], sender: Libraries, task: Any) -> _Done[Any] | EdgeResnetError:
    """One task, in a worker's process. Errors of ours are results: Ray would make tracebacks of them."""
    import ray

    key = sent[0].hex()
    try:
        if key not in _BEGUN:
            _BEGUN.clear()  # frees the network of the job before
            Libraries.here().check_same(sender)  # before the job is read, which another version may not know
            job: Job[Any, Any] = ray.get(sent[0])
            _BEGUN[key] = job.begin()
        return _Done(_BEGUN[key](task), platform.node(), kernel_flags())
    except EdgeResnetError as error:
        return error


def _version(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return "none"
