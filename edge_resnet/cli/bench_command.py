"""``edge-resnet bench``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from edge_resnet.benchmark import Latency, measure_against, measure_latency
from edge_resnet.cli._console import BarProgress, JsonFlag, print_json, print_table, say


def run(
    bundle: Annotated[Path, typer.Argument(help="A `.edge` bundle.")],
    target: Annotated[str | None, typer.Option(help="Which engine; by default the fastest that runs here.")] = None,
    runs: Annotated[int, typer.Option(min=1, help="Frames that count.")] = 200,
    against: Annotated[
        str | None,
        typer.Option(metavar="fp32|fp16|bf16", help="Compile the FP32 network in this precision too; both take turns."),
    ] = None,
    json: JsonFlag = False,
) -> None:
    """Measures an engine's latency at batch 1, prepared frame to logits.

    Example: `edge-resnet bench model.edge --against fp16`
    """
    if against is None:
        found = [measure_latency(bundle, target, runs)]
    else:
        bars = BarProgress()
        with bars.stage(f"compile in {against}"):
            found = list(measure_against(bundle, target, against, runs, bars.update_phase))
    ours = found[0]
    if json:
        document = {**ours.to_json(), "device": ours.device, "target": ours.target, "runs": ours.runs}
        if len(found) > 1:
            document["against"] = {**found[1].to_json(), "speed_up": _speed_up(*found)}
        print_json(document)
        return
    rows = [
        (each.precision, *(f"{ms:.2f}" for ms in (each.p50_ms, each.p90_ms, each.p99_ms)), f"{each.per_second:.0f}")
        for each in found
    ]
    title = f"'{ours.target}' on {ours.device}, {ours.runs} frames"
    print_table(title, ("precision", "p50 ms", "p90 ms", "p99 ms", "frames/s"), rows)
    if len(found) > 1:
        say(f"{ours.precision} is {_speed_up(*found):.2f} times as fast as {found[1].precision}, by medians of turns")


def _speed_up(ours: Latency, other: Latency) -> float:
    return other.p50_ms / ours.p50_ms
