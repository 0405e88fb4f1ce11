"""What every binding of CUDA gives, by contract: on a GPU, or on the driver's double (tests/engines/cuda)."""

from __future__ import annotations

from collections.abc import Iterator
from threading import Thread

import numpy as np
import pytest

from edge_resnet.engines.cuda import (
    CudaApi,
    DeviceBuffer,
    Event,
    Graph,
    HostBuffer,
    MappedTensor,
    StagedTensor,
    Stream,
    Tensor,
    cuda_api,
)
from edge_resnet.engines.cuda.arrays import device_frames
from edge_resnet.errors import EngineError, UnavailableError

PATTERN = (np.arange(4 * 1000) % 251).astype(np.uint8).reshape(4, 1000)


@pytest.fixture(params=["cuda-bindings", "pycuda"])
def api(request: pytest.FixtureRequest) -> CudaApi:
    try:
        found = cuda_api(request.param)
        with found.current():
            pass
    except UnavailableError as error:
        pytest.skip(str(error))
    return found


@pytest.fixture
def stream(api: CudaApi) -> Iterator[Stream]:
    stream = Stream(api)
    yield stream
    stream.close()


@pytest.fixture(params=[StagedTensor, MappedTensor])
def tensors(request: pytest.FixtureRequest, api: CudaApi) -> Iterator[tuple[Tensor, Tensor]]:
    """One that is sent and one that is received, both of 4×1000 bytes."""
    pair = request.param(api, PATTERN.shape, np.uint8), request.param(api, PATTERN.shape, np.uint8)
    pair[0].array[...], pair[1].array[...] = PATTERN, 0
    yield pair
    for tensor in pair:
        tensor.close()


def across(api: CudaApi, source: int, target: int, size: int, stream: Stream) -> None:
    """A copy on the GPU, as a kernel would move data."""
    api.copy_rows(target, source, size, size, 1, stream.handle)


def test_the_gpu_is_described(api: CudaApi) -> None:
    with api.current():
        gpu = api.gpu()
        assert gpu.name
        assert 50 <= gpu.sm < 200
        assert api.driver_version() >= 11040
        assert api.free_bytes() > 1 << 20


def test_a_tensor_goes_to_the_gpu_and_back(api: CudaApi, stream: Stream, tensors: tuple[Tensor, Tensor]) -> None:
    sent, received = tensors
    with api.current():
        sent.upload(4, stream)
        across(api, sent.address, received.address, PATTERN.nbytes, stream)
        received.download(4, stream)
        stream.synchronize()
    np.testing.assert_array_equal(received.array, PATTERN)


def test_only_the_items_asked_for_are_copied(api: CudaApi, stream: Stream) -> None:
    tensor = StagedTensor(api, PATTERN.shape, np.uint8)
    tensor.array[...] = 1
    with api.current():
        tensor.upload(4, stream)
        stream.synchronize()
        tensor.array[...] = 2
        tensor.upload(2, stream)
        stream.synchronize()
        tensor.array[...] = 0
        tensor.download(3, stream)
        stream.synchronize()
    assert [set(item.tolist()) for item in tensor.array] == [{2}, {2}, {1}, {0}]
    tensor.close()


def test_rows_with_gaps_become_rows_without(api: CudaApi, stream: Stream) -> None:
    wide, narrow = StagedTensor(api, (8, 64), np.uint8), StagedTensor(api, (8, 48), np.uint8)
    wide.array[...] = np.arange(8 * 64, dtype=np.uint64).reshape(8, 64) % 251
    with api.current():
        wide.upload(8, stream)
        api.copy_rows(narrow.address, wide.address, 64, 48, 8, stream.handle)
        narrow.download(8, stream)
        stream.synchronize()
    np.testing.assert_array_equal(narrow.array, wide.array[:, :48])
    with pytest.raises(EngineError, match="(?i)invalid"), api.current():
        api.copy_rows(narrow.address, wide.address, 32, 48, 8, stream.handle)
    wide.close()
    narrow.close()


