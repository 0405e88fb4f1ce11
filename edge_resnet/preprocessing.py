"""Preprocessing: the one description of how an image becomes the network's input.

Calibration, the accuracy check and the runtime share one frozen ``Preprocessing``, and it travels inside the bundle, so
that they cannot differ. ``prepare`` does the geometry and the channel order and stays in uint8; the arithmetic (mean and
standard deviation) is part of the exported graph.

Geometry is torchvision's ``Resize`` (of the shorter side, antialiased) and ``CenterCrop`` on Pillow images, without the
pixels that the crop would throw away; ``resampling`` has the arithmetic.
"""

from __future__ import annotations

import difflib
import os
import sys
from collections.abc import Mapping
from dataclasses import dataclass, fields
from enum import Enum
from pathlib import Path
from typing import Any, TypeGuard, TypeVar

import numpy as np
import numpy.typing as npt
from PIL import Image

from edge_resnet.errors import ImageError, RecipeError
from edge_resnet.frames import CHANNELS, VIDEO, FrameColor, picture_height, plain_frame, video_part
from edge_resnet.limits import check
from edge_resnet.resampling import Axis, matrices, resample
from edge_resnet.resampling import Interpolation as Interpolation
from edge_resnet.resampling import Pixels as Pixels
from edge_resnet.toml_table import parse_toml

if sys.version_info >= (3, 11):
    pass
else:
    pass

Frame = Pixels | Image.Image
"""What a camera or a file gives: uint8 H×W×3 RGB, H×W or H×W×1 grey, or a Pillow image."""


class Crop(Enum):
    """What is cut off: all but the centre, after the shorter side is resized; or nothing."""

    CENTER = "center"
    NONE = "none"


class Color(Enum):
    """The channels that the network takes, in their order."""

    RGB = "rgb"
    BGR = "bgr"
    GRAY = "gray"


