"""Image files: reading one, and sets of them with their labels and a manifest.

The calibration set and the evaluation set are two ``ImageSet``s, kept apart by the hashes of their files.
"""

from __future__ import annotations

import csv
import hashlib
import os
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import cached_property
from io import BytesIO
from pathlib import Path

import numpy as np
from PIL import Image, UnidentifiedImageError

from edge_resnet.errors import ImageError
from edge_resnet.preprocessing import Pixels, Preprocessing, plain_image

SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".webp", ".tif", ".tiff", ".ppm", ".pgm")
"""Files in a folder that count as images, in any case."""
_FORMATS = ("JPEG", "PNG", "BMP", "WEBP", "TIFF", "PPM")


def read_image(path: Path) -> Image.Image:
    """Reads an image file fully, in mode ``L`` or ``RGB``.

    Pixels are those of torchvision's default loader: an EXIF orientation is not applied. What would change the answer is
    refused: transparent pixels, more than 8 bits a channel, and several frames (an animation, or pages), of which any may
    be meant. The JPEG of a phone or stereo camera that carries further pictures (MPO) gives its first, the photo itself.

    Raises:
        ImageError: the file is missing, damaged, not an image, too large to be one, or refused as above.
    """
    return _decoded(path, str(path))


def decode_image(data: bytes, name: str) -> Image.Image:
    """Decodes the bytes of an image file, as they come over a network, just as ``read_image`` reads the file.

    Args:
        data: the whole file.
        name: what messages call it.

    Raises:
        ImageError: as ``read_image``.
    """
    return _decoded(BytesIO(data), name)


def _decoded(file: Path | BytesIO, name: str) -> Image.Image:
    try:
        with Image.open(file, formats=_FORMATS) as image:
            frames = getattr(image, "n_frames", 1)
            if frames > 1 and image.format != "MPO":
                raise ImageError(f"{name} holds {frames} frames: save the one that is meant as a file of its own")
            return plain_image(image, name)
    except ImageError:
        raise
    except FileNotFoundError as error:
        raise ImageError(f"{name} does not exist: check the path") from error
    except UnidentifiedImageError as error:
        raise ImageError(f"{name} is no image, or a damaged one: give one of {', '.join(_FORMATS)}") from error
    except Exception as error:  # as in plain_image: a damaged file can lead a decoder to any of them
        raise ImageError(f"{name} cannot be read ({error}): give an undamaged image") from error


