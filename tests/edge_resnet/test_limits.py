"""Limits: what is too large is refused with one line that says how to raise the limit, and before memory is taken.

The large files here are holes, and the others small ones that claim to be large: reading or unpacking one of them would
be noticed by whoever runs these tests.
"""

from __future__ import annotations

import io
import json
import struct
import zipfile
import zlib
from dataclasses import replace
from pathlib import Path

import h5py
import numpy as np
import onnx
import pytest
import torch
from hand_made_bundles import document, sealed, written, zipped
from PIL import Image

from edge_resnet.bundle import open_bundle
from edge_resnet.cache_files import open_cache
from edge_resnet.errors import BundleError, CalibrationError, EdgeResnetError, ImageError, ModelError, RecipeError
from edge_resnet.golden import read_golden
from edge_resnet.images import decode_image, read_image
from edge_resnet.labels import read_labels
from edge_resnet.limits import VARIABLE, Limits, limits, parse_json
from edge_resnet.onnx_file import read_metadata, read_onnx
from edge_resnet.preprocessing import NAMED, load_preprocessing
from edge_resnet.quantize_files import open_table
from edge_resnet.recipe import load_recipe
from edge_resnet.weights import read_checkpoint


def hole(path: Path, size: int) -> Path:
    with path.open("wb") as file:
        file.truncate(size)  # no disk is used
    return path


def advice(name: str, value: int | None = None) -> str:
    most = getattr(Limits(), name) if value is None else value
    return f"the limit {name} is {most}: if this file is meant, raise it with EDGE_RESNET_LIMITS={name}=N"


# Setting them.


def test_the_environment_raises_and_lowers(monkeypatch: pytest.MonkeyPatch) -> None:
    assert limits() == Limits()
    monkeypatch.setenv(VARIABLE, "image_pixels=400e6, json_depth=7,recipe_bytes=1.5e3,")
    assert limits() == Limits(image_pixels=400_000_000, json_depth=7, recipe_bytes=1500)
    monkeypatch.setenv(VARIABLE, "")
    assert limits() == Limits()


@pytest.mark.parametrize(
    "text",
    [
        *("pixels=1", "image_pixels", "image_pixels=", "image_pixels=0", "image_pixels=-1", "image_pixels=1e999"),
        *("image_pixels=nan", "image_pixels=1,image_pixels=2", "image_pixels=0x10", f"image_pixels={'9' * 5000}"),
    ],
)
def test_what_is_no_limit(monkeypatch: pytest.MonkeyPatch, text: str, tmp_path: Path) -> None:
    monkeypatch.setenv(VARIABLE, text)
    (tmp_path / "labels.txt").write_text("cat\n")
    with pytest.raises(EdgeResnetError, match=f"^{VARIABLE} has ") as caught:
        read_labels(tmp_path / "labels.txt")
    assert len(str(caught.value)) < 300


# Bundles; tests of their own have the size of a bundle that is read.