@dataclass(frozen=True)
class Preprocessing:
    """How an image becomes the network's input. No field has a default: a guessed mean gives plausible, wrong answers.

    Raises:
        RecipeError: a value is out of range, or two do not fit together.
    """

    size: tuple[int, int]
    """Height and width of the network's input, in pixels."""
    resize: int | None
    """Length of the shorter side before the centre crop, in pixels; None when nothing is cropped: then the whole image is
    resized to ``size``, whatever its shape."""
    crop: Crop
    interpolation: Interpolation
    color: Color
    mean: tuple[float, ...]
    """One for each channel, in the network's channel order, for pixels in 0..1."""
    std: tuple[float, ...]
    """As ``mean``."""

    def __post_init__(self) -> None:
        for key, kind in (("crop", Crop), ("interpolation", Interpolation), ("color", Color)):
            if not isinstance(getattr(self, key), kind):
                raise RecipeError(f"{key} is {getattr(self, key)!r}: give one of {kind.__name__}'s members")
        if not (isinstance(self.size, tuple) and len(self.size) == 2 and all(_is_length(side) for side in self.size)):
            raise RecipeError(f"size is {self.size!r}: give height and width in pixels, each 1 or more")
        check(self.size[0] * self.size[1], "image_pixels", "size", RecipeError, "pixels")
        self._check_resize()
        for key, values in (("mean", self.mean), ("std", self.std)):
            if not (isinstance(values, tuple) and len(values) == self.channels and all(map(_is_number, values))):
                raise RecipeError(f"{key} is {values!r}: color '{self.color.value}' needs {self.channels} numbers")
        if not all(0 <= value <= 1 for value in self.mean):
            raise RecipeError(f"mean is {self.mean}: give it for pixels in 0..1 (divide values for 0..255 by 255)")
        if not all(0 < value <= 1 for value in self.std):
            raise RecipeError(
                f"std is {self.std}: give it above 0 and for pixels in 0..1 (divide by 255 if for 0..255)"
            )

    def _check_resize(self) -> None:
        if self.crop is Crop.NONE:
            if self.resize is not None:
                raise RecipeError(
                    f"resize is {self.resize!r} but crop is 'none': leave resize out, or crop to 'center'"
                )
        elif not _is_length(self.resize) or self.resize < max(self.size):
            raise RecipeError(
                f"resize is {self.resize!r}: crop 'center' needs the shorter side's length before the crop, "
                f"{max(self.size)} or more for size {self.size[0]}×{self.size[1]}"
            )

    @property
    def channels(self) -> int:
        """Channels of the network's input: 1 or 3."""
        return 1 if self.color is Color.GRAY else 3

    def to_json(self) -> dict[str, object]:
        """Gives the plain values that ``from_json`` reads back to an equal ``Preprocessing``."""
        return {
            "size": list(self.size),
            "resize": self.resize,
            "crop": self.crop.value,
            "interpolation": self.interpolation.value,
            "color": self.color.value,
            "mean": list(self.mean),
            "std": list(self.std),
        }

    @classmethod
    def from_json(cls, document: Mapping[str, Any]) -> Preprocessing:
        """Reads what ``to_json`` gave.

        Raises:
            RecipeError: a key is unknown or missing, or a value is wrong.
        """
        _check_keys(document, tuple(field.name for field in fields(cls)))
        return cls(
            size=_tuple(document["size"]),
            resize=document["resize"],
            crop=_choice(Crop, "crop", document["crop"]),
            interpolation=_choice(Interpolation, "interpolation", document["interpolation"]),
            color=_choice(Color, "color", document["color"]),
            mean=_tuple(document["mean"]),
            std=_tuple(document["std"]),
        )

    @classmethod
    def from_table(cls, table: Mapping[str, Any]) -> Preprocessing:
        """Reads a TOML table: ``from_json``'s keys, but ``size`` may be one number, and ``resize`` left out means None.

        Raises:
            RecipeError: a key is unknown or missing, or a value is wrong.
        """
        _check_table(table)
        document = {"resize": None, **table}
        if isinstance(document.get("size"), int):
            document["size"] = [document["size"]] * 2
        return cls.from_json(document)

    def prepare(self, frame: Frame, name: str = "the frame", color: FrameColor = FrameColor.RGB) -> Pixels:
        """Makes one frame what the network takes. Only the pixels that the crop needs are looked at.

        A colour frame for a one-channel network becomes luma (Pillow's ``L``: ITU-R 601-2) before it is resized, which
        is a third of the work; a grey frame for a three-channel network is repeated.

        Args:
            frame: uint8 H×W×3 RGB, H×W or H×W×1 grey, of any size and strides, or a Pillow image; or, of another
                ``color``, an array as ``FrameFormat.shape`` says for it.
            name: what messages call it, such as its path.
            color: how an array gives its pixels.

        Returns:
            uint8 H×W×C at ``size``, contiguous and not shared with the frame.

        Raises:
            ImageError: the frame has another dtype, shape or mode, or is an image and ``color`` is said of it.
        """
        part, order, (down, across) = self._part(frame, name, color)
        if self.color is Color.GRAY and len(order) == 3:
            part, order = np.asarray(Image.fromarray(part[:, :, list(order)]).convert("L"))[:, :, np.newaxis], (0,)
        if self.color is Color.BGR:
            order = order[::-1]
        pixels = resample(part, down, across, order)
        return np.repeat(pixels, self.channels, axis=2) if pixels.shape[2] < self.channels else pixels

    def _part(self, frame: Frame, name: str, color: FrameColor) -> tuple[Pixels, tuple[int, ...], tuple[Axis, Axis]]:
        """The part of a frame that is needed, which of its channels are red, green and blue (or grey), and its axes."""
        if isinstance(frame, Image.Image):
            if color is not FrameColor.RGB:
                raise ImageError(f"{name} is a Pillow image, which knows its colours: leave out color={color.value!r}")
            return self._part_of_image(plain_image(frame, name))
        frame = plain_frame(frame, name, color)
        if color in VIDEO:
            down, across = self._axes(picture_height(frame, color), frame.shape[1])
            return video_part(frame, color, down.pixels, across.pixels), (0, 1, 2), (down, across)
        down, across = self._axes(*frame.shape[:2])
        part, order = frame[down.pixels, across.pixels], CHANNELS[color][: frame.shape[2]]
        if part.strides[2] < 0:  # colours turned round by a view: read as they lie, they need not be copied
            part, order = part[:, :, ::-1], tuple(part.shape[2] - 1 - channel for channel in order)
        return part, order, (down, across)

    def _part_of_image(self, image: Image.Image) -> tuple[Pixels, tuple[int, ...], tuple[Axis, Axis]]:
        down, across = self._axes(image.height, image.width)
        corners = across.pixels.start, down.pixels.start, across.pixels.stop, down.pixels.stop
        part = np.asarray(image.crop(corners))
        if part.ndim == 2:
            return part[:, :, np.newaxis], (0,), (down, across)
        return part, (0, 1, 2), (down, across)

    def weights(self, height: int, width: int) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]]:
        """What ``prepare`` does to a frame's geometry, as two matrices: ``down @ frame @ across``, a channel at a time.

        They are the numbers that ``prepare`` reckons with. If the interpolation overshoots it goes across first, as Pillow,
        else down first, and ``down`` gives quarters; it rounds and clips behind each.

        Args:
            height: the frame's, in pixels.
            width: the frame's.

        Returns:
            float32 ``down``, size[0]×height, and ``across``, width×size[1].
        """
        return matrices(*self._axes(height, width))

    def _axes(self, height: int, width: int) -> tuple[Axis, Axis]:
        """What is to become of an image's rows and columns; arithmetic of torchvision's Resize and CenterCrop."""

        def axis(length: int, kept: int) -> Axis:
            if self.resize is None:
                return Axis(length, kept, 0, kept, self.interpolation)
            shorter = min(height, width)
            resized = self.resize if length == shorter else int(self.resize * length / shorter)
            return Axis(length, resized, round((resized - kept) / 2.0), kept, self.interpolation)

        return axis(height, self.size[0]), axis(width, self.size[1])