@dataclass(frozen=True)
class ImageSet:
    """Image files, at least one, and their labels where known. Files are read when needed, never all at once."""

    root: Path
    """The folder or the CSV file that they were found by."""
    paths: tuple[Path, ...]
    labels: tuple[int, ...] | None
    """One for each path: its place in ``classes``."""
    classes: tuple[str, ...] | None

    def __post_init__(self) -> None:
        if not self.paths:
            raise ImageError(f"{self.root} gives no images: give one or more")

    def __len__(self) -> int:
        return len(self.paths)

    @cached_property
    def hashes(self) -> tuple[str, ...]:
        """SHA-256 of each file's bytes, in the order of ``paths``.

        Raises:
            ImageError: a file cannot be read.
        """
        return tuple(_sha256(path) for path in self.paths)

    def frames(self, preprocessing: Preprocessing) -> Iterator[Pixels]:
        """Gives each image as uint8 H×W×C at the network's size.

        Raises:
            ImageError: a file cannot be used; the message names it.
        """
        for path in self.paths:
            yield _frame(path, preprocessing)

    def batches(self, preprocessing: Preprocessing, size: int) -> Iterator[Pixels]:
        """Gives the images in batches, uint8 N×H×W×C; N is ``size``, less for the last.

        The next batch is read in a thread while the caller works on this one.

        Raises:
            ImageError: ``size`` is below 1, or a file cannot be used; the message names it.
        """
        if size < 1:
            raise ImageError(f"batch size is {size}: give 1 or more")
        parts = [self.paths[start : start + size] for start in range(0, len(self), size)]
        with ThreadPoolExecutor(max_workers=1) as reader:
            following = reader.submit(_batch, parts[0], preprocessing)
            for part in parts[1:]:
                batch = following.result()
                following = reader.submit(_batch, part, preprocessing)
                yield batch
            yield following.result()

    def manifest(self, hashes: Sequence[str] | None = None) -> dict[str, object]:
        """Says which images these are, for a bundle or table: no paths, so that it tells nothing of the machine.

        ``digest`` is the SHA-256 of the sorted hashes, one a line: the same images in another order have the same.

        Args:
            hashes: those of ``hashes``, where another machine has read the files; None reads them here.
        """
        known = self.hashes if hashes is None else hashes
        counts = None
        if self.labels is not None and self.classes is not None:
            images = Counter(self.labels)
            counts = {name: images[index] for index, name in enumerate(self.classes)}
        return {
            "source": os.path.basename(os.path.abspath(self.root)),
            "images": len(self),
            "classes": counts,
            "sha256": list(known),
            "digest": hashlib.sha256("".join(f"{digest}\n" for digest in sorted(known)).encode()).hexdigest(),
        }

    def draw(self, limit: int, seed: int = 0) -> ImageSet:
        """Takes every class's first image of a shuffled order, then every class's second, … until there are enough.

        The draw depends on the seed and the order of the images alone, and a larger limit only adds images.
        """
        return self.take(self.drawn(limit, seed))

    def drawn(self, limit: int, seed: int = 0) -> list[int]:
        """The places of the images that ``draw`` takes, rising."""
        labels = self.labels or (0,) * len(self)
        # Hashes, and not the random module, whose order may change with the Python version.
        order = sorted(range(len(self)), key=lambda index: hashlib.sha256(f"{seed} {index}".encode()).digest())
        drawn: Counter[int] = Counter()
        turn: dict[int, int] = {}
        for index in order:
            turn[index] = drawn[labels[index]]
            drawn[labels[index]] += 1
        return sorted(sorted(order, key=turn.__getitem__)[:limit])

    def take(self, indices: Sequence[int]) -> ImageSet:
        """The images at these places, in this order."""
        return replace(
            self,
            paths=tuple(self.paths[index] for index in indices),
            labels=None if self.labels is None else tuple(self.labels[index] for index in indices),
        )

    def pixels(self, preprocessing: Preprocessing) -> Pixels:
        """All of them, prepared: uint8 N×H×W×C."""
        return _batch(self.paths, preprocessing)

    def with_labels_of(self, labels: tuple[str, ...]) -> ImageSet:
        """Makes the labels those of a model, so that they index its logits.

        Classes are matched by name; when no name is known but there are as many classes as labels, in sorted order, as
        torchvision's ImageFolder numbers the folders that a model was trained on. Unlabelled images stay as they are.

        Raises:
            ImageError: a class is not among the labels, or is there twice.
        """
        if self.labels is None or self.classes is None:
            return self
        unknown = [name for name in self.classes if name not in labels]
        if self.counted(labels):
            return replace(self, classes=labels)
        if unknown:
            raise ImageError(
                f"class '{unknown[0]}' of {self.root} is not among the model's {len(labels)} labels "
                f"({', '.join(labels[:3])}, …): name the classes as the labels, or give one for each label"
            )
        for name in self.classes:
            if labels.count(name) > 1:
                raise ImageError(f"class '{name}' of {self.root} is the name of several labels: tell the labels apart")
        return replace(self, labels=tuple(labels.index(self.classes[label]) for label in self.labels), classes=labels)

    def counted(self, labels: tuple[str, ...]) -> bool:
        """Whether classes are matched with labels by their order, because none has the name of one."""
        classes = self.classes or ()
        return len(classes) == len(labels) > 0 and not set(classes) & set(labels)


def image_files(given: Iterable[Path]) -> list[Path]:
    """Files as they are given, and in the place of a folder those that ``open_images`` finds in it.

    Raises:
        ImageError: a folder has no images.
    """
    return [path for each in given for path in (open_images(each).paths if each.is_dir() else (each,))]


def open_images(source: Path, limit: int | None = None, seed: int = 0) -> ImageSet:
    """Finds images: a folder per class, a flat folder (unlabelled), or a CSV of ``path,label`` or only ``path``.

    Classes are in sorted order; so are the files of a folder, while a CSV keeps its own order. Hidden files and files of
    other types are passed over. Paths in a CSV are relative to it.

    Args:
        limit: take so many images at most, drawn evenly over the classes; where one has too few, the others give more.
            A larger limit only adds images.
        seed: of the draw, which depends on it and on the order of the images alone.

    Raises:
        ImageError: there is nothing to find, or it is not clear what the labels are.
    """
    if limit is not None and limit < 1:
        raise ImageError(f"limit is {limit}: give 1 or more")
    if not os.path.exists(source):
        raise ImageError(f"{source} does not exist: give a folder of images, or a CSV of path,label")
    if source.is_dir():
        images = _from_folder(source)
    elif source.suffix.lower() == ".csv":
        images = _from_csv(source)
    else:
        raise ImageError(f"{source} is a file: give the folder that holds the images, or a CSV of path,label")
    return images if limit is None else images.draw(limit, seed)


