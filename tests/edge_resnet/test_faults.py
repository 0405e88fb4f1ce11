"""Faults while it runs: what the loop does, what the counters say, and that the next call is right (docs/runtime.md)."""

from __future__ import annotations

import ast
import asyncio
import itertools
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from cuda_double import CudaDouble
from PIL import Image
from trt_double import installed

import edge_resnet
from edge_resnet import Classifier, Embedder, demo
from edge_resnet.bundle import FP32_MEMBER, open_bundle, write_bundle
from edge_resnet.camera import Camera, Retry, Shot, Source, open_camera
from edge_resnet.companion import companion_path, write_companion
from edge_resnet.engines.engine import CompiledEngine
from edge_resnet.engines.ort import OrtEngine
from edge_resnet.errors import CameraUnavailableError, EngineError, ImageError
from edge_resnet.frames import FrameColor
from edge_resnet.runtime import RuntimeStats
from edge_resnet.stream import StreamStats

QUICK = Retry(connect_s=1, stall_s=0.2, first_wait_s=0.01, longest_wait_s=0.02)
TARGET = "jetson-orin-nano"


@pytest.fixture(scope="module")
def frames() -> list[np.ndarray]:
    return [np.asarray(Image.open(sorted(folder.iterdir())[0])) for folder in sorted(demo.TEST.iterdir())]


@pytest.fixture(scope="module")
def wanted(quick_bundle: Path, frames: list[np.ndarray]) -> list[int]:
    with Classifier(quick_bundle, target="cpu") as classify:
        return [each.index for each in classify(list(frames))]


def on_gpu(quick_bundle: Path, folder: Path) -> Path:
    """A bundle with an engine that the doubles run."""
    path = Path(shutil.copy(quick_bundle, folder / "model.edge"))
    opened = open_bundle(path)
    compiled = CompiledEngine("tensorrt", opened.read(FP32_MEMBER), (), {})
    write_companion(companion_path(path, TARGET), TARGET, opened.digest, compiled, None)
    return path


# The engine fails.


def refused(*given: object) -> None:
    raise EngineError("CUDA's cuGraphLaunch failed: CUDA_ERROR_LAUNCH_FAILED (unspecified launch failure)")


