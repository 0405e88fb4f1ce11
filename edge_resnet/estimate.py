"""Latency, throughput and memory of a network on a device that is not here: always an estimate, with its range."""

from __future__ import annotations

import sys
from collections.abc import Collection
from dataclasses import asdict, dataclass
from functools import cache
from importlib import resources
from pathlib import Path
from typing import Any

from edge_resnet.bundle import BUNDLE_SUFFIX, open_bundle
from edge_resnet.engines.roofline import BYTES, Constants, Launch, all_seconds, live_bytes, weight_bytes
from edge_resnet.engines.specification import Hardware, Mode, hardware_named
from edge_resnet.engines.targets import Target, target_named
from edge_resnet.errors import EngineError, ModelError
from edge_resnet.trust import refuse_trust

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

RUNTIME_MB = 275
"""What CUDA and TensorRT take beside weights and activations. The one measurement found: a ResNet-18 in FP16, batch 8, adds
315 MB to the system's use on an Orin Nano (NVIDIA-AI-IOT/jetson-intro-to-distillation), of which 39 MB are counted."""
RUNTIME_RANGE = (0.67, 1.5)
"""An assumption: one measurement has no spread."""
BUILDER_MB = (836, 1290, 2580)
"""The builder's kernel library, least, estimate and most, from TensorRT's own logs on Jetson: 351 + 446 MiB (host + device,
TensorRT 8.5), 1227 + 1235 MiB (TensorRT 10.13, Thor), where host and device may show the same memory."""
BUILDER_COPIES = (2, 3, 5)
"""Of the FP32 weights: at least two by TensorRT's documentation (How TensorRT Works, the build phase), up to five by
Torch-TensorRT's (Resource Management)."""


@dataclass(frozen=True)
class Between:
    """A figure, and where the true one is expected."""

    estimate: float
    low: float
    high: float


@dataclass(frozen=True)
class LayerEstimate:
    """One launch."""

    name: str
    kind: str
    mmac: float
    """Multiply-adds of the whole batch, in 10⁶."""
    ms: float


@dataclass(frozen=True)
class Estimate:
    """What a network is expected to do on a device; nothing here was measured."""

    target: str
    device: str
    """The product that stands for the target."""
    precision: str
    power: str
    batch: int
    latency_ms: Between
    """Of one batch, prepared frames to logits."""
    per_second: Between
    """Images, one batch after another."""
    memory_mb: Between
    build_memory_mb: Between
    """While the engine is compiled, on the device."""
    basis: tuple[str, ...]
    layers: tuple[LayerEstimate, ...]

    def to_json(self) -> dict[str, Any]:
        """The document that ``estimate --json`` prints, without the layers."""
        document = asdict(self)
        del document["layers"]
        return {**document, "basis": list(self.basis)}


def estimate(
    model: str,
    target: str,
    *,
    precision: str | None = None,
    power: str | None = None,
    batch: int = 1,
    trust: Path | None = None,
) -> Estimate:
    """Estimates from a roofline over the network's launches, fitted to published measurements (``docs/estimate.md``).

    Args:
        model: an architecture's name, an ONNX file or a bundle.
        target: a target or a module, such as ``jetson-orin-nano`` or ``jetson-agx-orin-32gb``.
        precision: None is a bundle's own, otherwise the lowest that can be estimated there.
        power: a power mode, such as ``15W``; None is the fastest.
        batch: images computed together.
        trust: of a bundle, as ``open_bundle`` takes it.

    Raises:
        TrustError: no trusted key has signed the bundle.
        ModelError: the network cannot be read, or has shapes that are not fixed.
        EngineError: no estimate can be made for this device, power mode or precision.
    """
    hardware = hardware_named(target)
    assert hardware.target is not None
    compiled_for = target_named(hardware.target)
    mode = hardware.mode(power)
    own, launches = _launches(model, trust)
    chosen = _precision(hardware, compiled_for, precision or own)
    return _estimated(hardware, mode, chosen, batch, tuple(launch.batched(batch) for launch in launches))


def mixed_latency(launches: tuple[Launch, ...], target: str, keep_float: Collection[str]) -> Between:
    """Latency of one frame in milliseconds, in INT8 but for some layers, which count as FP16, at the fastest power mode.

    What a shortcut left float adds to the traffic is not counted.

    Args:
        launches: of the network, for one image.
        target: a target or a module.
        keep_float: names of layers that stay float.

    Raises:
        EngineError: no estimate can be made for this device in INT8.
    """
    hardware = hardware_named(target)
    assert hardware.target is not None
    _precision(hardware, target_named(hardware.target), "int8")
    point = hardware.at(hardware.mode(None))
    int8, half = (all_seconds(launches, point, precision, constants()) for precision in ("int8", "fp16"))
    chosen = [half[index] if launch.name in keep_float else int8[index] for index, launch in enumerate(launches)]
    return _between(1e3 * sum(chosen), *_spread(hardware.sm))


