"""Running TensorRT engines, on doubles of CUDA and TensorRT that punish what a GPU would; with a GPU, see tests/gpu."""

from __future__ import annotations

import gc
import json
import multiprocessing
import subprocess
import sys
import tracemalloc
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import trt_double
from cuda_double import CudaDouble, FakeStream, MisuseError, Work
from small_network import expected, frames, quantised_network
from trt_double import installed

from edge_resnet.engines.engine import COMPILED_ON, Engine
from edge_resnet.engines.targets import target_named
from edge_resnet.engines.trt import TensorRtEngine
from edge_resnet.errors import EngineError

INTERFACES = Path(__file__).parents[3] / "shared" / "data" / "tensorrt-api"
FRAME, ANSWER = 16 * 16 * 3, 5 * 4


@pytest.fixture(params=[False, True], ids=["desktop", "jetson"])
def cuda(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> CudaDouble:
    return installed(CudaDouble(integrated=request.param), monkeypatch)


@pytest.fixture
def desktop(monkeypatch: pytest.MonkeyPatch) -> CudaDouble:
    return installed(CudaDouble(), monkeypatch)


@pytest.fixture
def engine(cuda: CudaDouble) -> Iterator[TensorRtEngine]:
    with TensorRtEngine(quantised_network()) as engine:
        yield engine


@pytest.mark.parametrize("batch", [1, 3, 8])
def test_answers_are_those_of_the_graph_run_after_run(engine: TensorRtEngine, batch: int) -> None:
    for seed in range(4):  # plain, captured, launched, launched
        np.testing.assert_array_equal(engine.run(frames(batch, seed)), expected(frames(batch, seed)))


def test_the_double_finds_what_would_go_wrong(desktop: CudaDouble) -> None:
    """What the other tests rest on: each of these is refused."""
    with desktop.current():
        host, device = desktop.allocate_host(64, mapped=False), desktop.allocate(64)
        stream = desktop.create_stream()
        desktop.upload(device, host, 64, stream)
        with pytest.raises(MisuseError, match="freed while queued work needs it: upload 64"):
            desktop.release(device)
        with pytest.raises(MisuseError, match="no 64 bytes"):
            desktop.upload(device + 1, host, 64, stream)
        with pytest.raises(MisuseError, match="not page-locked"):
            desktop.upload(device, np.zeros(8, np.uint8).ctypes.data, 8, stream)
        desktop.pinned(host, 64)[:] = 1
        with pytest.raises(MisuseError, match="changed while a copy"):
            desktop.synchronize(stream)
        desktop.release(device)
        with pytest.raises(MisuseError, match="the GPU has no"):
            desktop.download(host, device, 64, stream)
    with pytest.raises(MisuseError, match="no context"):
        desktop.allocate(1)


def test_without_synchronizing_the_host_sees_nothing(desktop: CudaDouble, monkeypatch: pytest.MonkeyPatch) -> None:
    engine = TensorRtEngine(quantised_network())
    monkeypatch.setattr(CudaDouble, "synchronize", lambda self, stream: None)
    assert not np.array_equal(engine.run(frames(1, 0)), expected(frames(1, 0)))
    monkeypatch.undo()
    installed(desktop, monkeypatch)
    engine.close()


def test_a_run_is_one_upload_one_execution_and_one_download_of_this_batch(desktop: CudaDouble) -> None:
    with TensorRtEngine(quantised_network()) as engine:
        engine.run(frames(3, 0))
        work = [f"upload {3 * FRAME}", "execute", f"download {3 * ANSWER}"]
        assert desktop.log == [*work, "synchronize"]
        desktop.log.clear()
        engine.run(frames(3, 1))
        assert desktop.log == [f"capture of {', '.join(work)}", "launch", *work, "synchronize"]
        desktop.log.clear()
        engine.run(frames(3, 2))
        assert desktop.log == ["launch", *work, "synchronize"]


def test_on_a_jetson_nothing_is_copied(monkeypatch: pytest.MonkeyPatch) -> None:
    jetson = installed(CudaDouble(integrated=True), monkeypatch)
    with TensorRtEngine(quantised_network()) as engine:
        engine.run(frames(1, 0))
    assert jetson.log[:2] == ["execute", "synchronize"]
    assert jetson.held() == {}


def test_another_batch_drops_the_graph_and_runs_plainly_first(engine: TensorRtEngine, cuda: CudaDouble) -> None:
    for batch, seed in ((2, 0), (2, 1), (5, 2), (2, 3), (2, 4)):
        np.testing.assert_array_equal(engine.run(frames(batch, seed)), expected(frames(batch, seed)))
    captures = [entry for entry in cuda.log if entry.startswith("capture")]
    assert len(captures) == 2
    assert len(cuda.graphs) == 1


def test_a_library_that_cannot_be_captured_now_runs_plainly(
    engine: TensorRtEngine, cuda: CudaDouble, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(engine._worker, "_capturable", lambda context, stream: False)
    for seed in range(3):
        np.testing.assert_array_equal(engine.run(frames(1, seed)), expected(frames(1, seed)))
    assert not cuda.graphs


def test_a_capture_that_fails_is_told_once_and_never_tried_again(
    desktop: CudaDouble, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def end_capture(self: CudaDouble, stream: FakeStream) -> object:
        stream.captured = None  # CUDA ends the capture, and says that it was no good
        raise EngineError("CUDA's cuStreamEndCapture failed: CUDA_ERROR_STREAM_CAPTURE_INVALIDATED (…)")

    monkeypatch.setattr(CudaDouble, "end_capture", end_capture)
    with TensorRtEngine(quantised_network()) as engine:
        for seed in range(4):
            np.testing.assert_array_equal(engine.run(frames(1, seed)), expected(frames(1, seed)))
    assert [record.message for record in caplog.records] == [
        "TensorRT runs without CUDA graphs, which is slower: CUDA's cuStreamEndCapture failed: "
        "CUDA_ERROR_STREAM_CAPTURE_INVALIDATED (…)"
    ]


def test_a_run_that_fails_says_why_and_the_next_one_is_right(engine: TensorRtEngine) -> None:
    engine._worker._context.fails = True
    with pytest.raises(EngineError, match="^TensorRT cannot run a batch of 1: .*Error Code 3: not ready$"):
        engine.run(frames(1, 0))
    engine._worker._context.fails = False
    np.testing.assert_array_equal(engine.run(frames(1, 1)), expected(frames(1, 1)))


def test_frames_of_any_strides_are_taken(engine: TensorRtEngine) -> None:
    wide = np.random.default_rng(0).integers(0, 256, (2, 16, 32, 3), dtype=np.uint8)
    np.testing.assert_array_equal(engine.run(wide[:, :, ::2]), expected(np.ascontiguousarray(wide[:, :, ::2])))


def test_frames_written_into_staging_are_not_copied_again(engine: TensorRtEngine) -> None:
    staged = engine.staging(2)
    staged[...] = frames(2, 0)
    np.testing.assert_array_equal(engine.run(staged), expected(frames(2, 0)))
    assert engine.staging(2) is staged
    assert staged.ctypes.data == engine.staging(1).ctypes.data


def test_out_is_filled_and_given_back(engine: TensorRtEngine) -> None:
    out = np.zeros((2, 5), np.float32)
    assert engine.run(frames(2, 0), out) is out
    np.testing.assert_array_equal(out, expected(frames(2, 0)))
    with pytest.raises(EngineError, match=r"out is float32 \(1, 5\): the engine answers float32 \(2, 5\) for 2 frames"):
        engine.run(frames(2, 0), np.zeros((1, 5), np.float32))
    with pytest.raises(EngineError, match=r"out is float64"):
        engine.run(frames(2, 0), np.zeros((2, 5)))


def test_a_later_run_does_not_change_an_earlier_answer(engine: TensorRtEngine) -> None:
    first = engine.run(frames(1, 0))
    engine.run(frames(1, 1))
    np.testing.assert_array_equal(first, expected(frames(1, 0)))


def test_closing_frees_everything_in_an_order_that_harms_nothing(cuda: CudaDouble) -> None:
    engine = TensorRtEngine(quantised_network())
    for batch in (1, 1, 2, 2):
        engine.run(frames(batch, 0))
    assert cuda.held()
    engine.close()
    engine.close()
    assert cuda.held() == {}
    with pytest.raises(EngineError, match="this engine is closed"):
        engine.run(frames(1, 0))


def test_an_engine_that_is_forgotten_is_freed_and_so_is_one_that_cannot_be_opened(cuda: CudaDouble) -> None:
    engine = TensorRtEngine(quantised_network())
    engine.run(frames(1, 0))
    del engine
    gc.collect()
    assert cuda.held() == {}
    with pytest.raises(EngineError, match="^TensorRT 10.3.0 cannot load the engine: .*bad magic$"):
        TensorRtEngine(b"no engine")
    assert cuda.held() == {}


@pytest.mark.parametrize("fails_at", range(1, 5))
def test_memory_that_runs_out_while_opening_leaves_nothing_behind(
    desktop: CudaDouble, monkeypatch: pytest.MonkeyPatch, fails_at: int
) -> None:
    calls = []

    def counted(name: str) -> None:
        allocate = getattr(CudaDouble, name)

        def call(self: CudaDouble, *arguments: object, **named: object) -> object:
            calls.append(name)
            if len(calls) == fails_at:
                raise EngineError(f"CUDA's {name} failed: CUDA_ERROR_OUT_OF_MEMORY (out of memory)")
            return allocate(self, *arguments, **named)

        monkeypatch.setattr(CudaDouble, name, call)

    counted("allocate")
    counted("allocate_host")
    with pytest.raises(EngineError, match="CUDA_ERROR_OUT_OF_MEMORY"):
        TensorRtEngine(quantised_network())
    assert desktop.held() == {}


def test_workers_share_the_plan_and_nothing_else(engine: TensorRtEngine, cuda: CudaDouble) -> None:
    worker = engine.worker()
    assert worker._worker.plan is engine._worker.plan
    assert worker.input == engine.input
    with ThreadPoolExecutor(2) as pool:
        answers = list(pool.map(lambda pair: pair[0].run(frames(1, pair[1])), [(engine, 1), (worker, 2)] * 20))
    for index, answer in enumerate(answers):
        np.testing.assert_array_equal(answer, expected(frames(1, index % 2 + 1)))
    engine.close()
    np.testing.assert_array_equal(worker.run(frames(1, 3)), expected(frames(1, 3)))
    worker.close()
    assert cuda.held() == {}


def test_one_engine_may_be_run_from_many_threads(engine: TensorRtEngine) -> None:
    def run(seed: int) -> np.ndarray:
        return engine.run(frames(1 + seed % 3, seed))

    with ThreadPoolExecutor(4) as pool:
        for seed, answer in enumerate(pool.map(run, range(40))):
            np.testing.assert_array_equal(answer, expected(frames(1 + seed % 3, seed)))


def test_after_a_fork_the_child_is_told_and_frees_nothing(engine: TensorRtEngine, cuda: CudaDouble) -> None:
    held = cuda.held()
    context = multiprocessing.get_context("fork")
    pipe, theirs = context.Pipe()

    def child() -> None:
        try:
            engine.run(frames(1, 0))
            theirs.send("ran")
        except EngineError as error:
            engine.close()
            theirs.send((str(error), cuda.held()))

    process = context.Process(target=child)
    process.start()
    assert pipe.recv() == ("this engine was opened before a fork: open it in the process that runs it", held)
    process.join()
    np.testing.assert_array_equal(engine.run(frames(1, 1)), expected(frames(1, 1)))


def test_a_process_that_ends_without_closing_ends_well(tmp_path: Path) -> None:
    script = tmp_path / "end.py"
    script.write_text(
        "import sys\n"
        f"sys.path[:0] = {[str(Path(trt_double.__file__).parent)]!r}\n"
        "from cuda_double import CudaDouble\n"
        "from trt_double import tensorrt_double\n"
        "from small_network import quantised_network, frames\n"
        "import edge_resnet.engines._tensorrt as family\n"
        "from edge_resnet.engines.trt import TensorRtEngine\n"
        "import atexit\n"
        "cuda = CudaDouble()\n"
        "sys.modules['tensorrt'] = tensorrt_double(cuda)\n"
        "family.cuda_api = lambda name=None: cuda\n"
        "atexit.register(lambda: print('held', cuda.held()))\n"
        "engine = TensorRtEngine(quantised_network())\n"
        "engine.run(frames(1, 0))\n"
        "raise SystemExit('stopped by an exception')\n",
        encoding="utf-8",
    )
    ended = subprocess.run([sys.executable, str(script)], capture_output=True, text=True, check=False)
    assert (ended.stdout, ended.stderr, ended.returncode) == ("held {}\n", "stopped by an exception\n", 1)


class OnGpu:
    """An array on the double's GPU, as numba and CuPy describe theirs."""

    def __init__(
        self, cuda: CudaDouble, array: np.ndarray, *, pitch: int = 0, offset: int = 0, stream: int | None = None
    ) -> None:
        self.__dict__["kept"] = array
        count, height, width, channels = array.shape
        pitch = pitch or width * channels
        with cuda.current():
            start = cuda.allocate(offset + count * height * pitch)
        memory = cuda.device_memory[start][offset:]
        for row, pixels in enumerate(array.reshape(count * height, -1)):
            memory[row * pitch : row * pitch + width * channels] = pixels
        self.start = start
        self.__cuda_array_interface__ = {
            "shape": array.shape,
            "typestr": "|u1",
            "data": (start + offset, False),
            "strides": None if pitch == width * channels else (height * pitch, pitch, channels, 1),
            "stream": stream,
            "version": 3,
        }


def test_frames_on_the_gpu_are_read_where_they_lie(engine: TensorRtEngine, cuda: CudaDouble) -> None:
    arrays = [OnGpu(cuda, frames(2, seed)) for seed in range(3)]
    for _ in range(3):  # a camera's buffers take turns
        for seed, array in enumerate(arrays):
            np.testing.assert_array_equal(engine.run_device(array), expected(frames(2, seed)))
    assert not any(entry.startswith(("upload", "copy")) for entry in cuda.log)
    assert len(cuda.graphs) == 3
    np.testing.assert_array_equal(engine.run(frames(2, 7)), expected(frames(2, 7)))


@pytest.mark.parametrize("where", [{"pitch": 64}, {"offset": 3}], ids=["rows with gaps", "not aligned"])
def test_frames_that_tensorrt_cannot_read_are_moved_on_the_gpu(
    engine: TensorRtEngine, cuda: CudaDouble, where: dict[str, int]
) -> None:
    for seed in range(3):
        array = OnGpu(cuda, frames(2, seed), **where)
        np.testing.assert_array_equal(engine.run_device(array), expected(frames(2, seed)))
    assert [entry for entry in cuda.log if entry.startswith("copy")] == ["copy 32 rows of 48"] * 3
    assert not any(entry.startswith("upload") for entry in cuda.log)


@pytest.mark.parametrize("how", ["interface", "argument"])
def test_work_of_the_producers_stream_is_waited_for_on_the_gpu(
    engine: TensorRtEngine, cuda: CudaDouble, how: str
) -> None:
    with cuda.current():
        camera = cuda.create_stream()
        array = OnGpu(cuda, frames(1, 0), stream=camera.number if how == "interface" else None)
        late = frames(1, 5)

        def draw() -> None:
            cuda.device_memory[array.start][:] = late.reshape(-1)

        cuda.queue(camera, Work("draw", (array.start,), draw))
    answer = engine.run_device(array, stream=camera.number if how == "argument" else None)
    np.testing.assert_array_equal(answer, expected(late))
    assert cuda.log.index("draw") < cuda.log.index("execute")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"typestr": "<f4"}, r"type <f4: give uint8"),
        ({"shape": (1, 8, 8, 3)}, r"shape \(1, 8, 8, 3\): the engine takes N×16×16×3"),
        ({"shape": (9, 16, 16, 3)}, "a batch of 9 frames: the engine takes up to 8"),
        ({"shape": (16,)}, r"shape \(16,\): give uint8 N×H×W×C"),
        ({"strides": (768, 48, 6, 1)}, "only rows may have gaps"),
        ({"strides": (768, 24, 3, 1)}, "only rows may have gaps"),
        ({"mask": object()}, "have a mask"),
    ],
)
def test_arrays_on_the_gpu_that_cannot_be_read_are_refused(
    engine: TensorRtEngine, cuda: CudaDouble, change: dict[str, object], message: str
) -> None:
    array = OnGpu(cuda, frames(1, 0))
    array.__cuda_array_interface__ |= change
    with pytest.raises(EngineError, match=message):
        engine.run_device(array)
    with pytest.raises(EngineError, match="ndarray is not on the GPU|has neither"):
        engine.run_device(frames(1, 0))


