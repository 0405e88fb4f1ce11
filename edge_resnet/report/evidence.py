"""Everything that a report of one bundle shows, gathered."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np

from edge_resnet.benchmark import Latency, measure_latency
from edge_resnet.breakdown import Breakdown, measure_breakdown
from edge_resnet.bundle import QDQ_MEMBER, Bundle, Manifest
from edge_resnet.calibration.quantizer_noise import QuantizedTensor, quantizer_noise
from edge_resnet.errors import BundleError, EngineError, GateError, TrustError, UnavailableError
from edge_resnet.golden import read_golden
from edge_resnet.onnx_file import parse_onnx
from edge_resnet.report.answers import Disagreement
from edge_resnet.report.network import Layer, rows_of
from edge_resnet.runtime import Runtime

RUNS = 100
"""Frames that latency is measured on."""
PIXELS = 8 * 64 * 64
"""Pixels of the golden frames that quantizers are measured on: all 8 up to 64×64, one from 224×224 on."""


@dataclass(frozen=True)
class Speed:
    """How fast one engine is here."""

    latency: Latency
    breakdown: Breakdown


@dataclass(frozen=True)
class Evidence:
    """What is known of one bundle."""

    path: Path
    bytes: int
    digest: str
    manifest: Manifest
    members: dict[str, int]
    """Bytes of each."""
    rows: tuple[tuple[Layer, ...], ...]
    """The network, a row a block."""
    tensors: tuple[QuantizedTensor, ...]
    """Empty where nothing is quantized to INT8."""
    frames: int
    """Golden frames that the tensors were measured on."""
    speed: dict[str, Speed]
    """Of each target whose engine runs here."""
    not_run: dict[str, str]
    """Of each other target: why not."""
    disagreement: dict[str, Disagreement]
    """Of each target; empty without images."""

    @property
    def layers(self) -> tuple[Layer, ...]:
        """Those of all rows."""
        return tuple(chain.from_iterable(self.rows))


def gather(
    path: Path, bundle: Bundle, disagreement: Mapping[str, Disagreement], start: Callable[[str], Runtime]
) -> Evidence:
    """Reads a bundle and measures what can be measured here.

    Args:
        path: a ``.edge`` bundle.
        bundle: the same, opened.
        disagreement: of its targets, where images were at hand.
        start: loads the bundle's engine for a target.

    Raises:
        BundleError: a member is not what the manifest says, or another bundle lies there by now.
    """
    network = QDQ_MEMBER if QDQ_MEMBER in bundle.names else bundle.compiled_member
    model = parse_onnx(bundle.read(network), network)
    tensors, frames = _tensors(bundle)
    speed, not_run = _speed(path, bundle, start)
    return Evidence(
        path=path,
        bytes=path.stat().st_size,
        digest=bundle.digest,
        manifest=bundle.manifest,
        members={name: bundle.size(name) for name in bundle.names},
        rows=rows_of(model),
        tensors=tensors,
        frames=frames,
        speed=speed,
        not_run=not_run,
        disagreement=dict(disagreement),
    )


def _tensors(bundle: Bundle) -> tuple[tuple[QuantizedTensor, ...], int]:
    if bundle.manifest.precision != "int8":
        return (), 0
    frames = read_golden(bundle, "frames")
    chosen = frames[: max(1, PIXELS // int(np.prod(frames.shape[1:3])))]
    return quantizer_noise(parse_onnx(bundle.read(QDQ_MEMBER), QDQ_MEMBER), chosen), len(chosen)


def _speed(path: Path, bundle: Bundle, start: Callable[[str], Runtime]) -> tuple[dict[str, Speed], dict[str, str]]:
    speed, not_run = {}, {}
    for entry in bundle.manifest.engines:
        try:
            with start(entry.target) as runtime:
                if runtime.digest != bundle.digest:
                    raise BundleError(f"bundle '{path}' has become another one meanwhile: make the report again")
                (latency,) = measure_latency([runtime], [entry.precision], RUNS)
                speed[entry.target] = Speed(latency, measure_breakdown(runtime))
        except TrustError:
            raise  # a gate by descent, and no engine's affair
        except (EngineError, GateError, UnavailableError) as error:
            not_run[entry.target] = str(error)
    return speed, not_run


def accuracy_of(manifest: Manifest, target: str) -> dict[str, Any] | None:
    """The report that the build made of one target, as ``check --json`` prints it."""
    found = (manifest.accuracy or {}).get(target)
    return found if isinstance(found, dict) else None
