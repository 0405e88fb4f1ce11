"""The FP32 network that everything else is made from and held against, and how an ONNX file becomes one."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import onnx

from edge_resnet.adoption.foreign import adopt
from edge_resnet.errors import RecipeError
from edge_resnet.onnx_file import check_finite, check_float32, check_fp32, read_metadata, read_onnx, takes_frames
from edge_resnet.preprocessing import Preprocessing


@dataclass(frozen=True)
class Network:
    """An FP32 network and what belongs to it."""

    model: onnx.ModelProto
    """Takes uint8 frames and gives logits or features."""
    architecture: str | None
    preprocessing: Preprocessing
    labels: tuple[str, ...] | None
    """The classes' names; None where nobody has said them, or there are no classes."""
    changes: tuple[str, ...] = ()
    """What adoption changed of a foreign ONNX file."""

    @property
    def input_shape(self) -> tuple[int, int, int]:
        """Height, width and channels of a frame."""
        return (*self.preprocessing.size, self.preprocessing.channels)


def open_network(path: Path, preprocessing: Preprocessing | None, *, features: bool = False) -> Network:
    """Reads an FP32 ONNX file: one of ours as it is, a foreign one adopted.

    Args:
        path: the file; tensors of its own that lie in other files are read too.
        preprocessing: for a foreign file. Of ours, what the file holds counts; that a caller gave something else is the
            caller's to refuse.
        features: whether a foreign file's output N×C holds features; without, class scores.

    Raises:
        ModelError: the file cannot be used.
        RecipeError: it holds no preprocessing, and none was given.
    """
    model, name = read_onnx(path), str(path)
    check_fp32(model, name)
    found = read_metadata(model, name)
    if takes_frames(model) and found.preprocessing is not None:
        check_float32(model, name)
        return Network(model, found.architecture, found.preprocessing, found.labels)
    if preprocessing is None:
        raise RecipeError(
            f"{path} holds no preprocessing: give --preprocessing, or --size, --mean and --std; "
            f"in a recipe, [preprocessing]"
        )
    adopted = adopt(model, preprocessing, name, features=features)
    check_finite(adopted.model, name)
    return Network(adopted.model, found.architecture, preprocessing, found.labels, adopted.changes)