_HELD = {"WEBP": 3}
"""Pictures that a format's decoder holds beside the one it gives: that of animations, which Pillow takes for every WebP,
has this frame, the one before, and one to decode into."""


def plain_image(image: Image.Image, name: str) -> Image.Image:
    """Decodes a Pillow image fully and gives it in mode ``L`` or ``RGB``.

    Alpha is dropped when every pixel is opaque. CMYK and YCbCr are converted as Pillow, and so torchvision, does.

    Raises:
        ImageError: it is damaged, has transparent pixels, or more than 8 bits a channel: its range would be a guess.
    """
    held = _HELD.get(str(image.format), 1)
    counted = name if held == 1 else f"{name}, of which its decoder holds {held} copies,"
    check(held * image.width * image.height, "image_pixels", counted, ImageError, "pixels")
    # The raw mode tells of 16-bit colour, which Pillow would cut to its upper 8 bits; decoding forgets it.
    raw_modes = [str(tile[3]) for tile in getattr(image, "tile", ())]
    if image.mode in ("I", "F") or image.mode.startswith("I;16") or any(";16" in mode for mode in raw_modes):
        raise ImageError(f"{name} has more than 8 bits a channel: scale it to 8 bits first, as the camera does")
    if image.mode not in ("1", "L", "P", "RGB", "LA", "PA", "RGBA", "CMYK", "YCbCr"):
        raise ImageError(f"{name} has Pillow mode '{image.mode}': save it as RGB or grey first")
    try:
        image.load()
    except Exception as error:  # a damaged file can lead a decoder to any of them: OSError, SyntaxError, TypeError, …
        raise ImageError(f"{name} cannot be decoded ({error}): give an undamaged image") from error
    if image.has_transparency_data:
        rgba = image.convert("RGBA")
        if np.asarray(rgba.getchannel("A")).min() < 255:
            raise ImageError(f"{name} has transparent pixels: flatten it on the background that the camera would see")
        return rgba.convert("L" if image.mode in ("1", "L", "LA") else "RGB")
    if image.mode in ("L", "RGB"):
        return image
    return image.convert("L" if image.mode == "1" else "RGB")


def _is_length(value: object) -> TypeGuard[int]:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 1