def test_runs_neither_allocate_arrays_nor_grow(desktop: CudaDouble, monkeypatch: pytest.MonkeyPatch) -> None:
    """The double executes nothing here, so that what is counted is the runtime's own."""
    monkeypatch.setattr(trt_double.IExecutionContext, "execute_async_v3", lambda self, stream_handle: True)
    with TensorRtEngine(quantised_network()) as engine:
        staged, out = engine.staging(1), np.empty((1, 5), np.float32)
        monkeypatch.setattr(CudaDouble, "launch", lambda self, graph, stream: None)
        monkeypatch.setattr(CudaDouble, "synchronize", lambda self, stream: None)
        for _ in range(100):
            engine.run(staged, out)
        tracemalloc.start()
        before, _ = tracemalloc.get_traced_memory()
        tracemalloc.reset_peak()
        for _ in range(10_000):
            engine.run(staged, out)
        after, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
    assert after - before < 1024
    assert peak - before < 4096


def test_what_it_runs_on_is_told(engine: TensorRtEngine) -> None:
    assert engine.device() == "NVIDIA Double (SM 87)"
    assert TensorRtEngine.compiled_on() == {COMPILED_ON: engine.device()}
    orin = target_named("jetson-orin-nano")
    assert isinstance(engine, Engine)
    assert TensorRtEngine.kind == orin.kind


