"""What ``edge-resnet bench`` and ``compare`` find, as values, as JSON records, and as a picture."""

from __future__ import annotations

import io
import json
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from edge_resnet.benchmark import Latency, Throughput, measure_against, measure_latency, measure_throughput
from edge_resnet.breakdown import Breakdown, measure_breakdown
from edge_resnet.engines.engine import Progress
from edge_resnet.errors import EngineError
from edge_resnet.limits import check_file, parse_json
from edge_resnet.machine import MachineState, machine_state
from edge_resnet.runtime import Runtime

FORMAT = 1


@dataclass(frozen=True)
class BenchReport:
    """One bench: an engine, or an engine and another precision of its network."""

    latencies: tuple[Latency, ...]
    breakdown: Breakdown
    throughput: tuple[Throughput, ...]
    before: MachineState
    after: MachineState

    @property
    def best(self) -> Throughput:
        """The batch with the most frames a second."""
        return max(self.throughput, key=lambda each: each.per_second)

    @property
    def speed_up(self) -> float | None:
        """How many times as fast as the other precision, by medians of turns; None where there is none."""
        if len(self.latencies) == 1:
            return None
        return self.latencies[1].percentile_ms(50) / self.latencies[0].percentile_ms(50)

    @property
    def changes(self) -> tuple[str, ...]:
        """What changed on the machine while it was measured."""
        return self.before.differences(self.after)

    def to_json(self) -> dict[str, Any]:
        """The document that ``bench --json`` prints."""
        ours = self.latencies[0]
        document = {
            **ours.to_json(),
            "precision": ours.name,
            "device": ours.device,
            "target": ours.target,
            "runs": len(ours.times_ms),
            "breakdown_ms": self.breakdown.to_json(),
            "batches": [asdict(each) for each in self.throughput],
            "machine": {"before": self.before.to_json(), "after": self.after.to_json(), "changes": list(self.changes)},
        }
        if self.speed_up is not None:
            other = self.latencies[1]
            document["against"] = {**other.to_json(), "precision": other.name, "speed_up": self.speed_up}
        return document

    def record(self) -> bytes:
        """The file of ``--record``: the document with every single time, for ``compare``."""
        times = {each.name: list(each.times_ms) for each in self.latencies}
        document = {"format": FORMAT, **self.to_json(), "times_ms": times}
        return (json.dumps(document, indent=1) + "\n").encode()


def bench(
    bundle: Path,
    target: str | None,
    runs: int,
    against: str | None = None,
    source: str | None = None,
    progress: Progress | None = None,
    trust: Path | None = None,
) -> BenchReport:
    """Measures an engine: single frames, where a camera's frame spends its time, and frames a second by batch.

    Args:
        source: the camera, video or folder whose frames are broken down; None makes frames up, and captures nothing.

    Raises:
        TrustError: no trusted key has signed the bundle.
        CameraError: the source cannot be opened, or gives no frame.
        EngineError: the other precision is none that the target has.
        UnavailableError: the engine does not run here.
    """
    before = machine_state()
    latencies: tuple[Latency, ...] = ()
    if against is not None:
        latencies = measure_against(bundle, target, against, runs, progress, trust)
    with Runtime(bundle, target=target, trust=trust) as runtime:
        if against is None:
            latencies = tuple(measure_latency([runtime], [runtime.reopen().manifest.precision], runs))
        breakdown = measure_breakdown(runtime, source)
        throughput = tuple(measure_throughput(runtime.engine))
    return BenchReport(latencies, breakdown, throughput, before, machine_state())


@dataclass(frozen=True)
class Comparison:
    """Two bundles side by side, or two records of benches."""

    latencies: tuple[Latency, Latency]
    accuracy: tuple[dict[str, Any] | None, dict[str, Any] | None]
    """Each bundle's own report on its target; None where it has none."""
    differences: tuple[str, ...]
    """What makes the two incomparable: other clocks, other modes, another machine."""

    def to_json(self) -> dict[str, Any]:
        """The document that ``compare --json`` prints."""
        pairs = zip(self.latencies, self.accuracy, strict=True)
        return {
            "engines": [
                {**each.to_json(), "name": each.name, "target": each.target, "device": each.device, "accuracy": report}
                for each, report in pairs
            ],
            "ratio_p50": self.latencies[1].percentile_ms(50) / self.latencies[0].percentile_ms(50),
            "comparable": not self.differences,
            "differences": list(self.differences),
        }


