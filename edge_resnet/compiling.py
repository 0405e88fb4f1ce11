"""Compiling an engine from a file: a bundle, on the device it is for, or an ONNX file."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from edge_resnet.bundle import BUNDLE_SUFFIX, QDQ_MEMBER, Bundle, open_bundle
from edge_resnet.calibration.qdq import QuantizedModel, is_fp8, quantized_convolutions
from edge_resnet.calibration.tensorrt_form import refuse_misread
from edge_resnet.companion import companion_path, write_companion
from edge_resnet.engine_options import next_step
from edge_resnet.engines.engine import CompiledEngine, Engine, Progress
from edge_resnet.engines.jetpacks import never_with_python
from edge_resnet.engines.options import DEFAULTS, BuildOptions
from edge_resnet.engines.registry import engine_class
from edge_resnet.engines.targets import Target, target_named
from edge_resnet.engines.this_device import this_device
from edge_resnet.errors import EngineError, GateError, ModelError, UnavailableError
from edge_resnet.frames import FrameFormat
from edge_resnet.lowering import FLOAT, QUANTIZED, Lowered
from edge_resnet.onnx_file import load_onnx, parse_onnx, read_metadata, serialise
from edge_resnet.output import write_atomically
from edge_resnet.preprocessing import Preprocessing
from edge_resnet.signing import SigningKey
from edge_resnet.timing_cache import compile_engine
from edge_resnet.trust import refuse_trust


@dataclass(frozen=True)
class CompiledSource:
    """An engine, and the bundle it was made from (None: from an ONNX file)."""

    target: Target
    compiled: CompiledEngine
    bundle: Bundle | None
    frames: FrameFormat | None
    """What its camera gives, if its graph prepares frames itself."""
    notes: tuple[str, ...]
    """What whoever runs the engine should know."""


def default_output(source: Path, target: str) -> Path:
    """``NAME.TARGET.engine`` beside the source."""
    return companion_path(source, target_named(target).name)


def log_path(engine: Path) -> Path:
    """``NAME.TARGET.log`` beside an engine."""
    return engine.with_suffix(".log")


def compile_source(
    source: Path,
    target_name: str,
    options: BuildOptions = DEFAULTS,
    progress: Progress | None = None,
    *,
    frames: FrameFormat | None = None,
    trust: Path | None = None,
) -> CompiledSource:
    """Compiles a bundle's network, or an ONNX file's, for a target.

    Args:
        source: the bundle or file.
        target_name: the device.
        options: how it is compiled.
        progress: is told of it.
        frames: what a camera gives, for an engine that prepares frames itself; None: it takes prepared ones.
        trust: of the bundle, as ``open_bundle`` takes it.

    Raises:
        TrustError: no trusted key has signed the bundle.
        EngineError: the compiler refuses it or lacks an option, or the bundle has nothing to compile for this target.
        UnavailableError: this host cannot compile for the target.
        ModelError: the file cannot be read, or TensorRT would refuse or misread its Q/DQ.
        GateError: layers that shall be INT8 are not, or the bundle's own gate refused this network.
    """
    target = target_named(target_name)
    engine = engine_class(target.kind)
    engine.check_options(options)
    target.check_dla(options.dla_core)
    notes: list[str] = []
    if source.suffix == BUNDLE_SUFFIX:
        bundle = open_bundle(source, trust)
        require_not_refused(source, bundle, engine)
        target = target.at(bundle.manifest.precision)
        lowered = lowered_from_bundle(source, bundle, engine)
        preprocessing: Preprocessing | None = Preprocessing.from_json(bundle.manifest.preprocessing)
    else:
        refuse_trust(source, trust)
        model = load_onnx(source)
        if engine.scheme == "tensorrt":
            notes = refuse_misread(model)
        bundle, lowered = None, _lowered(serialise(model), str(source), engine)
        target = target.at(lowered.precision)
        preprocessing = read_metadata(model, str(source)).preprocessing
    if frames is not None:
        lowered = _with_camera(source, lowered, preprocessing, frames)
    _require_here(source, target, engine, options)
    compiled = compile_engine(engine, lowered.compiled_from, target, options, progress)
    lowered.check_coverage(target.name, compiled.layers)
    of_precision = engine.note_on(lowered.precision)
    return CompiledSource(target, compiled, bundle, frames, (*notes, *([] if of_precision is None else [of_precision])))


def _require_here(source: Path, target: Target, engine: type[Engine], options: BuildOptions) -> None:
    """Refuses a Jetson that this machine is not, with what to do about it."""
    reason = engine.why_not_compile(target)
    if reason is None or not target.jetpacks or this_device().is_one(target):
        return
    trtexec = never_with_python(target)
    advice = (
        f"run `{next_step(str(source), target, options)}`" if trtexec else "run the same command there (docs/jetson.md)"
    )
    raise UnavailableError(f"cannot compile for {target.name}: {reason}: {advice}")


def _with_camera(source: Path, lowered: Lowered, preprocessing: Preprocessing | None, frames: FrameFormat) -> Lowered:
    if preprocessing is None:
        raise ModelError(
            f"{source} does not say how frames are prepared: export it with --preprocessing, or use a bundle"
        )
    return lowered.with_camera(preprocessing, frames)


def require_not_refused(path: Path, bundle: Bundle, engine: type[Engine]) -> None:
    """A network that a gate refused as one kind of engine is refused as all that are made from the same Q/DQ.

    Raises:
        GateError: it was.
    """
    for target, report in (bundle.manifest.accuracy or {}).items():
        same = engine_class(target_named(target).kind).scheme == engine.scheme
        if same and isinstance(report, dict) and report.get("passed") is False:
            raise GateError(
                f"{path} was built with a gate that refused this network for {target}: see `edge-resnet info {path}`, "
                f"and build it again with other calibration images, with layers kept float, or with a larger max_drop"
            )


def compile_float(bundle: Bundle, target: Target, precision: str, progress: Progress | None = None) -> CompiledEngine:
    """A bundle's network without quantization, to be measured beside the bundle's own engine.

    Raises:
        EngineError: the target has not this precision, or it needs ranges.
        UnavailableError: this host cannot compile for the target.
    """
    if precision not in FLOAT:
        raise EngineError(f"precision is '{precision}': choose one of {', '.join(FLOAT)}")
    lowered = FLOAT[precision](parse_onnx(bundle.read(bundle.compiled_member), bundle.compiled_member))
    engine = engine_class(target.kind)
    return compile_engine(engine, lowered.compiled_from, target_named(target.name).at(precision), DEFAULTS, progress)


def write_engine(made: CompiledSource, place: Path, key: SigningKey | None = None) -> None:
    """Writes the engine and, where the compiler said anything, its log; from a bundle, the record that binds the two.

    Args:
        made: the engine.
        place: its path.
        key: signs the record, for a device that trusts this key.

    Raises:
        EngineError: a key for an engine of an ONNX file, which has no record.
        OutputError: the place cannot be written.
    """
    if key is not None:
        require_bundle(made.bundle is not None)
    if made.compiled.log:
        write_atomically(log_path(place), made.compiled.log.encode())
    if made.bundle is None:
        write_atomically(place, made.compiled.data)
    else:
        write_companion(place, made.target.name, made.bundle.digest, made.compiled, made.frames, key)


def require_bundle(given: bool) -> None:
    """Refuses to sign an engine of anything else.

    Raises:
        EngineError: no bundle was given.
    """
    if not given:
        raise EngineError("--sign-with is for engines of bundles: one of an ONNX file has no record to be signed")


def lowered_from_bundle(path: Path, bundle: Bundle, engine: type[Engine]) -> Lowered:
    """A bundle's network at its precision, for one kind of engine.

    Raises:
        EngineError: the bundle has no Q/DQ for this kind.
    """
    precision = bundle.manifest.precision
    if precision in QUANTIZED:
        if engine.scheme != "tensorrt":
            raise EngineError(
                f"{path} holds Q/DQ for TensorRT alone: an engine for the CPU comes with the bundle, from `edge-resnet "
                "build RECIPE --target cpu`, and Classifier, which runs it, takes frames of every size without --frames"
            )
        return _lowered(bundle.read(QDQ_MEMBER), QDQ_MEMBER, engine)
    model = parse_onnx(bundle.read(bundle.compiled_member), bundle.compiled_member)
    return FLOAT[precision](model)


def lowered_from_onnx(path: Path, engine: type[Engine]) -> Lowered:
    """An ONNX file's network, INT8 where it has Q/DQ, for one kind of engine.

    Raises:
        ModelError: the file is missing or cannot be used.
    """
    return _lowered(serialise(load_onnx(path)), str(path), engine)


def _lowered(data: bytes, name: str, engine: type[Engine]) -> Lowered:
    model = parse_onnx(data, name)
    layers = quantized_convolutions(model)
    if not layers:
        return Lowered.fp32(model)
    scheme = "fp8" if is_fp8(model) else engine.scheme
    return Lowered.quantized(QuantizedModel(model, scheme, layers, ()), engine)
