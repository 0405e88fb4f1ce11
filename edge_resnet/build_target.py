"""One target of a build: compile, look at what came out, run it, judge it."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from edge_resnet.accuracy import Evaluated, Run
from edge_resnet.bundle import MEASURED_ON, EngineEntry
from edge_resnet.check import Contestant, Gate, Judgement, check, require_passed
from edge_resnet.engines.compiler import Compiler
from edge_resnet.engines.engine import CompiledEngine
from edge_resnet.engines.options import BuildOptions
from edge_resnet.engines.targets import Target
from edge_resnet.errors import CalibrationError, EdgeResnetError, EngineError, GateError, UnavailableError
from edge_resnet.golden import judge
from edge_resnet.images import ImageSet
from edge_resnet.lowering import Lowered
from edge_resnet.preprocessing import Preprocessing
from edge_resnet.report.answers import Answers, Recorded
from edge_resnet.stages import Stages
from edge_resnet.timing_cache import compile_engine


@dataclass(frozen=True)
class TargetResult:
    """What became of one target."""

    target: str
    engine: str | None
    """The engine's member in the bundle; None when it was deferred or failed."""
    bytes: int | None
    seconds: float | None
    """Compiling took."""
    verified: str
    """``measured``, ``predicted``, ``deferred`` or ``failed``."""
    next: str | None = None
    """Deferred: the command that makes the engine, to be run on the device."""
    why: str | None = None
    """Deferred or failed: the reason."""
    accuracy: Judgement | None = None
    layers_by_precision: dict[str, int] | None = None
    """How many of the engine's layers compute in each precision."""
    beside_dla: tuple[str, ...] = ()
    """Of an engine for a DLA, the layers that run on the GPU in its place."""
    worker: str | None = None
    """The worker of a farm that it was left to; None: this process."""

    def to_json(self) -> dict[str, Any]:
        """An element of ``targets`` in what ``build --json`` prints."""
        return {**asdict(self), "accuracy": None if self.accuracy is None else self.accuracy.to_json()}


@dataclass(frozen=True)
class BuiltTarget:
    """One target's part of a bundle; ``failure`` says why there is none."""

    result: TargetResult
    entry: EngineEntry | None = None
    data: bytes | None = None
    log: str = ""
    """What the compiler said."""
    expected: npt.NDArray[np.float32] | None = None
    """The engine's logits of the golden frames."""
    failure: EdgeResnetError | None = field(default=None)
    answers: tuple[Answers, Answers] | None = None
    """FP32's and the engine's to the evaluation images, where these are classes."""


@dataclass(frozen=True)
class Judge:
    """What engines are held against."""

    reference: Run
    """The original FP32 network."""
    golden: npt.NDArray[np.uint8]
    """Golden frames N×H×W×C."""
    images: ImageSet | None
    preprocessing: Preprocessing
    gate: Gate
    features: bool
    """Whether the network gives features in the place of logits."""


@dataclass(frozen=True)
class Wanted:
    """One engine to be made."""

    target: Target
    engine: Compiler
    precision: str
    options: BuildOptions


