"""Everything that reads a file which somebody else may have written, each with valid files to begin from."""

from __future__ import annotations

import io
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import fuzz_mutations as mutations
import numpy as np
import onnx
from PIL import Image
from small_network import quantised_network

from edge_resnet.adoption import open_network
from edge_resnet.appearance import Appearance
from edge_resnet.bundle import EngineEntry, Manifest, open_bundle, write_bundle
from edge_resnet.cache_files import open_cache
from edge_resnet.calibration.observers import TensorRange
from edge_resnet.calibration.table import CalibrationTable
from edge_resnet.calibration.trt_cache import write_cache
from edge_resnet.camera.registry import source_of
from edge_resnet.companion import FORMAT as RECORD
from edge_resnet.companion import read_record
from edge_resnet.frames import FrameColor, FrameFormat
from edge_resnet.golden import golden_members, read_golden
from edge_resnet.images import decode_image, open_images, read_image
from edge_resnet.labels import read_labels
from edge_resnet.onnx_file import read_metadata, read_onnx
from edge_resnet.preprocessing import NAMED, Preprocessing, load_preprocessing
from edge_resnet.quantize_files import open_table, table_preprocessing
from edge_resnet.recipe import load_recipe

SPEC = NAMED["fashion-mnist"]


@dataclass(frozen=True)
class Parser:
    """One parser of files."""

    name: str
    suffix: str
    parse: Callable[[Path], object]
    seeds: Callable[[], Sequence[bytes]]
    mutate: mutations.Mutation
    weight: int
    """Its share of the inputs; slow ones get less."""


def _parse_bundle(path: Path) -> None:
    bundle = open_bundle(path)
    bundle.verify_members()
    Preprocessing.from_json(bundle.manifest.preprocessing)
    for name in ("frames", "fp32", "cpu"):
        read_golden(bundle, name)


@cache
def _bundle_seeds() -> Sequence[bytes]:
    manifest = Manifest(
        name="shelf",
        architecture="resnet20",
        precision="int8",
        labels=("Pullover", "Ärmel", "鞋"),
        input_shape=(28, 28, 1),
        preprocessing=SPEC.to_json(),
        engines=(
            EngineEntry("cpu", "onnxruntime", "int8", "cpu.onnx", {"onnxruntime": "1.23.2"}, "measured"),
            EngineEntry("jetson-orin-nano", "tensorrt", "int8", None, {}, "deferred"),
        ),
        calibration={"images": {"sha256": []}, "method": "mse"},
        accuracy=None,
        created_by={"edge-resnet": "0.1.0"},
    )
    logits = np.ones((2, 3), np.float32)
    members = golden_members(np.zeros((2, 4, 4, 1), np.uint8), logits, {"cpu": logits})
    with TemporaryDirectory() as folder:
        path = Path(folder) / "seed.edge"
        write_bundle(path, manifest, {"cpu.onnx": b"\x08\x08network", **members})
        return (path.read_bytes(),)


def _parse_table(path: Path) -> None:
    table = open_table(path)
    table_preprocessing(table)
    if "appearance" in table.images:
        Appearance.from_json(table.images["appearance"])


def _table_seeds() -> Sequence[bytes]:
    looks = {"images": 20, "mean": [72.9, 79.5], "deviation": [26.0, 13.3]}
    images = {"source": "train", "images": 2, "classes": {"a": 2}, "sha256": ["ab", "cd"], "appearance": looks}
    return (_table(images).to_json().encode(),)


def _table(images: dict[str, Any]) -> CalibrationTable:
    ranges = {"x": TensorRange(-1.0, 2.0, 2.0, -1.0, 2.0), "y": TensorRange(0.0, 6.0, 5.5, 0.0, 5.5)}
    return CalibrationTable("mse", "ab" * 32, images, SPEC.to_json(), ranges, {"w": (0.5, 0.25)})


