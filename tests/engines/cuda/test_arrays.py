"""Frames that others have on the GPU, by DLPack: capsules made by hand, as ``dlpack.h`` lays them out."""

from __future__ import annotations

import ctypes
from typing import Any

import numpy as np
import pytest

from edge_resnet.engines.cuda.arrays import device_frames
from edge_resnet.errors import EngineError

CPU, CUDA, MANAGED = 1, 2, 13


class DLTensor(ctypes.Structure):
    """``DLTensor`` of dlpack.h, version 0.8, written down once more: data, device, ndim, dtype, shape, strides, offset."""

    _fields_ = [
        ("data", ctypes.c_void_p),
        ("device_type", ctypes.c_int32),
        ("device_id", ctypes.c_int32),
        ("ndim", ctypes.c_int32),
        ("code", ctypes.c_uint8),
        ("bits", ctypes.c_uint8),
        ("lanes", ctypes.c_uint16),
        ("shape", ctypes.POINTER(ctypes.c_int64)),
        ("strides", ctypes.POINTER(ctypes.c_int64)),
        ("byte_offset", ctypes.c_uint64),
    ]


class Producer:
    """What CuPy or torch give: a capsule that works on the consumer's stream."""

    def __init__(
        self,
        shape: tuple[int, ...],
        *,
        strides: tuple[int, ...] | None = None,
        device: int = CUDA,
        code: int = 1,
        bits: int = 8,
        offset: int = 0,
    ) -> None:
        self.streams: list[int] = []
        self._device = device
        self._shape = (ctypes.c_int64 * len(shape))(*shape)
        self._strides = None if strides is None else (ctypes.c_int64 * len(strides))(*strides)
        self._tensor = DLTensor(0x700000, device, 0, len(shape), code, bits, 1, self._shape, self._strides, offset)

    def __dlpack_device__(self) -> tuple[int, int]:
        return self._device, 0

    def __dlpack__(self, stream: int | None = None) -> Any:
        assert stream is not None
        self.streams.append(stream)
        new = ctypes.pythonapi.PyCapsule_New
        new.restype, new.argtypes = ctypes.py_object, (ctypes.c_void_p, ctypes.c_char_p, ctypes.c_void_p)
        return new(ctypes.addressof(self._tensor), b"dltensor", None)


@pytest.mark.parametrize("device", [CUDA, MANAGED])
def test_memory_and_shape_are_read_and_the_producer_is_told_our_stream(device: int) -> None:
    producer = Producer((2, 4, 5, 3), device=device, offset=64)
    found = device_frames(producer, 0x1234)
    assert (found.address, found.shape, found.pitch, found.stream) == (0x700000 + 64, (2, 4, 5, 3), 15, None)
    assert found.contiguous
    assert producer.streams == [0x1234]


def test_one_frame_is_a_batch_of_one_and_rows_may_have_gaps() -> None:
    found = device_frames(Producer((4, 5, 3), strides=(32, 3, 1)), 1)
    assert (found.shape, found.pitch, found.contiguous) == ((1, 4, 5, 3), 32, False)
    found = device_frames(Producer((2, 4, 5, 3), strides=(128, 32, 3, 1)), 1)
    assert (found.shape, found.pitch) == ((2, 4, 5, 3), 32)


def test_strides_of_axes_of_one_mean_nothing() -> None:
    found = device_frames(Producer((1, 4, 5, 1), strides=(7, 5, 1, 99)), 1)
    assert (found.pitch, found.contiguous) == (5, True)
    assert device_frames(Producer((1, 1, 5, 3), strides=(7, 7, 3, 1)), 1).contiguous


@pytest.mark.parametrize(
    ("producer", "message"),
    [
        (Producer((1, 4, 5, 3), device=CPU), r"Producer is not on the GPU \(DLPack device 1\): give it to `run`"),
        (Producer((1, 4, 5, 3), code=2, bits=32), "DLPack type 2, 32 bits: give uint8"),
        (Producer((1, 3, 4, 5), strides=(60, 1, 15, 3)), "only rows may have gaps"),
        (Producer((2, 4, 5, 3), strides=(64, 15, 3, 1)), "only rows may have gaps"),
        (Producer((4, 5)), r"shape \(4, 5\): give uint8 N×H×W×C"),
        (Producer((0, 4, 5, 3)), r"shape \(0, 4, 5, 3\)"),
    ],
)
def test_what_cannot_be_read_is_refused(producer: Producer, message: str) -> None:
    with pytest.raises(EngineError, match=message):
        device_frames(producer, 1)


def test_torch_and_numpy_say_that_they_are_not_on_the_gpu() -> None:
    torch = pytest.importorskip("torch")
    for array in (np.zeros((1, 4, 5, 3), np.uint8), torch.zeros((1, 4, 5, 3), dtype=torch.uint8)):
        with pytest.raises(EngineError, match=r"is not on the GPU \(DLPack device 1\)"):
            device_frames(array, 1)
    with pytest.raises(EngineError, match="str has neither __dlpack__ nor __cuda_array_interface__"):
        device_frames("a frame", 1)
