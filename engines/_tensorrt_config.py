"""Options → a builder configuration of TensorRT or TensorRT-RTX."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

from edge_resnet.engines._tensorrt_versions import Line, Typing
from edge_resnet.engines.options import BuildOptions
from edge_resnet.engines.targets import Target
from edge_resnet.errors import EngineError

if TYPE_CHECKING:
    import tensorrt

MIB = 1 << 20
_MEMORY = Path("/proc/meminfo")


def default_workspace_mb(target: Target, memory: Path = _MEMORY) -> int | None:
    """The workspace where none was asked for, in MiB; None: TensorRT's own, all of the GPU's memory.

    A Jetson's GPU has no memory of its own. A kernel that takes all there is while the builder tries it has the builder
    killed, so there it is half of what Linux says can still be had (``MemAvailable``; CUDA's own figure leaves out what
    the system would give back, NVIDIA, "CUDA for Tegra", Estimating Total Allocatable Device Memory).
    """
    if not target.shares_memory:
        return None
    try:
        lines = memory.read_text(encoding="ascii").splitlines()
    except OSError:
        return None
    free_kib = next((int(line.split()[1]) for line in lines if line.startswith("MemAvailable:")), None)
    return None if free_kib is None else max(1, free_kib // 1024 // 2)


def bits(kind: Any, names: Iterable[str]) -> int:
    """Flags of one enumeration as the number that the library takes."""
    return sum(1 << int(getattr(kind, name)) for name in names)


def configure(
    trt: ModuleType, line: Line, builder: tensorrt.Builder, config: tensorrt.IBuilderConfig, options: BuildOptions
) -> None:
    """Sets every option that was chosen.

    Raises:
        EngineError: this version lacks the hardware compatibility, or the device the accelerator.
    """
    config.profiling_verbosity = trt.ProfilingVerbosity.DETAILED
    if options.workspace_mb is not None:
        config.set_memory_pool_limit(trt.MemoryPoolType.WORKSPACE, options.workspace_mb * MIB)
    if options.optimization_level is not None:
        config.builder_optimization_level = options.optimization_level
    if not options.tf32:
        config.clear_flag(trt.BuilderFlag.TF32)  # the library sets it by default
    for name in _flags(options):
        config.set_flag(getattr(trt.BuilderFlag, name))
    if "hardware_compatibility" in options.chosen:
        _set_hardware(trt, line, config, options)
    if options.dla_core is not None:
        _set_dla(trt, builder, config, options.dla_core)
    if options.timing_cache is not None:
        _set_timing_cache(config, options.timing_cache)


def _flags(options: BuildOptions) -> list[str]:
    """Names in ``BuilderFlag``."""
    asked = {
        "VERSION_COMPATIBLE": options.version_compatible,
        "REFIT": options.refit,
        "STRIP_PLAN": options.strip_weights,
        "GPU_FALLBACK": options.dla_core is not None,
        "SPARSE_WEIGHTS": options.sparse_weights,
    }
    return [name for name, wanted in asked.items() if wanted]


def _set_hardware(trt: ModuleType, line: Line, config: tensorrt.IBuilderConfig, options: BuildOptions) -> None:
    wanted = options.hardware_compatibility
    if wanted not in line.hardware:
        known = ", ".join(level.value for level in line.hardware)
        raise EngineError(
            f"TensorRT {trt.__version__} has no hardware_compatibility {wanted.value}: choose one of {known}"
        )
    config.hardware_compatibility_level = getattr(trt.HardwareCompatibilityLevel, line.hardware[wanted])


def _set_dla(trt: ModuleType, builder: tensorrt.Builder, config: tensorrt.IBuilderConfig, core: int) -> None:
    cores = int(builder.num_DLA_cores)
    if core >= cores:
        raise EngineError(f"dla_core is {core}, and TensorRT {trt.__version__} finds {cores} here: leave it out")
    config.default_device_type = trt.DeviceType.DLA
    config.DLA_core = core


def _set_timing_cache(config: tensorrt.IBuilderConfig, data: bytes) -> None:
    """Begins with what was measured before; with nothing, where the library does not take it for its own."""
    cache = config.create_timing_cache(data)
    if cache is None or not config.set_timing_cache(cache, False):
        config.set_timing_cache(config.create_timing_cache(b""), False)


def allow_types(
    trt: ModuleType, typing: Typing, config: tensorrt.IBuilderConfig, network: tensorrt.INetworkDefinition
) -> None:
    """Allows a weakly typed network the types that its graph states."""
    for name in sorted({flag for kind in _types(trt, network) for flag in typing.flags.get(kind, ())}):
        config.set_flag(getattr(trt.BuilderFlag, name))


def is_quantized(trt: ModuleType, network: tensorrt.INetworkDefinition) -> bool:
    """Whether anything in the network is."""
    return "INT8" in _types(trt, network)


def _types(trt: ModuleType, network: tensorrt.INetworkDefinition) -> set[str]:
    """Names in ``DataType`` of all that the layers give; INT8 also for what is dequantized from constants."""
    layers = [network.get_layer(index) for index in range(network.num_layers)]
    found = {layer.get_output(index).dtype.name for layer in layers for index in range(layer.num_outputs)}
    return found | ({"INT8"} if any(layer.type == trt.LayerType.DEQUANTIZE for layer in layers) else set())
