"""What Prometheus gets, read with its own parser; nothing listens."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from edge_resnet import Classifier, demo
from edge_resnet.bundle import open_bundle
from edge_resnet.camera import open_camera
from edge_resnet.drift import DriftMonitor
from edge_resnet.engines.ort import OrtEngine
from edge_resnet.errors import EngineError, ImageError, UnavailableError
from edge_resnet.shadow import Shadow

prometheus_client = pytest.importorskip("prometheus_client", reason="the extra 'monitor' is not installed")

from prometheus_client import CollectorRegistry, generate_latest  # noqa: E402
from prometheus_client.parser import text_string_to_metric_families  # noqa: E402

from edge_resnet.prometheus import Sources, export  # noqa: E402


def samples(registry: CollectorRegistry) -> dict[tuple[str, tuple[str, ...]], float]:
    """Name and labels, these by their names' order, to value."""
    families = text_string_to_metric_families(generate_latest(registry).decode())
    found = [sample for family in families for sample in family.samples]
    return {(each.name, tuple(value for _, value in sorted(each.labels.items()))): each.value for each in found}


@pytest.fixture(scope="module")
def frames() -> np.ndarray:
    paths = [path for folder in sorted(demo.TEST.iterdir()) for path in sorted(folder.iterdir())[:10]]
    return np.stack([np.asarray(Image.open(path))[..., None] for path in paths])


@pytest.fixture
def classify(quick_bundle: Path) -> Iterator[Classifier]:
    with Classifier(quick_bundle, target="cpu") as opened:
        yield opened


def test_every_figure_arrives(
    classify: Classifier, quick_bundle: Path, frames: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    bundle, registry = open_bundle(quick_bundle), CollectorRegistry()
    drift = DriftMonitor(bundle, window=64)
    with Shadow(bundle, every=10, queue=50) as shadow, open_camera(list(frames), color="gray") as camera:
        classify.watch(drift, shadow)
        with classify.stream(camera, latest=False) as stream:
            export(registry, Sources(classify, drift, shadow, stream, camera))
            before = samples(registry)
            assert ("edge_resnet_shadow_agreement", ()) not in before
            assert ("edge_resnet_drift_psi", ("brightness",)) not in before
            assert before["edge_resnet_drift_usual", ("brightness",)] == pytest.approx(72, abs=10)
            list(stream)
        assert shadow.drain(20)
        with pytest.raises(ImageError):
            classify(frames.astype(float)[0])  # type: ignore[call-overload]
        nothing = np.full((1, 10), np.nan, np.float32)
        monkeypatch.setattr(OrtEngine, "_run", lambda self, *given: nothing)
        with pytest.raises(EngineError):
            classify(frames[0])
        after, stats = samples(registry), shadow.stats
    page = (Path(__file__).resolve().parents[2] / "docs" / "runtime.md").read_text(encoding="utf-8")
    assert {name for name, _ in after} == set(re.findall(r"`(edge_resnet_\w+)`", page))
    assert after["edge_resnet_engine_info", (classify.device, "cpu", "cpu: asked for")] == 1
    for result, count in (("answered", 100), ("refused", 1), ("failed", 0), ("not_finite", 1)):
        assert after["edge_resnet_frames_total", (result,)] == count
    assert after["edge_resnet_drift_watched_frames_total", ()] == 100
    for name, reading in drift.stats.readings.items():
        assert after["edge_resnet_drift_psi", (name,)] == reading.psi
        assert after["edge_resnet_drift_mean", (name,)] == reading.mean
        assert after["edge_resnet_drifted", (name,)] == reading.drifted
    assert after["edge_resnet_shadow_frames_total", ("compared",)] == 10
    assert after["edge_resnet_shadow_agreement", ()] == stats.agreement
    assert stats.interval is not None
    assert after["edge_resnet_shadow_agreement_low", ()] == stats.interval[0]
    assert after["edge_resnet_shadow_agreement_high", ()] == stats.interval[1]
    assert after["edge_resnet_shadow_sqnr_db", ()] == stats.sqnr_db
    assert after["edge_resnet_stream_frames_total", ("answered",)] == 100
    assert after["edge_resnet_camera_frames_total", ("delivered",)] == 100
    assert after["edge_resnet_camera_losses_total", ("reconnected",)] == 0


def test_a_registry_gives_them_back(classify: Classifier) -> None:
    registry = CollectorRegistry()
    collector = export(registry, Sources(classify))
    assert {name for name, _ in samples(registry)} == {"edge_resnet_engine_info", "edge_resnet_frames_total"}
    registry.unregister(collector)
    assert samples(registry) == {}


def test_a_file_for_the_textfile_collector(classify: Classifier, tmp_path: Path) -> None:
    registry = CollectorRegistry()
    export(registry, Sources(classify))
    prometheus_client.write_to_textfile(str(tmp_path / "edge.prom"), registry)
    assert 'edge_resnet_frames_total{result="answered"} 0.0' in (tmp_path / "edge.prom").read_text()


def test_without_the_package_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "edge_resnet.prometheus")
    monkeypatch.setitem(sys.modules, "prometheus_client", None)
    with pytest.raises(
        UnavailableError, match=r"prometheus_client is not installed: pip install 'edge-resnet\[monitor\]'"
    ):
        import edge_resnet.prometheus  # noqa: F401
