"""A report on an engine, for a person."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from edge_resnet.accuracy import AccuracyReport, Report
from edge_resnet.cli._console import print_table, say
from edge_resnet.similarity import EmbeddingReport

LEAST_AGREEMENT = 0.9
"""The networks in ``benchmarks`` agree on 97 % of the images and more, whatever the method of calibration."""


def print_accuracy(report: Report, where: str = "this machine") -> None:
    """The figures beside each other, and the verdict in words; ``where`` an engine ran that was measured."""
    _SHOWN[type(report)](report, where)
    if report.drop is None:
        return
    low, high = report.drop.ci95
    verdict = "passed" if report.passed else "FAILED"
    say(
        f"drop {report.drop.points:+.2f} points (95 %: {low:+.2f} to {high:+.2f}), allowed {report.max_drop:g}: {verdict}"
    )
    if report.passed and high > report.max_drop:
        more = f"; about {report.images_to_be_sure} would do" if report.images_to_be_sure else ""
        allowed = f"{report.max_drop:g} point{'' if report.max_drop == 1 else 's'}"
        say(f"note: {report.images} images are too few to be sure that the drop is below {allowed}{more}")


def _title(what: str, report: Report, where: str) -> str:
    how = f"measured on {where}" if report.evaluated == "measured" else "PREDICTED: no such device here"
    return f"{what} of '{report.engine_name}' on {report.images} images, {how}"


def _percent(value: float | None) -> str:
    return "–" if value is None else f"{100 * value:.2f} %"


def _show_classes(report: AccuracyReport, where: str) -> None:
    rows = [
        ("FP32", _percent(report.fp32.top1), _percent(report.fp32.top5)),
        (report.engine_name, _percent(report.engine.top1), _percent(report.engine.top5)),
    ]
    print_table(_title("Accuracy", report, where), ("", "top-1", "top-5"), rows)
    sqnr = "identical logits" if report.logit_sqnr_db is None else f"logit SQNR {report.logit_sqnr_db:.1f} dB"
    say(f"agreement with FP32 {_percent(report.agreement)}, {sqnr}")
    if report.agreement < LEAST_AGREEMENT:
        say(
            "note: engines agree more as a rule: were calibration images prepared as in use, and do they look like these?"
        )
    if report.drop is None:
        say("no labels: accuracy is not known, agreement is")


def _show_features(report: EmbeddingReport, where: str) -> None:
    sqnr = "identical" if report.feature_sqnr_db is None else f"{report.feature_sqnr_db:.1f} dB"
    rows = [("cosine similarity", f"mean {report.cosine.mean:.4f}, least {report.cosine.least:.4f}"), ("SQNR", sqnr)]
    if report.nearest is not None:
        rows += [
            ("nearest neighbour right, FP32", _percent(report.nearest.fp32)),
            (f"nearest neighbour right, {report.engine_name}", _percent(report.nearest.engine)),
            ("nearest neighbour of one label in both", _percent(report.nearest.agreement)),
        ]
    print_table(_title("Features", report, where), ("against FP32", ""), rows)
    if report.drop is None:
        say("no labels: whether neighbours are right is not known, similarity is")


_SHOWN: dict[type[Report], Callable[[Any, str], None]] = {
    AccuracyReport: _show_classes,
    EmbeddingReport: _show_features,
}
