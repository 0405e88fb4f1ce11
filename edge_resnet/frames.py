"""Camera frames as they come: which colours, in which layout, and what they are in RGB. Needs numpy alone."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

import numpy as np
import numpy.typing as npt

from edge_resnet.errors import ImageError

Mix = tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]
"""``matrix @ planes + offset`` gives red, green and blue (or grey) of 0 to 255, before rounding and clipping."""


class FrameColor(Enum):
    """How a camera gives its pixels, uint8 each."""

    RGB = "rgb"
    """H×W×3."""
    BGR = "bgr"
    """H×W×3, as OpenCV has it."""
    RGBA = "rgba"
    """H×W×4; the fourth is not looked at."""
    BGRA = "bgra"
    """As ``RGBA``, blue first."""
    GRAY = "gray"
    """H×W×1."""
    NV12 = "nv12"
    """1.5·H×W×1: luma in full size, below it chroma in half size, in turns. ITU-R BT.601, 16 to 235."""
    NV12_BT709 = "nv12-bt709"
    """As ``NV12``, by ITU-R BT.709, which cameras of high definition may use."""
    YUYV = "yuyv"
    """H×W×2: each pixel's luma, then one chroma of its pair, blue and red in turns. BT.601, 16 to 235; also YUY2."""
    UYVY = "uyvy"
    """As ``YUYV``, chroma first."""


def color_named(name: str) -> FrameColor:
    """A colour by its value.

    Raises:
        ImageError: there is none of this name.
    """
    try:
        return FrameColor(name.lower())
    except ValueError as error:
        known = ", ".join(color.value for color in FrameColor)
        raise ImageError(f"color is '{name}': choose one of {known}") from error


def _video(red: float, blue: float) -> Mix:
    """Red, green and blue of Y, Cb and Cr in 16..235 and 16..240, from the weights of red and blue in luma.

    ITU-R BT.601-7, section 2.5, and BT.709-6, section 3: the inverse of luma and scaled colour differences.
    """
    green = 1 - red - blue
    y, c = 255 / 219, 255 / 224
    from_blue, from_red = 2 * (1 - blue) * c, 2 * (1 - red) * c
    matrix = np.array([[y, 0, from_red], [y, -from_blue * blue / green, -from_red * red / green], [y, from_blue, 0]])
    return matrix, -matrix @ np.array([16.0, 128.0, 128.0])


def _picked(*planes: int, of: int) -> Mix:
    return np.eye(of)[list(planes)], np.zeros(len(planes))


MIXES: dict[FrameColor, Mix] = {
    FrameColor.RGB: _picked(0, 1, 2, of=3),
    FrameColor.BGR: _picked(2, 1, 0, of=3),
    FrameColor.RGBA: _picked(0, 1, 2, of=4),
    FrameColor.BGRA: _picked(2, 1, 0, of=4),
    FrameColor.GRAY: _picked(0, of=1),
    FrameColor.NV12: _video(0.299, 0.114),
    FrameColor.NV12_BT709: _video(0.2126, 0.0722),
    FrameColor.YUYV: _video(0.299, 0.114),
    FrameColor.UYVY: _video(0.299, 0.114),
}
"""Planes of each colour → red, green and blue, or grey."""
SUBSAMPLED = (FrameColor.NV12, FrameColor.NV12_BT709)
"""Those whose chroma has half the size."""
LUMA_OF_PAIRS = {FrameColor.YUYV: 0, FrameColor.UYVY: 1}
"""Those whose chroma has half the width, in turns beside luma, and which channel is luma."""


def channels_of(color: FrameColor) -> int:
    """Of a camera's buffer: the bytes in a pixel's place, which need not be all that its colour is made of."""
    if color in SUBSAMPLED:
        return 1
    return 2 if color in LUMA_OF_PAIRS else MIXES[color][0].shape[1]


