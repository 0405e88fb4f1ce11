"""A picture gets one answer, whichever way it comes: as array, file, camera, stream or batch, and in ``check``.

All of the demo's test images, and every source that gives their pixels as they are.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image
from videos import needs, write

from edge_resnet import demo
from edge_resnet.accuracy import Pair
from edge_resnet.camera import open_camera
from edge_resnet.classifier import Classifier, Prediction
from edge_resnet.frames import FrameColor
from edge_resnet.images import ImageSet, open_images

Pixels = npt.NDArray[np.uint8]
Logits = npt.NDArray[np.float32]


@pytest.fixture(scope="module")
def images() -> ImageSet:
    return open_images(demo.TEST)


@pytest.fixture(scope="module")
def pixels(images: ImageSet) -> list[Pixels]:
    """28×28, as Pillow reads them, and not as the package does."""
    found = [np.asarray(Image.open(path)) for path in images.paths]
    assert len(found) == 1000 and {(each.shape, each.dtype.name) for each in found} == {((28, 28), "uint8")}
    return found


@pytest.fixture(scope="module")
def classify(demo_bundle: Path) -> Iterator[Classifier]:
    with Classifier(demo_bundle, target="cpu") as opened:
        yield opened


@pytest.fixture(scope="module")
def wanted(classify: Classifier, pixels: list[Pixels]) -> Logits:
    """Of each array by itself."""
    logits = logits_of([classify(each) for each in pixels])
    assert len(np.unique(logits, axis=0)) > 990, "or a mix-up of pictures would not be seen"
    return logits


def logits_of(predictions: Sequence[Prediction]) -> Logits:
    return np.stack([prediction.logits for prediction in predictions])


def strided(grey: Pixels) -> Pixels:
    """A part of a larger picture, its rows apart, as a ROS message with padded rows or a region of interest is."""
    wide = np.full((30, 40, 3), 99, np.uint8)
    wide[1:29, 5:33] = grey[:, :, np.newaxis]
    return wide[1:29, 5:33]


FORMS: dict[str, Callable[[Pixels], Pixels | Image.Image]] = {
    "RGB": lambda grey: np.repeat(grey[:, :, np.newaxis], 3, axis=2),
    "strided": strided,
    "Pillow": Image.fromarray,
}


@pytest.mark.parametrize("form", FORMS)
def test_whatever_form_an_array_has(form: str, classify: Classifier, pixels: list[Pixels], wanted: Logits) -> None:
    found = [classify(FORMS[form](each)) for each in pixels]
    np.testing.assert_array_equal(logits_of(found), wanted)


def test_from_its_file(classify: Classifier, images: ImageSet, wanted: Logits) -> None:
    np.testing.assert_array_equal(logits_of([classify(path) for path in images.paths]), wanted)


@pytest.mark.parametrize("size", [7, 1000])
def test_in_a_batch(size: int, classify: Classifier, pixels: list[Pixels], wanted: Logits) -> None:
    parts = [classify(pixels[start : start + size]) for start in range(0, len(pixels), size)]
    np.testing.assert_array_equal(logits_of([each for part in parts for each in part]), wanted)


def test_awaited(classify: Classifier, pixels: list[Pixels], wanted: Logits) -> None:
    async def all_of_them() -> list[Prediction]:
        return [await classify.aclassify(each) for each in pixels]

    np.testing.assert_array_equal(logits_of(asyncio.run(all_of_them())), wanted)


@pytest.mark.parametrize("color", [FrameColor.GRAY, FrameColor.BGR])
def test_from_a_folder_as_a_camera(color: FrameColor, classify: Classifier, wanted: Logits) -> None:
    with open_camera(demo.TEST, color=color) as camera, classify.stream(camera, latest=False) as stream:
        found = list(stream)
    np.testing.assert_array_equal(logits_of(found), wanted)


def test_from_an_iterable_that_gives_one_buffer_again_and_again(
    classify: Classifier, pixels: list[Pixels], wanted: Logits
) -> None:
    def buffer() -> Iterator[Pixels]:
        shared = np.empty((28, 28, 3), np.uint8)
        for each in pixels:
            shared[:] = each[:, :, np.newaxis]
            yield shared

    with open_camera(buffer(), latest=False) as camera, classify.stream(camera, latest=False) as stream:
        found = list(stream)
    np.testing.assert_array_equal(logits_of(found), wanted)


@needs("ffmpeg")
@pytest.mark.parametrize(
    ("made_of", "codec", "color"),
    [
        ("gray", ("-c:v", "ffv1"), "gray"),
        ("rgb24", ("-c:v", "png"), "bgr"),
        ("rgb24", ("-c:v", "ffv1", "-pix_fmt", "bgr0"), "rgb"),
        ("rgb24", ("-c:v", "libx264rgb", "-qp", "0"), "rgb"),
    ],
)
def test_from_a_lossless_video(
    made_of: str,
    codec: tuple[str, ...],
    color: str,
    classify: Classifier,
    pixels: list[Pixels],
    wanted: Logits,
    tmp_path: Path,
) -> None:
    pytest.importorskip("av", reason="PyAV is not installed: pip install 'edge-resnet[camera]'")
    frames = np.stack(pixels)[..., np.newaxis]
    frames = np.repeat(frames, 3, axis=3) if made_of == "rgb24" else frames
    video = write(tmp_path / "all.mkv", frames, made_of, *codec)
    with open_camera(video, color=color) as camera, classify.stream(camera, latest=False) as stream:
        found = list(stream)
    np.testing.assert_array_equal(logits_of(found), wanted)


def test_in_check(demo_bundle: Path, images: ImageSet, wanted: Logits, monkeypatch: pytest.MonkeyPatch) -> None:
    """What ``check`` hands to the comparison: its own preparing, its own batches, the engine that it opened."""
    checking = pytest.importorskip("edge_resnet.checking", reason="check needs the extra 'build'")
    from edge_resnet.check import Gate
    from edge_resnet.progress import Progress

    seen: list[Logits] = []

    def compare(pairs: Iterable[Pair], labels: object, **rest: object) -> None:
        seen.extend(answers for _, answers in pairs)

    monkeypatch.setattr("edge_resnet.check.compare_answers", compare)
    judged = checking.Judged(demo_bundle, target="cpu")
    checking.check_file(judged, images, Gate(max_drop=100, strict=False), Progress())
    assert len(seen) < len(wanted), "check runs batches"
    np.testing.assert_array_equal(np.concatenate(seen), wanted)
