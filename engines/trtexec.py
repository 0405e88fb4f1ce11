"""The line for NVIDIA's ``trtexec`` that compiles as this project does: for TensorRT without our Python.

Flags and what they take are those of ``trtexec``'s own source (NVIDIA/TensorRT, ``samples/common/sampleOptions.cpp``) of
release 8.5, 8.6 and 10, and for 11 of "Migrating trtexec Usage from TensorRT 10.x to 11.x". TensorRT 10 and newer take
types from the graph (strong typing); 8 takes them from flags, and INT8 from Q/DQ or from a calibration cache.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from edge_resnet.engines._tensorrt_versions import TENSORRT
from edge_resnet.engines.options import BuildOptions, HardwareCompatibility
from edge_resnet.errors import EngineError

STRONG_TYPING = (10, 0)
"""From here on types are the graph's own."""
_ALWAYS_STRONG = (11, 0)
"""From here on there is nothing else, no flag for it, and no calibration cache."""
_WEAK_FLAGS = {"fp32": (), "fp16": ("--fp16",), "int8": ("--int8", "--fp16")}
"""Precisions that TensorRT 8 is told by flags; what is not INT8 may be FP16, as in our own engines."""
_SINCE = {
    "--skipInference": (8, 6),
    "--builderOptimizationLevel": (8, 6),
    "--versionCompatible": (8, 6),
    "--hardwareCompatibilityLevel": (8, 6),
    "--stripWeights": (10, 0),
}
"""Flag → the first TensorRT whose trtexec has it, where 8.5's has not."""
_HARDWARE = {
    HardwareCompatibility.AMPERE_PLUS: "ampere+",
    HardwareCompatibility.SAME_COMPUTE_CAPABILITY: "sameComputeCapability",
}
"""As trtexec names them."""


@dataclass(frozen=True)
class TrtexecInput:
    """The network's input: its name, and the shape of one frame."""

    name: str
    height: int
    width: int
    channels: int

    def shape(self, batch: int) -> str:
        """As trtexec writes it: ``frames:8x224x224x3``."""
        return f"{self.name}:{batch}x{self.height}x{self.width}x{self.channels}"


@dataclass(frozen=True)
class TrtexecFiles:
    """The files of a line, as it names them."""

    model: str
    """ONNX. For TensorRT 8 FP32, with Q/DQ or beside a calibration cache for INT8; for newer ones typed as the engine shall
    compute (``calibration.float_types``)."""
    engine: str
    calibration_cache: str | None = None
    """Ranges for a graph without Q/DQ (implicit INT8)."""
    timing_cache: str | None = None
    """Measured kernels, kept from one build to the next."""


def trtexec_command(
    version: str, precision: str, files: TrtexecFiles, frame: TrtexecInput, options: BuildOptions
) -> list[str]:
    """The command and its arguments.

    Args:
        version: TensorRT's, as in ``8.5.2``.
        precision: ``int8``, ``fp16``, …; from TensorRT 10 on the graph must have it.
        files: what is read and written.
        frame: the network's input.
        options: the rest. A DLA takes their one size of batch, and the GPU what it cannot do.

    Raises:
        EngineError: this TensorRT does not have the precision, or the flag that an option needs.
    """
    release = _release(version)
    flags = list(_flags(release, precision, files, options))
    for flag in flags:
        name = flag.partition("=")[0]
        if release < _SINCE.get(name, (0, 0)):
            first = ".".join(map(str, _SINCE[name]))
            raise EngineError(f"trtexec of TensorRT {version} has no {name}, which came with {first}: leave it out")
    batches = options.batches
    return [
        "trtexec",
        f"--onnx={files.model}",
        f"--saveEngine={files.engine}",
        f"--minShapes={frame.shape(batches.smallest)}",
        f"--optShapes={frame.shape(batches.typical)}",
        f"--maxShapes={frame.shape(batches.largest)}",
        *flags,
    ]


def knows_dla(version: str) -> bool:
    """Whether TensorRT of a version, as in ``8.5.2``, knows DLA; all did before the oldest that is compiled with here."""
    release = _release(version)
    return all(line.dla_typing is not None for line in TENSORRT if line.first <= release < line.before)


def _release(version: str) -> tuple[int, int]:
    try:
        major, minor, *_ = (int(part) for part in version.split("."))
    except ValueError:
        raise EngineError(f"TensorRT's version is '{version}': give it with dots, as in 8.5.2") from None
    if (major, minor) < (8, 5):
        raise EngineError(
            f"TensorRT {version} is too old: it does not read the ONNX files made here; 8.5 or newer does"
        )
    return major, minor


def _flags(release: tuple[int, int], precision: str, files: TrtexecFiles, options: BuildOptions) -> Iterator[str]:
    yield from _precision_flags(release, precision, files.calibration_cache)
    yield "--profilingVerbosity=detailed"
    yield "--buildOnly" if release < _SINCE["--skipInference"] else "--skipInference"
    if options.workspace_mb is not None:
        yield f"--memPoolSize=workspace:{options.workspace_mb}"
    if options.optimization_level is not None:
        yield f"--builderOptimizationLevel={options.optimization_level}"
    if options.dla_core is not None:
        yield from _dla_flags(release, options.dla_core)
    if files.timing_cache is not None:
        yield f"--timingCacheFile={files.timing_cache}"
    if options.hardware_compatibility in _HARDWARE:
        yield f"--hardwareCompatibilityLevel={_HARDWARE[options.hardware_compatibility]}"
    if options.version_compatible:
        yield "--versionCompatible"
    if options.refit:
        yield "--refit"
    if options.strip_weights:
        yield "--stripWeights"
    if options.sparse_weights:
        yield "--sparsity=enable"
    if not options.tf32:
        yield "--noTF32"


def _precision_flags(release: tuple[int, int], precision: str, cache: str | None) -> Iterator[str]:
    if cache is not None:
        if release >= _ALWAYS_STRONG or precision != "int8":
            raise EngineError(
                f"a calibration cache is for INT8 in TensorRT up to 10, not for {precision} in {release[0]}: leave it out"
            )
        yield from (*_WEAK_FLAGS["int8"], f"--calib={cache}")
    elif release >= STRONG_TYPING:
        yield from () if release >= _ALWAYS_STRONG else ("--stronglyTyped",)
    elif precision not in _WEAK_FLAGS:
        raise EngineError(
            f"TensorRT {'.'.join(map(str, release))} has no {precision} here: choose one of {', '.join(_WEAK_FLAGS)}"
        )
    else:
        yield from _WEAK_FLAGS[precision]


def _dla_flags(release: tuple[int, int], core: int) -> Iterator[str]:
    version = ".".join(map(str, release))
    if not knows_dla(version):
        raise EngineError(f"TensorRT {version} does not know DLA: leave it out (10.7 and 11.4 do)")
    yield from (f"--useDLACore={core}", "--allowGPUFallback")