def test_an_engine_that_fails_ends_the_stream_and_another_one_goes_on(
    quick_bundle: Path, frames: list[np.ndarray], wanted: list[int], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cuda = installed(CudaDouble(sm=87, integrated=False), monkeypatch)
    with Classifier(on_gpu(quick_bundle, tmp_path)) as classify, open_camera(frames, color="gray") as camera:
        with classify.stream(camera, latest=False) as stream:
            found = [next(stream).index for _ in range(3)]
            with monkeypatch.context() as broken:
                broken.setattr(CudaDouble, "launch", refused)
                with pytest.raises(EngineError, match="^CUDA's cuGraphLaunch failed: CUDA_ERROR_LAUNCH_FAILED"):
                    next(stream)
            assert list(stream) == []
        lost = stream.stats
        assert (lost.answered, lost.failed) == (3, 1)
        stream._thread.join(10)
        lost = stream.stats
        assert lost.taken == lost.answered + lost.dropped + lost.failed
        with classify.stream(camera, latest=False) as stream:
            found += [each.index for each in stream]
        assert found == wanted[:3] + wanted[lost.taken :]
        assert classify.stats == RuntimeStats(answered=len(found), failed=1)
    assert cuda.held() == {}


def test_a_list_of_which_a_run_fails_gives_nothing_and_the_next_call_is_right(
    quick_bundle: Path, frames: list[np.ndarray], wanted: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    with Classifier(quick_bundle, target="cpu") as classify:
        with monkeypatch.context() as broken:
            broken.setattr(OrtEngine, "_run", lambda *given: 1 / 0)
            with pytest.raises(ZeroDivisionError):
                classify(list(frames))
        assert [each.index for each in classify(list(frames))] == wanted
        assert classify.stats == RuntimeStats(answered=10, failed=10)


# CUDA has no memory left.


class Pitched:
    """A frame on the double's GPU whose rows have gaps, which needs a buffer of its own at its first run."""

    def __init__(self, cuda: CudaDouble, frame: np.ndarray) -> None:
        height, width = frame.shape
        with cuda.current():
            start = cuda.allocate(height * 64)
        cuda.device_memory[start].reshape(height, 64)[:, :width] = frame
        self.__cuda_array_interface__ = {
            "shape": (height, width, 1),
            "typestr": "|u1",
            "data": (start, False),
            "strides": (64, 1, 1),
            "version": 3,
        }


def test_memory_that_runs_out_in_the_middle_is_one_error_and_no_loss(
    quick_bundle: Path, frames: list[np.ndarray], wanted: list[int], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cuda = installed(CudaDouble(sm=87, integrated=False), monkeypatch)
    with Classifier(on_gpu(quick_bundle, tmp_path)) as classify:
        frame = Pitched(cuda, frames[0])
        assert classify(frames[1]).index == wanted[1]
        held, cuda._free = cuda.held(), 100
        for _ in range(3):
            with pytest.raises(EngineError, match="CUDA_ERROR_OUT_OF_MEMORY") as caught:
                classify(frame)
            assert caught.value.exit_code == 2
            with pytest.raises(EngineError, match="CUDA_ERROR_OUT_OF_MEMORY"):
                classify.engine.worker()
        assert cuda.held() == held
        assert classify(frames[1]).index == wanted[1]
        cuda._free = 1 << 20
        assert classify(frame).index == wanted[0]
        assert classify.stats == RuntimeStats(answered=3, failed=3)
    assert cuda.held() == {"device memory": 1}  # the camera's own


# NaN.


def spoilt(at: int) -> Callable[..., np.ndarray]:
    """The engine, with one logit of its nth run no number."""
    run, runs = OrtEngine._run, itertools.count()

    def answer(self: OrtEngine, frames: np.ndarray, out: np.ndarray | None) -> np.ndarray:
        answers = run(self, frames, out).copy()
        if next(runs) == at:
            answers[-1, 3] = (np.inf, np.nan, -np.inf)[at % 3]
        return answers

    return answer


@pytest.mark.parametrize("at", [2, 3, 4])
def test_no_prediction_is_made_of_nan(
    at: int, quick_bundle: Path, frames: list[np.ndarray], wanted: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    said = "^the engine for cpu gave NaN or infinity for frame {} of {}: open it again with verify='golden'; if that"
    with Classifier(quick_bundle, target="cpu") as classify:
        monkeypatch.setattr(OrtEngine, "_run", spoilt(at))
        with classify.stream(frames, latest=False) as stream:
            assert [next(stream).index for _ in range(at)] == wanted[:at]
            with pytest.raises(EngineError, match=said.format(0, 1)):
                next(stream)
            assert list(stream) == []
        assert stream.stats.failed == 1
        monkeypatch.undo()
        monkeypatch.setattr(OrtEngine, "_run", spoilt(0))
        with pytest.raises(EngineError, match=said.format(9, 10)):
            classify(list(frames))
        monkeypatch.undo()
        monkeypatch.setattr(OrtEngine, "_run", spoilt(0))
        with pytest.raises(EngineError, match=said.format(0, 1)):
            asyncio.run(classify.aclassify(frames[0]))
        assert classify(frames[0]).index == wanted[0]
        assert classify.stats == RuntimeStats(answered=at + 1, not_finite=12)


def test_no_features_are_made_of_nan(
    quick_bundle: Path, frames: list[np.ndarray], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened = open_bundle(quick_bundle)
    features = replace(opened.manifest, labels=None)
    write_bundle(tmp_path / "f.edge", features, {name: opened.read(name) for name in opened.names})
    with Embedder(tmp_path / "f.edge", target="cpu") as embed:
        monkeypatch.setattr(OrtEngine, "_run", spoilt(0))
        with pytest.raises(EngineError, match="gave NaN or infinity for frame 0 of 1"):
            embed(frames[0])


# A frame is no good.


def test_a_frame_that_cannot_be_prepared_ends_the_stream_and_is_counted(
    quick_bundle: Path, frames: list[np.ndarray]
) -> None:
    with Classifier(quick_bundle, target="cpu") as classify:
        with classify.stream([frames[0], frames[1].astype(float)], latest=False) as stream:
            assert next(stream).index >= 0
            with pytest.raises(ImageError, match="dtype float64"):
                next(stream)
        assert stream.stats == StreamStats(taken=2, answered=1, dropped=0, failed=1)
        assert classify.stats == RuntimeStats(answered=1, refused=1)


def test_what_a_closed_stream_had_is_dropped(quick_bundle: Path, frames: list[np.ndarray]) -> None:
    with Classifier(quick_bundle, target="cpu") as classify:
        with classify.stream(frames, latest=False) as stream:
            next(stream)
        stream._thread.join(10)
        stats = stream.stats
    assert (stats.answered, stats.failed) == (1, 0)
    assert stats.taken == 1 + stats.dropped


# The camera is lost.


class Lossy(Source):
    """A live camera that is lost after every three frames, and gone for good after so many connections."""

    live = True

    def __init__(self, frames: list[np.ndarray], connections: int) -> None:
        self.name, self.color = "lossy", FrameColor.GRAY
        self._frames, self._left = itertools.cycle(frames), connections

    @classmethod
    def parse(cls, address: str, color: FrameColor) -> Source:
        raise NotImplementedError

    @contextmanager
    def connect(self) -> Iterator[Iterator[Shot]]:
        yield self._shots()

    def _shots(self) -> Iterator[Shot]:
        self._left -= 1
        if self._left >= 0:
            yield from (Shot(frame[:, :, np.newaxis]) for frame in itertools.islice(self._frames, 3))
        raise CameraUnavailableError("the cable is out")


def test_a_camera_that_is_lost_comes_back_and_one_that_is_gone_ends_the_stream(
    quick_bundle: Path, frames: list[np.ndarray], wanted: list[int]
) -> None:
    with (
        Classifier(quick_bundle, target="cpu") as classify,
        Camera(Lossy(frames, 3), latest=False, retry=replace(QUICK, attempts=2)) as camera,
    ):
        found = []
        with (
            classify.stream(camera, latest=False) as stream,
            pytest.raises(CameraUnavailableError, match="the cable is out; gave up after 2 attempts") as caught,
        ):
            found.extend(each.index for each in stream)
        assert found == wanted[:9]
        assert caught.value.exit_code == 4
        assert (camera.stats.reconnects, camera.stats.delivered, camera.stats.connected) == (3, 9, False)
        assert camera.stats.last_error == "the cable is out"
        assert stream.stats == StreamStats(taken=9, answered=9, dropped=0)
        assert classify(frames[0]).index == wanted[0]
        assert classify.stats == RuntimeStats(answered=10)


# The clock jumps.


def test_a_clock_that_jumps_changes_nothing(
    quick_bundle: Path, frames: list[np.ndarray], wanted: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each look at the wall clock sees it a day before or after the last one; ages and stalls must not."""
    days = itertools.cycle([-86_400.0, 86_400.0, 0.0])
    real, looked = time.time, []

    def jumping() -> float:
        looked.append(1)
        return real() + next(days)

    monkeypatch.setattr(time, "time", jumping)
    with (
        Classifier(quick_bundle, target="cpu") as classify,
        Camera(Lossy(frames, 3), latest=False, retry=replace(QUICK, attempts=2)) as camera,
        classify.stream(camera, latest=False) as stream,
    ):
        found = list(itertools.islice(stream, 9))
        assert camera.stats.stalled == 0
    assert [each.index for each in found] == wanted[:9]
    assert all(each.timing and 0 < (each.timing.age_ms or 0) < 60_000 for each in found)
    time.time()
    assert looked, "the clock of this test is not the program's"


def test_nothing_looks_at_the_wall_clock() -> None:
    """``time.time`` and dates follow whoever sets the clock; what runs here uses ``monotonic`` and ``perf_counter``.

    The stage cache of builds alone asks how long files have lain there, and files' times are that clock's.
    """
    package = Path(edge_resnet.__file__).parent
    files = {*package.rglob("*.py"), *(package / "engines").resolve().rglob("*.py")} - {package / "stage_cache.py"}
    for file in files:
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            name = f"{ast.unparse(node.value)}.{node.attr}" if isinstance(node, ast.Attribute) else ""
            assert name not in ("time.time", "time.time_ns", "datetime.now", "datetime.datetime.now"), file
            if isinstance(node, ast.ImportFrom) and node.module in ("time", "datetime"):
                assert {alias.name for alias in node.names} <= {"perf_counter", "monotonic", "sleep"}, file
