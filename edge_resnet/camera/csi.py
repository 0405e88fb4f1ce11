"""Cameras on a Jetson's CSI port, by NVIDIA's GStreamer source, and any GStreamer pipeline that gives raw frames."""

from __future__ import annotations

import os
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import IO

import numpy as np
import numpy.typing as npt

from edge_resnet.camera.address import options, size, split, whole
from edge_resnet.camera.source import Shot, Source
from edge_resnet.errors import CameraError, CameraUnavailableError, UnavailableError
from edge_resnet.frames import SUBSAMPLED, FrameColor, FrameFormat

GST_FORMATS = {
    FrameColor.RGB: "RGB",
    FrameColor.BGR: "BGR",
    FrameColor.RGBA: "RGBA",
    FrameColor.GRAY: "GRAY8",
    FrameColor.NV12: "NV12",
    FrameColor.NV12_BT709: "NV12",
}
OPTIONS = ("size", "fps", "flip")
JETSONS_OWN = 'no element "nvarguscamerasrc"'
HINT = "a Jetson has it, from JetPack's nvidia-l4t-gstreamer; a USB camera is v4l2:///dev/video0"
PIPE_BYTES = 1 << 20
"""What Linux allows an ordinary user for a pipe; its default of 64 KiB costs a switch of tasks for each."""


class PipelineSource(Source):
    """Raw frames of a ``gst-launch-1.0`` process.

    Args:
        pipeline: elements up to raw video of exactly this format, without a sink.
    """

    live = True

    def __init__(self, name: str, pipeline: str, frames: FrameFormat) -> None:
        if frames.width % 4:
            raise CameraError(f"{name}: frames are {frames.width} wide: GStreamer packs multiples of 4 alone")
        self.name, self.color, self._frames = name, frames.color, frames
        self._command = ["gst-launch-1.0", "-q", *f"{pipeline} ! fdsink fd=1 sync=false".split()]
        self._process: subprocess.Popen[bytes] | None = None

    @classmethod
    def parse(cls, address: str, color: FrameColor) -> Source:
        raise CameraError(f"'{address}' says no pipeline: it is made in Python")

    @contextmanager
    def connect(self) -> Iterator[Iterator[Shot]]:
        with tempfile.TemporaryFile() as log:
            process = self._start(log)
            try:
                assert process.stdout is not None
                first = self._read(process.stdout, log)  # a process that starts is no camera yet
                yield self._shots(first, process.stdout, log)
            finally:
                process.kill()
                with process:
                    pass

    def interrupt(self) -> None:
        process = self._process
        if process is not None:
            process.kill()

    def _start(self, log: IO[bytes]) -> subprocess.Popen[bytes]:
        try:
            process = subprocess.Popen(self._command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=log)
        except FileNotFoundError as error:
            raise UnavailableError("gst-launch-1.0 is not installed: apt install gstreamer1.0-tools") from error
        self._process = process
        if process.stdout is not None:
            with suppress(OSError, ImportError, AttributeError):  # slower without, and right all the same
                import fcntl

                fcntl.fcntl(process.stdout, fcntl.F_SETPIPE_SZ, PIPE_BYTES)
        return process

    def _shots(self, first: npt.NDArray[np.uint8], pipe: IO[bytes], log: IO[bytes]) -> Iterator[Shot]:
        yield Shot(first)
        while True:
            yield Shot(self._read(pipe, log))

    def _read(self, pipe: IO[bytes], log: IO[bytes]) -> npt.NDArray[np.uint8]:
        pixels = np.empty(self._frames.shape, np.uint8)
        view, filled = pixels.data.cast("B"), 0
        while filled < len(view):
            count = os.readv(pipe.fileno(), [view[filled:]])
            if not count:
                raise CameraUnavailableError(f"{self.name} gives no frames: {_complaint(log)}")
            filled += count
        return pixels


class CsiSource(PipelineSource):
    """``csi://SENSOR[?size=1280x720&fps=30&flip=0]``: ``nvarguscamerasrc`` through NVIDIA's converter."""

    colors = tuple(GST_FORMATS)

    def __init__(self, sensor: int, frames: FrameFormat, fps: int = 30, flip: int = 0) -> None:
        super().__init__(f"camera 'csi://{sensor}'", csi_pipeline(sensor, frames, fps, flip), frames)

    @classmethod
    def parse(cls, address: str, color: FrameColor) -> Source:
        sensor, query, _ = split(address)
        name = f"camera 'csi://{sensor}'"
        given = {"size": "1280x720", "fps": "30", "flip": "0"} | options(query, OPTIONS, name)
        width, height = size(given["size"], name)
        if color in SUBSAMPLED and (width % 2 or height % 2):
            raise CameraError(f"{name}: size is '{given['size']}': '{color.value}' has even sides only: give even ones")
        fps, flip = (whole(given[key], key, name) for key in ("fps", "flip"))
        if not fps or flip > 7:
            raise CameraError(f"{name}: fps is {fps} and flip {flip}: give 1 or more, and 0 to 7")
        return cls(whole(sensor, "the sensor", name), FrameFormat(height, width, color), fps, flip)


def csi_pipeline(sensor: int, frames: FrameFormat, fps: int, flip: int) -> str:
    """The pipeline of a CSI camera, without a sink.

    ``nvvidconv`` brings the frame out of the camera's memory (``memory:NVMM``). It knows NV12 and RGBA, but no three
    bytes a pixel: for these the CPU drops the fourth, and for grey makes one of three, since what ``nvvidconv`` calls
    grey may be luma of 16 to 235. ``flip`` is its ``flip-method``: 2 turns by 180°.
    """
    wanted = GST_FORMATS[frames.color]
    direct = wanted in ("NV12", "RGBA")
    sides = f"width={frames.width},height={frames.height}"
    turned = flip % 2  # 90°: the camera's width is the frame's height
    sensed = f"width={frames.height},height={frames.width}" if turned else sides
    elements = [
        f"nvarguscamerasrc sensor-id={sensor}",
        f"video/x-raw(memory:NVMM),{sensed},format=NV12,framerate={fps}/1",
        f"nvvidconv flip-method={flip}",
        f"video/x-raw,{sides},format={wanted if direct else 'RGBA'}",
    ]
    return " ! ".join(elements if direct else [*elements, "videoconvert", f"video/x-raw,format={wanted}"])


def _complaint(log: IO[bytes]) -> str:
    """What the process said of it: the first line that names an error, without the element's path."""
    log.seek(0)
    lines = [line.strip() for line in log.read().decode(errors="replace").splitlines()]
    told = [line for line in lines if line.startswith(("ERROR", "WARNING: erroneous"))] or lines
    said = told[0].partition("ERROR: ")[2] or told[0] if told else "the pipeline ended"
    return f"{said}: {HINT}" if JETSONS_OWN in said else said
