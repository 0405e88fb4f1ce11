"""What a ROS image message holds, as edge-resnet takes it. Needs no ROS: any object with the message's fields will do."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from PIL import Image

from edge_resnet import EdgeResnetError
from edge_resnet.frames import SUBSAMPLED, FrameColor, FrameFormat, channels_of, to_rgb
from edge_resnet.images import decode_image

ENCODINGS = {
    "rgb8": FrameColor.RGB,
    "bgr8": FrameColor.BGR,
    "rgba8": FrameColor.RGBA,
    "bgra8": FrameColor.BGRA,
    "mono8": FrameColor.GRAY,
    "yuv422": FrameColor.UYVY,
    "uyvy": FrameColor.UYVY,
    "yuv422_yuy2": FrameColor.YUYV,
    "yuyv": FrameColor.YUYV,
    "nv12": FrameColor.NV12,
}
"""Names of ``sensor_msgs/image_encodings.hpp``. Left out is what would be a guess, such as ``8UC3`` (RGB or BGR?)."""


class MessageError(EdgeResnetError):
    """A message holds no image that can be classified."""


def pixels_of(message: object) -> tuple[npt.NDArray[np.uint8], FrameColor]:
    """The pixels of a ``sensor_msgs/Image``: a view of its data, without the padding at the end of rows.

    Args:
        message: its ``height``, ``width``, ``encoding``, ``step`` and ``data`` are read.

    Returns:
        uint8 H×W×C, 1.5·H×W×1 where chroma lies below luma; and what its channels are.

    Raises:
        MessageError: the encoding is unknown, or its sizes contradict each other.
    """
    color = ENCODINGS.get(message.encoding)
    if color is None:
        raise MessageError(f"encoding is '{message.encoding}': publish one of {', '.join(ENCODINGS)}")
    channels = channels_of(color)
    rows = message.height * 3 // 2 if color in SUBSAMPLED else message.height
    data = np.frombuffer(message.data, np.uint8)
    if message.step < message.width * channels or len(data) != rows * message.step or len(data) == 0:
        raise MessageError(
            f"{message.height}×{message.width} {message.encoding} with a step of {message.step} and {len(data)} bytes: "
            f"step is at least {message.width * channels}, and data {rows} times as long"
        )
    padded = data.reshape(rows, message.step)
    return padded[:, : message.width * channels].reshape(rows, message.width, channels), color


def frame_of(message: object, wanted: FrameFormat | None) -> npt.NDArray[np.uint8]:
    """The frame in a ``sensor_msgs/Image`` for a classifier; no copy is made where only channels change places.

    Args:
        message: as in ``pixels_of``.
        wanted: ``Classifier.frames``: what an engine compiled with ``--frames`` takes; None where it takes RGB or grey.

    Raises:
        MessageError: as ``pixels_of``, or the engine wants another colour.
    """
    pixels, color = pixels_of(message)
    if wanted is None:
        return to_rgb(pixels, color)
    if wanted.color is not color:
        raise MessageError(f"encoding is '{message.encoding}': this engine was compiled for frames of {wanted}")
    return pixels


def picture_of(message: object) -> Image.Image:
    """The picture in a ``sensor_msgs/CompressedImage``, JPEG or PNG; its ``data`` is read.

    Raises:
        ImageError: it is damaged, or none of the formats that edge-resnet reads (``compressedDepth`` is none).
    """
    return decode_image(bytes(message.data), f"a message of format '{message.format}'")
