"""A folder as a camera."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from edge_resnet.camera import open_camera
from edge_resnet.errors import CameraError
from edge_resnet.frames import FrameColor, to_rgb


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Three lossless images of different sizes, and a file that is none."""
    random = np.random.default_rng(0)
    for number in (2, 0, 1):
        Image.fromarray(random.integers(0, 256, (4 + number, 6, 3), np.uint8)).save(tmp_path / f"{number}.png")
    (tmp_path / "notes.txt").write_text("not an image")
    return tmp_path


@pytest.mark.parametrize("address", ["{}", "folder://{}"])
@pytest.mark.parametrize("color", ["rgb", "bgr", "rgba"])
def test_images_come_by_name_once_and_exact(folder: Path, color: str, address: str) -> None:
    with open_camera(address.format(folder), color=color) as camera:
        frames = list(camera)
    assert len(frames) == 3
    for number, frame in enumerate(frames):
        wanted = np.asarray(Image.open(folder / f"{number}.png"))
        np.testing.assert_array_equal(to_rgb(frame.pixels, FrameColor(color)), wanted)
        assert frame.index == number


def test_grey_has_one_channel(folder: Path) -> None:
    with open_camera(folder, color="gray") as camera:
        frame = next(camera)
    np.testing.assert_array_equal(frame.pixels[:, :, 0], Image.open(folder / "0.png").convert("L"))


def test_what_cannot_be_read_is_told(folder: Path, tmp_path: Path) -> None:
    (folder / "1.png").write_bytes(b"torn")
    with open_camera(folder) as camera:
        next(camera)
        with pytest.raises(CameraError, match=r"1\.png"):
            next(camera)
    (tmp_path / "empty").mkdir()
    with pytest.raises(CameraError, match="empty has no images"):
        open_camera(tmp_path / "empty")
