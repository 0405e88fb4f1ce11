"""What compression cost, for a person."""

from __future__ import annotations

from typing import TYPE_CHECKING

from edge_resnet.accuracy import AccuracyReport, Report
from edge_resnet.cli._console import print_table, say

if TYPE_CHECKING:
    from edge_resnet.compressing import Compression

_SEEN = {"accuracy": "images it has not seen", "prune": "of the images that it was fine-tuned on"}


def print_compression(found: Compression) -> None:
    """A row a step, each against the original network, and the layers that stayed dense."""
    rows = [
        (step.name, _percent(step.macs), _percent(step.zeros), _drop(step.accuracy), *_alike(step.accuracy))
        for step in found.steps
    ]
    judged = found.steps[0].accuracy.images
    print_table(
        f"Pruned, in FP32 against the original network, on {judged} {_SEEN[found.judged_on]}",
        ("step", "MACs", "zeros", "drop in points (95 %)", "agreement", "SQNR"),
        rows,
    )
    if found.dense_layers:
        say(f"not 2:4 sparse: {', '.join(found.dense_layers)}")


def _percent(share: float) -> str:
    return f"{100 * share:.1f} %"


def _drop(report: Report) -> str:
    if report.drop is None:
        return "–"
    low, high = report.drop.ci95
    return f"{report.drop.points:+.2f} ({low:+.2f} to {high:+.2f})"


def _alike(report: Report) -> tuple[str, str]:
    agreement = _percent(report.agreement) if isinstance(report, AccuracyReport) else "–"
    return agreement, "identical" if report.sqnr_db is None else f"{report.sqnr_db:.1f} dB"
