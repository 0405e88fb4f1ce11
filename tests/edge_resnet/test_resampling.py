"""Resampling against Pillow's answers to single pixels, and against integers."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from edge_resnet.resampling import Axis, Interpolation, matrices, resample


def noise(height: int, width: int, channels: int = 3) -> np.ndarray:
    """Black, white and noise: sums of products come as high as they can."""
    values = np.random.default_rng(0).integers(-128, 384, (height, width, channels))
    return values.clip(0, 255).astype(np.uint8)


def axes(interpolation: Interpolation, height: int, width: int) -> tuple[Axis, Axis]:
    """The middle, 20×30, of an image that becomes 24×37."""
    return Axis(height, 24, 2, 20, interpolation), Axis(width, 37, 3, 30, interpolation)


SIZES = [(108, 192), (24, 37), (480, 37), (3, 2), (1, 1), (25, 1000)]


@pytest.mark.parametrize("interpolation", Interpolation)
@pytest.mark.parametrize("size", SIZES)
def test_matrices_are_pillows_answers_to_single_pixels(interpolation: Interpolation, size: tuple[int, int]) -> None:
    down, across = axes(interpolation, *size)
    rows, columns = matrices(down, across)
    kernel = Image.Resampling[interpolation.name]
    for axis, matrix in ((down, rows * columns[:, 0].sum()), (across, columns.T * rows[0].sum())):
        pixels = Image.fromarray(np.eye(axis.length, dtype=np.float32))
        answers = np.asarray(pixels.resize((axis.resized, axis.length), kernel)).T[axis.start : axis.start + axis.kept]
        np.testing.assert_allclose(matrix, answers, atol=2**-13)


@pytest.mark.parametrize("interpolation", [Interpolation.BILINEAR, Interpolation.BOX, Interpolation.BICUBIC])
@pytest.mark.parametrize("size", SIZES)
def test_sums_are_exact(interpolation: Interpolation, size: tuple[int, int]) -> None:
    """In whole numbers, whatever the order of adding: so a machine with other vectors has the same pixels."""
    down, across = axes(interpolation, *size)
    frame = noise(*size)
    rows, columns = (np.rint(matrix.astype(np.float64) * 2**22).astype(np.int64) for matrix in matrices(down, across))

    def rounded(sums: np.ndarray) -> np.ndarray:
        return (sums + 2**21) >> 22

    expected = []
    for plane in np.moveaxis(frame.astype(np.int64), 2, 0):
        if interpolation.overshoots:
            expected.append(rounded(rows @ rounded(plane @ columns).clip(0, 255)).clip(0, 255))
        else:
            expected.append(rounded(rounded(rows @ plane) @ columns))
    found = resample(frame[down.pixels, across.pixels], down, across, (0, 1, 2))
    np.testing.assert_array_equal(found, np.stack(expected, axis=2))


@pytest.mark.parametrize("interpolation", Interpolation)
def test_channels_come_in_the_order_that_is_asked_for(interpolation: Interpolation) -> None:
    down, across = axes(interpolation, 108, 192)
    part = noise(108, 192, 4)[down.pixels, across.pixels]
    every = resample(part, down, across, (0, 1, 2, 3))
    for order in ((2, 1, 0), (3,), (1, 1)):
        found = resample(part, down, across, order)
        np.testing.assert_array_equal(found, every[:, :, list(order)])
        assert found.flags.c_contiguous


@pytest.mark.parametrize("interpolation", Interpolation)
def test_pixels_that_no_weight_reaches_are_not_needed(interpolation: Interpolation) -> None:
    down, across = axes(interpolation, 1080, 1920)
    rows, columns = matrices(down, across)
    for axis, used in ((down, rows.any(axis=0)), (across, columns.any(axis=1))):
        assert not used[: axis.pixels.start].any() and not used[axis.pixels.stop :].any()
        assert axis.pixels.stop - axis.pixels.start <= np.flatnonzero(used)[-1] - np.flatnonzero(used)[0] + 4


@pytest.mark.parametrize("size", SIZES)
def test_float32_holds_every_sum(size: tuple[int, int]) -> None:
    """Sums count whole steps, fewer than 2^24 of them: down in 2^-14 of a quarter of pixels, across in 2^-16 of a pixel."""
    rows, columns = matrices(*axes(Interpolation.BILINEAR, *size))
    for weights, step, largest in ((rows.T, 2**14, 255), (columns, 2**16, 4 * 255)):
        steps = weights.astype(np.float64) * step
        assert (steps == np.rint(steps)).all() and (steps >= 0).all()
        assert (largest * steps.sum(axis=0) < 2**24).all()
