"""Camera frames in RGB: by the standards' own numbers, and hand-made buffers."""

from __future__ import annotations

import numpy as np
import pytest

from edge_resnet.errors import ImageError
from edge_resnet.frames import VIDEO, FrameColor, FrameFormat, to_rgb, video_part


def nv12(height: int, width: int, y: int, cb: int, cr: int) -> np.ndarray:
    frame = np.full((height * 3 // 2, width, 1), y, np.uint8)
    frame[height:, ::2], frame[height:, 1::2] = cb, cr
    return frame


@pytest.mark.parametrize("color", [FrameColor.NV12, FrameColor.NV12_BT709])
@pytest.mark.parametrize(
    ("planes", "rgb"), [((16, 128, 128), 0), ((235, 128, 128), 255), ((126, 128, 128), 128), ((0, 128, 128), 0)]
)
def test_grey_of_video_range_becomes_grey_of_full_range(
    color: FrameColor, planes: tuple[int, int, int], rgb: int
) -> None:
    assert np.unique(to_rgb(nv12(4, 6, *planes), color)).tolist() == [rgb]


@pytest.mark.parametrize(
    ("color", "planes", "rgb"),
    [
        # 100 % colour bars: ITU-R BT.601 and BT.709 in 8 bits, as test generators give them.
        (FrameColor.NV12, (81, 90, 240), (254, 0, 0)),
        (FrameColor.NV12, (145, 54, 34), (0, 255, 1)),
        (FrameColor.NV12, (41, 240, 110), (0, 0, 255)),
        (FrameColor.NV12_BT709, (63, 102, 240), (255, 1, 0)),
        (FrameColor.NV12_BT709, (173, 42, 26), (0, 255, 1)),
        (FrameColor.NV12_BT709, (32, 240, 118), (1, 0, 255)),
    ],
)
def test_colour_bars(color: FrameColor, planes: tuple[int, int, int], rgb: tuple[int, int, int]) -> None:
    found = to_rgb(nv12(2, 2, *planes), color)
    assert np.abs(found.astype(int) - rgb).max() <= 1


def test_chroma_covers_two_by_two_pixels() -> None:
    frame = nv12(4, 4, 126, 128, 128)
    frame[4, 2:] = [[90], [240]]  # the upper right quarter
    found = to_rgb(frame, FrameColor.NV12)
    assert (found[:2, 2:] != 128).any(axis=2).all()
    assert (found[2:] == 128).all() and (found[:2, :2] == 128).all()


@pytest.mark.parametrize(("color", "luma"), [(FrameColor.YUYV, 0), (FrameColor.UYVY, 1)])
def test_pairs_of_pixels_share_their_chroma(color: FrameColor, luma: int) -> None:
    """Red, blue | green, green of the colour bars: luma of each, chroma of the pair; as NV12 with those in both rows."""
    y, cb, cr = [81, 41, 145, 145], [90, 54], [240, 34]
    frame = np.zeros((2, 4, 2), np.uint8)
    frame[:, :, luma] = y
    frame[:, 0::2, 1 - luma], frame[:, 1::2, 1 - luma] = cb, cr
    found = to_rgb(frame, color)
    assert np.abs(found[:, 0].astype(int) - (254, 0, 0)).max() <= 1
    assert np.abs(found[:, 2:].astype(int) - (0, 255, 1)).max() <= 1
    chroma = np.array(list(zip(cb, cr, strict=True)), np.uint8).reshape(1, 4)
    below = np.concatenate([np.array([y, y], np.uint8), chroma])[:, :, np.newaxis]
    np.testing.assert_array_equal(found, to_rgb(below, FrameColor.NV12))


def test_video_is_the_standards_formula_for_each_pixel() -> None:
    height, width = 150, 46  # more than a strip, and not a whole number of them
    frame = np.random.default_rng(0).integers(0, 256, (height * 3 // 2, width), np.uint8)
    found = to_rgb(frame, FrameColor.NV12)
    for row, column in ((0, 0), (1, 45), (63, 7), (64, 8), (149, 44)):
        y, cb, cr = (
            float(frame[row, column]) - 16,
            float(frame[height + row // 2, column // 2 * 2]) - 128,
            float(frame[height + row // 2, column // 2 * 2 + 1]) - 128,
        )
        # ITU-R BT.601 as most tables print it: 255/219, and 1.402, 0.344, 0.714 and 1.772 times 255/224.
        rgb = (
            1.16438 * y + 1.59603 * cr,
            1.16438 * y - 0.39176 * cb - 0.81297 * cr,
            1.16438 * y + 2.01723 * cb,
        )
        assert np.abs(np.clip(rgb, 0, 255) - found[row, column]).max() < 0.51


@pytest.mark.parametrize("color", VIDEO)
@pytest.mark.parametrize("rows", [(0, 20), (3, 16), (6, 7), (5, 20)])
@pytest.mark.parametrize("columns", [(0, 14), (1, 14), (4, 9), (13, 14)])
def test_a_part_of_video_is_that_of_the_whole(
    color: FrameColor, rows: tuple[int, int], columns: tuple[int, int]
) -> None:
    frame = np.random.default_rng(0).integers(0, 256, FrameFormat(20, 14, color).shape, np.uint8)
    found = video_part(frame, color, slice(*rows), slice(*columns))
    np.testing.assert_array_equal(found, to_rgb(frame, color)[slice(*rows), slice(*columns)])


def test_channels_change_places_without_a_copy() -> None:
    frame = np.random.default_rng(0).integers(0, 256, (5, 7, 4), np.uint8)
    for color, wanted in (
        (FrameColor.RGB, frame[:, :, :3]),
        (FrameColor.BGR, frame[:, :, 2::-1]),
        (FrameColor.RGBA, frame[:, :, :3]),
        (FrameColor.BGRA, frame[:, :, 2::-1]),
        (FrameColor.GRAY, frame[:, :, :1]),
    ):
        given = frame[:, :, : FrameFormat(5, 7, color).shape[2]]
        found = to_rgb(given, color)
        np.testing.assert_array_equal(found, wanted)
        assert np.shares_memory(found, frame)


@pytest.mark.parametrize(
    ("frame", "color", "message"),
    [
        (np.zeros((4, 4, 3), np.uint8), FrameColor.RGBA, "has shape (4, 4, 3): 'rgba' is uint8 H×W×4"),
        (np.zeros((4, 4, 3), np.float32), FrameColor.RGB, "has dtype float32: give uint8"),
        (np.zeros((4, 4), np.uint8), FrameColor.NV12, "has shape (4, 4): 'nv12' is 1.5·H rows"),
        (np.zeros((6, 5, 1), np.uint8), FrameColor.NV12, "has shape (6, 5, 1): 'nv12' is 1.5·H rows"),
        (np.zeros((10, 4, 1), np.uint8), FrameColor.NV12, "has shape (10, 4, 1): 'nv12' is 1.5·H rows"),
        (np.zeros((6, 6, 3), np.uint8), FrameColor.YUYV, "has shape (6, 6, 3): 'yuyv' is uint8 H×W×2"),
        (np.zeros((6, 5, 2), np.uint8), FrameColor.UYVY, "has shape (6, 5, 2): 'uyvy' has an even width only"),
    ],
)
def test_a_buffer_of_another_shape_is_refused(frame: np.ndarray, color: FrameColor, message: str) -> None:
    with pytest.raises(ImageError) as caught:
        to_rgb(frame, color)
    assert message in str(caught.value)


def test_a_format_is_written_and_read() -> None:
    for color in FrameColor:
        found = FrameFormat(1080, 1920, color)
        assert FrameFormat.from_json(found.to_json()) == found
    assert FrameFormat(1080, 1920, FrameColor.NV12).shape == (1620, 1920, 1)
    assert FrameFormat(1081, 1920, FrameColor.YUYV).shape == (1081, 1920, 2)
    assert FrameFormat.parse("1080x1920:NV12") == FrameFormat(1080, 1920, FrameColor.NV12)
    for text in (
        "1080x1920",
        "1080:rgb",
        "1080x:rgb",
        "-2x2:rgb",
        "2x2x3:rgb",
        "2x2:yuy2",
        "0x2:rgb",
        "3x2:nv12",
        "2x3:yuyv",
    ):
        with pytest.raises(ImageError, match=r"frames (are|of) "):
            FrameFormat.parse(text)
    assert str(FrameFormat(1080, 1920, FrameColor.NV12)) == "1080×1920 nv12"
    for wrong in (None, {}, {"height": 2, "width": 2, "color": "pink"}, {"height": 0, "width": 2, "color": "rgb"}):
        with pytest.raises(ImageError):
            FrameFormat.from_json(wrong)