def check_disjoint(calibration_hashes: Iterable[str], evaluation: ImageSet) -> None:
    """Refuses to measure accuracy on images that calibration has seen.

    Raises:
        ImageError: a file of ``evaluation`` has one of the hashes.
    """
    seen = set(calibration_hashes)
    shared = [path for path, digest in zip(evaluation.paths, evaluation.hashes, strict=True) if digest in seen]
    if shared:
        raise ImageError(
            f"{len(shared)} of {len(evaluation)} evaluation images were used for calibration, the first is {shared[0]}: "
            "calibration images must not be evaluation images, take other images for one of the two"
        )


def _sha256(path: Path) -> str:
    try:
        return hashlib.sha256(path.read_bytes()).hexdigest()
    except OSError as error:
        raise ImageError(f"{path} cannot be read: {error.strerror}") from error


def _frame(path: Path, preprocessing: Preprocessing) -> Pixels:
    return preprocessing.prepare(read_image(path), str(path))


def _batch(paths: tuple[Path, ...], preprocessing: Preprocessing) -> Pixels:
    batch = np.empty((len(paths), *preprocessing.size, preprocessing.channels), np.uint8)
    for index, path in enumerate(paths):
        batch[index] = _frame(path, preprocessing)
    return batch


def _from_folder(source: Path) -> ImageSet:
    folders, images = _listing(source)
    if folders and images:
        raise ImageError(
            f"{source} has both images ({images[0].name}, …) and folders ({folders[0].name}, …): "
            "give a folder per class, or only images"
        )
    if images:
        return ImageSet(source, tuple(images), labels=None, classes=None)
    if not folders:
        raise ImageError(f"{source} has no images: give a folder of {' '.join(SUFFIXES)} files")
    if len(folders) == 1:
        raise ImageError(
            f"{source} has one class folder, '{folders[0].name}': "
            "name that folder itself for unlabelled images, or give a folder per class"
        )
    members = [_members(folder) for folder in folders]
    return ImageSet(
        source,
        paths=tuple(path for paths in members for path in paths),
        labels=tuple(label for label, paths in enumerate(members) for _ in paths),
        classes=tuple(folder.name for folder in folders),
    )


def _members(folder: Path) -> list[Path]:
    """Lists the images of a class."""
    folders, images = _listing(folder)
    if folders:
        raise ImageError(
            f"class folder {folder} has a folder in it, '{folders[0].name}': put its images directly in it"
        )
    if not images:
        raise ImageError(f"class folder {folder} has no images: add some, or remove it")
    return images


def _listing(folder: Path) -> tuple[list[Path], list[Path]]:
    """Lists the folders and the images in a folder, each sorted by name."""
    try:
        entries = sorted((path for path in folder.iterdir() if path.name[0] != "."), key=lambda path: path.name)
    except OSError as error:
        raise ImageError(f"{folder} cannot be read: {error.strerror}") from error
    folders = [path for path in entries if path.is_dir()]
    return folders, [path for path in entries if path.suffix.lower() in SUFFIXES and not path.is_dir()]


def _from_csv(source: Path) -> ImageSet:
    header, rows = _read_csv(source)
    if header not in (["path"], ["path", "label"]):
        raise ImageError(f"{source} begins with {','.join(header)!r}: its first line must be 'path,label', or 'path'")
    if not rows:
        raise ImageError(f"{source} lists no images: add a line for each")
    for line, row in rows:
        if len(row) != len(header) or not all(row):
            raise ImageError(f"{source} line {line} is {','.join(row)!r}: give {' and '.join(header)}")
        if not os.path.isfile(source.parent / row[0]):
            raise ImageError(f"{source} line {line} names a file that does not exist, '{row[0]}': correct its path")
    paths = tuple(source.parent / row[0] for _, row in rows)
    if len(header) == 1:
        return ImageSet(source, paths, labels=None, classes=None)
    classes = tuple(sorted({row[1] for _, row in rows}))
    place = {name: index for index, name in enumerate(classes)}
    return ImageSet(source, paths, labels=tuple(place[row[1]] for _, row in rows), classes=classes)


def _read_csv(source: Path) -> tuple[list[str], list[tuple[int, list[str]]]]:
    """Reads the header and the rows with their line numbers; empty lines and spaces around a value do not count."""
    try:
        with source.open(newline="", encoding="utf-8-sig") as file:
            reader = csv.reader(file)
            lines = [(reader.line_num, [value.strip() for value in row]) for row in reader if row]
    except (OSError, ValueError, csv.Error) as error:
        raise ImageError(f"{source} cannot be read as CSV: {error}") from error
    return (lines[0][1], lines[1:]) if lines else ([], [])
