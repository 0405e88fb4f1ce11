"""Which of a bundle's engines is loaded here, and what is done before it is believed.

In this order: does the host have what its target needs; may the library here be given what another one compiled; does the
library load it; does it answer the golden samples. ``docs/runtime.md`` has the rules.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import TypeVar

import numpy as np

from edge_resnet.bundle import MEASURED_ON, Bundle
from edge_resnet.companion import check_records, engine_of, require_engine, targets_of
from edge_resnet.engine_options import flags_of
from edge_resnet.engines.engine import COMPILED_ON, Engine
from edge_resnet.engines.options import recorded_options
from edge_resnet.engines.registry import engine_class
from edge_resnet.engines.targets import Target, target_named
from edge_resnet.errors import EngineError, GateError, UnavailableError
from edge_resnet.frames import FrameFormat
from edge_resnet.golden import GoldenResult, replay, replay_camera

_LOG = logging.getLogger(__name__)
_Choice = TypeVar("_Choice", bound=Enum)


class Verify(Enum):
    """When an engine must answer the golden samples before it is used."""

    UNMEASURED = "unmeasured"
    """Where it was not measured on this device and with this version of the library, when the bundle was built."""
    GOLDEN = "golden"
    """Always."""


class Fallback(Enum):
    """What becomes of a bundle whose best engine for this host cannot be loaded, or answers otherwise."""

    REFUSE = "refuse"
    """It is refused: a robot that is planned for the GPU must not run at a tenth of its rate on the CPU."""
    NEXT = "next"
    """The next engine that this host can run is loaded, with a warning; ``why`` says it too."""


@dataclass(frozen=True)
class RunnableEngine:
    """An engine of a bundle, and what it is for."""

    target: Target
    data: bytes
    frames: FrameFormat | None
    """What its camera gives, if its graph prepares frames itself."""
    versions: dict[str, str]
    """Libraries and devices that it was compiled with and for, and measured on."""
    why: str
    """Why it was chosen, in one line."""


@dataclass(frozen=True)
class LoadPlan:
    """How a bundle's engine is loaded."""

    verify: Verify
    fallback: Fallback
    cuda: str | None
    """The Python binding of CUDA; None chooses."""


def chosen(kind: type[_Choice], name: str, value: str | _Choice) -> _Choice:
    """A value of an enumeration by itself or by its text.

    Raises:
        EngineError: there is none.
    """
    try:
        return kind(value)
    except ValueError as error:
        raise EngineError(f"{name} is {value!r}: choose one of {', '.join(each.value for each in kind)}") from error


def find_engine(path: Path, bundle: Bundle, target: str | None) -> RunnableEngine:
    """The first of ``runnable_engines``.

    Raises:
        UnavailableError: none runs here; the message says why, for each.
    """
    return next(runnable_engines(path, bundle, target, []))


def runnable_engines(
    path: Path, bundle: Bundle, target: str | None, passed_over: list[str]
) -> Iterator[RunnableEngine]:
    """The engines that run here: those for a GPU before those for the CPU; at least one.

    Args:
        path: where the bundle is; engines compiled later lie beside it.
        bundle: the opened bundle.
        target: the only target to use; None is all.
        passed_over: why others were not used, each in a line; the caller adds its own reasons between two engines.

    Raises:
        UnavailableError: none runs here, or none is left; the message says why, for each.
    """
    names = targets_of(path, bundle) if target is None else (require_engine(path, bundle, target),)
    check_records(path, bundle, names)
    for name in sorted(names, key=lambda name: target_named(name).kind == "onnxruntime"):
        found = target_named(name).at(bundle.manifest.precision)
        why_not = engine_class(found.kind).why_not_run(found)
        if why_not is None:
            kept = engine_of(path, bundle, name)
            yield RunnableEngine(found, kept.data, kept.frames, kept.versions, _why(name, target, passed_over))
        else:
            passed_over.append(f"{name}: {why_not}")
    raise UnavailableError(f"no engine of {path} runs here: {'; '.join(passed_over) or 'it holds none'}")


def _why(name: str, asked: str | None, passed_over: list[str]) -> str:
    if asked is not None:
        return f"{name}: asked for"
    return f"{name}: " + (f"others do not run here ({'; '.join(passed_over)})" if passed_over else "it runs here")


def compile_command(path: Path, found: RunnableEngine) -> str:
    """What makes the same engine here."""
    flags = flags_of(recorded_options(found.versions))
    camera = "" if found.frames is None else f" --frames {found.frames.flag}"
    return f"edge-resnet compile {path} --target {found.target.name}{camera}{flags}"


