"""An accuracy report, for a person."""

from __future__ import annotations

from edge_resnet.accuracy import AccuracyReport
from edge_resnet.cli._console import print_table, say


def print_accuracy(report: AccuracyReport) -> None:
    """The figures beside each other, and the verdict in words."""

    def percent(value: float | None) -> str:
        return "–" if value is None else f"{100 * value:.2f} %"

    how = "measured on this machine" if report.evaluated == "measured" else "PREDICTED: no such device here"
    rows = [
        ("FP32", percent(report.fp32.top1), percent(report.fp32.top5)),
        (report.engine_name, percent(report.engine.top1), percent(report.engine.top5)),
    ]
    print_table(f"Accuracy of '{report.engine_name}' on {report.images} images, {how}", ("", "top-1", "top-5"), rows)
    sqnr = "identical logits" if report.logit_sqnr_db is None else f"logit SQNR {report.logit_sqnr_db:.1f} dB"
    say(f"agreement with FP32 {percent(report.agreement)}, {sqnr}")
    if report.drop is None:
        say("no labels: accuracy is not known, agreement is")
        return
    low, high = report.drop.ci95
    verdict = "passed" if report.passed else "FAILED"
    say(
        f"drop {report.drop.points:+.2f} points (95 %: {low:+.2f} to {high:+.2f}), allowed {report.max_drop:g}: {verdict}"
    )
    if report.passed and high > report.max_drop:
        more = f"; about {report.images_to_be_sure} would do" if report.images_to_be_sure else ""
        say(
            f"note: {report.images} images are too few to be sure that the drop is below {report.max_drop:g} points{more}"
        )
