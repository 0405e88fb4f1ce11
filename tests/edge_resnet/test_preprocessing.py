"""Preprocessing against Pillow's own resize and crop, and against numpy formulas; and everything that it refuses."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import FrozenInstanceError, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from edge_resnet.demo import TEST
from edge_resnet.errors import ImageError, RecipeError
from edge_resnet.frames import FrameColor, FrameFormat, to_rgb
from edge_resnet.preprocessing import NAMED, Color, Crop, Interpolation, Preprocessing, load_preprocessing

IMAGENET = NAMED["imagenet"]
FASHION_MNIST = NAMED["fashion-mnist"]
PHOTOS = Path(__file__).resolve().parents[3] / "shared" / "data" / "photos"
SQUARE = Preprocessing((8, 8), None, Crop.NONE, Interpolation.BILINEAR, Color.RGB, (0.5,) * 3, (0.5,) * 3)
GRAY_SQUARE = replace(SQUARE, color=Color.GRAY, mean=(0.5,), std=(0.5,))

Pixels = npt.NDArray[np.uint8]


def textured(height: int, width: int, channels: int = 3, seed: int = 0) -> Pixels:
    """Noise over edges: the hardest image for a resize, uint8 H×W×C or H×W."""
    noise = np.random.default_rng(seed).integers(0, 256, (height, width, channels))
    y, x = np.mgrid[:height, :width]
    edges = 255 * ((x // 7 + y // 5) % 2)
    pixels = np.where(noise[..., :1] < 128, edges[..., np.newaxis], noise).astype(np.uint8)
    return pixels if channels == 3 else pixels[..., 0]


def resize_then_crop(image: Image.Image, preprocessing: Preprocessing) -> Pixels:
    """What a user would write by hand: the whole image resized, across and then down, and the centre cut out."""
    assert preprocessing.resize is not None
    width, height = image.size
    if width <= height:
        new_width, new_height = preprocessing.resize, int(preprocessing.resize * height / width)
    else:
        new_width, new_height = int(preprocessing.resize * width / height), preprocessing.resize
    kernel = getattr(Image.Resampling, preprocessing.interpolation.name)
    resized = image.resize((new_width, height), kernel).resize((new_width, new_height), kernel)
    top = round((new_height - preprocessing.size[0]) / 2.0)
    left = round((new_width - preprocessing.size[1]) / 2.0)
    return np.asarray(resized)[top : top + preprocessing.size[0], left : left + preprocessing.size[1]]


def assert_as_good_as(pixels: Pixels, expected: Pixels, interpolation: Interpolation) -> None:
    """Equal; where the order of the passes does not matter, another one may round to the neighbour."""
    assert pixels.shape == expected.shape
    most = 1 if interpolation in (Interpolation.BILINEAR, Interpolation.BOX) else 0
    assert np.abs(pixels.astype(int) - expected).max() <= most


ODD_SIZES = [
    (1080, 1920), (1920, 1080), (375, 500), (500, 375), (333, 500), (481, 643), (777, 301), (845, 164), (164, 845),
    (64, 64), (256, 256), (256, 300), (224, 224), (255, 257), (257, 255), (31, 97), (5, 3), (1, 1), (2, 700), (900, 7),
]  # fmt: skip


class TestGeometry:
    @pytest.mark.parametrize("interpolation", Interpolation)
    @pytest.mark.parametrize(("height", "width"), ODD_SIZES)
    def test_is_resize_then_crop(self, height: int, width: int, interpolation: Interpolation) -> None:
        preprocessing = replace(IMAGENET, interpolation=interpolation)
        frame = textured(height, width)
        expected = resize_then_crop(Image.fromarray(frame), preprocessing)
        assert_as_good_as(preprocessing.prepare(frame), expected, interpolation)

    @settings(deadline=None, max_examples=150)
    @given(
        st.tuples(st.integers(1, 400), st.integers(1, 400)),
        st.tuples(st.integers(1, 60), st.integers(1, 60)),
        st.integers(0, 40),
        st.sampled_from(Interpolation),
    )
    def test_is_resize_then_crop_at_any_size(
        self, source: tuple[int, int], size: tuple[int, int], more: int, interpolation: Interpolation
    ) -> None:
        preprocessing = replace(IMAGENET, size=size, resize=max(size) + more, interpolation=interpolation)
        frame = textured(*source)
        expected = resize_then_crop(Image.fromarray(frame), preprocessing)
        assert_as_good_as(preprocessing.prepare(frame), expected, interpolation)

    @pytest.mark.parametrize("interpolation", [Interpolation.BILINEAR, Interpolation.BICUBIC])
    def test_real_photos(self, interpolation: Interpolation) -> None:
        paths = sorted(PHOTOS.glob("*.JPEG"))
        if not paths:
            pytest.skip("the folder of real photos, shared/data/photos beside the repository, is not here")
        preprocessing = replace(IMAGENET, interpolation=interpolation)
        for path in paths:
            image = Image.open(path).convert("RGB")
            pixels, expected = preprocessing.prepare(image), resize_then_crop(image, preprocessing)
            assert_as_good_as(pixels, expected, interpolation)
            assert np.abs(pixels.astype(int) - expected).mean() < 0.3

    def test_shipped_images_scaled_to_a_cameras_size(self) -> None:
        for path in sorted(TEST.rglob("*.png"))[:4]:
            image = Image.open(path).convert("RGB").resize((1920, 1080), Image.Resampling.BICUBIC)
            pixels, expected = IMAGENET.prepare(image), resize_then_crop(image, IMAGENET)
            difference = np.abs(pixels.astype(int) - expected)
            assert difference.max() <= 1 and difference.mean() < 0.2

    @pytest.mark.parametrize("value", [0, 1, 127, 254, 255])
    def test_a_plain_frame_stays_as_it_is(self, value: int) -> None:
        for interpolation in Interpolation:
            preprocessing = replace(IMAGENET, interpolation=interpolation)
            for size in ((1080, 1920), (97, 31)):
                assert (preprocessing.prepare(np.full((*size, 3), value, np.uint8)) == value).all()

    def test_offsets_and_sizes_are_torchvisions(self) -> None:
        # 500×375 → int(256 · 500 / 375) = 341 wide; (341 − 224) / 2 = 58.5 rounds to the even 58. Each pixel of a
        # horizontal ramp then tells where it comes from: column c of the crop is (c + 58.5) · 500 / 341 − 0.5.
        ramp = np.tile(np.arange(500) // 2, (375, 1)).astype(np.uint8)
        columns = IMAGENET.prepare(np.repeat(ramp[..., None], 3, axis=2))[100, :, 0]
        expected = ((np.arange(224) + 58.5) * 500 / 341 - 0.5) / 2 - 0.25
        assert np.abs(columns - expected).max() < 1

    def test_whole_image_is_resized_when_nothing_is_cropped(self) -> None:
        image = Image.fromarray(textured(50, 90))
        expected = np.asarray(
            image.resize((16, 50), Image.Resampling.BICUBIC).resize((16, 24), Image.Resampling.BICUBIC)
        )
        preprocessing = replace(SQUARE, size=(24, 16), interpolation=Interpolation.BICUBIC)
        assert np.array_equal(preprocessing.prepare(image), expected)

    def test_a_frame_of_the_right_size_is_left_alone_and_not_shared(self) -> None:
        frame = textured(8, 8)
        prepared = SQUARE.prepare(frame)
        assert np.array_equal(prepared, frame) and not np.shares_memory(prepared, frame)
        centre = replace(SQUARE, size=(4, 6), resize=8, crop=Crop.CENTER)
        assert np.array_equal(centre.prepare(frame), frame[2:6, 1:7])

    @pytest.mark.parametrize("view", [np.s_[::-1], np.s_[:, ::-1], np.s_[..., ::-1], np.s_[::2, 1::3], np.s_[3:, :-4]])
    def test_any_strides(self, view: tuple[slice, ...]) -> None:
        frame = textured(40, 60)
        assert np.array_equal(SQUARE.prepare(frame[view]), SQUARE.prepare(frame[view].copy()))

    def test_transposed_and_read_only_frames(self) -> None:
        planes = np.ascontiguousarray(textured(40, 60).transpose(2, 0, 1))
        planes.flags.writeable = False
        prepared = SQUARE.prepare(planes.transpose(1, 2, 0))
        assert np.array_equal(prepared, SQUARE.prepare(textured(40, 60)))
        assert prepared.flags.writeable and prepared.flags.c_contiguous


class TestColour:
    def test_rgb_becomes_luma(self) -> None:
        frame = textured(8, 8)
        luma = np.rint(frame @ np.array([0.299, 0.587, 0.114]))
        prepared = GRAY_SQUARE.prepare(frame)
        assert prepared.shape == (8, 8, 1)
        assert np.abs(prepared[..., 0] - luma).max() <= 1
        assert GRAY_SQUARE.prepare(np.full((8, 8, 3), (255, 0, 0), np.uint8)).flat[0] == 76

    def test_luma_is_taken_before_the_resize(self) -> None:
        image = Image.fromarray(textured(31, 45))
        expected = image.convert("L").resize((8, 31), 2).resize((8, 8), 2)
        assert_as_good_as(GRAY_SQUARE.prepare(image)[..., 0], np.asarray(expected), GRAY_SQUARE.interpolation)

    @pytest.mark.parametrize("shape", [(20, 30), (20, 30, 1)])
    def test_grey_is_repeated(self, shape: tuple[int, ...]) -> None:
        frame = textured(20, 30, channels=1).reshape(shape)
        prepared = SQUARE.prepare(frame)
        assert prepared.shape == (8, 8, 3)
        assert all(np.array_equal(prepared[..., c], GRAY_SQUARE.prepare(frame)[..., 0]) for c in range(3))

    def test_bgr_is_rgb_in_reverse(self) -> None:
        frame = textured(20, 30)
        prepared = replace(SQUARE, color=Color.BGR).prepare(frame)
        assert np.array_equal(prepared, SQUARE.prepare(frame)[..., ::-1])
        assert prepared.flags.c_contiguous

    @pytest.mark.parametrize("crop", [SQUARE, replace(SQUARE, resize=11, crop=Crop.CENTER)])
    @pytest.mark.parametrize("network", Color)
    @pytest.mark.parametrize("color", FrameColor)
    def test_a_cameras_buffer_is_as_its_rgb(self, color: FrameColor, network: Color, crop: Preprocessing) -> None:
        one = {"mean": (0.5,), "std": (0.5,)} if network is Color.GRAY else {}
        preprocessing = replace(crop, color=network, **one)  # type: ignore[arg-type]
        for sides in ((46, 38), (30, 82)):
            frame = np.random.default_rng(0).integers(0, 256, FrameFormat(*sides, color).shape, np.uint8)
            expected = preprocessing.prepare(np.ascontiguousarray(to_rgb(frame, color)))
            assert np.array_equal(preprocessing.prepare(frame, color=color), expected)
            padded = np.zeros((len(frame), frame.shape[1] + 5, frame.shape[2]), np.uint8)
            padded[:, : frame.shape[1]] = frame
            assert np.array_equal(preprocessing.prepare(padded[:, : frame.shape[1]], color=color), expected)

    @pytest.mark.parametrize(
        ("frame", "message"),
        [
            (np.zeros((8, 8, 1), np.uint8), r"has shape \(8, 8, 1\): 'bgr' is uint8 H×W×3"),
            (Image.new("RGB", (8, 8)), "is a Pillow image, which knows its colours: leave out color='bgr'"),
        ],
    )
    def test_a_frame_of_another_colour_is_refused(self, frame: object, message: str) -> None:
        with pytest.raises(ImageError, match=message):
            SQUARE.prepare(frame, color=FrameColor.BGR)  # type: ignore[arg-type]

    def test_pillow_images_are_as_their_arrays(self) -> None:
        frame = textured(20, 30)
        for interpolation in Interpolation:
            large, preprocessing = textured(300, 451), replace(IMAGENET, interpolation=interpolation)
            assert np.array_equal(preprocessing.prepare(Image.fromarray(large)), preprocessing.prepare(large))
        assert np.array_equal(SQUARE.prepare(Image.fromarray(frame)), SQUARE.prepare(frame))
        assert np.array_equal(SQUARE.prepare(Image.fromarray(frame[..., 0])), SQUARE.prepare(frame[..., 0]))


@pytest.mark.parametrize(
    ("frame", "message"),
    [
        (np.zeros((8, 8, 3), np.float32), "camera 1 has dtype float32: give uint8"),
        (np.zeros((8, 8), np.uint16), "has dtype uint16: give uint8"),
        (np.zeros((8, 8), np.int8), "has dtype int8: give uint8"),
        (np.zeros((8, 8), bool), "has dtype bool: give uint8"),
        (np.zeros((8, 8, 4), np.uint8), r"has 4 channels: give its 3 colours, frame\[:, :, :3\]"),
        (np.zeros((8, 8, 2), np.uint8), "2 channels: give H×W×3"),
        (np.zeros((8, 8, 5), np.uint8), "5 channels: give H×W×3"),
        (np.zeros((3, 8, 8), np.uint8), "8 channels: give H×W×3"),
        (np.zeros((8, 8, 0), np.uint8), "is empty"),
        (np.zeros((0, 8, 3), np.uint8), "is empty"),
        (np.zeros(8, np.uint8), r"has shape \(8,\): give one frame"),
        (np.zeros((1, 8, 8, 3), np.uint8), r"has shape \(1, 8, 8, 3\): give one frame"),
        ([[0, 0], [0, 0]], "is of type list: give a uint8 array"),
        (Image.new("RGBA", (8, 8), (0, 0, 0, 254)), "has transparent pixels"),
        (Image.new("I;16", (8, 8)), "more than 8 bits a channel"),
        (Image.new("F", (8, 8)), "more than 8 bits a channel"),
        (Image.new("LAB", (8, 8)), "has Pillow mode 'LAB'"),
    ],
)
def test_frames_are_refused_in_one_line(frame: object, message: str) -> None:
    with pytest.raises(ImageError, match=message) as caught:
        SQUARE.prepare(frame, "camera 1")  # type: ignore[arg-type]
    assert str(caught.value).startswith("camera 1 ") and "\n" not in str(caught.value)


class TestValues:
    @pytest.mark.parametrize(
        ("changes", "message"),
        [
            ({"size": (0, 224)}, "size is"),
            ({"size": (224,)}, "size is"),
            ({"size": 224}, "size is 224: give height and width"),
            ({"size": (224.0, 224)}, "size is"),
            ({"size": (True, True)}, "size is"),
            ({"resize": None}, "resize is None: crop 'center' needs .* 224 or more"),
            ({"resize": 223}, "resize is 223"),
            ({"size": (100, 240), "resize": 239}, "240 or more for size 100×240"),
            ({"crop": Crop.NONE}, "resize is 256 but crop is 'none'"),
            ({"crop": "center"}, "crop is 'center': give one of Crop's members"),
            ({"mean": (0.5,)}, "mean is .*: color 'rgb' needs 3 numbers"),
            ({"color": Color.GRAY}, "color 'gray' needs 1 numbers"),
            ({"mean": (0.5, 0.5, "0.5")}, "needs 3 numbers"),
            ({"mean": (0.5, 0.5, True)}, "needs 3 numbers"),
            ({"mean": (123.675, 116.28, 103.53)}, "pixels in 0..1 .*by 255"),
            ({"mean": (0.5, 0.5, float("nan"))}, "mean is"),
            ({"std": (0.2, 0.0, 0.2)}, "std is .*above 0"),
            ({"std": (0.2, -0.1, 0.2)}, "std is .*above 0"),
            ({"std": (0.2, float("inf"), 0.2)}, "std is"),
            ({"std": (58.4, 57.1, 57.4)}, "std is .*255"),
        ],
    )
    def test_wrong_values(self, changes: dict[str, object], message: str) -> None:
        with pytest.raises(RecipeError, match=message):
            replace(IMAGENET, **changes)  # type: ignore[arg-type]

    def test_frozen_and_without_defaults(self) -> None:
        with pytest.raises(FrozenInstanceError):
            IMAGENET.resize = 1  # type: ignore[misc]
        with pytest.raises(TypeError):
            Preprocessing((8, 8), None, Crop.NONE, Interpolation.BOX, Color.RGB)  # type: ignore[call-arg]

    def test_channels(self) -> None:
        assert (IMAGENET.channels, FASHION_MNIST.channels) == (3, 1)


class TestJson:
    @pytest.mark.parametrize("preprocessing", [IMAGENET, FASHION_MNIST, replace(IMAGENET, size=(192, 224))])
    def test_round_trip(self, preprocessing: Preprocessing) -> None:
        assert Preprocessing.from_json(json.loads(json.dumps(preprocessing.to_json()))) == preprocessing

    def test_document(self) -> None:
        assert IMAGENET.to_json() == {
            "size": [224, 224],
            "resize": 256,
            "crop": "center",
            "interpolation": "bilinear",
            "color": "rgb",
            "mean": [0.485, 0.456, 0.406],
            "std": [0.229, 0.224, 0.225],
        }

    @pytest.mark.parametrize("key", IMAGENET.to_json())
    def test_every_key_is_needed(self, key: str) -> None:
        document = IMAGENET.to_json()
        del document[key]
        with pytest.raises(RecipeError, match=f"lacks '{key}'"):
            Preprocessing.from_json(document)

    @pytest.mark.parametrize(
        ("key", "advice"),
        [
            ("colour", "did you mean 'color'"),
            ("intrepolation", "did you mean 'interpolation'"),
            ("x", "the keys are size"),
        ],
    )
    def test_unknown_keys(self, key: str, advice: str) -> None:
        with pytest.raises(RecipeError, match=f"unknown key '{key}': {advice}"):
            Preprocessing.from_json({**IMAGENET.to_json(), key: 1})

    @pytest.mark.parametrize("value", [None, 1, "x", [], {}, [[1]], [None] * 3, True, -1, 1e400])
    @pytest.mark.parametrize("key", IMAGENET.to_json())
    def test_any_wrong_value_is_a_recipe_error(self, key: str, value: object) -> None:
        with pytest.raises(RecipeError, match=key) as caught:
            Preprocessing.from_json({**IMAGENET.to_json(), key: value})
        assert "\n" not in str(caught.value)

    @pytest.mark.parametrize("document", [None, [], "imagenet"])
    def test_only_objects(self, document: object) -> None:
        with pytest.raises(RecipeError, match="preprocessing is .*: give a table of keys and values"):
            Preprocessing.from_json(document)  # type: ignore[arg-type]

    def test_choices_are_listed(self) -> None:
        with pytest.raises(RecipeError, match="interpolation is 'linear': choose one of bilinear, bicubic, lanczos"):
            Preprocessing.from_json({**IMAGENET.to_json(), "interpolation": "linear"})


class TestLoading:
    GRAY = 'size = 28\ncrop = "none"\ninterpolation = "bilinear"\ncolor = "gray"\nmean = [0.2860]\nstd = [0.3530]\n'

    def test_names(self) -> None:
        assert load_preprocessing("imagenet") is IMAGENET
        assert load_preprocessing("fashion-mnist") is FASHION_MNIST

    @pytest.mark.parametrize("name", ["imagnet", "", ".", "missing.toml", "x" * 5000])
    def test_unknown_names(self, name: str) -> None:
        with pytest.raises(RecipeError, match=f"unknown preprocessing '{name}': give one of imagenet, fashion-mnist"):
            load_preprocessing(name)

    @pytest.mark.parametrize("head", ["", "[preprocessing]\n", '[model]\narch = "resnet20"\n[preprocessing]\n'])
    def test_file(self, tmp_path: Path, head: str) -> None:
        path = tmp_path / "p.toml"
        path.write_text(head + self.GRAY, encoding="utf-8")
        assert load_preprocessing(str(path)) == FASHION_MNIST

    @pytest.mark.parametrize(
        ("text", "message"),
        [
            ("size = ", "p.toml cannot be read as TOML"),
            ("[preprocessing]\nsise = 28", "p.toml: .*did you mean 'size'"),
            ("preprocessing = 3", "p.toml: preprocessing is 3: give a table"),
            ("", "p.toml: preprocessing lacks 'size'"),
        ],
    )
    def test_bad_files(self, tmp_path: Path, text: str, message: str) -> None:
        path = tmp_path / "p.toml"
        path.write_text(text, encoding="utf-8")
        with pytest.raises(RecipeError, match=message) as caught:
            load_preprocessing(str(path))
        assert "\n" not in str(caught.value)

    def test_a_file_that_is_not_text(self, tmp_path: Path) -> None:
        path = tmp_path / "p.toml"
        path.write_bytes(b"\xff\xfe\x00")
        with pytest.raises(RecipeError, match="cannot be read as TOML"):
            load_preprocessing(str(path))

    def test_centre_crop_without_resize(self) -> None:
        table = {key: value for key, value in IMAGENET.to_json().items() if key != "resize"}
        with pytest.raises(RecipeError, match="resize is None: crop 'center' needs"):
            Preprocessing.from_table(table)


def test_importing_it_brings_neither_torch_nor_onnx() -> None:
    code = "import sys, edge_resnet.images; print([m for m in ('torch', 'onnx', 'onnxruntime') if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
