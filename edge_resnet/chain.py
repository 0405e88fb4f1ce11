"""The whole line: recipe → FP32 ONNX → ranges → Q/DQ → engines → accuracy → one verified bundle."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from functools import partial
from threading import Lock
from typing import Any

from edge_resnet.adoption import Network
from edge_resnet.appearance import Appearance
from edge_resnet.build_target import BuiltTarget, Judge, TargetResult, Wanted, build_target
from edge_resnet.bundle import (
    COMPRESSED_MEMBER,
    FP32_MEMBER,
    QDQ_MEMBER,
    SBOM_MEMBER,
    Manifest,
    write_bundle,
)
from edge_resnet.calibration.qdq import QuantizedModel
from edge_resnet.calibration.table import CalibrationTable
from edge_resnet.calibration_images import coverage_note, labelled
from edge_resnet.check import BATCH, Gate, Judgement, float_run
from edge_resnet.compressing import Compression, compression_of
from edge_resnet.drift_reference import MOST, Reference
from edge_resnet.engine_options import next_step
from edge_resnet.engines.compiler import Compiler
from edge_resnet.engines.registry import engine_class
from edge_resnet.engines.targets import target_named
from edge_resnet.errors import CalibrationError, EdgeResnetError, EngineError, UnavailableError
from edge_resnet.farm.farm import HERE, Farm
from edge_resnet.golden import COMPRESSED, SAMPLES, golden_member, golden_members
from edge_resnet.images import ImageSet, check_disjoint, open_images
from edge_resnet.kept_stages import calibrated, chain_of, quantized
from edge_resnet.lowering import FLOAT, QUANTIZED, Lowered
from edge_resnet.onnx_file import serialise
from edge_resnet.output import check_writable
from edge_resnet.progress import Progress
from edge_resnet.provenance import provenance_of, versions
from edge_resnet.recipe import Recipe
from edge_resnet.report.making import report_of_build
from edge_resnet.report.page import report_path
from edge_resnet.sbom import sbom
from edge_resnet.source import load_source
from edge_resnet.stage_cache import StageCache, users_cache
from edge_resnet.stages import Stage, Stages


@dataclass(frozen=True)
class BuildResult:
    """What a build made."""

    bundle: str | None
    """The bundle's path; None when no target could be built and nothing was written."""
    report: str | None
    """The path of the page about it; None when none was asked for, or it could not be written."""
    precision: str
    targets: tuple[TargetResult, ...]
    stages: tuple[Stage, ...]
    failures: tuple[EdgeResnetError, ...]
    """One for each target that failed."""
    compression: Compression | None = None
    """What pruning cost; None where the recipe asked for none."""

    @property
    def accuracy(self) -> Judgement | None:
        """The report of the first target that did not pass; when all did, of the first that was checked."""
        reports = [result.accuracy for result in self.targets if result.accuracy is not None]
        return next((report for report in reports if not report.passed), reports[0] if reports else None)

    def to_json(self) -> dict[str, Any]:
        """The document that ``build --json`` prints."""
        return {
            "bundle": self.bundle,
            "report": self.report,
            "precision": self.precision,
            "targets": [target.to_json() for target in self.targets],
            "accuracy": None if self.accuracy is None else self.accuracy.to_json(),
            "compression": None if self.compression is None else self.compression.to_json(),
            "stages": [asdict(stage) for stage in self.stages],
        }


