"""What page-locked memory and graphs gain on this GPU: figures for the record; what is asserted is that data arrives."""

from __future__ import annotations

import time
from collections.abc import Callable

import numpy as np
import pytest

from edge_resnet.engines.cuda import CudaApi, Graph, StagedTensor, Stream, cuda_api, gpu_sm

pytestmark = pytest.mark.skipif(gpu_sm() is None, reason="needs an NVIDIA GPU")

Record = Callable[[str, float, str], None]
SIZES = {"a frame of 224×224×3": 224 * 224 * 3, "a frame of 1080×1920×3": 1080 * 1920 * 3}


@pytest.fixture
def api() -> CudaApi:
    return cuda_api("cuda-bindings")


def medians(ways: dict[str, Callable[[], None]], rounds: int = 300) -> dict[str, float]:
    """Median microseconds of each way, in turns."""
    times: dict[str, list[int]] = {name: [] for name in ways}
    for _ in range(rounds):
        for name, way in ways.items():
            start = time.perf_counter_ns()
            way()
            times[name].append(time.perf_counter_ns() - start)
    return {name: float(np.median(found)) / 1e3 for name, found in times.items()}


@pytest.mark.parametrize("what", SIZES)
def test_page_locked_against_pageable(api: CudaApi, record: Record, what: str) -> None:
    from cuda.bindings import driver

    size, stream = SIZES[what], Stream(api)
    tensor, pageable = StagedTensor(api, (1, size), np.uint8), np.full(size, 3, np.uint8)

    def pinned_up() -> None:
        tensor.upload(1, stream)
        stream.synchronize()

    def pinned_down() -> None:
        tensor.download(1, stream)
        stream.synchronize()

    def staged_up() -> None:
        tensor.array[0] = pageable
        pinned_up()

    def pageable_up() -> None:
        driver.cuMemcpyHtoD(tensor.address, pageable.ctypes.data, size)

    def pageable_down() -> None:
        driver.cuMemcpyDtoH(pageable.ctypes.data, tensor.address, size)

    ways = (pinned_up, staged_up, pageable_up, pinned_down, pageable_down)
    with api.current():
        for name, us in medians({way.__name__: way for way in ways}).items():
            record(f"{what}, {name.replace('_', ' ')}", us, "µs")
        pageable[:] = 9
        pageable_up()
        tensor.array[...] = 0
        pinned_down()
    assert set(np.unique(tensor.array)) == {9}
    tensor.close()
    stream.close()


def test_one_graph_against_calls_one_by_one(api: CudaApi, record: Record) -> None:
    """Sixty small copies stand for the kernels of a ResNet-50: what is measured is the queueing."""
    stream, first, last = Stream(api), *(StagedTensor(api, (1, 4096), np.uint8) for _ in range(2))

    def calls() -> None:
        first.upload(1, stream)
        for _ in range(60):
            api.copy_rows(last.address, first.address, 4096, 4096, 1, stream.handle)
        last.download(1, stream)

    def one_by_one() -> None:
        calls()
        stream.synchronize()

    graph = Graph(api, stream, calls)

    def as_a_graph() -> None:
        graph.launch()
        stream.synchronize()

    first.array[...] = 5
    with api.current():
        for name, us in medians({"62 calls one by one": one_by_one, "62 calls as a graph": as_a_graph}).items():
            record(name, us, "µs")
    assert set(np.unique(last.array)) == {5}
    graph.close()
    for held in (first, last, stream):
        held.close()
