"""``edge-resnet compile``."""

from __future__ import annotations

import shlex
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from edge_resnet.bundle import BUNDLE_SUFFIX
from edge_resnet.cli._console import BarProgress, JsonFlag, print_json, print_table, say
from edge_resnet.cli._engine import Batch, Compatible, Dla, Flags, Hardware, Level, Refit, Strip, Tf32, Workspace
from edge_resnet.cli._handover import Jetpack
from edge_resnet.cli._trust import SignWith, Trust, passphrase
from edge_resnet.engine_options import as_flags
from edge_resnet.engines.options import DEFAULTS
from edge_resnet.errors import EngineError
from edge_resnet.frames import FrameFormat
from edge_resnet.output import check_writable

if TYPE_CHECKING:
    from edge_resnet.compiling import CompiledSource
    from edge_resnet.handover import HandoverOrder
    from edge_resnet.signing import SigningKey


def run(
    source: Annotated[Path, typer.Argument(metavar="Q.onnx|BUNDLE", help="Q/DQ or FP32 ONNX, or a bundle.")],
    target: Annotated[str, typer.Option(help="The device; see `edge-resnet devices`.")],
    output: Annotated[Path | None, typer.Option("-o", "--output", help="The engine to write.")] = None,
    frames: Annotated[
        str | None,
        typer.Option(
            metavar="HxW:COLOR", help="Take a camera's own frames, as 1080x1920:nv12, and prepare them on the GPU."
        ),
    ] = None,
    batch: Batch = None,
    workspace: Workspace = None,
    optimization_level: Level = None,
    tf32: Tf32 = None,
    version_compatible: Compatible = None,
    hardware_compatible: Hardware = None,
    refit: Refit = None,
    strip_weights: Strip = None,
    dla: Dla = None,
    explain: Annotated[
        bool, typer.Option("--explain", help="Print the trtexec line that compiles the same, and compile nothing.")
    ] = False,
    jetpack: Jetpack = None,
    sign_with: SignWith = None,
    trust: Trust = None,
    json: JsonFlag = False,
) -> None:
    """Compiles an engine for a device. A bundle is not edited: the engine is written beside it, with a record and a log.

    Example: `edge-resnet compile model.edge --target jetson-orin-nano`
    """
    from edge_resnet.compiling import compile_source, default_output, write_engine

    given = Flags(
        batch, workspace, optimization_level, tf32, version_compatible, hardware_compatible, refit, strip_weights, dla
    )
    options = given.over(DEFAULTS)
    camera = None if frames is None else FrameFormat.parse(frames)
    if explain:
        _refuse_beside_explain(frames, output, sign_with)
        from edge_resnet.handover import HandoverOrder

        _explain(HandoverOrder(source, target, jetpack, options=options, trust=trust), json)
        return
    if jetpack is not None:
        raise EngineError("--jetpack is for --explain: what compiles here is the TensorRT that is installed")
    place = output or default_output(source, target)
    check_writable(place, source)
    key = None if sign_with is None else _key(source, sign_with)
    bars, start = BarProgress(), time.perf_counter()
    with bars.stage(f"compile for {target}"):
        made = compile_source(source, target, options, bars.update_phase, frames=camera, trust=trust)
    seconds = time.perf_counter() - start
    write_engine(made, place, key)
    for note in made.notes:
        bars.note(note)
    _report(made, place, seconds, bars.notes, json)


def _refuse_beside_explain(frames: str | None, output: Path | None, sign_with: Path | None) -> None:
    for flag, given, why in (
        ("--frames", frames, "is for networks that take prepared frames"),
        ("-o", output, "writes nothing"),
        ("--sign-with", sign_with, "writes nothing"),
    ):
        if given is not None:
            raise EngineError(f"--explain {why}: leave {flag} out")


def _key(source: Path, sign_with: Path) -> SigningKey:
    """The key that signs an engine, of a bundle: before minutes of work."""
    from edge_resnet.compiling import require_bundle
    from edge_resnet.signing import load_key

    require_bundle(source.suffix == BUNDLE_SUFFIX)
    return load_key(sign_with, passphrase)


def _report(made: CompiledSource, place: Path, seconds: float, notes: list[str], json: bool) -> None:
    from edge_resnet.compiling import log_path

    counts, beside = made.compiled.layers_by_precision, list(made.compiled.beside_dla)
    layers = [{"name": layer.name, "precision": layer.precision} for layer in made.compiled.layers]
    if json:
        print_json(
            {
                "engine": str(place),
                "kind": made.compiled.kind,
                "seconds": seconds,
                "frames": None if made.frames is None else made.frames.to_json(),
                "layers": layers,
                "layers_by_precision": counts,
                "beside_dla": beside,
                "versions": made.compiled.versions,
                "log": str(log_path(place)) if made.compiled.log else None,
                "notes": notes,
            }
        )
        return
    print_table(f"Layers of {place}", ("precision", "layers"), sorted(counts.items()))
    if beside:
        say(f"the DLA leaves {len(beside)} layers to the GPU: {', '.join(beside)}")
    say(f"wrote {place}: {len(made.compiled.data) / 1e6:.1f} MB in {seconds:.1f} s")


def _explain(order: HandoverOrder, json: bool) -> None:
    from edge_resnet.handover import hand_over

    made = hand_over(order)
    release = made.jetpack.version.partition(" to ")[0]
    makes = (
        f"edge-resnet export-trtexec {shlex.quote(str(order.source))} --target {made.target.name} --jetpack {release}"
        f"{as_flags(order.options)} -o FOLDER"
    )
    if json:
        print_json({**made.to_json(), "files_from": makes})
        return
    say(shlex.join(made.command))
    say(f"for TensorRT {made.jetpack.tensorrt} (JetPack {made.jetpack.version}); `{makes}` writes model.onnx")
