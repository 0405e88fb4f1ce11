"""Decoding with PyAV, which brings its own FFmpeg: opening, reading, and pixels in a declared colour.

FFmpeg's errors come out as ours: which of the two depends on the source, see ``Source.connect``.
"""

from __future__ import annotations

import threading
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from edge_resnet.camera.source import Shot
from edge_resnet.errors import CameraError, UnavailableError
from edge_resnet.frames import SUBSAMPLED, FrameColor

PACKED = {
    FrameColor.RGB: "rgb24",
    FrameColor.BGR: "bgr24",
    FrameColor.RGBA: "rgba",
    FrameColor.BGRA: "bgra",
    FrameColor.GRAY: "gray",
}
"""Colours in one plane → FFmpeg's name of the pixel format."""
VIDEO = ("yuv420p", "yuv422p", "yuyv422", "uyvy422", "nv12")
"""FFmpeg's formats that NV12 holds without a change of colours; those of full range (``yuvj420p``) are not among them."""
MATRICES = {FrameColor.NV12: (5, 6), FrameColor.NV12_BT709: (1,)}
"""What a stream may say of its colours: FFmpeg's AVCOL_SPC_BT470BG, _SMPTE170M and _BT709."""
DECODED = (*PACKED, *MATRICES)
"""Colours that ``pixels`` gives."""
SILENT = 2
"""AVCOL_SPC_UNSPECIFIED: the stream does not say; then what was declared holds."""
FULL_RANGE = 2
"""AVCOL_RANGE_JPEG."""
POLL_S = 0.002
"""Between two looks at a device that has no frame yet."""


@dataclass(frozen=True)
class Input:
    """What FFmpeg is to open."""

    url: str
    name: str
    """For messages."""
    error: type[CameraError]
    """What FFmpeg's errors become."""
    format: str | None = None
    options: dict[str, str] = field(default_factory=dict)
    timeout_s: tuple[float, float] | None = None
    """To open, and between two packets."""
    live: bool = True
    """Decode each frame at once; damaged ones are passed over."""
    given_up: threading.Event = field(default_factory=threading.Event)
    """Set where nobody wants the frames of a silent device any more."""


@contextmanager
def decoded(source: Input, color: FrameColor) -> Iterator[Iterator[Shot]]:
    """Opens an input; inside the context are the frames of its first video stream.

    Raises:
        UnavailableError: PyAV is not installed.
        CameraError: FFmpeg cannot open or go on reading it, or its frames cannot be given in that colour.
    """
    av = _pyav()
    with _translated(av, source):
        container = av.open(source.url, format=source.format, options=source.options, timeout=source.timeout_s)
    with container:
        if not container.streams.video:
            raise CameraError(f"{source.name} has no video in it")
        stream = container.streams.video[0]
        # Threads by frame hold back as many frames as there are threads: right for a file, late for a camera.
        stream.thread_type = "SLICE" if source.live else "AUTO"
        shots = _shots(av, container, source, color)
        try:
            yield shots
        finally:
            shots.close()  # before the container: a raw frame may lie in the driver's memory, which closing takes away


def _pyav() -> Any:
    try:
        import av
    except ImportError as error:
        raise UnavailableError("PyAV is not installed: pip install 'edge-resnet[camera]'") from error
    return av


@contextmanager
def _translated(av: Any, source: Input) -> Iterator[None]:
    try:
        yield
    except av.error.BlockingIOError:
        raise
    except (av.error.FFmpegError, OSError) as error:
        reason = getattr(error, "strerror", None) or type(error).__name__
        raise source.error(f"{source.name} cannot be read: {reason}") from error


def _shots(av: Any, container: Any, source: Input, color: FrameColor) -> Generator[Shot, None, None]:
    """Nothing here keeps a packet or a frame of FFmpeg beyond its turn: an error's traceback would keep it alive."""
    first: float | None = None
    for frame in _frames(av, container, source):
        at_s = None if frame.time is None else float(frame.time)
        first = at_s if first is None else first
        refusal = None
        try:
            held = pixels(frame, color, source.name)
        except CameraError as error:
            refusal = error.with_traceback(None)
        del frame
        if refusal is not None:
            raise refusal
        yield Shot(held, None if at_s is None or first is None else at_s - first)


def _frames(av: Any, container: Any, source: Input) -> Iterator[Any]:
    stream = container.streams.video[0]
    packets = container.demux(stream)
    while True:
        try:
            frames = _frames_of_next(av, packets, source)
        except av.error.BlockingIOError:  # a device that is not waited for has none yet; the iterator is spent
            if source.given_up.wait(POLL_S):
                return
            packets = container.demux(stream)
            continue
        if frames is None:
            return
        while frames:
            yield frames.pop(0)


def _frames_of_next(av: Any, packets: Iterator[Any], source: Input) -> list[Any] | None:
    """Decodes the next packet, which has no name here on purpose; ``None`` at the end."""
    with _translated(av, source):
        try:
            return list(next(packets).decode())
        except StopIteration:
            return None
        except av.error.InvalidDataError:
            if not source.live:
                raise
            return []


def pixels(frame: Any, color: FrameColor, name: str) -> npt.NDArray[np.uint8]:
    """A decoded frame's pixels, H×W×C or, for NV12, 1.5·H×W×1.

    Args:
        frame: PyAV's.

    Raises:
        CameraError: NV12 is asked of a stream that is not of that kind, or says that it is of the other.
    """
    if color not in SUBSAMPLED:
        converted = frame.reformat(format=PACKED[color])
        plane = _plane(converted, 0)
        return plane.copy() if converted is frame else plane  # its memory may be the driver's
    _check_video(frame, color, name)
    planes = frame.reformat(format="nv12")
    buffer = np.empty((frame.height * 3 // 2, frame.width, 1), np.uint8)
    buffer[: frame.height] = _plane(planes, 0)
    buffer[frame.height :] = _plane(planes, 1).reshape(frame.height // 2, frame.width, 1)
    return buffer


def _plane(frame: Any, index: int) -> npt.NDArray[np.uint8]:
    """One plane, as a view that keeps the frame alive; the ends of its rows, which FFmpeg fills up, are left out."""
    plane = frame.planes[index]
    channels = frame.format.components if index == 0 and len(frame.planes) == 1 else ()
    depth = len(channels) or (1 if index == 0 else 2)
    rows = np.frombuffer(plane, np.uint8).reshape(plane.height, plane.line_size)
    width = rows[:, : plane.width * depth]
    return np.lib.stride_tricks.as_strided(
        width, (plane.height, plane.width, depth), (plane.line_size, depth, 1), writeable=False
    )


def _check_video(frame: Any, color: FrameColor, name: str) -> None:
    if frame.format.name not in VIDEO or frame.color_range == FULL_RANGE:
        kind = frame.format.name + (", full range" if frame.color_range == FULL_RANGE else "")
        raise CameraError(f"{name} is {kind}, which '{color.value}' would change: open it with color='rgb'")
    if frame.height % 2 or frame.width % 2:
        raise CameraError(
            f"{name} is {frame.width}x{frame.height}: '{color.value}' has even sides only: open it with color='rgb'"
        )
    if frame.colorspace not in (*MATRICES[color], SILENT):
        other = [each.value for each, known in MATRICES.items() if frame.colorspace in known] or ["rgb"]
        raise CameraError(f"{name} says that its colours are not those of '{color.value}': declare color='{other[0]}'")
