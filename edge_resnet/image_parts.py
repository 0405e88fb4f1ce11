"""Consecutive images of a set, as somebody else is told to read them: another process, or another machine."""

from __future__ import annotations

import hashlib
import os
import platform
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from edge_resnet.errors import ImageError
from edge_resnet.images import ImageSet, decode_image
from edge_resnet.preprocessing import Pixels, Preprocessing


@dataclass(frozen=True)
class Part:
    """Some images of a set."""

    first: int
    """Images of the set before them."""
    paths: tuple[Path, ...]
    """Absolute: the same on every machine that reads them."""
    known: Mapping[Path, str]
    """SHA-256 of those whose bytes must be what whoever sends this has seen."""

    def batches(self, preprocessing: Preprocessing, size: int, hashes: list[str]) -> Iterator[Pixels]:
        """Gives the images in batches, as ``ImageSet.batches`` does.

        Args:
            preprocessing: the network's.
            size: of a batch.
            hashes: takes the SHA-256 of each file, in order.

        Raises:
            ImageError: a file is missing here, is another one than was meant, or cannot be used; the message names it.
        """
        for start in range(0, len(self.paths), size):
            frames = []
            for path in self.paths[start : start + size]:
                data = _read(path)
                hashes.append(hashlib.sha256(data).hexdigest())
                if self.known.get(path, hashes[-1]) != hashes[-1]:
                    raise ImageError(f"{path} is another file on worker {platform.node()} than here: {_SAME}")
                frames.append(preprocessing.prepare(decode_image(data, str(path)), str(path)))
            yield np.stack(frames)


_SAME = "images must lie at the same path on every worker, such as on a network drive"


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except FileNotFoundError as error:
        raise ImageError(f"worker {platform.node()} lacks {path}: {_SAME}") from error
    except OSError as error:
        raise ImageError(f"worker {platform.node()} cannot read {path} ({error.strerror}): {_SAME}") from error


def parts_of(images: ImageSet, size: int, known: Mapping[Path, str]) -> list[Part]:
    """A set in parts of ``size`` images, fewer in the last; ``known`` by the set's own paths."""
    absolute = {path: Path(os.path.abspath(path)) for path in images.paths}
    parts = [images.paths[start : start + size] for start in range(0, len(images), size)]
    return [
        Part(
            index * size,
            tuple(absolute[path] for path in part),
            {absolute[path]: known[path] for path in part if path in known},
        )
        for index, part in enumerate(parts)
    ]
