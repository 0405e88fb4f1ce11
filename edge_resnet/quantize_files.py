"""What ``quantize`` needs when its inputs are files: the table's own images again, and what is written down."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
import onnx

from edge_resnet.adoption import Network, open_network
from edge_resnet.calibration.table import CalibrationTable
from edge_resnet.errors import CalibrationError
from edge_resnet.images import ImageSet, open_images
from edge_resnet.limits import check_depth, check_file
from edge_resnet.onnx_file import read_metadata, write_metadata
from edge_resnet.preprocessing import Preprocessing


def open_table(path: Path) -> CalibrationTable:
    """Reads a calibration table.

    Raises:
        CalibrationError: the file is missing or holds something else.
    """
    if not path.is_file():
        raise CalibrationError(f"no calibration table at {path}: make one with `edge-resnet calibrate`")
    check_file(path, "document_bytes", CalibrationError)
    data = path.read_bytes()
    check_depth(data, str(path), CalibrationError)
    return CalibrationTable.from_json(data, str(path))


def open_calibrated(path: Path, table: CalibrationTable) -> Network:
    """Reads the FP32 network that a table was made from.

    Raises:
        CalibrationError: the table is another network's, or its images were prepared otherwise.
    """
    given = table_preprocessing(table)
    network = open_network(path, given)
    here, there = network.preprocessing.to_json(), given.to_json()
    for key in here.keys() | there.keys():
        if here.get(key) != there.get(key):
            raise CalibrationError(
                f"the calibration table was made with {key} {there.get(key)}, and {path} has {here.get(key)}: "
                f"run `edge-resnet calibrate` on this model"
            )
    table.check_fits(network.model)
    return network


def refinement_frames(table: CalibrationTable, beside: Path, source: Path | None, count: int) -> npt.NDArray[np.uint8]:
    """Some of the images that a table was made from, prepared as they were then.

    Args:
        table: its manifest has the hashes, and where the images were.
        beside: the table's folder, which that place is relative to.
        source: the folder or CSV; None looks where the table says they were.
        count: how many to draw.

    Raises:
        CalibrationError: none of the table's images is there.
    """
    place = source or beside / str(table.images.get("path", "no path in the table"))
    if not place.exists():
        raise CalibrationError(
            f"the table's images are not at '{place}': give --images, or --effort fast to do without"
        )
    images = _those_of(table, open_images(place))
    return images.draw(count).pixels(table_preprocessing(table))


def table_preprocessing(table: CalibrationTable) -> Preprocessing:
    """The preprocessing that a table's images went through.

    Raises:
        RecipeError: it is not one that this version knows.
    """
    return Preprocessing.from_json(table.preprocessing)


def _those_of(table: CalibrationTable, images: ImageSet) -> ImageSet:
    wanted = set(_hashes(table))
    kept = [index for index, digest in enumerate(images.hashes) if digest in wanted]
    if not kept:
        raise CalibrationError(
            f"{images.root} holds none of the {len(wanted)} images that the table was made from: "
            f"give their folder with --images, or calibrate again"
        )
    return images.take(kept)


def with_provenance(model: onnx.ModelProto, table: CalibrationTable) -> onnx.ModelProto:
    """Writes method and image hashes of the calibration, and what its images look like, into the model's metadata."""
    found = read_metadata(model, "the quantized model")
    seen = {key: table.images[key] for key in ("appearance",) if key in table.images}
    write_metadata(model, replace(found, calibration={"method": table.method, "sha256": _hashes(table), **seen}))
    return model


def _hashes(table: CalibrationTable) -> list[str]:
    """SHA-256 of each image that the table was made from."""
    found = table.images.get("sha256")
    if not isinstance(found, list) or not all(isinstance(digest, str) for digest in found):
        raise CalibrationError("the calibration table does not say which images it was made from: calibrate again")
    return found
