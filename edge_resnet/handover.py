"""Handing a network to TensorRT without our Python: a folder with the ONNX, a ``trtexec`` line and all that belongs to it.

For JetPack 5, whose Python 3.8 this package does not take, for DLA, and for whoever builds engines by ``trtexec`` anyway.
"""

from __future__ import annotations

import json
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edge_resnet import __version__
from edge_resnet.calibration.trt_cache import version_digits
from edge_resnet.engines.engine import Engine
from edge_resnet.engines.jetpacks import jetpack_named
from edge_resnet.engines.options import DEFAULTS, BuildOptions
from edge_resnet.engines.registry import engine_class
from edge_resnet.engines.targets import JetPack, Target, target_named
from edge_resnet.engines.this_device import this_device
from edge_resnet.engines.trtexec import STRONG_TYPING, TrtexecFiles, TrtexecInput, knows_dla, trtexec_command
from edge_resnet.errors import EngineError
from edge_resnet.handover_network import HandedNetwork, calibrated_network, handed_network, stripped_network
from edge_resnet.onnx_file import described, parse_onnx
from edge_resnet.sparse_kernels import with_sparse_kernels
from edge_resnet.trust import refuse_trust

MODEL, ENGINE, CACHE, LABELS, FACTS = "model.onnx", "model.engine", "calibration.cache", "labels.txt", "model.json"
BUILD, README = "build.sh", "README.txt"
_SHIPPED = "/usr/src/tensorrt/bin/trtexec"
"""Where JetPack puts trtexec, which is not on the path."""
_OWN_DLA_QDQ = 11
"""The TensorRT from which on DLA takes Q/DQ; before, it takes INT8 from a calibration cache alone."""


@dataclass(frozen=True)
class HandoverOrder:
    """What shall be handed over, to which device, and how it shall be compiled there."""

    source: Path
    """A bundle or an ONNX file; with a table the FP32 ONNX that it was made from."""
    target: str
    jetpack: str | None = None
    """The release on the device; None is this device's own, and elsewhere the newest."""
    implicit: bool = False
    """Whether INT8 shall be a calibration cache beside a graph without Q/DQ."""
    table: Path | None = None
    """A calibration table, which shall be such a cache."""
    options: BuildOptions = DEFAULTS
    trust: Path | None = None
    """Of a bundle, as ``open_bundle`` takes it."""


@dataclass(frozen=True)
class Handover:
    """The command, and the files that it needs, by name."""

    target: Target
    jetpack: JetPack
    precision: str
    command: list[str]
    files: dict[str, bytes]

    def to_json(self) -> dict[str, Any]:
        """What is said of it, for scripts."""
        return {
            "target": self.target.name,
            "jetpack": self.jetpack.version,
            "tensorrt": self.jetpack.tensorrt,
            "precision": self.precision,
            "command": self.command,
        }


def hand_over(order: HandoverOrder) -> Handover:
    """Makes everything that the device needs; writes nothing.

    Raises:
        TrustError: no trusted key has signed the bundle.
        EngineError: the target is no Jetson, or its TensorRT cannot do what the options ask for.
        EdgeResnetError: the source cannot be used.
    """
    target = target_named(order.target)
    engine = engine_class(target.kind)
    jetpack = _jetpack(target, order.jetpack)
    _check_dla(target, jetpack, order)
    network = _network(order, engine, jetpack)
    target.at(network.precision)  # refuses a precision that the device has not
    names = TrtexecFiles(MODEL, ENGINE, None if network.cache is None else CACHE)
    options = with_sparse_kernels(order.options, network.model, engine, target)
    command = trtexec_command(jetpack.tensorrt, network.precision, names, _input_of(network), options)
    facts = _facts(target, jetpack, network)
    files = {MODEL: network.model, FACTS: _text(json.dumps(facts, indent=2)), BUILD: _text(_script(command))}
    if network.cache is not None:
        files[CACHE] = network.cache.encode()
    if network.labels is not None:
        files[LABELS] = _text("\n".join(network.labels))
    files[README] = _text("\n".join(_readme(target, jetpack, network, facts)))
    return Handover(target, jetpack, network.precision, command, files)


def _input_of(network: HandedNetwork) -> TrtexecInput:
    frames = parse_onnx(network.model, MODEL).graph.input[0]
    height, width, channels = (dim.dim_value for dim in frames.type.tensor_type.shape.dim[1:])
    return TrtexecInput(frames.name, height, width, channels)