def build_target(wanted: Wanted, lower: Callable[[], Lowered], judge: Judge, stages: Stages) -> BuiltTarget:
    """Lowers and compiles for one target and verifies the engine; a refusal on the way is in ``failure``."""
    target, engine = wanted.target, wanted.engine
    why_not = engine.why_not_compile(target)
    if why_not is not None:
        return _deferred(target, wanted.precision, why_not)
    report, answers = None, None
    try:
        lowered = lower()
        start = time.perf_counter()
        with stages.stage(f"compile for {target.name}"):
            update = stages.progress.update_phase
            compiled = compile_engine(engine, lowered.compiled_from, target, wanted.options, update)
        seconds = time.perf_counter() - start
        lowered.check_coverage(target.name, compiled.layers)
        with stages.stage(f"check {target.name}", len(judge.images) if judge.images is not None else None):
            run, ran_on = _answers(engine, target, compiled, lowered)
            evaluated: Evaluated = "predicted" if ran_on is None else "measured"
            expected = _one_by_one(run, judge.golden)
            _check_golden(target, lowered, judge, expected, evaluated)
            report, answers = _accuracy(Contestant(target.name, run, evaluated), judge, stages)
        if report is not None:
            require_passed(report)
    except (CalibrationError, EngineError, GateError, UnavailableError) as error:
        return failed(target, error, report)
    member = f"engines/{target.name}{engine.suffix}"
    entry = EngineEntry(target.name, engine.kind, wanted.precision, member, _made_with(compiled, ran_on), evaluated)
    result = TargetResult(
        target.name,
        member,
        len(compiled.data),
        seconds,
        evaluated,
        accuracy=report,
        layers_by_precision=compiled.layers_by_precision,
        beside_dla=compiled.beside_dla,
    )
    return BuiltTarget(result, entry, compiled.data, compiled.log, expected, answers=answers)


def failed(target: Target, error: EdgeResnetError, report: Judgement | None = None) -> BuiltTarget:
    """A target of which nothing goes into the bundle, and why; with the report of an engine that did not pass."""
    result = TargetResult(target.name, None, None, None, "failed", why=str(error), accuracy=report)
    return BuiltTarget(result, failure=error)


def _deferred(target: Target, precision: str, why: str) -> BuiltTarget:
    entry = EngineEntry(target.name, target.kind, precision, None, {}, "deferred")
    return BuiltTarget(TargetResult(target.name, None, None, None, "deferred", why=why), entry)


def _answers(engine: Compiler, target: Target, compiled: CompiledEngine, lowered: Lowered) -> tuple[Run, str | None]:
    """What answers for the engine here, and the device that it runs on: the engine itself, where it runs, else the exact
    evaluation of its graph and None.
    """
    if engine.why_not_run(target) is None:
        opened = engine(compiled.data)
        return opened.run, opened.device()
    return lowered.predicted, None


def _made_with(compiled: CompiledEngine, ran_on: str | None) -> dict[str, str]:
    """Libraries, and the device that the engine was measured on: on another it is verified anew when it is loaded."""
    return compiled.versions if ran_on is None else {**compiled.versions, MEASURED_ON: ran_on}


def _one_by_one(run: Run, frames: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
    return np.concatenate([run(frames[index : index + 1]) for index in range(len(frames))])


def _check_golden(
    target: Target, lowered: Lowered, judged: Judge, answers: npt.NDArray[np.float32], evaluated: Evaluated
) -> None:
    """An engine that runs here must answer as its graph, evaluated exactly: no sum saturated, no channel swapped."""
    if evaluated == "predicted":
        return
    result = judge(target.name, _one_by_one(lowered.predicted, judged.golden), answers)
    if not result.passed:
        raise GateError(
            f"the engine for {target.name} answers the golden samples {result.sqnr_db:.1f} dB off its own Q/DQ graph: "
            f"its arithmetic is wrong on this device; update the runtime, or report it with `edge-resnet devices --json`"
        )


def _accuracy(
    contestant: Contestant, judge: Judge, stages: Stages
) -> tuple[Judgement | None, tuple[Answers, Answers] | None]:
    """The verdict, and what both answered to each image, for the report; None without images, or of features."""
    if judge.images is None:
        return None, None
    if judge.features:
        return _checked(judge.reference, contestant, judge, stages), None
    fp32, engine = Recorded(judge.reference), Recorded(contestant.run)
    report = _checked(fp32, replace(contestant, run=engine), judge, stages)
    return report, (fp32.answers, engine.answers)


def _checked(reference: Run, contestant: Contestant, judge: Judge, stages: Stages) -> Judgement:
    assert judge.images is not None
    advance = stages.progress.advance
    return check(reference, contestant, judge.images, judge.preprocessing, judge.gate, advance, features=judge.features)