def test_a_graph_does_its_work_whenever_it_is_launched(
    api: CudaApi, stream: Stream, tensors: tuple[Tensor, Tensor]
) -> None:
    if not api.has_graphs:
        pytest.skip(f"{api.name} has no graphs here")
    sent, received = tensors

    def work() -> None:
        sent.upload(4, stream)
        across(api, sent.address, received.address, PATTERN.nbytes, stream)
        received.download(4, stream)

    graph = Graph(api, stream, work)
    for value in (3, 5):
        sent.array[...] = value
        with api.current():
            graph.launch()
            stream.synchronize()
        assert set(received.array.ravel().tolist()) == {value}
    graph.close()


def test_a_capture_that_fails_leaves_the_stream_usable(
    api: CudaApi, stream: Stream, tensors: tuple[Tensor, Tensor]
) -> None:
    if not api.has_graphs:
        pytest.skip(f"{api.name} has no graphs here")
    sent, received = tensors

    def work() -> None:
        sent.upload(4, stream)
        raise EngineError("half-way")

    with pytest.raises(EngineError, match="half-way"):
        Graph(api, stream, work)
    test_a_tensor_goes_to_the_gpu_and_back(api, stream, (sent, received))


def test_events_tell_the_time_between_them(api: CudaApi, stream: Stream, tensors: tuple[Tensor, Tensor]) -> None:
    start, end = Event(api), Event(api)
    with api.current():
        start.record(stream)
        tensors[0].upload(4, stream)
        end.record(stream)
        stream.synchronize()
    assert 0 <= end.ms_since(start) < 1000
    start.close()
    end.close()


def test_another_stream_is_followed(api: CudaApi, stream: Stream, tensors: tuple[Tensor, Tensor]) -> None:
    if not api.has_graphs:
        pytest.skip(f"{api.name} cannot follow another's stream here")
    sent, received = tensors
    producer = Stream(api)
    with api.current():
        sent.upload(4, producer)
        stream.follow(producer.number)
        stream.follow(1)  # CUDA's default stream
        across(api, sent.address, received.address, PATTERN.nbytes, stream)
        received.download(4, stream)
        stream.synchronize()
    np.testing.assert_array_equal(received.array, PATTERN)
    producer.close()


def test_threads_share_the_primary_context(api: CudaApi, stream: Stream, tensors: tuple[Tensor, Tensor]) -> None:
    failures: list[BaseException] = []

    def run() -> None:
        try:
            test_a_tensor_goes_to_the_gpu_and_back(api, stream, tensors)
        except BaseException as error:
            failures.append(error)

    thread = Thread(target=run)
    thread.start()
    thread.join()
    assert failures == []


def test_more_memory_than_there_is_is_an_engine_error(api: CudaApi) -> None:
    with pytest.raises(EngineError, match="(?i)CUDA's cuMem(Host)?Alloc failed: .*out of memory"):
        DeviceBuffer(api, 1 << 50)
    with pytest.raises(EngineError, match="(?i)CUDA's cuMemHostAlloc failed"):
        HostBuffer(api, (1 << 50,), np.uint8)


def test_ten_thousand_times_nothing_is_left(api: CudaApi) -> None:
    def cycle() -> None:
        stream, tensor, event = Stream(api), StagedTensor(api, (1, 4096), np.uint8), Event(api)
        with api.current():
            tensor.upload(1, stream)
            event.record(stream)
            stream.synchronize()
        for held in (event, tensor, stream):
            held.close()

    cycle()
    with api.current():
        before = api.free_bytes()
    for _ in range(10_000 if before > 3 << 30 else 1000):
        cycle()
    with api.current():
        assert before - api.free_bytes() < 64 << 20


class OnGpu:
    def __init__(self, address: int) -> None:
        self.__cuda_array_interface__ = {
            "shape": (4, 1, 250, 4),
            "typestr": "|u1",
            "data": (address, False),
            "strides": None,
            "stream": 1,
            "version": 3,
        }


def test_frames_on_the_gpu_are_found(tensors: tuple[Tensor, Tensor], stream: Stream) -> None:
    found = device_frames(OnGpu(tensors[0].address), stream.number)
    assert (found.address, found.shape, found.pitch, found.stream) == (tensors[0].address, (4, 1, 250, 4), 1000, 1)
    assert found.contiguous