def _facts(target: Target, jetpack: JetPack, network: HandedNetwork) -> dict[str, Any]:
    """What the network takes and gives, for a program on the device."""
    graph = parse_onnx(network.model, MODEL).graph
    return {
        "input": described(graph.input[0]),
        "output": described(graph.output[0]),
        "precision": network.precision,
        "target": target.name,
        "tensorrt": jetpack.tensorrt,
        "preprocessing": None if network.preprocessing is None else network.preprocessing.to_json(),
        "made_by": f"edge-resnet {__version__}",
    }


def _jetpack(target: Target, version: str | None) -> JetPack:
    if not target.jetpacks:
        raise EngineError(
            f"target '{target.name}' is compiled by {target.kind}, for which there is no trtexec line: "
            f"run `edge-resnet compile` for it, on any machine"
        )
    installed = this_device().jetpack(target) if version is None else None
    return installed or jetpack_named(target, version)


def _check_dla(target: Target, jetpack: JetPack, order: HandoverOrder) -> None:
    if order.options.dla_core is None:
        return
    target.check_dla(order.options.dla_core)
    if not knows_dla(jetpack.tensorrt):
        known = [release.version for release in target.jetpacks if knows_dla(release.tensorrt)]
        raise EngineError(
            f"TensorRT {jetpack.tensorrt} of JetPack {jetpack.version} does not know DLA: leave --dla out, or give a "
            f"--jetpack whose does ({', '.join(known)})"
        )
    if order.table is None and _major(jetpack) < _OWN_DLA_QDQ:
        raise EngineError(
            f"DLA in TensorRT {jetpack.tensorrt} takes INT8 from a calibration cache, for a network with its ReLUs and "
            f"without Q/DQ: give the FP32 ONNX and --table T.json, from `edge-resnet calibrate`"
        )


def _network(order: HandoverOrder, engine: type[Engine], jetpack: JetPack) -> HandedNetwork:
    if order.table is not None:
        refuse_trust(order.source, order.trust)
        return calibrated_network(order.source, order.table, version_digits(jetpack.tensorrt))
    if order.implicit:
        return stripped_network(order.source, engine, version_digits(jetpack.tensorrt), order.trust)
    return handed_network(order.source, engine, order.trust, typed=_major(jetpack) >= STRONG_TYPING[0])


def _major(jetpack: JetPack) -> int:
    return int(jetpack.tensorrt.partition(".")[0])


def _script(command: list[str]) -> str:
    """The command for a POSIX shell, which finds trtexec where JetPack puts it."""
    arguments = " \\\n    ".join(shlex.quote(argument) for argument in command[1:])
    return (
        "#!/bin/sh\n"
        f"# Compiles {MODEL} into {ENGINE}. Run it on the device: sh {BUILD}\n"
        'set -e\ncd "$(dirname "$0")"\n'
        f'"$(command -v trtexec || echo {_SHIPPED})" \\\n    {arguments}\n'
    )


def _readme(target: Target, jetpack: JetPack, network: HandedNetwork, facts: dict[str, Any]) -> Iterator[str]:
    yield f"For {target.description} with JetPack {jetpack.version}, that is TensorRT {jetpack.tensorrt}."
    yield f"Made by {facts['made_by']}, which has not run an engine of this kind on that device."
    yield ""
    yield f"On the device: sh {BUILD}"
    yield f"It compiles {MODEL} into {ENGINE}, which only this kind of device and this TensorRT load."
    yield f"Which layers became INT8: trtexec --loadEngine={ENGINE} --dumpLayerInfo"
    yield ""
    yield f"{MODEL}: {facts['input']} in, {facts['output']} out."
    if network.cache is not None:
        yield f"{CACHE}: its INT8 scales by tensor, for TensorRT {jetpack.tensorrt} alone."
    if network.labels is not None:
        yield f"{LABELS}: what each answer stands for, one a line."
    yield f"{FACTS}: the same in JSON, and how a picture becomes the input: resize, crop, colours. Mean and standard"
    yield "deviation are in the network already; give it the pixels as they are, uint8."


def _text(content: str) -> bytes:
    return f"{content.rstrip()}\n".encode()
