"""Classifies what a GStreamer pipeline gives, in NV12 as cameras and video decoders have it.

    python examples/gstreamer.py model.edge                                          # a test picture
    python examples/gstreamer.py model.edge --source 'v4l2src device=/dev/video0'
    python examples/gstreamer.py model.edge --source 'nvarguscamerasrc ! nvvidconv'  # a Jetson's CSI camera

Needs GStreamer and its Python binding (Debian, JetPack: ``python3-gi gir1.2-gst-plugins-base-1.0
gstreamer1.0-plugins-base``), for the same Python as edge-resnet.
"""

from __future__ import annotations

import argparse
import itertools
import time
from collections.abc import Iterator
from pathlib import Path

import gi
import numpy as np

gi.require_version("Gst", "1.0")
gi.require_version("GstApp", "1.0")
gi.require_version("GstVideo", "1.0")
from gi.repository import Gst, GstApp, GstVideo  # noqa: E402

import edge_resnet  # noqa: E402
from edge_resnet.frames import CameraFrame, FrameColor, to_rgb  # noqa: E402

SINK = (
    "videoconvert ! video/x-raw,format=NV12,colorimetry={bt601,bt709} ! "
    "appsink name=sink max-buffers=1 drop=true sync=false"
)
"""The two colours that edge-resnet knows: whatever else a source gives, as JPEG's full range, is converted. One buffer,
replaced while nobody takes it: the next frame is always the newest."""
PATIENCE = 5.0
"""Seconds without a frame after which a camera counts as stuck."""


class PipelineError(edge_resnet.EdgeResnetError):
    """A pipeline cannot be made, or failed, or stands still."""


def frames(source: str) -> Iterator[CameraFrame]:
    """The newest frames of a pipeline until its end.

    Args:
        source: as for ``gst-launch-1.0``, up to the frames.

    Raises:
        PipelineError: as it says.
    """
    Gst.init(None)
    try:
        pipeline = Gst.parse_launch(f"{source} ! {SINK}")
    except Exception as error:  # of GLib
        raise PipelineError(f"'{source}' is no pipeline ({error}): try it with gst-launch-1.0") from error
    sink = pipeline.get_by_name("sink")
    try:
        pipeline.set_state(Gst.State.PLAYING)
        for index in itertools.count():
            sample = _next(sink, pipeline.get_bus(), source)
            if sample is None:
                return
            yield _frame(sample, index)
    finally:
        pipeline.set_state(Gst.State.NULL)


def _next(sink: GstApp.AppSink, bus: Gst.Bus, source: str) -> Gst.Sample | None:
    """The next frame; None at the end of the stream."""
    give_up = time.monotonic() + PATIENCE
    while time.monotonic() < give_up:
        sample = sink.try_pull_sample(Gst.SECOND // 10)
        if sample is not None:
            return sample
        failed = bus.pop_filtered(Gst.MessageType.ERROR)
        if failed is not None:
            raise PipelineError(f"'{source}' failed: {failed.parse_error()[0].message}")
        if sink.is_eos():
            return None
    raise PipelineError(f"'{source}' gave no frame for {PATIENCE:.0f} s: check the camera")


def _frame(sample: Gst.Sample, index: int) -> CameraFrame:
    """Copies a frame out of GStreamer's buffer, without the padding at the end of rows and between the planes."""
    info = GstVideo.VideoInfo.new_from_caps(sample.get_caps())
    buffer = sample.get_buffer()
    meta = GstVideo.buffer_get_video_meta(buffer)  # where the planes really lie, if not as the caps say
    (step, chroma_step), (luma, chroma) = (meta or info).stride[:2], (meta or info).offset[:2]
    mapped, view = buffer.map(Gst.MapFlags.READ)
    if not mapped:
        raise PipelineError(
            "a frame cannot be read: put nvvidconv behind the source, which brings it to the CPU's memory"
        )
    try:
        data = np.frombuffer(view.data, np.uint8)
        pixels = np.concatenate(
            [
                data[start : start + rows * pitch].reshape(rows, pitch)[:, : info.width, np.newaxis]
                for start, pitch, rows in ((luma, step, info.height), (chroma, chroma_step, info.height // 2))
            ]
        )
    finally:
        buffer.unmap(view)
    hd = info.colorimetry.matrix == GstVideo.VideoColorMatrix.BT709
    return CameraFrame(pixels, FrameColor.NV12_BT709 if hd else FrameColor.NV12, time.monotonic(), index)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("bundle", type=Path)
    parser.add_argument("--source", default="videotestsrc num-buffers=60 is-live=true")
    args = parser.parse_args()
    with edge_resnet.Classifier(args.bundle) as classify:
        for frame in frames(args.source):
            prediction = classify(to_rgb(frame.pixels, frame.color))
            print(f"{frame.index:5d} {prediction.label} {prediction.probability:.1%}")


if __name__ == "__main__":
    main()