@pytest.mark.skipif(not INTERFACES.is_dir(), reason=f"TensorRT's interfaces are not here: {INTERFACES}")
@pytest.mark.parametrize("version", ["8.6.1", "10.3.0", "10.13.3", "10.16.1", "11.4.0", "rtx-1.7.1"])
def test_the_double_has_no_name_that_the_real_interface_lacks(version: str) -> None:
    interface = json.loads((INTERFACES / f"{version}.json").read_text(encoding="utf-8"))
    only_rtx = {"is_stream_capturable"} if version != "rtx-1.7.1" else set()
    for double in (trt_double.Runtime, trt_double.ICudaEngine, trt_double.IExecutionContext):
        names = {name for name in vars(double) if not name.startswith("_")} - only_rtx
        assert names <= set(interface[double.__name__]["members"])


def test_a_run_for_its_times_alone_has_the_same_parts(engine: TensorRtEngine, cuda: CudaDouble) -> None:
    phases = engine.timed(frames(2, 0))
    work = [entry for entry in cuda.log if entry not in ("event", "synchronize")]
    if cuda.gpu_is_integrated:
        assert (phases.copy_in_ms, phases.copy_out_ms, work) == (None, None, ["execute"])
    else:
        assert work == [f"upload {2 * FRAME}", "execute", f"download {2 * ANSWER}"]
        assert phases.copy_in_ms and phases.copy_out_ms
    assert phases.execute_ms > 0
    np.testing.assert_array_equal(engine.run(frames(2, 1)), expected(frames(2, 1)))
    assert "events" not in cuda.held()
