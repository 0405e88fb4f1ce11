"""Reading image files and finding sets of them, on real files made here."""

from __future__ import annotations

import hashlib
import io
import itertools
import json
import struct
import threading
import zlib
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from edge_resnet.errors import ImageError
from edge_resnet.images import ImageSet, check_disjoint, decode_image, open_images, read_image
from edge_resnet.preprocessing import NAMED, Color, Crop, Interpolation, Preprocessing

GRAY = NAMED["fashion-mnist"]
COLOUR = Preprocessing((8, 8), None, Crop.NONE, Interpolation.BILINEAR, Color.RGB, (0.5,) * 3, (0.5,) * 3)
NOISE = np.random.default_rng(0).integers(0, 256, (40, 60, 3), dtype=np.uint8)


def save(path: Path, image: Image.Image, **options: Any) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    image.save(path, **options)
    return path


def plain(path: Path, shade: int = 0) -> Path:
    """A small grey PNG whose bytes depend on the shade."""
    return save(path, Image.new("L", (4, 4), shade))


def palette(transparency: bytes | None = None) -> Image.Image:
    image = Image.new("P", (2, 2))
    image.putpalette([255, 0, 0, 0, 255, 0, 0, 0, 255])
    image.putdata([0, 1, 2, 1])
    if transparency is not None:
        image.info["transparency"] = transparency
    return image


