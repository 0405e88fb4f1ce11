"""Evidence → one HTML file."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined

from edge_resnet.report import charts
from edge_resnet.report.evidence import Evidence, accuracy_of

WORST = 12
"""Tensors whose cost is shown at once; the others are folded away."""


def report_path(bundle: Path) -> Path:
    """Where a bundle's report lies."""
    return bundle.with_suffix(".report.html")


def render(subjects: Sequence[Evidence]) -> str:
    """The page of one bundle, or of two side by side."""
    environment = Environment(
        loader=PackageLoader("edge_resnet.report", "."),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"megabytes": _megabytes, "percent": _percent, "db": _db, "words": _words}
    template = environment.get_template("page.html.jinja")
    return template.render(subjects=subjects, charts=charts, accuracy_of=accuracy_of, verdict=verdict, worst=WORST)


def verdict(subject: Evidence) -> str:
    """``passed``, ``predicted`` (passed, but an engine has not run), ``unknown`` (nothing was judged) or ``failed``."""
    reports = [accuracy_of(subject.manifest, entry.target) for entry in subject.manifest.engines]
    judged = [report for report in reports if report is not None]
    every = [report for report in (subject.manifest.accuracy or {}).values() if isinstance(report, dict)]
    if not all(report["passed"] for report in every):
        return "failed"
    if not judged:
        return "unknown"
    measured = len(judged) == len(reports) and all(report["evaluated"] == "measured" for report in judged)
    return "passed" if measured else "predicted"


def _megabytes(count: int) -> str:
    return f"{count / 1e6:.2f} MB" if count >= 10_000 else f"{count / 1e3:.2f} kB"


def _percent(share: float | None, digits: int = 2) -> str:
    return "–" if share is None else f"{100 * share:.{digits}f} %"


def _db(value: float | None) -> str:
    return "identical" if value is None else f"{value:.1f} dB"


def _words(value: Any) -> str:
    """A value of the manifest for a person; a long list by its length."""
    if isinstance(value, (list, tuple)):
        return ", ".join(map(str, value)) if len(value) <= 6 else f"{len(value)} entries"
    return "–" if value is None else str(value)
