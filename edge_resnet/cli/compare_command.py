"""``edge-resnet compare``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from edge_resnet.cli._console import BarProgress, JsonFlag, print_json, print_table, say
from edge_resnet.cli._trust import Trust

if TYPE_CHECKING:
    from edge_resnet.bench_report import Comparison


def run(
    first: Annotated[Path, typer.Argument(metavar="A.edge|A.json", help="A bundle, or a record of `bench`.")],
    second: Annotated[Path, typer.Argument(metavar="B.edge|B.json", help="Another.")],
    target: Annotated[str | None, typer.Option(help="Which engines; by default the fastest that run here.")] = None,
    runs: Annotated[int, typer.Option(min=1, help="Frames that count.")] = 200,
    trust: Trust = None,
    json: JsonFlag = False,
) -> None:
    """Speed and accuracy of two bundles side by side, in turns on this machine; or two records of `bench`.

    Example: `edge-resnet compare before.edge after.edge`
    """
    from edge_resnet.bench_report import compare_bundles, compare_records

    bars = BarProgress()
    if first.suffix == second.suffix == ".json":
        found = compare_records(first, second)
    else:
        with bars.stage("compare"):
            found = compare_bundles(first, second, target, runs, trust)
    for difference in found.differences:
        bars.note(f"not comparable, {difference}: measure both in one state of one machine")
    if json:
        print_json(found.to_json())
    else:
        _print(found)


def _print(found: Comparison) -> None:
    rows = [
        (
            each.name,
            each.target,
            *(f"{each.percentile_ms(q):.2f}" for q in (50, 99)),
            f"{each.per_second:.0f}",
            *_accuracy(report),
        )
        for each, report in zip(found.latencies, found.accuracy, strict=True)
    ]
    columns = ("", "target", "p50 ms", "p99 ms", "frames/s", "agreement", "SQNR dB", "drop in points")
    print_table(None, columns, rows)
    ratio = found.to_json()["ratio_p50"]
    say(f"the second takes {ratio:.2f} times as long as the first, by medians")


def _accuracy(report: dict[str, Any] | None) -> tuple[str | None, str | None, str | None]:
    """Agreement, SQNR and drop, as far as a report has them: one on features has others."""
    if report is None:
        return None, None, None
    drop = report.get("drop")
    points = None if not isinstance(drop, dict) else f"{drop['points']:+.2f}"
    agreement, sqnr = report.get("agreement"), report.get("logit_sqnr_db")
    return None if agreement is None else f"{agreement:.4f}", None if sqnr is None else f"{sqnr:.1f}", points
