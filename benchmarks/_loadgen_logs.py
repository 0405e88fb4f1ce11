"""What LoadGen's logs say, as values and as a table."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from edge_resnet.errors import ModelError


@dataclass(frozen=True)
class Result:
    """What LoadGen found in one scenario. Percentiles are of queries; Offline is one query and has none."""

    scenario: str
    valid: bool
    why: str
    """Why it is not valid, in LoadGen's words; empty where it is."""
    queries: int
    samples: int
    published: float
    """The figure that MLPerf publishes: of a latency, LoadGen's early-stopping estimate, which is above the percentile."""
    unit: str
    p50_ms: float | None
    p90_ms: float | None
    p99_ms: float | None
    top1: float
    """Of accuracy mode, a fraction from 0 to 1, read back from LoadGen's log."""
    min_seconds: float
    min_queries: int


def read_detail(path: Path) -> dict[str, Any]:
    """LoadGen's detailed log, key to value: each line is ``:::MLLOG`` and a JSON object."""
    lines = path.read_text(encoding="utf-8").splitlines()
    entries = (json.loads(line.removeprefix(":::MLLOG ")) for line in lines)
    return {entry["key"]: entry["value"] for entry in entries}


def why_not(found: dict[str, Any]) -> str:
    """LoadGen's words: its advice, or, where it has none, how many queries the estimate of a percentile wants."""
    if found["result_validity"] == "VALID":
        return ""
    words = found.get("result_invalid_reason") or found["early_stopping_result"]
    return " ".join(words.replace("*", "").split())


def read_answers(path: Path) -> dict[int, int]:
    """The class that each image was answered by, from accuracy mode's log.

    An image that LoadGen asked for twice, to fill the last query, counts once, as MLPerf's own script counts it.
    """
    answers: dict[int, int] = {}
    for entry in json.loads(path.read_text(encoding="utf-8")):
        (answer,) = np.frombuffer(bytes.fromhex(entry["data"]), np.float32)
        answers.setdefault(entry["qsl_idx"], int(answer))
    return answers


def top1(answers: dict[int, int], labels: Sequence[int]) -> float:
    """The share of images whose answer is their label.

    Raises:
        ModelError: an image was not answered.
    """
    if sorted(answers) != list(range(len(labels))):
        raise ModelError(f"LoadGen's accuracy log has {len(answers)} images of {len(labels)}: see its detailed log")
    return sum(answers[index] == label for index, label in enumerate(labels)) / len(labels)


def table(results: Sequence[Result]) -> str:
    """Markdown."""

    def ms(value: float | None) -> str:
        return "" if value is None else f"{value:.3f}"

    lines = [
        "| scenario | verdict | MLPerf's figure | p50 ms | p90 ms | p99 ms | queries | samples | top-1 |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for each in results:
        verdict = "VALID" if each.valid else f"INVALID: {each.why}"
        figure = f"{each.published:.{3 if each.published < 100 else 0}f} {each.unit}"
        times = f"{ms(each.p50_ms)} | {ms(each.p90_ms)} | {ms(each.p99_ms)}"
        lines.append(
            f"| {each.scenario} | {verdict} | {figure} | {times} | {each.queries} | {each.samples} | {each.top1:.4f} |"
        )
    return "\n".join(lines)