def png_of_16_bit_colour(path: Path) -> Path:
    """Pillow cannot write one: chunks by hand, after the PNG specification, sections 5.3 and 11.2."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", 2, 1, 16, 2, 0, 0, 0)
    row = b"\0" + struct.pack(">6H", *range(0, 6000, 1000))
    path.write_bytes(
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(row)) + chunk(b"IEND", b"")
    )
    return path


def tiff_of_16_bit_colour(path: Path) -> Path:
    """Nor this one: a header, one directory of 9 entries and the pixels, after TIFF 6.0, sections 2 and 6."""
    short, long, entries = 3, 4, 9
    after = 8 + 2 + 12 * entries + 4
    tags = [
        (256, short, 1, 2), (257, short, 1, 1), (258, short, 3, after), (259, short, 1, 1), (262, short, 1, 2),
        (273, long, 1, after + 6), (277, short, 1, 3), (278, short, 1, 1), (279, long, 1, 12),
    ]  # fmt: skip
    directory = struct.pack("<H", entries) + b"".join(struct.pack("<HHII", *tag) for tag in tags) + struct.pack("<I", 0)
    path.write_bytes(
        b"II*\0" + struct.pack("<I", 8) + directory + struct.pack("<9H", 16, 16, 16, *range(0, 6000, 1000))
    )
    return path


class TestReading:
    @pytest.mark.parametrize("suffix", ["png", "bmp", "tif", "ppm", "webp"])
    def test_lossless_colour(self, tmp_path: Path, suffix: str) -> None:
        path = save(
            tmp_path / f"a.{suffix}", Image.fromarray(NOISE), **({"lossless": True} if suffix == "webp" else {})
        )
        image = read_image(path)
        assert image.mode == "RGB" and np.array_equal(np.asarray(image), NOISE)

    def test_bytes_are_decoded_as_their_file_is(self, tmp_path: Path) -> None:
        path = save(tmp_path / "a.jpg", Image.fromarray(NOISE))
        np.testing.assert_array_equal(decode_image(path.read_bytes(), "it"), read_image(path))
        with pytest.raises(ImageError, match="^the body is no image, or a damaged one: give one of JPEG"):
            decode_image(b"hello", "the body")

    @pytest.mark.parametrize("suffix", ["png", "pgm", "tiff", "bmp"])
    def test_lossless_grey(self, tmp_path: Path, suffix: str) -> None:
        image = read_image(save(tmp_path / f"a.{suffix}", Image.fromarray(NOISE[..., 0])))
        assert image.mode == "L" and np.array_equal(np.asarray(image), NOISE[..., 0])

    def test_jpeg(self, tmp_path: Path) -> None:
        ramp = np.repeat(np.add.outer(np.arange(40), np.arange(60))[..., None] * 2, 3, axis=2).astype(np.uint8)
        image = read_image(save(tmp_path / "a.jpg", Image.fromarray(ramp), quality=95))
        assert image.mode == "RGB" and np.abs(np.asarray(image).astype(int) - ramp).max() < 8

    def test_bilevel_becomes_black_and_white(self, tmp_path: Path) -> None:
        image = Image.new("1", (2, 1))
        image.putpixel((1, 0), 1)
        assert np.asarray(read_image(save(tmp_path / "a.png", image))).tolist() == [[0, 255]]

    def test_cmyk_becomes_rgb(self, tmp_path: Path) -> None:
        path = save(tmp_path / "a.jpg", Image.new("CMYK", (16, 16), (0, 255, 255, 0)), quality=95)
        image = read_image(path)
        assert image.mode == "RGB" and np.abs(np.asarray(image)[8, 8].astype(int) - (255, 0, 0)).max() < 4

    @pytest.mark.parametrize("transparency", [None, b"\xff\xff\xff"])
    def test_opaque_palette(self, tmp_path: Path, transparency: bytes | None) -> None:
        options = {} if transparency is None else {"transparency": transparency}
        image = read_image(save(tmp_path / "a.png", palette(), **options))
        assert np.asarray(image).tolist() == [[[255, 0, 0], [0, 255, 0]], [[0, 0, 255], [0, 255, 0]]]

    def test_opaque_alpha_is_dropped(self, tmp_path: Path) -> None:
        rgba = Image.fromarray(np.dstack([NOISE, np.full(NOISE.shape[:2], 255, np.uint8)]))
        assert np.array_equal(np.asarray(read_image(save(tmp_path / "a.png", rgba))), NOISE)
        grey = read_image(
            save(tmp_path / "b.png", Image.merge("LA", (Image.fromarray(NOISE[..., 0]), rgba.getchannel(3))))
        )
        assert grey.mode == "L" and np.array_equal(np.asarray(grey), NOISE[..., 0])

    def test_transparent_pixels_are_refused(self, tmp_path: Path) -> None:
        rgba = Image.new("RGBA", (4, 4), (9, 9, 9, 255))
        rgba.putpixel((3, 3), (9, 9, 9, 254))
        key = Image.new("RGB", (4, 4), (1, 2, 3))
        for path in (
            save(tmp_path / "rgba.png", rgba),
            save(tmp_path / "la.png", rgba.convert("LA")),
            save(tmp_path / "palette.png", palette(), transparency=b"\xff\x00\xff"),
            save(tmp_path / "key.png", key, transparency=(1, 2, 3)),
        ):
            with pytest.raises(ImageError, match=f"{path.name} has transparent pixels"):
                read_image(path)
        absent = save(tmp_path / "absent.png", key, transparency=(9, 9, 9))
        assert np.asarray(read_image(absent))[0, 0].tolist() == [1, 2, 3]

    def test_more_than_8_bits_are_refused(self, tmp_path: Path) -> None:
        grey = Image.fromarray(np.arange(16, dtype=np.uint16).reshape(4, 4) * 4000)
        for path in (
            save(tmp_path / "grey.png", grey),
            save(tmp_path / "grey.tif", grey),
            save(tmp_path / "float.tif", Image.new("F", (4, 4))),
            png_of_16_bit_colour(tmp_path / "colour.png"),
            tiff_of_16_bit_colour(tmp_path / "colour.tif"),
        ):
            with pytest.raises(ImageError, match="more than 8 bits a channel: scale it to 8 bits first, as the camera"):
                read_image(path)

    def test_lab_is_refused(self, tmp_path: Path) -> None:
        with pytest.raises(ImageError, match="has Pillow mode 'LAB'"):
            read_image(save(tmp_path / "a.tif", Image.new("LAB", (4, 4))))

    @pytest.mark.parametrize("suffix", ["tif", "png", "webp"])
    def test_several_frames_are_refused(self, tmp_path: Path, suffix: str) -> None:
        frames = [Image.new("RGB", (8, 8), shade) for shade in ("red", "green", "blue")]
        path = save(tmp_path / f"a.{suffix}", frames[0], save_all=True, append_images=frames[1:])
        with pytest.raises(ImageError) as caught:
            read_image(path)
        assert str(caught.value) == f"{path} holds 3 frames: save the one that is meant as a file of its own"

    def test_a_stereo_jpeg_gives_its_first_picture(self, tmp_path: Path) -> None:
        both = [Image.new("RGB", (16, 16), shade) for shade in ("red", "blue")]
        path = save(tmp_path / "a.jpg", both[0], format="MPO", save_all=True, append_images=both[1:])
        assert np.asarray(read_image(path))[8, 8].tolist() == [254, 0, 0]

    def test_exif_orientation_is_not_applied(self, tmp_path: Path) -> None:
        exif = Image.Exif()
        exif[0x0112] = 6
        assert read_image(save(tmp_path / "a.jpg", Image.fromarray(NOISE), exif=exif)).size == (60, 40)

    def test_files_that_are_no_images(self, tmp_path: Path) -> None:
        whole = save(tmp_path / "whole.jpg", Image.fromarray(NOISE)).read_bytes()
        gif = io.BytesIO()
        Image.fromarray(NOISE).save(gif, "GIF")
        contents = {
            "cut.jpg": (whole[: len(whole) // 2], "cannot be decoded"),
            "stub.jpg": (whole[:30], "cannot be read"),
            "text.jpg": (b"this is not a picture\n", "is no image, or a damaged one: give one of JPEG, PNG"),
            "empty.png": (b"", "is no image, or a damaged one"),
            "gif.png": (gif.getvalue(), "is no image, or a damaged one"),
        }
        for name, (data, message) in contents.items():
            path = tmp_path / name
            path.write_bytes(data)
            with pytest.raises(ImageError, match=f"{name} {message}") as caught:
                read_image(path)
            assert "\n" not in str(caught.value)

    @pytest.mark.filterwarnings("ignore::UserWarning", "ignore::RuntimeWarning")
    @pytest.mark.parametrize("suffix", ["png", "jpg", "bmp", "tif", "webp", "ppm"])
    def test_any_damage_is_an_image_error(self, tmp_path: Path, suffix: str) -> None:
        data = save(tmp_path / f"a.{suffix}", Image.fromarray(NOISE)).read_bytes()
        random = np.random.default_rng(1)
        path = tmp_path / f"damaged.{suffix}"
        for _ in range(150):
            damaged = bytearray(data)
            for place in random.integers(0, min(len(data), 200), 3):
                damaged[place] = random.integers(256)
            path.write_bytes(damaged[: random.integers(1, 2 * len(data))])
            try:
                assert read_image(path).mode in ("L", "RGB")
            except ImageError as error:
                assert "damaged." in str(error) and "\n" not in str(error)

    def test_missing_files_and_folders(self, tmp_path: Path) -> None:
        with pytest.raises(ImageError, match="nothing.jpg does not exist"):
            read_image(tmp_path / "nothing.jpg")
        with pytest.raises(ImageError, match="cannot be read"):
            read_image(tmp_path)

    def test_decompression_bomb(self, tmp_path: Path) -> None:
        path = tmp_path / "bomb.ppm"
        path.write_bytes(b"P6 200000 200000 255\n")
        with pytest.raises(ImageError, match=r"bomb.ppm cannot be read \(Image size"):
            read_image(path)


@pytest.fixture
def classes(tmp_path: Path) -> Path:
    """Three classes of 5, 2 and 9 images, made in an order that is not theirs, beside files that are no images."""
    root = tmp_path / "set"
    for shade, (name, count) in enumerate([("shirt", 9), ("Bag", 5), ("coat", 2)]):
        for index in reversed(range(count)):
            plain(root / name / f"{index}.{'PNG' if index % 2 else 'png'}", 20 * shade + index)
    (root / "README.txt").write_text("about")
    (root / "coat" / "notes.csv").write_text("x")
    (root / "coat" / ".hidden.png").write_text("x")
    (root / ".cache").mkdir()
    return root


class TestFolders:
    def test_a_folder_per_class(self, classes: Path) -> None:
        images = open_images(classes)
        assert images.classes == ("Bag", "coat", "shirt")
        assert images.labels == (0,) * 5 + (1,) * 2 + (2,) * 9
        assert [path.name for path in images.paths[:7]] == [
            "0.png",
            "1.PNG",
            "2.png",
            "3.PNG",
            "4.png",
            "0.png",
            "1.PNG",
        ]
        assert len(images) == 16

    def test_a_flat_folder_has_no_labels(self, classes: Path) -> None:
        images = open_images(classes / "coat")
        assert (images.labels, images.classes, len(images)) == (None, None, 2)

    def test_what_is_unclear_is_refused(self, classes: Path, tmp_path: Path) -> None:
        with pytest.raises(ImageError, match="nowhere does not exist"):
            open_images(tmp_path / "nowhere")
        with pytest.raises(ImageError, match="0.png is a file: give the folder"):
            open_images(classes / "coat" / "0.png")
        with pytest.raises(ImageError, match="has one class folder, 'set': name that folder"):
            open_images(tmp_path)
        with pytest.raises(ImageError, match=".cache has no images"):
            open_images(classes / ".cache")
        (classes / "empty").mkdir()
        with pytest.raises(ImageError, match="class folder .*empty has no images"):
            open_images(classes)
        plain(classes / "empty" / "deeper" / "0.png")
        with pytest.raises(ImageError, match="class folder .*empty has a folder in it, 'deeper'"):
            open_images(classes)
        plain(classes / "stray.png")
        with pytest.raises(ImageError, match=r"both images \(stray.png, …\) and folders \(Bag, …\)"):
            open_images(classes)


class TestCsv:
    def test_labels(self, classes: Path) -> None:
        path = classes / "list.csv"
        path.write_text("path,label\nshirt/0.png, top\n\ncoat/1.PNG,coat\nshirt/2.png,top\n", encoding="utf-8-sig")
        images = open_images(path)
        assert images.paths == (classes / "shirt/0.png", classes / "coat/1.PNG", classes / "shirt/2.png")
        assert (images.labels, images.classes) == ((1, 0, 1), ("coat", "top"))

    def test_paths_alone(self, classes: Path) -> None:
        path = classes / "list.CSV"
        path.write_text("path\nshirt/0.png\n")
        assert open_images(path) == ImageSet(path, (classes / "shirt/0.png",), None, None)

    @pytest.mark.parametrize(
        ("text", "message"),
        [
            (
                "path,label\nshirt/0.png,a\n\nshirt/77.png,a\n",
                "line 4 names a file that does not exist, 'shirt/77.png'",
            ),
            (f"path\n{'x' * 5000}\n", "line 2 names a file that does not exist"),
            ("path,label\nshirt/0.png\n", "line 2 is 'shirt/0.png': give path and label"),
            ("path,label\nshirt/0.png,\n", "line 2 is 'shirt/0.png,'"),
            ("path\nshirt/0.png,a\n", "line 2 is 'shirt/0.png,a': give path"),
            ("image,class\nshirt/0.png,a\n", "begins with 'image,class': its first line must be 'path,label'"),
            ("", "begins with ''"),
            ("path,label\n", "lists no images"),
        ],
    )
    def test_mistakes(self, classes: Path, text: str, message: str) -> None:
        path = classes / "list.csv"
        path.write_text(text)
        with pytest.raises(ImageError, match=f"list.csv {message}"):
            open_images(path)

    def test_not_text(self, classes: Path) -> None:
        path = classes / "list.csv"
        path.write_bytes(b"path\n\xff\xfe\n")
        with pytest.raises(ImageError, match="list.csv cannot be read as CSV"):
            open_images(path)


class TestLimit:
    def counts(self, images: ImageSet) -> list[int]:
        assert images.labels is not None
        return [Counter(images.labels)[label] for label in range(3)]

    @pytest.mark.parametrize(
        ("limit", "expected"), [(3, [1, 1, 1]), (6, [2, 2, 2]), (8, [3, 2, 3]), (14, [5, 2, 7]), (16, [5, 2, 9])]
    )
    def test_even_over_the_classes(self, classes: Path, limit: int, expected: list[int]) -> None:
        assert self.counts(open_images(classes, limit)) == expected
        assert len(open_images(classes, 1000)) == 16

    def test_what_is_left_over_goes_to_any_class(self, classes: Path) -> None:
        first = {tuple(self.counts(open_images(classes, 1, seed))) for seed in range(20)}
        assert first == {(1, 0, 0), (0, 1, 0), (0, 0, 1)}

    def test_labels_follow_their_images_and_the_order_stays(self, classes: Path) -> None:
        images, everything = open_images(classes, 8), open_images(classes)
        assert images.labels is not None and images.classes == everything.classes == ("Bag", "coat", "shirt")
        assert [images.classes[label] for label in images.labels] == [path.parent.name for path in images.paths]
        assert list(images.paths) == [path for path in everything.paths if path in images.paths]

    def test_the_seed_alone_decides(self, classes: Path) -> None:
        drawn = [open_images(classes, 6, seed).paths for seed in range(5)]
        assert [open_images(classes, 6, seed).paths for seed in range(5)] == drawn
        assert len(set(drawn)) > 1
        assert open_images(classes, 6).paths == drawn[0]

    def test_a_larger_limit_only_adds(self, classes: Path) -> None:
        sets = [set(open_images(classes, limit).paths) for limit in range(1, 17)]
        assert all(smaller < larger for smaller, larger in itertools.pairwise(sets))

    def test_every_image_is_as_likely(self, classes: Path) -> None:
        drawn = Counter(path for seed in range(300) for path in open_images(classes / "shirt", 3, seed).paths)
        assert len(drawn) == 9 and all(70 <= count <= 130 for count in drawn.values())

    @pytest.mark.parametrize("limit", [0, -1])
    def test_none_is_an_error(self, classes: Path, limit: int) -> None:
        with pytest.raises(ImageError, match=f"limit is {limit}: give 1 or more"):
            open_images(classes, limit)


class TestPixels:
    def test_frames_are_prepared_images_in_order(self, classes: Path) -> None:
        images = open_images(classes)
        frames = list(images.frames(GRAY))
        shades = [int(np.asarray(Image.open(path))[0, 0]) for path in images.paths]
        assert [frame.shape for frame in frames] == [(28, 28, 1)] * 16
        assert [int(frame[5, 5, 0]) for frame in frames] == shades and len(set(shades)) > 10

    @pytest.mark.parametrize("size", [1, 5, 8, 16, 100])
    def test_batches_are_the_frames(self, classes: Path, size: int) -> None:
        images = open_images(classes)
        batches = list(images.batches(COLOUR, size))
        assert [len(batch) for batch in batches] == [min(size, 16 - start) for start in range(0, 16, size)]
        assert np.array_equal(np.concatenate(batches), np.stack(list(images.frames(COLOUR))))
        assert batches[0].dtype == np.uint8 and batches[0].shape[1:] == (8, 8, 3)

    def test_a_bad_file_is_named(self, classes: Path) -> None:
        (classes / "shirt" / "8.png").write_text("not a picture")
        batches = open_images(classes).batches(GRAY, 4)
        assert len(next(batches)) == 4
        with pytest.raises(ImageError, match="8.png is no image"):
            list(batches)

    def test_stopping_early_leaves_no_thread(self, classes: Path) -> None:
        before = threading.active_count()
        batches = open_images(classes).batches(GRAY, 2)
        next(batches)
        assert threading.active_count() == before + 1
        batches.close()  # type: ignore[attr-defined]
        assert threading.active_count() == before

    def test_batch_size_must_be_positive(self, classes: Path) -> None:
        with pytest.raises(ImageError, match="batch size is 0: give 1 or more"):
            next(open_images(classes).batches(GRAY, 0))


def sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


class TestManifest:
    def test_what_it_says(self, classes: Path) -> None:
        images = open_images(classes)
        manifest = json.loads(json.dumps(images.manifest()))
        hashes = [sha256(path) for path in images.paths]
        assert list(images.hashes) == hashes
        digest = hashlib.sha256()
        for line in sorted(hashes):
            digest.update(line.encode() + b"\n")
        assert manifest == {
            "source": "set",
            "images": 16,
            "classes": {"Bag": 5, "coat": 2, "shirt": 9},
            "sha256": hashes,
            "digest": digest.hexdigest(),
        }

    def test_digest_does_not_depend_on_the_order(self, classes: Path) -> None:
        images = open_images(classes / "shirt")
        backwards = replace(images, paths=images.paths[::-1])
        assert backwards.manifest()["sha256"] == images.manifest()["sha256"][::-1]  # type: ignore[index]
        assert backwards.manifest()["digest"] == images.manifest()["digest"]
        assert replace(images, paths=images.paths[1:]).manifest()["digest"] != images.manifest()["digest"]

    def test_unlabelled_images_have_no_counts_and_here_has_a_name(
        self, classes: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.chdir(classes / "coat")
        manifest = open_images(Path(".")).manifest()
        assert (manifest["source"], manifest["classes"]) == ("coat", None)

    def test_hashes_are_read_once_and_a_lost_file_is_named(self, classes: Path) -> None:
        images, again = open_images(classes), open_images(classes)
        before = images.hashes
        images.paths[0].unlink()
        assert images.hashes is before
        with pytest.raises(ImageError, match="0.png cannot be read: No such file"):
            _ = again.hashes

    def test_an_image_set_is_never_empty(self, tmp_path: Path) -> None:
        with pytest.raises(ImageError, match="gives no images"):
            ImageSet(tmp_path, (), None, None)


class TestLabels:
    def test_by_name(self, classes: Path) -> None:
        images = open_images(classes, 3).with_labels_of(("shirt", "shoe", "Bag", "coat"))
        assert images.labels == (2, 3, 0)
        assert images.classes == ("shirt", "shoe", "Bag", "coat")
        assert images.manifest()["classes"] == {"shirt": 1, "shoe": 0, "Bag": 1, "coat": 1}

    def test_by_order_when_there_is_one_for_each(self, classes: Path) -> None:
        images = open_images(classes, 3).with_labels_of(("tench", "goldfish", "shark"))
        assert (images.labels, images.classes) == ((0, 1, 2), ("tench", "goldfish", "shark"))

    def test_unknown_and_ambiguous_names(self, classes: Path) -> None:
        images = open_images(classes)
        with pytest.raises(ImageError, match="class 'coat' of .*set is not among the model's 4 labels"):
            images.with_labels_of(("shirt", "shoe", "Bag", "boot"))
        with pytest.raises(ImageError, match="class 'Bag' of .*set is the name of several labels"):
            images.with_labels_of(("Bag", "shirt", "Bag", "coat"))

    def test_unlabelled_images_stay(self, classes: Path) -> None:
        images = open_images(classes / "coat")
        assert images.with_labels_of(("a", "b")) is images


class TestDisjoint:
    def test_shared_images_are_found_by_their_bytes(self, classes: Path, tmp_path: Path) -> None:
        calibration = open_images(classes)
        for shade, name in [(200, "new"), (5, "old"), (6, "older")]:
            plain(tmp_path / "evaluation" / f"{name}.png", shade)
        with pytest.raises(
            ImageError, match=r"2 of 3 evaluation images .* the first is .*old.png: calibration images must"
        ):
            check_disjoint(calibration.hashes, open_images(tmp_path / "evaluation"))

    def test_others_pass(self, classes: Path, tmp_path: Path) -> None:
        plain(tmp_path / "evaluation" / "new.png", 200)
        check_disjoint(iter(open_images(classes).hashes), open_images(tmp_path / "evaluation"))
        check_disjoint((), open_images(classes))