def build(
    recipe: Recipe, progress: Progress | None = None, cache: StageCache | None = None, farm: Farm = HERE
) -> BuildResult:
    """Runs a recipe and writes its bundle, whole or not at all.

    Ranges and Q/DQ networks that an earlier build has made of the same inputs, killed or not, are not made again.

    Of several targets one failing leaves the others: they are written, and ``failures`` has the reasons. A target that
    this host cannot compile for is deferred, which is no failure.

    Args:
        recipe: what to build.
        progress: is told of it.
        cache: where finished stages are kept; None is the user's own, and ``NO_CACHE`` keeps none.
        farm: where targets are compiled; see ``farm_at``.

    Raises:
        EdgeResnetError: the recipe cannot be built; nothing is written.
    """
    check_writable(recipe.build.output, recipe.model.weights, recipe.model.onnx, recipe.model.labels)
    chain_of(recipe)  # refuses a chain before any work is done
    stages = Stages(progress or Progress(), users_cache() if cache is None else cache)
    names = dict.fromkeys(target_named(name).name for name in recipe.build.targets)
    wanted = [_wanted(name, recipe, farm) for name in names]
    with stages.stage("export"):
        source = load_source(recipe)
    calibration, evaluation = _images(recipe, source, stages.progress)
    compression = compression_of(recipe, source, calibration, evaluation, stages)
    made_of = source if compression is None else compression.network
    table = _calibrate(recipe, made_of, calibration, evaluation, stages)
    lowering = _Lowering(recipe, made_of, table, calibration, stages)
    judge = _judge(recipe, source, calibration, evaluation)

    def make(one: Wanted, clock: Stages) -> BuiltTarget:
        return _with_next(build_target(one, partial(lowering.of, one.engine), judge, clock), recipe)

    built = farm.build(wanted, lowering.prepare, make, stages)
    usable, page = any(one.failure is None for one in built), None
    if usable:
        manifest, members = _contents(recipe, source, lowering, judge, built)
        if compression is not None:
            manifest, members = _with_compression(compression, judge, manifest, members)
        with stages.stage("bundle"):
            members |= _usual(calibration, source, judge).member()
            digest = write_bundle(recipe.build.output, manifest, members)
        if recipe.build.report:
            with stages.stage("report"):
                page = _report(recipe, digest, evaluation, built, stages)
        of_precision = (each.engine.note_on(each.precision) for each in wanted)
        _note(stages, *dict.fromkeys((*source.changes, *of_precision)))
    return BuildResult(
        str(recipe.build.output) if usable else None,
        page,
        recipe.build.precision,
        tuple(one.result for one in built),
        tuple(stages.done),
        tuple(one.failure for one in built if one.failure is not None),
        compression,
    )


def _report(
    recipe: Recipe, digest: str, evaluation: ImageSet | None, built: list[BuiltTarget], stages: Stages
) -> str | None:
    """Writes the page about the bundle. The bundle stands without it, so what hinders is a note."""
    answers = {one.result.target: one.answers for one in built if one.answers is not None and one.failure is None}
    place = report_path(recipe.build.output)
    try:
        report_of_build(recipe.build.output, digest, place, evaluation, answers)
    except EdgeResnetError as error:
        stages.progress.note(f"no report: {error}")
        return None
    return str(place)


def _wanted(name: str, recipe: Recipe, farm: Farm) -> Wanted:
    """One engine of the recipe, whose options its compiler has.

    Raises:
        EngineError: the target or the precision is unknown, or the compiler lacks an option.
    """
    target = target_named(name).at(recipe.build.precision)
    target.check_dla(recipe.engine.dla_core)
    try:
        farm.check_options(target, recipe.engine)
    except (EngineError, UnavailableError) as error:
        raise type(error)(f"target '{name}': {error}, or build this target without the others") from error
    return Wanted(target, engine_class(target.kind), recipe.build.precision, recipe.engine)


def _images(recipe: Recipe, source: Network, progress: Progress) -> tuple[ImageSet, ImageSet | None]:
    calibration = open_images(recipe.calibration.images, recipe.calibration.limit)
    if recipe.accuracy.images is None:
        return calibration, None
    evaluation = open_images(recipe.accuracy.images)
    check_disjoint(calibration.hashes, evaluation)
    if source.labels is not None:
        evaluation = labelled(evaluation, source.labels, progress)
    return calibration, evaluation


def _calibrate(
    recipe: Recipe, source: Network, images: ImageSet, evaluation: ImageSet | None, stages: Stages
) -> CalibrationTable | None:
    """The ranges of a network; None where the recipe's precision needs none."""
    if recipe.build.precision not in QUANTIZED:
        return None
    table, spec = calibrated(recipe, source, images, stages), source.preprocessing
    looks = Appearance.from_json(table.images["appearance"])
    unlike = None if evaluation is None else looks.note_on(Appearance.of(evaluation, spec), spec.color)
    _note(stages, coverage_note(images, source), unlike)
    return table


def _note(stages: Stages, *notes: str | None) -> None:
    for note in filter(None, notes):
        stages.progress.note(note)


def _judge(recipe: Recipe, source: Network, calibration: ImageSet, evaluation: ImageSet | None) -> Judge:
    return Judge(
        float_run(source.model),
        (evaluation or calibration).draw(SAMPLES).pixels(source.preprocessing),
        evaluation,
        source.preprocessing,
        Gate(recipe.accuracy.max_drop, recipe.accuracy.strict),
        features=source.labels is None,
    )


def _with_next(built: BuiltTarget, recipe: Recipe) -> BuiltTarget:
    if built.result.verified != "deferred":
        return built
    command = next_step(recipe.build.output.name, target_named(built.result.target), recipe.engine)
    return replace(built, result=replace(built.result, next=command))


