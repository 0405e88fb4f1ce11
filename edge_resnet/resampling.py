"""Resizing as Pillow does it, of the pixels that a crop keeps: two banded matrix products in exact arithmetic.

Weights are Pillow's formula (``precompute_coeffs`` in its ``Resample.c``) for the whole image, brought to so few bits that
every sum of products is a whole number of steps which the float type holds. The order in which a BLAS adds, or the width of
its vectors, then changes no pixel: all machines and all sources answer the same.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum
from functools import lru_cache

import numpy as np
import numpy.typing as npt
from PIL import Image

Pixels = npt.NDArray[np.uint8]
"""uint8 H×W×C."""
Floats = npt.NDArray[np.float32 | np.float64]
_Doubles = npt.NDArray[np.float64]

_OUTPUTS = 4
"""Outputs of one product: more of them multiply more zeros, fewer make more calls."""
_PRODUCT = 2**18
"""Multiplications in one product: OpenBLAS wakes its threads for more, which costs a busy machine milliseconds."""


class Interpolation(Enum):
    """Pillow's filters of these names, antialiased when the image shrinks (nearest excepted)."""

    BILINEAR = "bilinear"
    BICUBIC = "bicubic"
    LANCZOS = "lanczos"
    BOX = "box"
    NEAREST = "nearest"

    @property
    def overshoots(self) -> bool:
        """Whether weights are negative: Pillow clips between its passes, so that their order is then seen, by up to 20."""
        return self in (Interpolation.BICUBIC, Interpolation.LANCZOS)


def _bilinear(x: _Doubles) -> _Doubles:
    return np.where(np.abs(x) < 1, 1 - np.abs(x), 0)


def _bicubic(x: _Doubles) -> _Doubles:
    x = np.abs(x)
    near = (1.5 * x - 2.5) * x * x + 1
    far = ((x - 5) * x + 8) * x * -0.5 + 2
    return np.where(x < 1, near, np.where(x < 2, far, 0))


def _lanczos(x: _Doubles) -> _Doubles:
    return np.where((x >= -3) & (x < 3), np.sinc(x) * np.sinc(x / 3), 0)


def _box(x: _Doubles) -> _Doubles:
    return np.where((x > -0.5) & (x <= 0.5), 1.0, 0.0)


_FILTERS: dict[Interpolation, tuple[Callable[[_Doubles], _Doubles], float]] = {
    Interpolation.BILINEAR: (_bilinear, 1.0),
    Interpolation.BICUBIC: (_bicubic, 2.0),
    Interpolation.LANCZOS: (_lanczos, 3.0),
    Interpolation.BOX: (_box, 0.5),
}
"""Each with its support, in pixels of the smaller image."""


@dataclass(frozen=True)
class _Pass:
    """The arithmetic of one of the two passes."""

    dtype: type[np.float32] | type[np.float64]
    bits: int
    """Of a weight, behind the point."""
    gain: float
    """What the results are multiplied by, a power of two."""


_PILLOW = _Pass(np.float64, 22, 1)
"""Pillow's own bits, rounding included: every pixel is equal to its."""
_FIRST = _Pass(np.float32, 16, 4)
"""Rounds to quarters: 255 · 2^16 steps of sums, for weights that add up to 1 and are not negative."""
_SECOND = _Pass(np.float32, 14, 1 / 4)
"""1020 · 2^14 steps: float32 holds 2^24."""


@dataclass(frozen=True)
class Axis:
    """One side of an image that is resized, and the part of it that is kept. All in pixels."""

    length: int
    """Of the image."""
    resized: int
    """What the whole of it would become."""
    start: int
    """Where the kept part begins in that."""
    kept: int
    interpolation: Interpolation

    @property
    def pixels(self) -> slice:
        """Those of the image that have a weight, and perhaps one behind them."""
        first, taps = _taps(self)
        return slice(int(first[0]), min(int(first[-1]) + taps.shape[1], self.length))


@lru_cache(maxsize=16)
def _taps(axis: Axis) -> tuple[npt.NDArray[np.int64], _Doubles]:
    """For each output the first pixel, and the weights of that and those behind it, which add up to 1."""
    if axis.interpolation is Interpolation.NEAREST:
        # Pillow steps along in floating point: only it knows where it lands.
        ramp = Image.fromarray(np.arange(axis.length, dtype=np.int32)[np.newaxis])
        landed = np.asarray(ramp.resize((axis.resized, 1), Image.Resampling.NEAREST))[0]
        return landed[axis.start : axis.start + axis.kept].astype(np.int64), np.ones((axis.kept, 1))
    function, support = _FILTERS[axis.interpolation]
    scale = axis.length / axis.resized
    stretch = max(scale, 1.0)
    centre = (axis.start + np.arange(axis.kept) + 0.5) * scale
    first = np.maximum((centre - support * stretch + 0.5).astype(np.int64), 0)
    end = np.minimum((centre + support * stretch + 0.5).astype(np.int64), axis.length)
    places = first[:, np.newaxis] + np.arange((end - first).max())
    values = function((places - centre[:, np.newaxis] + 0.5) * (1.0 / stretch)) * (places < end[:, np.newaxis])
    return first, values / values.sum(axis=1, keepdims=True)


@dataclass(frozen=True, eq=False)
class _Block:
    """Some outputs that stand side by side, and all that they need."""

    outputs: slice
    inputs: slice
    """Counted from the first of ``Axis.pixels``."""
    weights: Floats
    """outputs×inputs."""