RECIPE = b"""
[model]
arch = "resnet20"
weights = "input.toml"
classes = 10
[preprocessing]
size = [28, 28]
crop = "none"
interpolation = "bilinear"
color = "gray"
mean = [0.2860]
std = [0.3530]
[calibration]
images = "."
limit = 100
[quantize]
effort = "fast"
keep_float = ["conv1"]
[accuracy]
max_drop = 1.5
[build]
precision = "int8"
targets = ["cpu", "rtx-40"]
output = "model.edge"
[engine]
workspace_mb = 100
"""


def _image_seeds() -> Sequence[bytes]:
    pixels = np.arange(7 * 9 * 3, dtype=np.uint8).reshape(7, 9, 3)
    found = []
    for form, options in (
        ("PNG", {}), ("JPEG", {}), ("BMP", {}), ("WEBP", {}), ("WEBP", {"lossless": True}), ("TIFF", {}), ("PPM", {}),
        ("JPEG", {"progressive": True}), ("TIFF", {"compression": "tiff_lzw"}), ("TIFF", {"compression": "jpeg"}),
    ):  # fmt: skip
        for mode in ("RGB", "L"):
            buffer = io.BytesIO()
            Image.fromarray(pixels).convert(mode).save(buffer, form, **options)  # type: ignore[arg-type]
            found.append(buffer.getvalue())
    buffer = io.BytesIO()
    Image.fromarray(pixels).convert("P").save(buffer, "PNG")
    return (*found, buffer.getvalue())


def _parse_image(path: Path) -> None:
    decode_image(path.read_bytes(), "over the network")
    read_image(path)


def _parse_onnx(path: Path) -> None:
    read_metadata(read_onnx(path), str(path))


def _foreign() -> bytes:
    model = onnx.parser.parse_model("""<ir_version: 8, opset_import: ["": 17]>
    network (float[N,1,28,28] x) => (float[N,3] y) {
        c = Conv <kernel_shape=[3,3]> (x, w) r = Relu(c) g = GlobalAveragePool(r) f = Flatten(g) y = Gemm(f, v)
    }""")
    arrays = {"w": np.ones((4, 1, 3, 3), np.float32), "v": np.ones((4, 3), np.float32)}
    model.graph.initializer.extend(onnx.numpy_helper.from_array(array, name) for name, array in arrays.items())
    return bytes(model.SerializeToString())


def _parse_record(path: Path) -> None:
    record = read_record(path.with_suffix(".engine"))
    if record.get("frames") is not None:
        FrameFormat.from_json(record["frames"])


def _record_seeds() -> Sequence[bytes]:
    record = {
        "format": RECORD,
        "target": "rtx",
        "bundle": "ab" * 32,
        "engine": "cd" * 32,
        "versions": {"tensorrt": "10"},
    }
    return tuple(
        json.dumps({**record, "frames": each}).encode() for each in (None, FrameFormat.parse("480x640:nv12").to_json())
    )


def _parse_address(path: Path) -> None:
    address = path.read_bytes().decode("utf-8", "replace")
    source_of(address, FrameColor.RGB)


def _parse_checkpoint(path: Path) -> None:
    from edge_resnet.weights import read_checkpoint

    read_checkpoint(path)


def _state() -> dict[str, Any]:
    import torch

    return {"conv1.weight": torch.ones(2, 1, 3, 3), "bn1.weight": torch.ones(2), "fc.bias": torch.zeros(3)}


@cache
def _pth_seeds() -> Sequence[bytes]:
    import torch

    found = []
    for content, zipped in ((_state(), True), ({"state_dict": _state(), "epoch": 3}, True), (_state(), False)):
        buffer = io.BytesIO()
        torch.save(content, buffer, _use_new_zipfile_serialization=zipped)
        found.append(buffer.getvalue())
    return tuple(found)


@cache
def _safetensors_seeds() -> Sequence[bytes]:
    from safetensors.torch import save

    return (save(_state()),)


