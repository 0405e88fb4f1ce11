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
VIDEO = (*SUBSAMPLED, *LUMA_OF_PAIRS)
"""Those of luma and chroma."""
CHANNELS: dict[FrameColor, tuple[int, ...]] = {
    color: tuple(matrix.argmax(1).tolist()) for color, (matrix, _) in MIXES.items() if color not in VIDEO
}
"""Which channels of the others are red, green and blue, or grey."""
_EVEN = "give the picture's height and width as the camera sends it, or have the camera send another size"
_STRIP = 32
"""Rows of chroma that become RGB at once: what they need stays in a processor's cache."""


def channels_of(color: FrameColor) -> int:
    """Of a camera's buffer: the bytes in a pixel's place, which need not be all that its colour is made of."""
    if color in SUBSAMPLED:
        return 1
    return 2 if color in LUMA_OF_PAIRS else MIXES[color][0].shape[1]


def picture_height(frame: npt.NDArray[np.uint8], color: FrameColor) -> int:
    """Rows of the picture in a camera's buffer."""
    return len(frame) * 2 // 3 if color in SUBSAMPLED else len(frame)


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
            raise ImageError(f"{self._sides} has even sides only: {_EVEN}")
        if self.color in LUMA_OF_PAIRS and self.width % 2:
            raise ImageError(f"{self._sides} has an even width only: {_EVEN}")

    @property
    def _sides(self) -> str:
        return f"frames of {self.height}×{self.width}: '{self.color.value}'"

    @property
    def shape(self) -> tuple[int, int, int]:
        """Of the buffer, H×W×C."""
        if self.color in SUBSAMPLED:
            return self.height * 3 // 2, self.width, 1
        return self.height, self.width, channels_of(self.color)

    @property
    def flag(self) -> str:
        """As ``parse`` reads it."""
        return f"{self.height}x{self.width}:{self.color.value}"

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


def plain_frame(frame: object, name: str, color: FrameColor) -> npt.NDArray[np.uint8]:
    """An array that is a frame of this colour, as H×W×C; never copied. One said to be RGB may be grey, as files are.

    Raises:
        ImageError: it has another dtype or shape, or is no array.
    """
    if not isinstance(frame, np.ndarray):
        raise ImageError(f"{name} is of type {type(frame).__name__}: give a uint8 array H×W×3, or a Pillow image")
    if frame.dtype != np.uint8:
        raise ImageError(f"{name} has dtype {frame.dtype}: give uint8 0..255, the pixels as the camera gives them")
    if frame.ndim not in (2, 3):
        raise ImageError(f"{name} has shape {frame.shape}: give one frame, H×W×3 RGB or H×W grey")
    if frame.size == 0:
        raise ImageError(f"{name} has shape {frame.shape}: it is empty, give at least one pixel")
    pixels = frame if frame.ndim == 3 else frame[:, :, np.newaxis]
    channels = pixels.shape[2]
    wanted = channels_of(color)
    if channels != wanted and (color, channels) != (FrameColor.RGB, 1):
        if color is not FrameColor.RGB:
            raise ImageError(f"{name} has shape {frame.shape}: '{color.value}' is uint8 H×W×{wanted}")
        if channels == 4:
            raise ImageError(f"{name} has 4 channels: give its 3 colours, frame[:, :, :3]")
        raise ImageError(f"{name} has shape {frame.shape}, {channels} channels: give H×W×3 RGB or H×W grey")
    if color in SUBSAMPLED and (len(pixels) % 3 or pixels.shape[1] % 2):
        raise ImageError(
            f"{name} has shape {frame.shape}: '{color.value}' is 1.5·H rows, H of luma and H/2 of chroma, of even sides"
        )
    if color in LUMA_OF_PAIRS and pixels.shape[1] % 2:
        raise ImageError(f"{name} has shape {frame.shape}: '{color.value}' has an even width only, for pairs of pixels")
    return pixels