def _is_number(value: object) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def _tuple(value: Any) -> Any:
    """Makes a list, which JSON and TOML have, a tuple; whatever else it is, the constructor refuses."""
    return tuple(value) if isinstance(value, list) else value


_Choice = TypeVar("_Choice", bound=Enum)


def _choice(kind: type[_Choice], key: str, value: object) -> _Choice:
    try:
        return kind(value)
    except ValueError as error:
        names = ", ".join(str(member.value) for member in kind)
        raise RecipeError(f"{key} is {value!r}: choose one of {names}") from error


def _check_table(document: object) -> None:
    if not isinstance(document, Mapping):
        raise RecipeError(f"preprocessing is {document!r}: give a table of keys and values")


def _check_keys(document: Mapping[str, Any], keys: tuple[str, ...]) -> None:
    _check_table(document)
    for key in document:
        if key not in keys:
            nearest = difflib.get_close_matches(key, keys, n=1)
            advice = f"did you mean '{nearest[0]}'?" if nearest else f"the keys are {', '.join(keys)}"
            raise RecipeError(f"preprocessing has an unknown key '{key}': {advice}")
    for key in keys:
        if key not in document:
            raise RecipeError(f"preprocessing lacks '{key}': give all of {', '.join(keys)}")


NAMED = {
    "imagenet": Preprocessing(
        size=(224, 224),
        resize=256,
        crop=Crop.CENTER,
        interpolation=Interpolation.BILINEAR,
        color=Color.RGB,
        mean=(0.485, 0.456, 0.406),
        std=(0.229, 0.224, 0.225),
    ),
    "fashion-mnist": Preprocessing(
        size=(28, 28),
        resize=None,
        crop=Crop.NONE,
        interpolation=Interpolation.BILINEAR,
        color=Color.GRAY,
        mean=(0.2860,),
        std=(0.3530,),
    ),
    "keras-resnet": Preprocessing(
        size=(224, 224),
        resize=None,
        crop=Crop.NONE,
        interpolation=Interpolation.BILINEAR,
        color=Color.BGR,
        mean=(103.939 / 255, 116.779 / 255, 123.68 / 255),
        std=(1 / 255, 1 / 255, 1 / 255),
    ),
    "keras-resnet-v2": Preprocessing(
        size=(224, 224),
        resize=None,
        crop=Crop.NONE,
        interpolation=Interpolation.BILINEAR,
        color=Color.RGB,
        mean=(0.5, 0.5, 0.5),
        std=(0.5, 0.5, 0.5),
    ),
    "mlperf-tiny": Preprocessing(
        size=(32, 32),
        resize=None,
        crop=Crop.NONE,
        interpolation=Interpolation.BILINEAR,
        color=Color.RGB,
        mean=(0.0, 0.0, 0.0),
        std=(1 / 255, 1 / 255, 1 / 255),
    ),
}
"""Preprocessings known by name. ImageNet's is that of torchvision's published ResNets; Keras's are those of its
``preprocess_input``: for ResNet, pixels of 0..255 less the mean, as Caffe had them; for ResNet V2, pixels in -1..1. MLPerf
Tiny's ResNet-8 takes pixels of 0..255 as they are."""


def load_preprocessing(name_or_path: str) -> Preprocessing:
    """Finds a preprocessing by its name in ``NAMED``, or reads it from a TOML file.

    The keys stand at the file's top level or in a table ``[preprocessing]``, so that a recipe will do too.

    Raises:
        RecipeError: there is no such name or file, or the file cannot be used.
    """
    if name_or_path in NAMED:
        return NAMED[name_or_path]
    if not os.path.isfile(name_or_path):
        known = ", ".join(NAMED)
        raise RecipeError(f"unknown preprocessing '{name_or_path}': give one of {known}, or a TOML file that exists")
    path = Path(name_or_path)
    try:
        document = parse_toml(path)
    except (OSError, ValueError) as error:
        raise RecipeError(f"{path} cannot be read as TOML: {error}") from error
    try:
        return Preprocessing.from_table(document.get("preprocessing", document))
    except RecipeError as error:
        raise RecipeError(f"{path}: {error}") from error
