"""``edge-resnet estimate``."""

from __future__ import annotations

from typing import Annotated

import typer

from edge_resnet.cli._console import JsonFlag, print_json, print_table, say
from edge_resnet.cli._trust import Trust


def run(
    model: Annotated[str, typer.Argument(metavar="ARCH|F.onnx|BUNDLE", help="An architecture, ONNX or a bundle.")],
    target: Annotated[str, typer.Option(help="A device, such as `jetson-orin-nano` or `jetson-agx-orin-32gb`.")],
    power: Annotated[str | None, typer.Option(metavar="MODE", help="Such as `15W`; by default the fastest.")] = None,
    precision: Annotated[
        str | None, typer.Option(metavar="int8|fp16|fp32", help="By default a bundle's own, else the lowest.")
    ] = None,
    batch: Annotated[int, typer.Option(min=1, help="Images computed together.")] = 1,
    layers: Annotated[bool, typer.Option("--layers", help="Show the time of each launch too.")] = False,
    trust: Trust = None,
    json: JsonFlag = False,
) -> None:
    """Estimates speed and memory on a device that is not here, with a range. Nothing is measured.

    Example: `edge-resnet estimate resnet50 --target jetson-orin-nano --power 15W`
    """
    from edge_resnet.estimate import estimate

    found = estimate(model, target, precision=precision, power=power, batch=batch, trust=trust)
    if json:
        shown = [{"name": e.name, "kind": e.kind, "mmac": e.mmac, "ms": e.ms} for e in found.layers]
        print_json({**found.to_json(), **({"layers": shown} if layers else {})})
        return
    if layers:
        rows = [(each.name, each.kind, f"{each.mmac:.1f}", f"{each.ms:.4f}") for each in found.layers]
        print_table("Launches, estimated", ("launch", "begins with", "MMAC", "ms"), rows)
    title = (
        f"Estimate, not measured: {model} in {found.precision} on {found.device}, {found.power}, batch {found.batch}"
    )
    quantities = (
        ("latency, ms", found.latency_ms, ".2f"),
        ("images/s", found.per_second, ".0f"),
        ("memory, MB", found.memory_mb, ".0f"),
        ("memory to build, MB", found.build_memory_mb, ".0f"),
    )
    table = [(name, *(f"{value:{form}}" for value in (of.estimate, of.low, of.high))) for name, of, form in quantities]
    print_table(title, ("", "estimate", "low", "high"), table)
    for line in found.basis:
        say(f"- {line}")
