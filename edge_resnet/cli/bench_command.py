"""``edge-resnet bench``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from edge_resnet.cli._console import BarProgress, JsonFlag, check_picture, print_json, print_table, say
from edge_resnet.cli._trust import Trust
from edge_resnet.output import check_writable, write_atomically

if TYPE_CHECKING:
    from edge_resnet.bench_report import BenchReport


def run(
    bundle: Annotated[Path, typer.Argument(help="A `.edge` bundle.")],
    target: Annotated[str | None, typer.Option(help="Which engine; by default the fastest that runs here.")] = None,
    runs: Annotated[int, typer.Option(min=1, help="Frames that count.")] = 200,
    against: Annotated[
        str | None,
        typer.Option(metavar="fp32|fp16|bf16", help="Compile the FP32 network in this precision too; both take turns."),
    ] = None,
    source: Annotated[
        str | None,
        typer.Option(metavar="CAMERA", help="Break down its frames, capture included: a camera, a video, a folder."),
    ] = None,
    record: Annotated[
        Path | None, typer.Option(metavar="F.json", help="Keep every time and the machine's state, for `compare`.")
    ] = None,
    plot: Annotated[Path | None, typer.Option(metavar="F.png", help="Draw a histogram (extra `plots`).")] = None,
    trust: Trust = None,
    json: JsonFlag = False,
) -> None:
    """Measures an engine: latency at batch 1, where a camera frame's time goes, and the best batch.

    Example: `edge-resnet bench model.edge --against fp16 --plot latency.png`
    """
    from edge_resnet.bench_report import bench, histogram_png

    if record is not None:
        check_writable(record, bundle)
    if plot is not None:
        check_picture(plot, bundle)
    bars = BarProgress()
    with bars.stage("bench"):
        report = bench(bundle, target, runs, against, source, bars.update_phase, trust)
    if record is not None:
        write_atomically(record, report.record())
    if plot is not None:
        write_atomically(plot, histogram_png(report.latencies))
    for change in report.changes:
        bars.note(f"while it was measured, this changed: {change}")
    if json:
        print_json(report.to_json())
    else:
        _print(report)


def _print(report: BenchReport) -> None:
    ours = report.latencies[0]
    rows = [
        (
            each.name,
            *(f"{each.percentile_ms(q):.2f}" for q in (50, 90, 99)),
            f"{max(each.times_ms):.2f}",
            f"{each.per_second:.0f}",
        )
        for each in report.latencies
    ]
    title = f"'{ours.target}' on {ours.device}, {len(ours.times_ms)} frames"
    print_table(title, ("precision", "p50 ms", "p90 ms", "p99 ms", "max ms", "frames/s"), rows)
    if report.speed_up is not None:
        say(f"{ours.name} is {report.speed_up:.2f} times as fast as {report.latencies[1].name}, by medians of turns")
    parts = [(name.replace("_", " "), f"{ms:.3f}") for name, ms in report.breakdown.to_json().items() if ms is not None]
    print_table("A camera's frame, medians", ("part", "ms"), parts)
    batches = [(each.batch, f"{each.per_second:.0f}") for each in report.throughput]
    print_table(f"Frames a second by batch, best at {report.best.batch}", ("batch", "frames/s"), batches)
    state = report.after
    told = {
        "CPU governor": ", ".join(state.cpu_governors),
        "power mode": state.power_mode,
        "GPU": None if state.gpu_mhz is None else f"{state.gpu_mhz} of {state.gpu_max_mhz} MHz",
        "temperature": ", ".join(f"{name} {value:.0f} °C" for name, value in state.temperatures_c.items()),
        "power": ", ".join(f"{name} {value:.1f} W" for name, value in state.power_w.items()),
    }
    known = [(name, value) for name, value in told.items() if value]
    if known:
        print_table("This machine, afterwards", ("", ""), known)
