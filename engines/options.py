"""What may be asked of a compiler beside the network and the device: one frozen value, the same for every engine kind.

Each engine class says which of these it has. What it lacks is refused, never left out in silence.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from enum import Enum

from edge_resnet.errors import EngineError

OPTIMIZATION_LEVELS = range(6)
"""TensorRT's ``builder_optimization_level``: 0 is quickest to build, 5 searches longest; 3 is TensorRT's default."""


class HardwareCompatibility(Enum):
    """The GPUs that an engine runs on beside the very one that it was compiled on."""

    NONE = "none"
    SAME_COMPUTE_CAPABILITY = "same-compute-capability"
    """All of the same SM."""
    AMPERE_PLUS = "ampere-plus"
    """SM 80 and everything newer; slower, and not for Jetson."""


@dataclass(frozen=True)
class BatchRange:
    """The batches that an engine takes, from ``smallest`` to ``largest``; kernels are chosen for ``typical``."""

    smallest: int = 1
    typical: int = 1
    """A camera gives one frame at a time."""
    largest: int = 8

    def __post_init__(self) -> None:
        if not 1 <= self.smallest <= self.typical <= self.largest:
            raise EngineError(f"batches are {self}: give smallest, typical and largest, rising, from 1 on, as in 1,1,8")

    def __str__(self) -> str:
        return f"{self.smallest},{self.typical},{self.largest}"


NOT_ASKED = frozenset({"sparse_weights", "timing_cache"})
"""Options that nobody is asked for: network, device and earlier builds say them."""


@dataclass(frozen=True)
class BuildOptions:
    """How an engine is compiled. What is left at its default is the compiler's own choice, but for TF32.

    An FP32 engine computes in FP32: TensorRT would round the factors of each product to TF32's 10 bits of mantissa by
    default, on Ampere and newer GPUs, and here it does only where ``tf32`` asks for it.
    """

    batches: BatchRange = BatchRange()
    workspace_mb: int | None = None
    """Device memory that a kernel may use for itself, in MiB; None: TensorRT's own limit, all of the GPU's memory, but on
    a Jetson, whose GPU shares the memory of everything else, at most half of what is free (``default_workspace_mb``)."""
    optimization_level: int | None = None
    """One of ``OPTIMIZATION_LEVELS``."""
    tf32: bool = False
    version_compatible: bool = False
    """Newer versions of TensorRT run the engine too (of the same major version, or of the next)."""
    hardware_compatibility: HardwareCompatibility = HardwareCompatibility.NONE
    refit: bool = False
    """The weights of the engine can be replaced later."""
    strip_weights: bool = False
    """The engine is stored without its weights, which are put in before it runs."""
    dla_core: int | None = None
    """Compile for this deep-learning accelerator; what it cannot do runs on the GPU."""
    sparse_weights: bool = False
    """Kernels that skip zeros may be chosen for layers whose weights are 2:4 sparse; nobody is asked for it, the network
    and the device say it (``Engine.has_sparse_kernels``)."""
    timing_cache: bytes | None = field(default=None, repr=False)
    """What a compiler measured before, on this device, with the same version; its own bytes. None: it is not asked."""

    def __post_init__(self) -> None:
        if self.workspace_mb is not None and self.workspace_mb < 1:
            raise EngineError(f"workspace_mb is {self.workspace_mb}: give MiB, 1 or more")
        if self.optimization_level is not None and self.optimization_level not in OPTIMIZATION_LEVELS:
            raise EngineError(f"optimization_level is {self.optimization_level}: give a whole number from 0 to 5")
        if self.dla_core is not None and self.dla_core < 0:
            raise EngineError(f"dla_core is {self.dla_core}: give 0 for the first")
        if self.dla_core is not None and self.batches.smallest != self.batches.largest:
            raise EngineError(
                f"dla_core is {self.dla_core} and batches are {self.batches}: a DLA takes one size of batch, such as 1,1,1"
            )

    @property
    def chosen(self) -> dict[str, str]:
        """The options that are not at their defaults, with their values as text; of a timing cache, its size."""
        values = {item.name: (getattr(self, item.name), item.default) for item in fields(self)}
        return {name: _text(value) for name, (value, default) in values.items() if value != default}


DEFAULTS = BuildOptions()


def _text(value: object) -> str:
    if isinstance(value, Enum):
        return str(value.value)
    if isinstance(value, bytes):
        return f"{len(value)} bytes"
    return str(value).lower() if isinstance(value, bool) else str(value)


def record_options(chosen: Mapping[str, str]) -> dict[str, str]:
    """Options by name as an engine's ``versions`` have them; nothing where none was chosen."""
    return {_RECORDED: " ".join(f"{name}={value}" for name, value in chosen.items())} if chosen else {}


def recorded_options(versions: Mapping[str, str]) -> dict[str, str]:
    """What ``record_options`` wrote down."""
    return dict(option.split("=", 1) for option in versions.get(_RECORDED, "").split() if "=" in option)


_RECORDED = "options"