def compare_bundles(first: Path, second: Path, target: str | None, runs: int, trust: Path | None = None) -> Comparison:
    """Runs two bundles' engines in turns, on this machine.

    Raises:
        UnavailableError: one of them does not run here.
    """
    with ExitStack() as opened:
        runtimes = [opened.enter_context(Runtime(path, target=target, trust=trust)) for path in (first, second)]
        ours, theirs = measure_latency(runtimes, [str(first), str(second)], runs)
    accuracy = [(runtime.reopen().manifest.accuracy or {}).get(runtime.target) for runtime in runtimes]
    one, two = (report if isinstance(report, dict) else None for report in accuracy)
    return Comparison((ours, theirs), (one, two), ())


def compare_records(first: Path, second: Path) -> Comparison:
    """Holds two records of ``bench --record`` against each other, and says when their machines were not in one state.

    Raises:
        EngineError: a file is no such record.
    """
    (ours, one), (theirs, two) = _read_record(first), _read_record(second)
    return Comparison((ours, theirs), (None, None), one.differences(two))


def _read_record(path: Path) -> tuple[Latency, MachineState]:
    check_file(path, "document_bytes", EngineError)
    try:
        document = parse_json(path.read_bytes())
        assert document["format"] == FORMAT
        times = tuple(float(each) for each in document["times_ms"][document["precision"]])
        assert times
        state = document["machine"]["after"]
        state |= {key: tuple(state[key]) for key in ("cpu_governors", "cpu_mhz")}
        return Latency(str(path), document["target"], document["device"], times), MachineState(**state)
    except (OSError, ValueError, KeyError, TypeError, AssertionError) as error:
        raise EngineError(f"{path} is no record of `edge-resnet bench --record` ({type(error).__name__})") from error


def histogram_png(latencies: Sequence[Latency]) -> bytes:
    """Draws how often each time occurred, with median and 99th percentile; 1,200 pixels wide. Needs matplotlib."""
    from matplotlib.figure import Figure
    from matplotlib.ticker import LogLocator, NullLocator

    colors = ("#3070b0", "#d07030")
    figure = Figure(figsize=(10, 5), layout="constrained")
    axes = figure.subplots()
    longest = max(float(np.percentile(each.times_ms, 99.5, method="higher")) for each in latencies)  # of few, all
    shortest = min(min(each.times_ms) for each in latencies)
    for each, color in zip(latencies, colors, strict=False):
        p50, p99 = each.percentile_ms(50), each.percentile_ms(99)
        label = f"{each.name}: median {p50:.2f} ms, 99th percentile {p99:.2f} ms, {each.per_second:.0f} frames/s"
        axes.hist(each.times_ms, bins=80, range=(shortest, longest), color=color, alpha=0.6, label=label)
        axes.axvline(p50, color=color)
        axes.axvline(p99, color=color, linestyle="dashed")
    axes.set_xlabel("latency of one frame (ms); dashed: 99th percentile; the slowest 0.5 % are not shown")
    axes.set_ylabel("frames")
    axes.spines[["top", "right"]].set_visible(False)
    axes.set_yscale("log")  # rare slow frames are what matters to a control loop
    axes.set_ylim(bottom=0.7)
    axes.yaxis.set_major_formatter("{x:.0f}")  # frames are counted: 20, not 2 × 10¹
    axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axes.yaxis.set_minor_locator(NullLocator())
    figure.legend(loc="outside lower center", frameon=False)
    figure.suptitle(f"'{latencies[0].target}' on {latencies[0].device}", parse_math=False)
    file = io.BytesIO()
    figure.savefig(file, format="png", dpi=120)
    return file.getvalue()
