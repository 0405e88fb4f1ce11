"""Frames that are on the GPU already, from whoever made them: DLPack or ``__cuda_array_interface__``.

DLPack is asked first, because its producer orders its work before ours; of the other interface some producers do not say
on which stream they work.
"""

from __future__ import annotations

import ctypes
from dataclasses import dataclass, field
from typing import Any

from edge_resnet.errors import EngineError

_ON_GPU = {2: "CUDA", 13: "CUDA, managed"}
"""DLPack's ``DLDeviceType`` of memory that the GPU reads (``dlpack.h``)."""
_UNSIGNED = 1
"""DLPack's ``kDLUInt``."""


@dataclass(frozen=True)
class DeviceFrames:
    """A batch of frames on the GPU, uint8 N×H×W×C; whole rows follow each other without gaps inside a row."""

    address: int
    shape: tuple[int, ...]
    pitch: int
    """Bytes from a row's start to the next one's."""
    stream: int | None
    """The stream, as C's number, on which they are made; None: they are there, or their producer has seen to it."""
    owner: Any = field(repr=False, compare=False)
    """Keeps the memory."""

    @property
    def contiguous(self) -> bool:
        """Whether no row is followed by a gap."""
        return self.pitch == self.shape[2] * self.shape[3]


def device_frames(frames: Any, stream: int) -> DeviceFrames:
    """Finds the memory behind an array on the GPU.

    Args:
        frames: has ``__dlpack__`` or ``__cuda_array_interface__``: uint8 N×H×W×C or H×W×C, rows may have a pitch.
        stream: of the consumer, as C's number; DLPack's producer orders its work before it.

    Raises:
        EngineError: it is no such array, or not on the GPU, or its strides are of another kind.
    """
    if hasattr(frames, "__dlpack__"):
        return _of_dlpack(frames, stream)
    if hasattr(frames, "__cuda_array_interface__"):
        return _of_interface(frames)
    raise EngineError(
        f"{type(frames).__name__} has neither __dlpack__ nor __cuda_array_interface__: give an array on the GPU, or a "
        f"numpy array to `run`"
    )


def _of_interface(frames: Any) -> DeviceFrames:
    """See numba's description, version 3."""
    interface = frames.__cuda_array_interface__
    if interface["typestr"] not in ("|u1", "<u1", ">u1"):
        raise EngineError(f"frames on the GPU have type {interface['typestr']}: give uint8 ('|u1')")
    if interface.get("mask") is not None:
        raise EngineError("frames on the GPU have a mask: give them whole")
    shape, strides = tuple(interface["shape"]), interface.get("strides")
    return _checked(interface["data"][0], shape, strides, interface.get("stream"), frames)


class _Device(ctypes.Structure):
    _fields_ = [("kind", ctypes.c_int32), ("index", ctypes.c_int32)]


class _Type(ctypes.Structure):
    _fields_ = [("code", ctypes.c_uint8), ("bits", ctypes.c_uint8), ("lanes", ctypes.c_uint16)]


class _Tensor(ctypes.Structure):
    """``DLTensor``, with which ``DLManagedTensor`` begins."""

    _fields_ = [
        ("data", ctypes.c_void_p),
        ("device", _Device),
        ("rank", ctypes.c_int32),
        ("type", _Type),
        ("shape", ctypes.POINTER(ctypes.c_int64)),
        ("strides", ctypes.POINTER(ctypes.c_int64)),
        ("byte_offset", ctypes.c_uint64),
    ]


def _of_dlpack(frames: Any, stream: int) -> DeviceFrames:
    kind, _ = frames.__dlpack_device__()
    if kind not in _ON_GPU:
        raise EngineError(f"{type(frames).__name__} is not on the GPU (DLPack device {int(kind)}): give it to `run`")
    capsule = frames.__dlpack__(stream=stream)
    pointer = ctypes.pythonapi.PyCapsule_GetPointer
    pointer.restype, pointer.argtypes = ctypes.c_void_p, (ctypes.py_object, ctypes.c_char_p)
    tensor = ctypes.cast(pointer(capsule, b"dltensor"), ctypes.POINTER(_Tensor)).contents
    if (tensor.type.code, tensor.type.bits, tensor.type.lanes) != (_UNSIGNED, 8, 1):
        raise EngineError(f"frames on the GPU have DLPack type {tensor.type.code}, {tensor.type.bits} bits: give uint8")
    shape = tuple(tensor.shape[: tensor.rank])
    strides = tuple(tensor.strides[: tensor.rank]) if tensor.strides else None
    # The capsule is not consumed: while it lives it keeps the memory, and it gives it back when it goes.
    return _checked((tensor.data or 0) + tensor.byte_offset, shape, strides, None, (frames, capsule))


def _checked(
    address: int, shape: tuple[int, ...], strides: tuple[int, ...] | None, stream: int | None, owner: Any
) -> DeviceFrames:
    if len(shape) == 3:
        shape, strides = (1, *shape), None if strides is None else (shape[0] * strides[0], *strides)
    if len(shape) != 4 or 0 in shape:
        raise EngineError(f"frames on the GPU have shape {shape}: give uint8 N×H×W×C")
    count, height, width, channels = shape
    if strides is None:
        return DeviceFrames(address, shape, width * channels, stream, owner)
    pitch = strides[1] if height > 1 else strides[0] if count > 1 else width * channels
    wanted = (height * pitch, pitch, channels, 1)  # the stride of an axis of one item means nothing
    fits = all(size == 1 or stride == right for size, stride, right in zip(shape, strides, wanted, strict=True))
    if not fits or pitch < width * channels:
        raise EngineError(
            f"frames on the GPU have strides {strides} for shape {shape}: only rows may have gaps between them"
        )
    return DeviceFrames(address, shape, pitch, stream, owner)