def to_rgb(frame: npt.NDArray[np.uint8], color: FrameColor) -> npt.NDArray[np.uint8]:
    """A camera's buffer as H×W×3 RGB, or H×W×1 where it is grey; a view where only channels change places.

    Args:
        frame: uint8, as ``FrameFormat.shape`` says.
        color: how it gives its pixels.

    Raises:
        ImageError: it has another shape or dtype.
    """
    pixels = plain_frame(frame, "a frame", color)
    if color in VIDEO:
        return video_part(pixels, color, slice(0, picture_height(pixels, color)), slice(0, pixels.shape[1]))
    order = CHANNELS[color][: pixels.shape[2]]
    return pixels[:, :, order[0] :: -1] if order[0] > order[-1] else pixels[:, :, : len(order)]


def video_part(frame: npt.NDArray[np.uint8], color: FrameColor, rows: slice, columns: slice) -> npt.NDArray[np.uint8]:
    """Part of a picture of luma and chroma as H×W×3 RGB; each chroma stands for two pixels, or for four.

    Args:
        frame: uint8, as ``FrameFormat.shape`` says.
        color: one of ``VIDEO``.
        rows: which of the picture are wanted.
        columns: which of the picture.
    """
    shared = 2 if color in SUBSAMPLED else 1
    down = slice(rows.start // shared, -(-rows.stop // shared))  # to the ends of what shares a chroma
    across = slice(columns.start // 2 * 2, -(-columns.stop // 2) * 2)
    luma, chroma = _planes(frame, color, across)
    rgb = np.empty((shared * (down.stop - down.start), luma.shape[1], 3), np.uint8)
    for top in range(down.start, down.stop, _STRIP):
        some = slice(top, min(top + _STRIP, down.stop))
        bright = slice(shared * some.start, shared * some.stop)
        place = slice(bright.start - shared * down.start, bright.stop - shared * down.start)
        _mix_strip(luma[bright], chroma[some], color, rgb[place])
    return rgb[rows.start % shared :, columns.start % 2 :][: rows.stop - rows.start, : columns.stop - columns.start]


def _planes(
    frame: npt.NDArray[np.uint8], color: FrameColor, columns: slice
) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.uint8]]:
    """Luma H×w of some columns, whole pairs of them, and their chroma: h×w/2×2, or H×w/2×2 of pairs."""
    height = picture_height(frame, color)
    if color in SUBSAMPLED:
        luma, chroma = frame[:height, columns, 0], frame[height:, columns, 0]
    else:
        at = LUMA_OF_PAIRS[color]
        luma, chroma = frame[:, columns, at], frame[:, columns, 1 - at]
    return luma, chroma.reshape(len(chroma), -1, 2)


def _mix_strip(
    luma: npt.NDArray[np.uint8], chroma: npt.NDArray[np.uint8], color: FrameColor, rgb: npt.NDArray[np.uint8]
) -> None:
    """Fills h×w×3 pixels from h×w luma, and chroma of every row or of every two."""
    matrix, offset = (part.astype(np.float32) for part in MIXES[color])
    (height, width), rows = luma.shape, len(chroma)
    bright = (luma * matrix[0, 0]).reshape(rows, height // rows, width)  # luma weighs the same in all three
    doubled = np.empty((2, rows, width), np.float32)
    for plane, half in zip(doubled, (chroma[:, :, 0], chroma[:, :, 1]), strict=True):
        plane[:, ::2], plane[:, 1::2] = half, half
    mixed = np.empty((rows, height // rows, width), np.float32)
    for channel, weights in enumerate(matrix[:, 1:]):
        tints = [plane * weight for plane, weight in zip(doubled, weights, strict=True) if weight]
        tint = sum(tints[1:], tints[0])
        tint += offset[channel] + np.float32(0.5)
        np.add(bright, tint[:, np.newaxis], out=mixed)
        np.clip(mixed, 0, 255, out=mixed)
        rgb[:, :, channel] = mixed.reshape(height, width)  # towards 0, and so rounded: the half is in the tint
