"""ROS images of every encoding and step, made by hand, against the picture that they hold."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
from image_messages import ENCODINGS, MessageError, frame_of, picture_of

from edge_resnet import EdgeResnetError
from edge_resnet.frames import FrameColor, FrameFormat

RGB = np.random.default_rng(0).integers(0, 256, (4, 6, 3), np.uint8)
RED = {  # four pixels of a colour bar's red: Y 81, Cb 90, Cr 240 (ITU-R BT.601)
    "yuv422": ([[90, 81, 240, 81]] * 2, 2),
    "uyvy": ([[90, 81, 240, 81]] * 2, 2),
    "yuv422_yuy2": ([[81, 90, 81, 240]] * 2, 2),
    "yuyv": ([[81, 90, 81, 240]] * 2, 2),
    "nv12": ([[81, 81], [81, 81], [90, 240]], 2),
}


def message(rows: np.ndarray, height: int, width: int, encoding: str, padding: int = 0) -> SimpleNamespace:
    padded = np.pad(rows, ((0, 0), (0, padding)), constant_values=77)
    return SimpleNamespace(height=height, width=width, encoding=encoding, step=padded.shape[1], data=padded.tobytes())


@pytest.mark.parametrize("padding", [0, 1, 10])
@pytest.mark.parametrize(
    ("encoding", "order"), [("rgb8", [0, 1, 2]), ("bgr8", [2, 1, 0]), ("rgba8", [0, 1, 2, 0]), ("bgra8", [2, 1, 0, 0])]
)
def test_pixels_are_the_pictures_and_not_copied(encoding: str, order: list[int], padding: int) -> None:
    sent = message(RGB[:, :, order].reshape(4, -1), 4, 6, encoding, padding)
    found = frame_of(sent, None)
    np.testing.assert_array_equal(found, RGB)
    assert np.shares_memory(found, np.frombuffer(sent.data, np.uint8))


def test_grey_is_one_channel() -> None:
    found = frame_of(message(RGB[:, :, 0], 4, 6, "mono8", padding=3), None)
    np.testing.assert_array_equal(found, RGB[:, :, :1])


@pytest.mark.parametrize("padding", [0, 5])
@pytest.mark.parametrize("encoding", RED)
def test_video_colours_become_rgb(encoding: str, padding: int) -> None:
    rows, width = RED[encoding]
    found = frame_of(message(np.array(rows, np.uint8), 2, width, encoding, padding), None)
    assert found.shape == (2, width, 3)
    assert np.abs(found.astype(int) - (254, 0, 0)).max() <= 1


def test_every_encoding_is_tried_here() -> None:
    assert set(ENCODINGS) == {"rgb8", "bgr8", "rgba8", "bgra8", "mono8", *RED}


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"encoding": "8UC3"}, "encoding is '8UC3': publish one of rgb8, bgr8"),
        ({"step": 17}, "4×6 rgb8 with a step of 17 and 72 bytes: step is at least 18, and data 4 times as long"),
        ({"data": bytes(71)}, "4×6 rgb8 with a step of 18 and 71 bytes"),
        ({"data": bytes(73)}, "4×6 rgb8 with a step of 18 and 73 bytes"),
        ({"height": 0, "data": b""}, "0×6 rgb8 with a step of 18 and 0 bytes"),
        ({"encoding": "nv12"}, "4×6 nv12 with a step of 18 and 72 bytes: step is at least 6, and data 6 times as long"),
        ({"encoding": "yuyv", "width": 5}, "a frame has shape (4, 5, 2): 'yuyv' has an even width only"),
    ],
)
def test_what_contradicts_itself_is_refused(changes: dict[str, object], text: str) -> None:
    sent = message(RGB.reshape(4, -1), 4, 6, "rgb8")
    vars(sent).update(changes)
    with pytest.raises(EdgeResnetError) as caught:
        frame_of(sent, None)
    assert str(caught.value).startswith(text)


def test_an_engine_for_a_cameras_frames_gets_the_buffer_or_nothing() -> None:
    sent = message(RGB.reshape(4, -1), 4, 6, "bgr8")
    np.testing.assert_array_equal(frame_of(sent, FrameFormat(4, 6, FrameColor.BGR)), RGB)
    with pytest.raises(MessageError, match="encoding is 'bgr8': this engine was compiled for frames of 4×6 rgb$"):
        frame_of(sent, FrameFormat(4, 6, FrameColor.RGB))


def test_a_depth_image_is_no_picture() -> None:
    with pytest.raises(EdgeResnetError, match="a message of format '16UC1; compressedDepth' is no image"):
        picture_of(SimpleNamespace(format="16UC1; compressedDepth", data=bytes(12) + b"\x89PNG"))
