"""A worker's compiler and engines, as a build takes those of this process."""

from __future__ import annotations

from typing import Any

import ray
from ray.exceptions import ActorUnschedulableError, ObjectLostError, RayActorError, RayTaskError

from edge_resnet import __version__
from edge_resnet.engines.engine import Answers, CompiledEngine, Frames, Progress, QuantizedForm
from edge_resnet.engines.options import BuildOptions
from edge_resnet.engines.registry import engine_class
from edge_resnet.engines.targets import Target
from edge_resnet.errors import EdgeResnetError, UnavailableError

_LOST = (ActorUnschedulableError, ObjectLostError, RayActorError)
_LOOK_S = 0.2
"""How often a compilation is asked how it stands."""


class WorkerLostError(Exception):
    """A worker, or the way to it, is gone; the build of its target can begin anew on another."""


def answer(reference: Any) -> Any:
    """What a worker answers.

    Raises:
        EdgeResnetError: the worker's own, as itself.
        UnavailableError: the worker cannot even begin: it lacks this package, or what it needs.
        WorkerLostError: the worker is gone.
    """
    try:
        return ray.get(reference)
    except RayTaskError as error:
        if isinstance(error.cause, EdgeResnetError):
            raise error.cause from None
        raise  # a bug, with the worker's own traceback
    except _LOST as error:
        if isinstance(error, RayActorError) and error.actor_init_failed:
            reason = str(error).splitlines()[-1]
            raise UnavailableError(
                f"a worker cannot begin ({reason}): install edge-resnet {__version__} there, and start its `ray start` anew"
            ) from error
        raise WorkerLostError from error


class RemoteEngine:
    """An engine that a worker has loaded."""

    def __init__(self, workshop: Any, device: str) -> None:
        self._workshop, self._device = workshop, device

    def run(self, frames: Frames) -> Answers:
        answers: Answers = answer(self._workshop.run.remote(frames))
        return answers

    def device(self) -> str:
        return self._device


class RemoteCompiler:
    """A worker's compiler. Its versions decide: of the form that a graph has, of options, of what can be run there."""

    def __init__(self, kind: str, workshop: Any) -> None:
        here = engine_class(kind)
        self.kind, self.suffix, self.scheme, self.note_on = here.kind, here.suffix, here.scheme, here.note_on
        self._workshop = workshop

    def __call__(self, data: bytes) -> RemoteEngine:
        """Loads the very bytes that go into the bundle."""
        return RemoteEngine(self._workshop, answer(self._workshop.open.remote(data)))

    def compile(self, model: bytes, target: Target, options: BuildOptions, progress: Progress | None) -> CompiledEngine:
        result = self._workshop.compile.remote(model, target, options)
        while not ray.wait([result], timeout=_LOOK_S)[0]:
            standing = answer(self._workshop.standing.remote())
            if progress is not None and standing is not None:
                progress(*standing)
        compiled: CompiledEngine = answer(result)
        return compiled

    def quantized_form(self) -> QuantizedForm:
        form: QuantizedForm = answer(self._workshop.quantized_form.remote())
        return form

    def has_sparse_kernels(self, target: Target) -> bool:
        """No: the worker sees to it itself, as to its measurements."""
        return False

    def timing_cache_name(self, target: Target) -> None:
        """None: the worker keeps its measurements itself."""

    def why_not_compile(self, target: Target) -> str | None:
        why_not: str | None = answer(self._workshop.why_not_compile.remote(target))
        return why_not

    def why_not_run(self, target: Target) -> str | None:
        why_not: str | None = answer(self._workshop.why_not_run.remote(target))
        return why_not