@dataclass(frozen=True)
class FrameFormat:
    """The frames of one camera.

    Raises:
        ImageError: a side is no length, or odd where chroma has half of it.
    """

    height: int
    """Of the picture, in pixels."""
    width: int
    color: FrameColor

    def __post_init__(self) -> None:
        if min(self.height, self.width) < 1:
            raise ImageError(f"frames of {self.height}×{self.width}: give both sides in pixels, each 1 or more")
        if self.color in SUBSAMPLED and (self.height % 2 or self.width % 2):
            raise ImageError(f"frames of {self.height}×{self.width}: '{self.color.value}' has even sides only")
        if self.color in LUMA_OF_PAIRS and self.width % 2:
            raise ImageError(f"frames of {self.height}×{self.width}: '{self.color.value}' has an even width only")

    @property
    def shape(self) -> tuple[int, int, int]:
        """Of the buffer, H×W×C."""
        if self.color in SUBSAMPLED:
            return self.height * 3 // 2, self.width, 1
        return self.height, self.width, channels_of(self.color)

    def __str__(self) -> str:
        return f"{self.height}×{self.width} {self.color.value}"

    @classmethod
    def parse(cls, text: str) -> FrameFormat:
        """Reads ``HxW:COLOR``, as in ``1080x1920:nv12``.

        Raises:
            ImageError: it is something else.
        """
        size, _, color = text.lower().partition(":")
        sides = size.split("x")
        colors = [each.value for each in FrameColor]
        if len(sides) != 2 or not all(side.isascii() and side.isdecimal() for side in sides) or color not in colors:
            raise ImageError(
                f"frames are '{text}': give height, width and colour, such as 1080x1920:nv12; colours are "
                f"{', '.join(colors)}"
            )
        return cls(int(sides[0]), int(sides[1]), FrameColor(color))

    def to_json(self) -> dict[str, object]:
        """The format as values that JSON knows."""
        return {"height": self.height, "width": self.width, "color": self.color.value}

    @classmethod
    def from_json(cls, document: object) -> FrameFormat:
        """Reads what ``to_json`` gave.

        Raises:
            ImageError: it is something else.
        """
        try:
            assert isinstance(document, dict) and set(document) == {"height", "width", "color"}
            return cls(int(document["height"]), int(document["width"]), FrameColor(document["color"]))
        except (AssertionError, TypeError, ValueError) as error:
            raise ImageError(f"{document!r} is no frame format: give height, width and color") from error


@dataclass(frozen=True, eq=False)
class CameraFrame:
    """One frame as its source gave it."""

    pixels: npt.NDArray[np.uint8]
    """The buffer, as ``FrameFormat.shape`` says for its colour; only this frame's, never written again."""
    color: FrameColor
    captured: float
    """When it was complete, in seconds of ``time.monotonic``."""
    index: int
    """The source's count of frames, those that nobody got included."""


def to_rgb(frame: npt.NDArray[np.uint8], color: FrameColor) -> npt.NDArray[np.uint8]:
    """A camera's buffer as H×W×3 RGB, or H×W×1 where it is grey; a view where only channels change places.

    Args:
        frame: uint8, as ``FrameFormat.shape`` says.

    Raises:
        ImageError: it has another shape or dtype.
    """
    matrix, offset = MIXES[color]
    channels = frame.shape[2] if frame.ndim == 3 else 0
    if frame.dtype != np.uint8 or channels != channels_of(color):
        raise ImageError(f"a frame is {frame.dtype} {frame.shape}: '{color.value}' is uint8 H×W×{channels_of(color)}")
    if color not in SUBSAMPLED and color not in LUMA_OF_PAIRS:
        order = matrix.argmax(1).tolist()
        return frame[:, :, order[0] :: -1] if order[0] > order[-1] else frame[:, :, : len(order)]
    mixed = _full_size(frame, color).astype(np.float32) @ matrix.T.astype(np.float32) + offset.astype(np.float32)
    rounded: npt.NDArray[np.uint8] = np.clip(np.floor(mixed + 0.5), 0, 255).astype(np.uint8)
    return rounded


def _full_size(frame: npt.NDArray[np.uint8], color: FrameColor) -> npt.NDArray[np.uint8]:
    """Luma and chroma, H×W×3, each chroma repeated over the pixels that share it."""
    rows, width = frame.shape[:2]
    height = rows * 2 // 3 if color in SUBSAMPLED else rows
    FrameFormat(height, width, color)
    if color in SUBSAMPLED:
        chroma = frame[height:, :, 0].reshape(height // 2, width // 2, 2).repeat(2, axis=0)
        luma = frame[:height]
    else:
        at = LUMA_OF_PAIRS[color]
        chroma = frame[:, :, 1 - at].reshape(height, width // 2, 2)
        luma = frame[:, :, at : at + 1]
    return np.concatenate([luma, chroma.repeat(2, axis=1)], axis=2)