@lru_cache(maxsize=16)
def _blocks(axis: Axis, way: _Pass) -> tuple[_Block, ...]:
    """An axis in parts, each dense enough for a matrix product."""
    first, taps = _taps(axis)
    steps = taps * 2.0**way.bits
    if way is _PILLOW:
        whole = np.trunc(steps + np.copysign(0.5, steps))
    else:  # sums are rounded, and weights are their differences: so they add up to 1, and errors do not
        whole = np.diff(np.rint(np.cumsum(steps, axis=1)), axis=1, prepend=0)
    weights = (whole * (way.gain / 2.0**way.bits)).astype(way.dtype)
    begins = np.repeat(first[::_OUTPUTS], _OUTPUTS)[: axis.kept]
    places = (first - begins)[:, np.newaxis] + np.arange(taps.shape[1])
    banded = np.zeros((axis.kept, places.max() + 1), way.dtype)
    np.put_along_axis(banded, places, weights, axis=1)
    blocks = []
    for at in range(0, axis.kept, _OUTPUTS):
        start = int(begins[at]) - axis.pixels.start
        inputs = slice(start, min(start + banded.shape[1], axis.pixels.stop - axis.pixels.start))
        outputs = slice(at, min(at + _OUTPUTS, axis.kept))
        blocks.append(_Block(outputs, inputs, banded[outputs, : inputs.stop - inputs.start]))
    return tuple(blocks)


@lru_cache(maxsize=16)
def _interleaved(axis: Axis, way: _Pass, order: tuple[int, ...], channels: int) -> tuple[_Block, ...]:
    """``_blocks``, transposed, for pixels whose channels lie beside each other: those of ``order`` of so many."""
    blocks = []
    for block in _blocks(axis, way):
        kept, pixels = block.weights.shape
        matrix = np.zeros((pixels, channels, kept, len(order)), way.dtype)
        for place, channel in enumerate(order):
            matrix[:, channel, :, place] = block.weights.T
        outputs = slice(block.outputs.start * len(order), block.outputs.stop * len(order))
        inputs = slice(block.inputs.start * channels, block.inputs.stop * channels)
        blocks.append(_Block(outputs, inputs, matrix.reshape(pixels * channels, -1)))
    return tuple(blocks)


def resample(part: Pixels, down: Axis, across: Axis, order: tuple[int, ...]) -> Pixels:
    """Resizes what an image's crop needs.

    Bicubic, Lanczos and nearest give the pixels of Pillow's resize of the whole image, across and then down. For bilinear
    and box the order makes no difference but rounding: they go down first, which is half the work, with a finer rounding
    between, and a pixel differs from Pillow's by at most 1 of 255.

    Args:
        part: uint8, rows ``down.pixels`` and columns ``across.pixels`` of the image; not copied if each row's pixels lie
            side by side, however far apart the rows are.
        down: its rows.
        across: its columns, of the same interpolation.
        order: which of its channels are wanted, in their order.

    Returns:
        uint8 down.kept×across.kept×len(order), contiguous, not shared.
    """
    if down.interpolation is Interpolation.NEAREST:
        rows, columns = (_taps(axis)[0] - axis.pixels.start for axis in (down, across))
        return np.ascontiguousarray(part[rows[:, np.newaxis], columns][:, :, list(order)])
    channels = part.shape[2]
    lines = part.reshape(len(part), -1)
    if down.interpolation.overshoots:
        wide = _across(lines, _interleaved(across, _PILLOW, order, channels))
        small = _down(wide.clip(0, 255, out=wide), _blocks(down, _PILLOW)).clip(0, 255)
    else:
        tall = _down(lines, _blocks(down, _FIRST))
        small = _across(tall, _interleaved(across, _SECOND, order, channels))
    return small.astype(np.uint8).reshape(down.kept, across.kept, len(order))


def matrices(down: Axis, across: Axis) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]]:
    """``resample`` as ``rows @ image @ columns``, a channel at a time: kept×length and length×kept.

    It goes across first if the interpolation overshoots, else down first; it rounds, halves up, and clips behind each.
    """
    ways = (_PILLOW, _PILLOW) if down.interpolation.overshoots else (_FIRST, _SECOND)
    rows, columns = (_dense(axis, way) for axis, way in zip((down, across), ways, strict=True))
    return rows, columns.T


def _dense(axis: Axis, way: _Pass) -> npt.NDArray[np.float32]:
    matrix = np.zeros((axis.kept, axis.length), np.float32)
    for block in _blocks(axis, way):
        matrix[block.outputs, axis.pixels][:, block.inputs] = block.weights
    return matrix


def _down(lines: Pixels | Floats, blocks: tuple[_Block, ...]) -> Floats:
    """``weights @ lines``, rounded."""
    dtype = blocks[0].weights.dtype
    result = np.empty((blocks[-1].outputs.stop, lines.shape[1]), dtype)
    for block in blocks:
        step = max(1, _PRODUCT // block.weights.size)
        for at in range(0, lines.shape[1], step):
            some = slice(at, at + step)
            inputs = lines[block.inputs, some].astype(dtype, copy=False)
            np.matmul(block.weights, inputs, out=result[block.outputs, some])
        _round(result[block.outputs])
    return result


def _across(lines: Pixels | Floats, blocks: tuple[_Block, ...]) -> Floats:
    """``lines @ weights``, rounded."""
    dtype = blocks[0].weights.dtype
    result = np.empty((len(lines), blocks[-1].outputs.stop), dtype)
    step = max(1, _PRODUCT // max(block.weights.size for block in blocks))
    for at in range(0, len(lines), step):
        some = slice(at, at + step)
        inputs = lines[some].astype(dtype, copy=False)
        for block in blocks:
            np.matmul(inputs[:, block.inputs], block.weights, out=result[some, block.outputs])
        _round(result[some])
    return result


def _round(values: Floats) -> None:
    """To the nearest whole number, halves up, as Pillow."""
    values += 0.5
    np.floor(values, out=values)