class _Lowering:
    """Lowers the network for each kind of engine; one calibration serves all, and each scheme is made once."""

    def __init__(
        self, recipe: Recipe, source: Network, table: CalibrationTable | None, images: ImageSet, stages: Stages
    ) -> None:
        self._recipe, self._source, self._table, self._images, self._stages = recipe, source, table, images, stages
        self._quantized: dict[str, QuantizedModel] = {}
        self._one_at_a_time = Lock()

    def prepare(self, wanted: Wanted) -> None:
        """Makes a target's scheme ahead of it; what hinders comes again, and is the target's failure, when it is built."""
        if wanted.precision in QUANTIZED:
            with suppress(CalibrationError):
                self.quantized(_SCHEME[wanted.precision](wanted.engine))

    def of(self, engine: Compiler) -> Lowered:
        precision = self._recipe.build.precision
        if precision in FLOAT:
            return FLOAT[precision](self._source.model)
        return Lowered.quantized(self.quantized(_SCHEME[precision](engine)), engine)

    def quantized(self, scheme: str) -> QuantizedModel:
        """The refined Q/DQ network of one scheme."""
        with self._one_at_a_time:  # targets are built in threads on a farm
            if scheme not in self._quantized:
                assert self._table is not None  # an int8 build has calibrated
                self._quantized[scheme] = quantized(
                    self._recipe, self._source, self._table, self._images, scheme, self._stages
                )
            return self._quantized[scheme]

    def members(self) -> dict[str, bytes]:
        """What of it the bundle holds beside the engines."""
        if self._table is None:
            return {}
        return {QDQ_MEMBER: serialise(self.quantized(QUANTIZED[self._recipe.build.precision]).model)}

    def provenance(self) -> dict[str, object] | None:
        """How the ranges were obtained and the network refined, for the manifest."""
        if self._table is None:
            return None
        return {"method": self._table.method, "images": self._table.images, "refinements": list(chain_of(self._recipe))}


_SCHEME: dict[str, Callable[[Compiler], str]] = {"int8": lambda engine: engine.scheme, "fp8": lambda engine: "fp8"}
"""Precision → the scheme that a kind of engine takes."""


def _usual(images: ImageSet, source: Network, judge: Judge) -> Reference:
    """What a drift monitor compares with: images that look like those of use, and FP32's answers to them."""
    batches = images.draw(MOST).batches(source.preprocessing, BATCH)
    return Reference.of(batches, None if judge.features else judge.reference)


def _contents(
    recipe: Recipe, source: Network, lowering: _Lowering, judge: Judge, judged: list[BuiltTarget]
) -> tuple[Manifest, dict[str, bytes]]:
    """What goes into the bundle: of targets that failed, the report alone, so that no engine is made in spite of it."""
    built = [one for one in judged if one.failure is None]
    members = {FP32_MEMBER: serialise(source.model), **lowering.members(), SBOM_MEMBER: sbom()}
    expected = {one.result.target: one.expected for one in built if one.expected is not None}
    members |= golden_members(judge.golden, judge.reference(judge.golden), expected)
    members |= {one.result.engine: one.data for one in built if one.result.engine and one.data is not None}
    members |= {f"logs/{one.result.target}.log": one.log.encode() for one in built if one.log}
    reports: dict[str, object] = {
        one.result.target: one.result.accuracy.to_json() for one in judged if one.result.accuracy is not None
    }
    manifest = Manifest(
        name=recipe.build.output.stem,
        architecture=source.architecture,
        precision=recipe.build.precision,
        labels=source.labels,
        input_shape=source.input_shape,
        preprocessing=source.preprocessing.to_json(),
        engines=tuple(one.entry for one in built if one.entry is not None),
        calibration=lowering.provenance(),
        accuracy=reports or None,
        created_by=versions(),
        provenance=provenance_of(recipe, judge.images),
    )
    return manifest, members


def _with_compression(
    compression: Compression, judge: Judge, manifest: Manifest, members: dict[str, bytes]
) -> tuple[Manifest, dict[str, bytes]]:
    """Adds the network that engines are made of, and how it came to be; the original is what they are held against."""
    network = compression.network.model
    added = {COMPRESSED_MEMBER: serialise(network), **golden_member(COMPRESSED, float_run(network)(judge.golden))}
    told = {**(manifest.provenance or {}), "compression": compression.provenance()}
    return replace(manifest, provenance=told), members | added