def test_members(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    members = {f"m{number}": b"" for number in range(5)}
    data = sealed(zipped([("manifest.json", document(members, {"engines": []})), *members.items()]))
    (tmp_path / "model.edge").write_bytes(data)
    monkeypatch.setenv(VARIABLE, "bundle_members=6")
    open_bundle(tmp_path / "model.edge")
    monkeypatch.setenv(VARIABLE, "bundle_members=5")
    with pytest.raises(BundleError) as caught:
        open_bundle(tmp_path / "model.edge")
    assert str(caught.value).endswith(f"model.edge': more than 5 members: {advice('bundle_members', 5)}")
    with pytest.raises(BundleError, match="has 6 members: the limit bundle_members is 5"):
        written(tmp_path / "other.edge", members=members)


def test_a_bundle_that_could_not_be_read_is_not_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    size = len(written(tmp_path / "model.edge"))
    monkeypatch.setenv(VARIABLE, f"bundle_bytes={size}")
    written(tmp_path / "model.edge")
    open_bundle(tmp_path / "model.edge")
    monkeypatch.setenv(VARIABLE, f"bundle_bytes={size - 1}")
    for refused in (lambda: written(tmp_path / "other.edge"), lambda: open_bundle(tmp_path / "model.edge")):
        with pytest.raises(BundleError, match=f"has {size} bytes: the limit bundle_bytes is {size - 1}"):
            refused()
    assert not (tmp_path / "other.edge").exists()


@pytest.mark.parametrize(
    ("text", "limit"),
    [
        (b" " * (8 << 20) + b"{}", "document_bytes"),
        (b"[" * 65 + b"]" * 65, "json_depth"),
        (b'{"a":' * 65, "json_depth"),
    ],
)
def test_a_manifest(tmp_path: Path, text: bytes, limit: str) -> None:
    (tmp_path / "model.edge").write_bytes(sealed(zipped([("manifest.json", text)])))
    with pytest.raises(BundleError) as caught:
        open_bundle(tmp_path / "model.edge")
    assert advice(limit) in str(caught.value)


def test_depth_is_of_brackets_and_not_of_text() -> None:
    deep: object = 1
    for _ in range(64):
        deep = [deep]
    assert parse_json(json.dumps(deep).encode()) == deep
    for text in ("[" * 1000, '\\"[' * 1000, "\\" * 999 + "{", "]]]]" + "[" * 100):
        assert parse_json(json.dumps({"a": text, "b": [text, {text: 1}]}).encode())["a"] == text
    for wrong in (b'"\\', b'["\\"', b"]" * 100 + b"[", b"\xff", b"[NaN]", b"1e"):
        with pytest.raises(ValueError):
            parse_json(wrong)


def test_a_limit_above_pythons_own_is_no_crash(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(VARIABLE, "json_depth=1e6")
    with pytest.raises(ValueError, match="too deep in one another for Python"):
        parse_json(b"[" * 200_000 + b"]" * 200_000)


@pytest.mark.parametrize("shape", [(10**6, 10**6), (2**40,), (9,)])
def test_golden_samples_that_promise_more_than_they_hold(tmp_path: Path, shape: tuple[int, ...]) -> None:
    buffer = io.BytesIO()
    np.save(buffer, np.zeros(8, np.float32))
    honest = buffer.getvalue()
    words = {"descr": "<f4", "fortran_order": False, "shape": shape}
    header = f"{words!r}".ljust(117).encode() + b"\n"
    lying = b"\x93NUMPY\x01\x00" + struct.pack("<H", len(header)) + header + bytes(32)
    members = {"cpu.onnx": b"", "golden/frames.npy": honest, "golden/fp32.npy": lying}
    written(tmp_path / "model.edge", members=members)
    bundle = open_bundle(tmp_path / "model.edge")
    assert read_golden(bundle, "frames").shape == (8,)
    with pytest.raises(BundleError, match=r"'fp32' cannot be read \(32 bytes for "):
        read_golden(bundle, "fp32")


# Images.


def png(width: int, height: int) -> bytes:
    """A PNG that says its size, and then nothing that could be decoded."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    head = chunk(b"IHDR", struct.pack(">2I5B", width, height, 8, 2, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + head + chunk(b"IDAT", b"garbage") + chunk(b"IEND", b"")


@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
def test_an_image_is_not_decoded(tmp_path: Path) -> None:
    path = tmp_path / "bomb.png"
    path.write_bytes(png(9000, 10_000))
    message = f"bomb.png has 90000000 pixels: {advice('image_pixels')}"
    with pytest.raises(ImageError, match=message):
        read_image(path)
    with pytest.raises(ImageError, match=message):
        decode_image(path.read_bytes(), "bomb.png")
    with pytest.raises(ImageError, match="cannot be read .*decompression bomb"):
        decode_image(png(2**31 - 1, 2**31 - 1), "bomb.png")
    with pytest.raises(ImageError, match="cannot be decoded"):
        decode_image(png(900, 1000), "small.png")  # this one was tried


def test_an_image_limit_of_ones_own(monkeypatch: pytest.MonkeyPatch) -> None:
    buffer = io.BytesIO()
    Image.new("RGB", (11, 10)).save(buffer, "PNG")
    decode_image(buffer.getvalue(), "x")
    monkeypatch.setenv(VARIABLE, "image_pixels=109")
    with pytest.raises(ImageError, match="x has 110 pixels: the limit image_pixels is 109"):
        decode_image(buffer.getvalue(), "x")


def test_copies_that_a_decoder_holds_count(tmp_path: Path) -> None:
    """Found by fuzzing: 93 bytes that took 475 MB, and could have taken 1 GB."""
    (found,) = (Path(__file__).parents[1] / "fuzz" / "corpus" / "image").glob("*webp*")
    with pytest.raises(ImageError, match=f"its decoder holds 3 copies, has 118152222 pixels: {advice('image_pixels')}"):
        decode_image(found.read_bytes(), "bomb.webp")


# What builds read.


def test_large_files_are_not_read(tmp_path: Path) -> None:
    for name, size, read, error, limit in (
        ("m.onnx", 3 << 30, read_onnx, ModelError, "onnx_bytes"),
        ("w.pth", 5 << 30, read_checkpoint, ModelError, "checkpoint_bytes"),
        ("w.safetensors", 5 << 30, read_checkpoint, ModelError, "checkpoint_bytes"),
        ("w.h5", 5 << 30, read_checkpoint, ModelError, "checkpoint_bytes"),
        ("t.json", 1 << 30, open_table, CalibrationError, "document_bytes"),
        ("c.cache", 1 << 30, open_cache, CalibrationError, "document_bytes"),
        ("labels.txt", 1 << 30, read_labels, RecipeError, "document_bytes"),
        ("edge-resnet.toml", 1 << 30, load_recipe, RecipeError, "recipe_bytes"),
        ("p.toml", 1 << 30, lambda path: load_preprocessing(str(path)), RecipeError, "recipe_bytes"),
    ):
        path = hole(tmp_path / name, size)
        with pytest.raises(error) as caught:
            read(path)
        assert str(caught.value) == f"{path} has {size} bytes: {advice(limit)}"


def test_a_checkpoint_that_is_larger_unpacked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(VARIABLE, "checkpoint_bytes=1e6")
    torch.save({"fc.weight": torch.zeros(1, 1).expand(1000, 10_000)}, tmp_path / "one-value.pth")
    with zipfile.ZipFile(tmp_path / "deflated.pth", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("archive/data.pkl", bytes(2_000_000))
    with h5py.File(tmp_path / "gzip.weights.h5", "w") as file:
        file.create_dataset("layers/dense/vars/0", (1000, 10_000), np.float32, compression="gzip")
    with zipfile.ZipFile(tmp_path / "deflated.keras", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("model.weights.h5", bytes(2_000_000))
        archive.writestr("config.json", "{}")
    for name, size in (
        ("one-value.pth", "40000000 bytes of tensors"),
        ("deflated.pth", "2000000 bytes unpacked"),
        ("gzip.weights.h5", "40000000 bytes, unpacked"),
        ("deflated.keras", "2000000 bytes"),
    ):
        path = tmp_path / name
        assert path.stat().st_size < 100_000
        with pytest.raises(ModelError, match=f"{name}.* has {size}: the limit checkpoint_bytes is 1000000"):
            read_checkpoint(path)


def test_onnx_graphs_inside_one_another(tmp_path: Path) -> None:
    """protobuf's own bound; without it the reader would run out of stack."""

    def field(number: int, data: bytes) -> bytes:
        size, length = b"", len(data)
        while length > 127:
            size, length = size + bytes([length & 127 | 128]), length >> 7
        return bytes([number << 3 | 2]) + size + bytes([length]) + data

    def nested(depth: int) -> bytes:
        graph = onnx.helper.make_graph([], "innermost", [], []).SerializeToString()
        for _ in range(depth):  # GraphProto.node (1) → NodeProto.attribute (5) → AttributeProto.g (6), of type GRAPH
            graph = field(1, field(4, b"If") + field(5, field(1, b"then_branch") + b"\xa0\x01\x05" + field(6, graph)))
        return b"\x08\x08" + field(7, graph)

    inside = onnx.load_model_from_string(nested(10)).graph
    for _ in range(10):
        inside = inside.node[0].attribute[0].g
    assert inside.name == "innermost"
    (tmp_path / "deep.onnx").write_bytes(nested(200))
    with pytest.raises(ModelError, match="deep.onnx is no valid ONNX model"):
        read_onnx(tmp_path / "deep.onnx")


@pytest.mark.parametrize("inside", [False, True])
def test_weights_beside_an_onnx_file(tmp_path: Path, inside: bool) -> None:
    """A tensor of one value, whose file is a hole of 3 GiB; as a weight, and in a node of a graph in a node."""
    hole(tmp_path / "weights.bin", 3 << 30)
    tensor = onnx.TensorProto(name="w", data_type=onnx.TensorProto.FLOAT, dims=[1], data_location="EXTERNAL")
    tensor.external_data.add(key="location", value="weights.bin")
    graph = onnx.helper.make_graph([], "g", [], [])
    if inside:
        inner = onnx.helper.make_graph([onnx.helper.make_node("Constant", [], ["c"], value=tensor)], "inner", [], [])
        graph.node.append(onnx.helper.make_node("If", ["x"], ["y"], then_branch=inner))
    else:
        graph.initializer.append(tensor)
    path = tmp_path / "m.onnx"
    path.write_bytes(onnx.helper.make_model(graph).SerializeToString())
    with pytest.raises(ModelError, match="m.onnx with the files beside it has 32212.* bytes: the limit onnx_bytes is"):
        read_onnx(path)


def test_a_network_of_huge_frames(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match="size has 10000000000 pixels: the limit image_pixels is"):
        replace(NAMED["fashion-mnist"], size=(100_000, 100_000))


def test_metadata_of_an_onnx_file() -> None:
    model = onnx.ModelProto()
    onnx.helper.set_model_props(model, {"edge_resnet.labels": "[" * 100_000})
    with pytest.raises(ModelError, match="damaged metadata .*the limit json_depth is 64"):
        read_metadata(model, "m.onnx")


def test_a_table_is_not_parsed(tmp_path: Path) -> None:
    (tmp_path / "t.json").write_text("[" * 100_000)
    with pytest.raises(CalibrationError) as caught:
        open_table(tmp_path / "t.json")
    assert str(caught.value).endswith(advice("json_depth"))


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("a." * 30_000 + "a = 1", "line 1 has more than 1000 dots"),
        ('"\u2028".' * 9_000 + "a = 1", "line 1 has more than 1000 dots"),  # a line's end for Python, not for TOML
        ("[" + "a." * 30_000 + "a]", "line 1 has more than 1000 dots"),
        ("a = " + "[" * 60_000, "lists or tables stand too deep in one another"),
        ("a = " + "{a=" * 20_000, "lists or tables stand too deep in one another"),
    ],
)
def test_a_recipe_takes_no_time(tmp_path: Path, text: str, reason: str) -> None:
    path = tmp_path / "edge-resnet.toml"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(RecipeError, match=f"edge-resnet.toml is no valid TOML: {reason}"):
        load_recipe(path)
    with pytest.raises(RecipeError, match=f"cannot be read as TOML: {reason}"):
        load_preprocessing(str(path))
