"""Frames of every colour are pictures of the same colours."""

from __future__ import annotations

import io

import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image

from edge_resnet.frames import CameraFrame, FrameColor
from edge_resnet.web.picture import LONGEST, jpeg

# The red, green and blue bars of ITU-R BT.801's colour bars at 100 %: RGB, and Y, Cb, Cr by BT.601 and BT.709.
BARS = {
    (255, 0, 0): ((81, 90, 240), (63, 102, 240)),
    (0, 255, 0): ((145, 54, 34), (173, 42, 26)),
    (0, 0, 255): ((41, 240, 110), (32, 240, 118)),
}
SIDE = 32


def frame(color: FrameColor, rgb: tuple[int, int, int]) -> npt.NDArray[np.uint8]:
    """A frame of one colour, built by hand."""
    red, green, blue = rgb
    (y, cb, cr), (y709, cb709, cr709) = BARS[rgb]

    def flat(*channels: int) -> npt.NDArray[np.uint8]:
        return np.full((SIDE, SIDE, len(channels)), channels, np.uint8)

    def nv12(y: int, cb: int, cr: int) -> npt.NDArray[np.uint8]:
        chroma = np.tile(np.array([cb, cr], np.uint8), (SIDE // 2, SIDE // 2))
        return np.concatenate([flat(y)[:, :, 0], chroma])[:, :, np.newaxis]

    pair = np.tile(np.array([[y, cb], [y, cr]], np.uint8), (SIDE, SIDE // 2, 1))
    return {
        FrameColor.RGB: flat(red, green, blue),
        FrameColor.BGR: flat(blue, green, red),
        FrameColor.RGBA: flat(red, green, blue, 9),
        FrameColor.BGRA: flat(blue, green, red, 9),
        FrameColor.NV12: nv12(y, cb, cr),
        FrameColor.NV12_BT709: nv12(y709, cb709, cr709),
        FrameColor.YUYV: pair,
        FrameColor.UYVY: pair[:, :, ::-1],
    }[color]


@pytest.mark.parametrize("color", [color for color in FrameColor if color is not FrameColor.GRAY])
@pytest.mark.parametrize("rgb", BARS)
def test_colours_are_right(color: FrameColor, rgb: tuple[int, int, int]) -> None:
    picture = Image.open(io.BytesIO(jpeg(CameraFrame(frame(color, rgb), color, 0.0, 0))))
    assert (picture.size, picture.mode) == ((SIDE, SIDE), "RGB")
    assert np.abs(np.asarray(picture).astype(int) - rgb).max() <= 6, "JPEG and 8-bit chroma are that far off"


def test_grey_stays_grey() -> None:
    grey = np.tile(np.arange(64, dtype=np.uint8)[:, np.newaxis] * 4, (1, 64))[:, :, np.newaxis]
    picture = Image.open(io.BytesIO(jpeg(CameraFrame(grey, FrameColor.GRAY, 0.0, 0))))
    assert picture.mode == "L"
    assert np.abs(np.asarray(picture).astype(int) - grey[:, :, 0]).max() <= 6


def test_a_large_frame_becomes_a_small_picture_of_the_same_shape() -> None:
    picture = Image.open(io.BytesIO(jpeg(CameraFrame(np.zeros((1080, 1920, 3), np.uint8), FrameColor.RGB, 0.0, 0))))
    assert picture.size == (LONGEST, LONGEST * 9 // 16)
