"""What differs between the versions of TensorRT, line by line: one frozen value each, and nowhere else a version.

Names only, as they stand in the library's enumerations: their numbers change from version to version (STRONGLY_TYPED is 1
in TensorRT 10 and 0 in 11). The names were read off the real Python packages of 8.6.1, 10.3.0, 10.13.3, 10.16.1, 11.4.0
and TensorRT-RTX 1.7.1; the tests run the compiling code against each.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from edge_resnet.engines.engine import QuantizedForm
from edge_resnet.engines.options import HardwareCompatibility
from edge_resnet.errors import UnavailableError

Version = tuple[int, int]


@dataclass(frozen=True)
class Typing:
    """How a network gets its types."""

    creation: tuple[str, ...]
    """Names in ``NetworkDefinitionCreationFlag``."""
    flags: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    """Type of a tensor in the network (a name in ``DataType``) → names in ``BuilderFlag`` that kernels need to have it.
    Empty where the graph's own types are kept to the letter."""
    takes_quantized: bool = True


@dataclass(frozen=True)
class Line:
    """Versions that are compiled with in the same way."""

    first: Version
    before: Version
    """The first version that is no more of the line."""
    typing: Typing
    form: QuantizedForm
    options: frozenset[str]
    """Fields of ``BuildOptions``."""
    hardware: Mapping[HardwareCompatibility, str]
    """Names in ``HardwareCompatibilityLevel``."""
    dla_typing: Typing | None = None
    """How a network for a DLA gets its types; None: it does not know DLA, whatever the device has."""
    dla_parser_flags: tuple[str, ...] = ()
    """Names in ``OnnxParserFlag``, for a DLA."""
    tells_progress: bool = True
    names_nodes: bool = True
    """Whether a parser error names its node."""


_STRONG = Typing(("STRONGLY_TYPED",))
_WEAK_FLAGS = {"INT8": ("INT8", "FP16"), "HALF": ("FP16",)}
"""A weakly typed network computes in FP32 unless a flag allows less. What is not INT8 in a quantized one may be FP16."""
_FP16_STORED = QuantizedForm(floats="fp16", stored_weights=True)
_FP32_FLOATING = QuantizedForm(floats="fp32", stored_weights=False)
"""TensorRT 8 refuses INT8 constants ("invalid weights type of Int8"), and its QuantizeLinear takes FP32 scales."""

_HARDWARE_8 = {HardwareCompatibility.NONE: "NONE", HardwareCompatibility.AMPERE_PLUS: "AMPERE_PLUS"}
_HARDWARE_10 = {**_HARDWARE_8, HardwareCompatibility.SAME_COMPUTE_CAPABILITY: "SAME_COMPUTE_CAPABILITY"}

_COMMON = frozenset({"batches", "workspace_mb", "optimization_level", "tf32", "refit", "sparse_weights"})
_OPTIONS_8 = _COMMON | {"version_compatible", "hardware_compatibility", "dla_core", "timing_cache"}
_OPTIONS_10 = _COMMON | {"version_compatible", "hardware_compatibility", "strip_weights", "timing_cache"}
_OPTIONS_RTX = _COMMON | {"strip_weights"}

TENSORRT = (
    Line(  # JetPack 6.0
        (8, 6),
        (9, 0),
        Typing(("EXPLICIT_BATCH",), _WEAK_FLAGS),
        _FP32_FLOATING,
        _OPTIONS_8,
        _HARDWARE_8,
        dla_typing=Typing(("EXPLICIT_BATCH",), _WEAK_FLAGS, takes_quantized=False),
        tells_progress=False,
        names_nodes=False,
    ),
    Line(  # JetPack 6.1 to 6.2.2. The last with DLAs, which take weakly typed networks alone
        (10, 3),
        (10, 8),
        _STRONG,
        _FP16_STORED,
        _OPTIONS_10 | {"dla_core"},
        _HARDWARE_8,
        dla_typing=Typing((), _WEAK_FLAGS, takes_quantized=False),
    ),
    Line((10, 8), (10, 13), _STRONG, _FP16_STORED, _OPTIONS_10, _HARDWARE_8),
    Line((10, 13), (11, 4), _STRONG, _FP16_STORED, _OPTIONS_10, _HARDWARE_10),  # JetPack 7.0 to 7.2
    Line(  # JetPack 7.2.2 and newer, from 11.4.1 on. DLAs are back on AGX Orin, and strongly typed
        (11, 4),
        (12, 0),
        _STRONG,
        _FP16_STORED,
        _OPTIONS_10 | {"dla_core"},
        _HARDWARE_10,
        dla_typing=_STRONG,
        dla_parser_flags=("ADJUST_FOR_DLA",),
    ),
)
"""Every line of TensorRT, the oldest first. Which know DLA is of NVIDIA's "Working with DLA" of 11.4.1: 10.7 was the last
of 10 that did, 11.0 to 11.3 do not, and 11.4.0 did for Windows on Arm alone."""

TENSORRT_RTX = (
    # It has no DLA and no timing cache, and ignores the other hardware compatibility with a warning: it compiles for SMs.
    # Version-compatible it cannot be: the package does not bring the library that the builder puts in (libnvinfer_lean).
    Line((1, 7), (2, 0), _STRONG, _FP16_STORED, _OPTIONS_RTX, {HardwareCompatibility.NONE: "NONE"}),
)
"""Every line of TensorRT-RTX."""


def line_of(product: str, lines: tuple[Line, ...], version: str) -> Line:
    """The line that an installed version is of.

    Raises:
        UnavailableError: none; the message lists those that there are.
    """
    major, minor = (int(part) for part in version.split(".")[:2])
    for line in lines:
        if line.first <= (major, minor) < line.before:
            return line
    known = ", ".join(
        f"{'.'.join(map(str, line.first))} up to below {'.'.join(map(str, line.before))}" for line in lines
    )
    advice = "install a newer one (JetPack 6.0 or newer)" if (major, minor) < lines[0].first else "install another"
    raise UnavailableError(f"{product} {version} is not supported: {advice}; known are {known}")
