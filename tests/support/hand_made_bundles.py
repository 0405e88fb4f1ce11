"""Bundles made by hand with Python's zipfile, good ones and others: what the reader of bundles is held against."""

from __future__ import annotations

import hashlib
import io
import json
import struct
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path
from types import MappingProxyType

from edge_resnet.bundle import EngineEntry, Manifest, write_bundle

MANIFEST = Manifest(
    name="shelf",
    architecture="resnet20",
    precision="int8",
    labels=("Pullover", "Ärmel", "鞋"),
    input_shape=(28, 28, 1),
    preprocessing={"mean": [0.286], "size": 28, "crop": None},
    engines=(
        EngineEntry("cpu", "onnxruntime", "int8", "cpu.onnx", {"onnxruntime": "1.23.2"}, "measured"),
        EngineEntry("jetson-orin-nano", "tensorrt", "int8", None, {}, "deferred"),
    ),
    calibration={"images": 500, "method": "mse"},
    accuracy=None,
    created_by={"edge-resnet": "0.1.0"},
)
MEMBERS = {"cpu.onnx": b"\x08\x08network", "golden.npz": bytes(range(64)), "engines/rtx-20.engine": b""}


def written(path: Path, manifest: Manifest = MANIFEST, members: Mapping[str, bytes] = MEMBERS) -> bytes:
    write_bundle(path, manifest, members)
    return path.read_bytes()


def sealed(archive: bytes) -> bytes:
    """A zip without comment, given the comment that fits it."""
    assert archive.endswith(b"\0\0")
    body = archive[:-2] + struct.pack("<H", 93)
    return body + f"edge-resnet bundle 1\nsha256 {hashlib.sha256(body).hexdigest()}\n".encode()


def zipped(
    members: list[tuple[str, bytes]],
    between: Callable[[zipfile.ZipFile], None] = lambda archive: None,
    **fields: object,
) -> bytes:
    """A zip in the bundle's form, made by Python's zipfile: the independent word on how one looks."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_STORED) as archive:
        for name, data in members:
            info = zipfile.ZipInfo(name)
            info.create_system, info.external_attr = 3, 0o100644 << 16
            for field, value in fields.items():
                setattr(info, field, value)
            archive.writestr(info, data)
            between(archive)
    return buffer.getvalue()


def document(members: Mapping[str, bytes] = MEMBERS, changes: Mapping[str, object] = MappingProxyType({})) -> bytes:
    """The manifest.json that these members need, made by hand."""
    listed = {name: {"sha256": hashlib.sha256(data).hexdigest(), "size": len(data)} for name, data in members.items()}
    values = {"format": 1, "members": listed, **json.loads(json.dumps(MANIFEST.to_json())), **changes}
    return (json.dumps(values, indent=2, sort_keys=True, ensure_ascii=False) + "\n").encode()


def in_order(changes: Mapping[str, object] = MappingProxyType({})) -> list[tuple[str, bytes]]:
    """The members of a good bundle, with some keys of the manifest changed."""
    return [("manifest.json", document(MEMBERS, changes)), *sorted(MEMBERS.items())]