def _estimated(hardware: Hardware, mode: Mode, precision: str, batch: int, launches: tuple[Launch, ...]) -> Estimate:
    seconds = all_seconds(launches, hardware.at(mode), precision, constants())
    low, high = _spread(hardware.sm)
    latency = _between(1e3 * sum(seconds), low, high)
    rate = 1e3 * batch
    return Estimate(
        target=hardware.name,
        device=hardware.description,
        precision=precision,
        power=mode.name,
        batch=batch,
        latency_ms=latency,
        per_second=Between(rate / latency.estimate, rate / latency.high, rate / latency.low),
        memory_mb=_memory(launches, precision),
        build_memory_mb=_build_memory(launches),
        basis=_basis(hardware, mode, precision, len(launches)),
        layers=tuple(
            LayerEstimate(launch.name, launch.kind, launch.macs / 1e6, 1e3 * each)
            for launch, each in zip(launches, seconds, strict=True)
        ),
    )


def _launches(model: str, trust: Path | None) -> tuple[str | None, tuple[Launch, ...]]:
    """A bundle's precision, if it is one, and the launches of the network for one image."""
    from edge_resnet.launches import architecture_launches, launches_of  # onnx is loaded only where a network is read
    from edge_resnet.onnx_file import parse_onnx, read_onnx

    path = Path(model)
    if path.suffix == BUNDLE_SUFFIX:
        bundle = open_bundle(path, trust)
        member = bundle.compiled_member
        return bundle.manifest.precision, launches_of(parse_onnx(bundle.read(member), member), model)
    refuse_trust(path, trust)
    if path.suffix == ".onnx":
        return None, launches_of(read_onnx(path), model)
    if path.suffix:
        raise ModelError(
            f"'{model}' is no architecture, ONNX or bundle: give one of them; of a checkpoint or a recipe its architecture "
            "will do (`edge-resnet models` lists them), since weights do not change the speed"
        )
    return None, architecture_launches(model)


def _precision(hardware: Hardware, target: Target, asked: str | None) -> str:
    """The precision to estimate: the one asked for, or the lowest that can be."""
    offered = [each for each in BYTES if each in target.precisions and each not in hardware.unmeasured]
    if asked in hardware.unmeasured and asked in target.precisions:
        raise EngineError(
            f"no {asked} estimate can be made for '{hardware.name}': TensorRT-RTX leaves part of each INT8 layer unfused, "
            f"and nobody has published how fast that is: ask for --precision fp16, or measure with `edge-resnet bench`"
        )
    if asked is not None and asked not in offered:
        raise EngineError(f"'{hardware.name}' has no {asked}: choose one of {', '.join(offered)}")
    return asked or offered[0]


def _memory(launches: tuple[Launch, ...], precision: str) -> Between:
    own = (weight_bytes(launches, precision) + live_bytes(launches, precision)) / 1e6
    least, most = RUNTIME_RANGE
    return Between(own + RUNTIME_MB, own + least * RUNTIME_MB, own + most * RUNTIME_MB)


def _build_memory(launches: tuple[Launch, ...]) -> Between:
    """The builder tries kernels in FP32 too, so activations count as FP32."""
    weights, live = (count(launches, "fp32") / 1e6 for count in (weight_bytes, live_bytes))
    found = [library + copies * weights + live for library, copies in zip(BUILDER_MB, BUILDER_COPIES, strict=True)]
    return Between(estimate=found[1], low=found[0], high=found[2])


def _basis(hardware: Hardware, mode: Mode, precision: str, launches: int) -> tuple[str, ...]:
    peak = hardware.at(mode).operations[precision] / 1e12
    facts = [
        f"an estimate, not a measurement: a roofline over {launches} launches, its constants fitted to published "
        f"measurements of TensorRT",
        f"{hardware.description}, {mode.name}: GPU {mode.gpu_mhz:.0f} MHz, {peak:.1f} dense {precision} TOPS, "
        f"{mode.bandwidth_gbs:.1f} GB/s, {hardware.memory_gb:g} GB; DLAs are not counted",
        "latency range: the worst errors, above and below, on this generation's devices left out of the fit; 25 % at least",
        f"memory: weights, activations and {RUNTIME_MB} MB for CUDA and TensorRT (one measurement; a third off is assumed)",
        f"build memory: {BUILDER_COPIES[1]} copies of the FP32 weights ({BUILDER_COPIES[0]} to {BUILDER_COPIES[2]}), "
        f"activations and the builder's {BUILDER_MB[1]} MB; the workspace that kernels may ask for is not counted",
    ]
    if precision == "int8":
        facts.append("all of it in INT8, padding inside the convolutions: a Q/DQ ONNX counts its own Pads as launches")
    return (*facts, *hardware.caveats)


def _between(value: float, low: float, high: float) -> Between:
    return Between(value, value * low, value * high)


def constants() -> Constants:
    """The fitted constants that are shipped."""
    return Constants(**{key: value for key, value in _fitted().items() if key != "range"})


def _spread(sm: int) -> tuple[float, float]:
    """Measured over estimated time of devices left out, least and most."""
    (found,) = [each for each in _fitted()["range"] if sm in each["sms"]]
    return found["low"], found["high"]


@cache
def _fitted() -> dict[str, Any]:
    return tomllib.loads(resources.files("edge_resnet.engines").joinpath("roofline.toml").read_text(encoding="utf-8"))
