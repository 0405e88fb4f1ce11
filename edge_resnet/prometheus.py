"""Counters of a runtime and its watchers for Prometheus, in a registry that the caller has made.

Nothing listens anywhere: serve the registry with what your program has, or write it to a file for node_exporter's textfile
collector (``prometheus_client.write_to_textfile``). Figures are read when they are asked for. Needs the extra ``monitor``.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass

from edge_resnet.camera import Camera
from edge_resnet.drift import DriftMonitor
from edge_resnet.errors import UnavailableError
from edge_resnet.runtime import Runtime
from edge_resnet.shadow import Shadow
from edge_resnet.stream import Stream

try:
    from prometheus_client import CollectorRegistry
    from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, InfoMetricFamily
    from prometheus_client.metrics_core import Metric
    from prometheus_client.registry import Collector
except ModuleNotFoundError as missing:
    raise UnavailableError("prometheus_client is not installed: pip install 'edge-resnet[monitor]'") from missing


@dataclass(frozen=True)
class Sources:
    """What is exported; what is None is left out."""

    runtime: Runtime
    drift: DriftMonitor | None = None
    shadow: Shadow | None = None
    stream: Stream[object] | None = None
    camera: Camera | None = None


def export(registry: CollectorRegistry, sources: Sources) -> RuntimeCollector:
    """Adds the figures to a registry; ``registry.unregister`` what is returned to take them out again."""
    collector = RuntimeCollector(sources)
    registry.register(collector)
    return collector


class RuntimeCollector(Collector):
    """Reads the figures when Prometheus asks."""

    def __init__(self, sources: Sources) -> None:
        self._sources = sources

    def collect(self) -> Iterator[Metric]:
        found = self._sources
        yield from _runtime(found.runtime)
        if found.drift is not None:
            yield from _drift(found.drift)
        if found.shadow is not None:
            yield from _shadow(found.shadow)
        if found.stream is not None:
            yield from _stream(found.stream)
        if found.camera is not None:
            yield from _camera(found.camera)


def _counted(name: str, text: str, label: str, counts: dict[str, int]) -> Metric:
    family = CounterMetricFamily(f"edge_resnet_{name}", text, labels=[label])
    for value, count in counts.items():
        family.add_metric([value], count)
    return family


def _gauge(name: str, text: str, value: float | None) -> Iterator[Metric]:
    """None gives no sample: a figure that is not known is not 0."""
    if value is not None:
        yield GaugeMetricFamily(f"edge_resnet_{name}", text, value=value)


def _runtime(runtime: Runtime) -> Iterator[Metric]:
    engine = {"target": runtime.target, "device": runtime.device, "why": runtime.why}
    yield InfoMetricFamily("edge_resnet_engine", "The engine that runs, and why it was chosen.", value=engine)
    text = "Frames that the runtime was given, by what became of them."
    yield _counted("frames", text, "result", asdict(runtime.stats))


def _drift(monitor: DriftMonitor) -> Iterator[Metric]:
    now = monitor.stats
    text = "Frames that the drift monitor looked at."
    frames = CounterMetricFamily("edge_resnet_drift_watched_frames", text, value=now.watched)
    alarms = CounterMetricFamily("edge_resnet_drift_alarms", "How often a number drifted.", value=now.alarms)
    index = GaugeMetricFamily("edge_resnet_drift_psi", "Population stability index.", labels=["number"])
    mean = GaugeMetricFamily("edge_resnet_drift_mean", "Mean over the window.", labels=["number"])
    usual = GaugeMetricFamily("edge_resnet_drift_usual", "Mean over the images of the build.", labels=["number"])
    drifted = GaugeMetricFamily("edge_resnet_drifted", "1 where the number has drifted.", labels=["number"])
    for name, reading in now.readings.items():
        usual.add_metric([name], reading.usual)
        drifted.add_metric([name], reading.drifted)
        if reading.mean is not None:
            mean.add_metric([name], reading.mean)
        if reading.psi is not None:
            index.add_metric([name], reading.psi)
    yield from (frames, alarms, index, mean, usual, drifted)


def _shadow(shadow: Shadow) -> Iterator[Metric]:
    now = shadow.stats
    counts = {"compared": now.compared, "skipped": now.skipped, "failed": now.failed}
    yield _counted("shadow_frames", "Frames that were taken for FP32, by what became of them.", "result", counts)
    yield from _gauge(
        "shadow_agreement", "Share of the last frames on which the engine agrees with FP32.", now.agreement
    )
    low, high = now.interval or (None, None)
    yield from _gauge("shadow_agreement_low", "Lower end of its 95 % interval.", low)
    yield from _gauge("shadow_agreement_high", "Upper end of its 95 % interval.", high)
    yield from _gauge("shadow_sqnr_db", "Signal to noise ratio of the last frames' logits against FP32.", now.sqnr_db)
    yield from _gauge("shadow_diverging", "1 where the engine no longer answers as FP32.", now.diverging)


def _stream(stream: Stream[object]) -> Iterator[Metric]:
    now = stream.stats
    counts = {"answered": now.answered, "dropped": now.dropped, "failed": now.failed}
    yield _counted("stream_frames", "Frames of the stream, by what became of them.", "result", counts)


def _camera(camera: Camera) -> Iterator[Metric]:
    now = camera.stats
    counts = {"delivered": now.delivered, "dropped": now.dropped}
    yield _counted("camera_frames", "Frames of the camera, by what became of them.", "result", counts)
    losses = {"stalled": now.stalled, "reconnected": now.reconnects}
    yield _counted("camera_losses", "How often the camera fell silent, and was connected again.", "event", losses)
    yield from _gauge("camera_connected", "1 while the camera is connected.", now.connected)
