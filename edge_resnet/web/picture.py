"""Camera frames as pictures for a browser."""

from __future__ import annotations

import io
from dataclasses import dataclass

import numpy as np
from PIL import Image

from edge_resnet.classifier import Prediction
from edge_resnet.frames import CameraFrame, to_rgb

LONGEST = 960
"""Pixels of a picture's longer side, at most."""
QUALITY = 80
"""Of JPEG, in Pillow's count."""


@dataclass(frozen=True)
class Picture:
    """A frame as a JPEG."""

    index: int
    """The frame's."""
    jpeg: bytes


def picture_of(prediction: Prediction) -> Picture:
    """The picture of the frame that a stream's prediction is about, in its right colours, no larger than ``LONGEST``."""
    assert prediction.frame is not None  # a stream's, of a camera
    return Picture(prediction.frame.index, jpeg(prediction.frame))


def jpeg(frame: CameraFrame) -> bytes:
    """A frame of any colour as a JPEG."""
    pixels = np.ascontiguousarray(to_rgb(frame.pixels, frame.color))
    image = Image.fromarray(pixels[:, :, 0] if pixels.shape[2] == 1 else pixels)
    image.thumbnail((LONGEST, LONGEST), Image.Resampling.BILINEAR, reducing_gap=2.0)
    file = io.BytesIO()
    image.save(file, "JPEG", quality=QUALITY)
    return file.getvalue()