@cache
def _h5_seeds() -> Sequence[bytes]:
    import h5py

    with TemporaryDirectory() as folder:
        path = Path(folder) / "seed.h5"
        with h5py.File(path, "w") as file:
            file.attrs["layer_names"] = [b"conv1_conv"]
            group = file.create_group("conv1_conv")
            group.attrs["weight_names"] = [b"conv1_conv/kernel:0", b"conv1_conv/bias:0"]
            group["conv1_conv/kernel:0"] = np.ones((3, 3, 1, 2), np.float32)
            group["conv1_conv/bias:0"] = np.ones(2, np.float32)
        return (path.read_bytes(),)


@cache
def _keras_seeds() -> Sequence[bytes]:
    import zipfile

    layers = [{"class_name": "Conv2D", "config": {"name": "conv1_conv", "filters": 2, "strides": [2, 2]}}]
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as file:
        file.writestr("metadata.json", json.dumps({"keras_version": "3.0.0"}))
        file.writestr("config.json", json.dumps({"class_name": "Functional", "config": {"layers": layers}}))
        file.writestr("model.weights.h5", _h5_seeds()[0])
    return (buffer.getvalue(),)


def _npy(path: Path) -> None:
    """The golden samples alone, as ``read_golden`` reads them of a bundle that somebody has signed."""

    class Alone:
        def read(self, name: str) -> bytes:
            return path.read_bytes()

    read_golden(Alone(), "frames")  # type: ignore[arg-type]


def _npy_seeds() -> Sequence[bytes]:
    return tuple(golden_members(np.zeros((2, 4, 4, 1), np.uint8), np.ones((2, 3), np.float32), {}).values())


def _cache_seeds() -> Sequence[bytes]:
    return (write_cache(_table({}), "8502").encode(),)


IMAGE_LIST = b"path,label\ninput.csv,a\ninput.csv,b\n"
TEXT = (
    Parser("recipe", ".toml", load_recipe, lambda: (RECIPE,), mutations.mutate_text, 12),
    Parser("preprocessing", ".toml", lambda p: load_preprocessing(str(p)), lambda: (RECIPE,), mutations.mutate_text, 12),
    Parser("table", ".json", _parse_table, _table_seeds, mutations.mutate_json, 12),
    Parser("record", ".json", _parse_record, _record_seeds, mutations.mutate_json, 10),
    Parser("calibration-cache", ".cache", open_cache, _cache_seeds, mutations.mutate_text, 12),
    Parser("labels", ".txt", read_labels, lambda: ("a\nÄrmel\n鞋\n".encode(),), mutations.mutate_text, 6),
    Parser("image-list", ".csv", open_images, lambda: (IMAGE_LIST,), mutations.mutate_text, 6),
    Parser(
        "address", ".address", _parse_address,
        lambda: (b"rtsp://user:pass@host:554/path?x=1#transport=udp", b"v4l2:///dev/video0?size=640x480&fps=30", b"csi://0"),
        mutations.mutate_text, 8,
    ),
)  # fmt: skip
BINARY = (
    Parser("bundle", ".edge", _parse_bundle, _bundle_seeds, mutations.mutate_bundle, 12),
    Parser("golden", ".npy", _npy, _npy_seeds, mutations.mutate_bytes, 8),
    Parser("image", ".img", _parse_image, _image_seeds, mutations.mutate_bytes, 8),
    Parser("onnx", ".onnx", _parse_onnx, lambda: (_foreign(), quantised_network()), mutations.mutate_bytes, 4),
    Parser("network", ".onnx", lambda p: open_network(p, SPEC), lambda: (_foreign(),), mutations.mutate_bytes, 2),
    Parser("pth", ".pth", _parse_checkpoint, _pth_seeds, mutations.mutate_bytes, 4),
    Parser("safetensors", ".safetensors", _parse_checkpoint, _safetensors_seeds, mutations.mutate_safetensors, 4),
    Parser("h5", ".h5", _parse_checkpoint, _h5_seeds, mutations.mutate_bytes, 2),
    Parser("keras", ".keras", _parse_checkpoint, _keras_seeds, mutations.mutate_bytes, 2),
)
PARSERS = {parser.name: parser for parser in (*TEXT, *BINARY)}
