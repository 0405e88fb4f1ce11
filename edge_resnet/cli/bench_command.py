"""``edge-resnet bench``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from edge_resnet.benchmark import measure_latency
from edge_resnet.cli._console import JsonFlag, print_json, print_table


def run(
    bundle: Annotated[Path, typer.Argument(help="A `.edge` bundle.")],
    target: Annotated[str | None, typer.Option(help="Which engine; by default the fastest that runs here.")] = None,
    runs: Annotated[int, typer.Option(min=1, help="Frames that count.")] = 200,
    json: JsonFlag = False,
) -> None:
    """Measures an engine's latency at batch 1, prepared frame to logits.

    Example: `edge-resnet bench model.edge --runs 1000`
    """
    found = measure_latency(bundle, target, runs)
    if json:
        print_json(
            {
                "latency_ms": {"p50": found.p50_ms, "p90": found.p90_ms, "p99": found.p99_ms},
                "per_second": found.per_second,
                "device": found.device,
                "target": found.target,
                "runs": found.runs,
            }
        )
        return
    row = tuple(f"{ms:.2f}" for ms in (found.p50_ms, found.p90_ms, found.p99_ms))
    title = f"'{found.target}' on {found.device}, {found.runs} frames"
    print_table(title, ("p50 ms", "p90 ms", "p99 ms", "frames/s"), [(*row, f"{found.per_second:.0f}")])
