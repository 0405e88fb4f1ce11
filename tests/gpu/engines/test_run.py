"""Engines run on a GPU, against ONNX Runtime running the same graph without any optimisation."""

from __future__ import annotations

import dataclasses
import gc
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from small_network import expected, frames, quantised_network

from edge_resnet.engines import cuda
from edge_resnet.engines._tensorrt import TensorRtFamily
from edge_resnet.engines._tensorrt_build import MAX_BATCH
from edge_resnet.engines.engine import Engine
from edge_resnet.engines.targets import Target, target_named
from edge_resnet.engines.trt import TensorRtEngine
from edge_resnet.engines.trt_rtx import TensorRtRtxEngine
from edge_resnet.errors import EngineError

SM = cuda.gpu_sm()

pytestmark = pytest.mark.skipif(SM is None, reason="needs an NVIDIA GPU")


def this_host(kind: str) -> Target:
    """A target of the kind that is exactly the GPU here."""
    name = {"tensorrt": "jetson-agx-orin", "tensorrt-rtx": "rtx"}[kind]
    return dataclasses.replace(target_named(name), name="this-host", sms=(SM or 0,))


@pytest.fixture(params=[TensorRtEngine, TensorRtRtxEngine], ids=["tensorrt", "tensorrt-rtx"])
def engine_class(request: pytest.FixtureRequest) -> type[TensorRtFamily]:
    engine: type[TensorRtFamily] = request.param
    target = this_host(engine.kind)
    reason = engine.why_not_compile(target) or engine.why_not_run(target)
    if reason is not None:
        pytest.skip(reason)
    return engine


@pytest.fixture
def engine(engine_class: type[TensorRtFamily]) -> Engine:
    return engine_class(engine_class.compile(quantised_network(), this_host(engine_class.kind)).data)


@pytest.mark.parametrize("batch", [1, 3, MAX_BATCH])
def test_logits_are_those_of_the_graph(engine: Engine, batch: int) -> None:
    with engine:
        logits = engine.run(frames(batch, seed=batch))
    assert logits.dtype == np.float32
    # TensorRT may multiply what is left in FP32 as TF32, which has 10 bits of mantissa.
    np.testing.assert_allclose(logits, expected(frames(batch, seed=batch)), rtol=2e-3, atol=5e-3)


def test_a_later_batch_neither_changes_an_earlier_answer_nor_sees_its_frames(engine: Engine) -> None:
    with engine:
        first = engine.run(frames(MAX_BATCH, seed=1))
        kept = first.copy()
        second = engine.run(frames(2, seed=2))
    np.testing.assert_array_equal(first, kept)
    np.testing.assert_allclose(second, expected(frames(2, seed=2)), rtol=2e-3, atol=5e-3)


def test_what_it_takes_is_read_off_the_engine(engine: Engine) -> None:
    with engine:
        assert dataclasses.astuple(engine.input) == (16, 16, 3, MAX_BATCH, 1)
        assert engine.output == (5,)
        with pytest.raises(EngineError, match=f"a batch of {MAX_BATCH + 1} frames"):
            engine.run(frames(MAX_BATCH + 1, seed=0))


def test_bytes_that_are_no_engine_are_refused_in_one_line(engine_class: type[TensorRtFamily]) -> None:
    with pytest.raises(EngineError, match="cannot load the engine: ") as caught:
        engine_class(b"not an engine")
    assert "\n" not in str(caught.value)


def test_closing_frees_and_may_be_done_twice(engine: Engine) -> None:
    engine.close()
    engine.close()
    with pytest.raises(EngineError, match="closed"):
        engine.run(frames(1, seed=0))


class OnGpu:
    """A batch on the GPU, as numba and CuPy describe theirs; its rows start ``pitch`` bytes apart."""

    def __init__(self, images: np.ndarray, pitch: int) -> None:
        count, height, width, channels = images.shape
        api, rows = cuda.cuda_api(), count * height
        host = cuda.HostBuffer(api, (rows, pitch), np.uint8)
        host.array[:, : width * channels] = images.reshape(rows, -1)
        self.memory, stream = cuda.DeviceBuffer(api, rows * pitch), cuda.Stream(api)
        with api.current():
            api.upload(self.memory.address, host.address, rows * pitch, stream.handle)
            stream.synchronize()
        stream.close()
        host.close()
        self.__cuda_array_interface__ = {
            "shape": images.shape,
            "typestr": "|u1",
            "data": (self.memory.address, False),
            "strides": None if pitch == width * channels else (height * pitch, pitch, channels, 1),
            "version": 3,
        }


@pytest.mark.parametrize("pitch", [48, 64])
def test_frames_on_the_gpu_are_answered_as_those_of_the_host(engine: TensorRtFamily, pitch: int) -> None:
    with engine:
        for seed in range(4):
            array = OnGpu(frames(2, seed), pitch)
            np.testing.assert_array_equal(engine.run_device(array), engine.run(frames(2, seed)))
            array.memory.close()


def test_runs_with_a_graph_answer_as_the_one_without(engine: Engine) -> None:
    with engine:
        for batch in (1, MAX_BATCH, 1):
            answers = [engine.run(frames(batch, seed=0)) for _ in range(4)]
            for answer in answers[1:]:
                np.testing.assert_array_equal(answer, answers[0])


def test_workers_of_several_threads_do_not_disturb_each_other(engine: Engine) -> None:
    with engine:
        workers = [engine.worker() for _ in range(4)]
        alone = [engine.run(frames(2, seed)) for seed in range(4)]

        def run(index: int) -> list[np.ndarray]:
            return [workers[index].run(frames(2, index)) for _ in range(200)]

        with ThreadPoolExecutor(4) as pool:
            for index, answers in enumerate(pool.map(run, range(4))):
                for answer in answers:
                    np.testing.assert_array_equal(answer, alone[index])
        for worker in workers:
            worker.close()


def test_ten_thousand_runs_hold_no_more_memory_than_a_hundred(engine: Engine) -> None:
    api = cuda.cuda_api()

    def free() -> int:
        gc.collect()
        with api.current():
            return api.free_bytes()

    with engine:
        for index in range(100):
            engine.run(frames(1 + index % 2, seed=0))
        before = free()
        for index in range(10_000):
            engine.run(frames(1 + index // 100 % 2, seed=0))
        assert before - free() < 16 << 20


def test_opening_and_closing_a_hundred_times_gives_all_memory_back(engine_class: type[TensorRtFamily]) -> None:
    data = engine_class.compile(quantised_network(), this_host(engine_class.kind)).data
    api = cuda.cuda_api()
    free = []
    for _ in range(100):
        with engine_class(data) as engine:
            engine.run(frames(1, 0))
        with api.current():
            free.append(api.free_bytes())
    assert free[9] - free[-1] < 16 << 20