def load(path: Path, bundle: Bundle, target: str | None, plan: LoadPlan) -> tuple[RunnableEngine, Engine]:
    """Loads the engine that runs here, ready for its first frame.

    Raises:
        UnavailableError: none runs here.
        EngineError: it was compiled by another version or for another GPU, or the library refuses it.
        GateError: it does not answer the golden samples as it should.
    """
    passed_over: list[str] = []
    last: Exception | None = None
    engines = runnable_engines(path, bundle, target, passed_over)
    while True:
        try:
            found = next(engines)
        except UnavailableError as none_left:
            raise none_left from last
        try:
            return found, _loaded(path, bundle, found, plan)
        except (EngineError, GateError, UnavailableError) as error:
            if plan.fallback is Fallback.REFUSE or target is not None:
                raise
            _LOG.warning("the engine for %s is passed over: %s", found.target.name, error)
            passed_over.append(f"{found.target.name}: {error}")
            last = error


def opened(path: Path, found: RunnableEngine, cuda: str | None = None) -> Engine:
    """Gives an engine to its library, once it is known to be for this version and GPU.

    Raises:
        EngineError: it is not; the message has the command that makes one that is. Or the library refuses it.
        UnavailableError: the library or the GPU is missing.
    """
    check_loadable(path, found)
    return engine_class(found.target.kind)(found.data, cuda=cuda)


def check_loadable(path: Path, found: RunnableEngine) -> None:
    """Refuses an engine that is for another version or GPU than those here.

    Raises:
        EngineError: it is; the message has the command that makes one for here.
        UnavailableError: the library or the GPU is missing.
    """
    why_not = engine_class(found.target.kind).why_not_load(found.versions)
    if why_not is not None:
        raise EngineError(
            f"{path}: the engine for {found.target.name} is not for this host: {why_not}: run "
            f"`{compile_command(path, found)}` here"
        )


def _loaded(path: Path, bundle: Bundle, found: RunnableEngine, plan: LoadPlan) -> Engine:
    engine = opened(path, found, plan.cuda)
    try:
        _verify(path, bundle, found, engine, plan.verify)
        _warm_up(engine)
    except BaseException:
        engine.close()
        raise
    return engine


def _verify(path: Path, bundle: Bundle, found: RunnableEngine, engine: Engine, verify: Verify) -> None:
    """Replays the golden samples where that is wanted: kernels differ between devices, and INT8 sums with them.

    Raises:
        GateError: the engine answers otherwise here.
    """
    changes = _changes(found, engine)
    if verify is Verify.UNMEASURED and not changes:
        return
    name = found.target.name
    result = replayed(bundle, found, engine)
    if result.passed:
        return
    where = f"{engine.device()}; {'; '.join(changes)}" if changes else engine.device()
    raise GateError(
        f"{path}: the engine for {name} answers the golden samples {result.sqnr_db:.1f} dB off on this device "
        f"({where}): {_way_out(path, bundle, found)}"
    )


def replayed(bundle: Bundle, found: RunnableEngine, engine: Engine) -> GoldenResult:
    """How an engine answers the golden samples, in the form in which it takes frames."""
    if found.frames is None:
        return replay(bundle, found.target.name, engine)
    return replay_camera(bundle, found.target.name, engine, found.frames)


def _changes(found: RunnableEngine, engine: Engine) -> list[str]:
    """What is otherwise here than where the engine was measured, each in words."""
    changes = []
    there, compiled_on = found.versions.get(MEASURED_ON), found.versions.get(COMPILED_ON)
    if there is None:
        changes.append("it was measured nowhere" + ("" if compiled_on is None else f", and compiled on {compiled_on}"))
    elif there != engine.device():
        changes.append(f"it was built on {there}")
    name, here = engine.library()
    made = found.versions.get(name)
    if made not in (None, here):
        changes.append(f"it was made with {name} {made}, and here is {here}")
    return changes


def _way_out(path: Path, bundle: Bundle, found: RunnableEngine) -> str:
    """An engine that a compiler made can be made again from the bundle; one for the CPU is made with it."""
    if engine_class(found.target.kind).scheme == "cpu" and bundle.manifest.precision == "int8":
        return "build the bundle here"
    return f"run `{compile_command(path, found)}` here"


def _warm_up(engine: Engine) -> None:
    """The first runs are slow: memory is taken, and on a GPU kernels are loaded and the second run becomes a graph."""
    spec = engine.input
    frame = np.zeros((1, spec.height, spec.width, spec.channels), np.uint8)
    answers = [engine.run(frame) for _ in range(2)]
    if not np.isfinite(answers).all():
        raise EngineError(
            "the engine gives NaN or infinity for a black frame: compile it again, or as another precision"
        )
