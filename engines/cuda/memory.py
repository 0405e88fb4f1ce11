"""Memory that engines read and write: on the GPU, page-locked on the host, or both as one tensor."""

from __future__ import annotations

import ctypes
from abc import ABC, abstractmethod
from typing import Any

import numpy as np
import numpy.typing as npt

from edge_resnet.engines.cuda.api import CudaApi
from edge_resnet.engines.cuda.work import Stream


class DeviceBuffer:
    """Memory on the GPU.

    Raises:
        UnavailableError: there is no GPU.
        EngineError: the GPU has not that much memory left.
    """

    def __init__(self, api: CudaApi, size_bytes: int) -> None:
        self._api = api
        self.size_bytes = size_bytes
        with api.current():
            self.address = api.allocate(size_bytes)

    def close(self) -> None:
        """Frees the memory."""
        with self._api.current():
            self._api.release(self.address)


class HostBuffer:
    """Page-locked host memory, seen as one array: the only host memory that CUDA copies without waiting.

    Args:
        mapped: whether the GPU can read and write it where it lies, at ``device_address``.

    Raises:
        UnavailableError: there is no GPU.
        EngineError: the memory cannot be had.
    """

    def __init__(self, api: CudaApi, shape: tuple[int, ...], dtype: npt.DTypeLike, *, mapped: bool = False) -> None:
        self._api = api
        size_bytes = int(np.prod(shape)) * np.dtype(dtype).itemsize
        with api.current():
            self.address = api.allocate_host(size_bytes, mapped=mapped)
            self.device_address = api.device_address(self.address) if mapped else None
        memory = (ctypes.c_uint8 * size_bytes).from_address(self.address)
        self.array: npt.NDArray[Any] = np.frombuffer(memoryview(memory), dtype=dtype).reshape(shape)

    def close(self) -> None:
        """Frees the memory; ``array`` must not be touched any more."""
        with self._api.current():
            self._api.release_host(self.address)


class Tensor(ABC):
    """An engine's input or output: ``array`` on the host, and ``address`` where the GPU has it."""

    array: npt.NDArray[Any]
    address: int

    @abstractmethod
    def upload(self, count: int, stream: Stream) -> None:
        """Queues what brings the first ``count`` items of the array to the GPU."""

    @abstractmethod
    def download(self, count: int, stream: Stream) -> None:
        """Queues what brings the first ``count`` items from the GPU to the array."""

    @abstractmethod
    def close(self) -> None:
        """Frees the memory."""


class StagedTensor(Tensor):
    """For a GPU with memory of its own: page-locked on the host, and copied."""

    def __init__(self, api: CudaApi, shape: tuple[int, ...], dtype: npt.DTypeLike) -> None:
        self._api = api
        self._host = HostBuffer(api, shape, dtype)
        try:
            self._device = DeviceBuffer(api, self._host.array.nbytes)
        except BaseException:
            self._host.close()
            raise
        self.array, self.address = self._host.array, self._device.address
        self._item = self.array.nbytes // len(self.array)

    def upload(self, count: int, stream: Stream) -> None:
        self._api.upload(self.address, self._host.address, count * self._item, stream.handle)

    def download(self, count: int, stream: Stream) -> None:
        self._api.download(self._host.address, self.address, count * self._item, stream.handle)

    def close(self) -> None:
        self._device.close()
        self._host.close()


class MappedTensor(Tensor):
    """For a GPU that shares the host's memory, as on a Jetson: the GPU works where the array lies."""

    def __init__(self, api: CudaApi, shape: tuple[int, ...], dtype: npt.DTypeLike) -> None:
        self._host = HostBuffer(api, shape, dtype, mapped=True)
        assert self._host.device_address is not None
        self.array, self.address = self._host.array, self._host.device_address

    def upload(self, count: int, stream: Stream) -> None:
        """Nothing: it is there."""

    def download(self, count: int, stream: Stream) -> None:
        """Nothing: it is there once the stream is synchronized."""

    def close(self) -> None:
        self._host.close()
