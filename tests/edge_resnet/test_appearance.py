"""Whether two sets of images look alike: figures by hand, and real images changed as cameras and code change them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image

from edge_resnet import demo
from edge_resnet.appearance import MOST, Appearance
from edge_resnet.errors import CalibrationError
from edge_resnet.images import ImageSet, open_images
from edge_resnet.preprocessing import NAMED, Color, Crop, Interpolation, Preprocessing

GRAY = NAMED["fashion-mnist"]
RGB = Preprocessing((8, 8), None, Crop.NONE, Interpolation.BILINEAR, Color.RGB, (0.5,) * 3, (0.25,) * 3)
Pixels = npt.NDArray[np.uint8]


def written(folder: Path, frames: Pixels) -> ImageSet:
    folder.mkdir(parents=True)
    for index, frame in enumerate(frames):
        Image.fromarray(frame.squeeze()).save(folder / f"{index:04}.png")
    return open_images(folder)


def gray(images: int, mean: float, deviation: float) -> Appearance:
    return Appearance(images, (mean, 60.0), (deviation, 1.0))


def test_the_numbers_of_a_set_are_those_of_its_pixels(tmp_path: Path) -> None:
    frames = np.random.default_rng(0).integers(0, 256, (20, 8, 8, 3), np.uint8)
    found = Appearance.of(written(tmp_path / "set", frames), RGB)
    red, green, blue = np.moveaxis(frames.reshape(20, 64, 3).astype(float), 2, 0)
    each = [c.mean(1) for c in (red, green, blue)] + [c.std(1) for c in (red, green, blue)]
    each += [(red - green).mean(1), (red - blue).mean(1), (green - blue).mean(1)]
    assert found.images == 20
    np.testing.assert_allclose(found.mean, [values.mean() for values in each], atol=1e-3)
    np.testing.assert_allclose(found.deviation, [values.std() for values in each], atol=1e-3)


@pytest.mark.parametrize(
    ("images", "other", "deviation", "unlike"),
    [
        (256, 104.0, 10.0, False),  # d = 0.4: certain, 4.5 standard errors, but small
        (256, 106.0, 10.0, True),  # d = 0.6, 6.8 standard errors
        (32, 106.0, 10.0, False),  # 2.4 standard errors
        (32, 110.5, 10.0, True),  # d = 1.05, 4.2 standard errors
        (15, 200.0, 10.0, False),  # too few to say
        (256, 100.4, 0.0, False),  # sets of equal images, less than half a grey level apart
        (256, 100.6, 0.0, True),
    ],
)
def test_unlike_is_what_is_both_large_and_certain(images: int, other: float, deviation: float, unlike: bool) -> None:
    note = gray(images, 100, deviation).note_on(gray(images, other, deviation), Color.GRAY)
    assert (note is not None) == unlike


def test_the_note_names_what_differs_most_and_both_values() -> None:
    note = gray(16, 100, 6).note_on(gray(400, 120, 8), Color.GRAY)  # pooled √50
    assert note is not None and "brightness is 100 on average, there 120, 2.8 standard deviations apart" in note
    one = Appearance(99, (50.0, 60.0, 70.0, 9.0, 9.0, 9.0, -10.0, -20.0, -10.0), (10.0,) * 9)
    other = Appearance(99, (50.0, 60.0, 52.0, 9.0, 9.0, 9.0, -10.0, 2.0, 8.0), (10.0,) * 9)
    said = {color: one.note_on(other, color) for color in (Color.RGB, Color.BGR)}
    assert "red less blue is -20 on average, there 2" in str(said[Color.RGB])
    assert "blue less red is -20 on average, there 2" in str(said[Color.BGR])


@pytest.fixture(scope="module")
def shown() -> Appearance:
    """What the demo is calibrated on."""
    return Appearance.of(open_images(demo.CALIBRATION), GRAY)


def test_draws_of_one_kind_of_images_look_alike(shown: Appearance) -> None:
    test = open_images(demo.TEST)
    assert shown.images == MOST and Appearance.of(test, GRAY).images == MOST
    for size in (20, 60, 256):
        for seed in range(5):
            assert shown.note_on(Appearance.of(test.draw(size, seed), GRAY), Color.GRAY) is None, (size, seed)


@pytest.mark.parametrize(
    ("change", "count"),
    [
        (lambda x: 255 - x, 20),
        (lambda x: x // 2, 20),
        (lambda x: x * 0.7, 60),
        (lambda x: np.minimum(x * 1.4, 255), 100),
        (lambda x: 255 * np.square(x / 255), 200),  # a gamma of 2
    ],
    ids=["inverted", "half the light", "0.7 of it", "overexposed", "another gamma"],
)
def test_images_that_were_changed_look_unlike(
    shown: Appearance, change: Callable[[Pixels], Pixels], count: int, tmp_path: Path
) -> None:
    frames = change(open_images(demo.TEST, count).pixels(GRAY)).astype(np.uint8)
    note = shown.note_on(Appearance.of(written(tmp_path / "changed", frames), GRAY), Color.GRAY)
    assert note is not None and "calibration images look unlike the evaluation images" in note


def test_exchanged_channels_look_unlike(tmp_path: Path) -> None:
    """Images whose channels vary together and widely, and whose red is a little above their blue, as most are."""
    random = np.random.default_rng(1)
    light, cast, texture = (random.normal(0, 1, (400, *shape)) for shape in ((1, 1, 1), (1, 1, 3), (8, 8, 1)))
    levels = 120 + 40 * light + 10 * cast + 30 * texture + np.array([8, 0, -8])
    frames = np.clip(levels, 0, 255).astype(np.uint8)
    one, same = (Appearance.of(written(tmp_path / name, frames[part::2]), RGB) for part, name in enumerate("ab"))
    exchanged = Appearance.of(written(tmp_path / "c", frames[1::2, :, :, ::-1]), RGB)
    assert one.note_on(same, Color.RGB) is None
    assert "red less blue" in str(one.note_on(exchanged, Color.RGB))


def test_json_and_what_is_no_appearance() -> None:
    looks = gray(40, 100, 10)
    assert Appearance.from_json(looks.to_json()) == looks
    good = looks.to_json()
    for bad in (
        None,
        [],
        {},
        {**good, "images": 0},
        {**good, "mean": [None]},
        {**good, "deviation": [float("nan")]},
        {**good, "mean": [1e300]},
    ):
        with pytest.raises(CalibrationError, match="look like is damaged: calibrate again"):
            Appearance.from_json(bad)
    with pytest.raises(CalibrationError, match="of other channels than the network's"):
        looks.note_on(looks, Color.RGB)
