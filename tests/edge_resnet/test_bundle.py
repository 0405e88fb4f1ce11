"""The bundle: bytes come back exactly, every changed byte is noticed, and nothing but the one form is read."""

import hashlib
import io
import json
import os
import shutil
import struct
import subprocess
import sys
import threading
import zipfile
import zlib
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import pytest
from hand_made_bundles import MANIFEST, MEMBERS, document, in_order, sealed, written, zipped
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from edge_resnet.bundle import EngineEntry, Manifest, open_bundle, write_bundle
from edge_resnet.errors import BundleError, OutputError


def refusal(folder: Path, data: bytes) -> str:
    """The message with which these bytes are refused; any other error, or none, fails the test."""
    path = folder / "changed.edge"
    path.write_bytes(data)
    with pytest.raises(BundleError) as caught:
        open_bundle(path)
    message = str(caught.value)
    assert message.startswith(f"bundle '{path}'")
    assert "\n" not in message
    return message


# What was written comes back.


def test_everything_comes_back(tmp_path: Path) -> None:
    data = written(tmp_path / "model.edge")
    bundle = open_bundle(tmp_path / "model.edge")
    assert bundle.manifest == MANIFEST
    assert {name: bundle.read(name) for name in bundle.names} == MEMBERS
    assert bundle.digest == hashlib.sha256(data[:-93]).hexdigest()
    bundle.verify_members()


names = st.from_regex(r"[A-Za-z0-9_+-]{1,8}(/[A-Za-z0-9_+-]{1,8}){0,2}(\.[a-z]{1,3})?", fullmatch=True)
texts = st.text(st.characters(codec="utf-8"))
values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | texts,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts, inner, max_size=3),
    max_leaves=10,
)
objects = st.dictionaries(texts, values, max_size=3)


@settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])  # a busy disk and processor are no bug of ours
@given(st.dictionaries(names, st.binary(max_size=300), max_size=5), objects, st.none() | objects, st.lists(texts))
def test_any_content_comes_back(
    tmp_path_factory: pytest.TempPathFactory,
    members: dict[str, bytes],
    preprocessing: dict[str, object],
    calibration: dict[str, object] | None,
    labels: list[str],
) -> None:
    path = tmp_path_factory.getbasetemp() / "any.edge"
    manifest = replace(MANIFEST, preprocessing=preprocessing, calibration=calibration, labels=tuple(labels), engines=())
    write_bundle(path, manifest, members)
    bundle = open_bundle(path)
    assert bundle.manifest == manifest
    assert {name: bundle.read(name) for name in bundle.names} == members
    with zipfile.ZipFile(path) as archive:
        assert {name: archive.read(name) for name in archive.namelist() if name != "manifest.json"} == members


def test_same_input_same_bytes(tmp_path: Path) -> None:
    shuffled = replace(MANIFEST, preprocessing=dict(reversed(MANIFEST.preprocessing.items())))
    first = written(tmp_path / "first.edge")
    second = written(tmp_path / "second.edge", shuffled, dict(reversed(MEMBERS.items())))
    assert first == second


def test_the_bytes_are_those_that_zipfile_makes(tmp_path: Path) -> None:
    assert written(tmp_path / "model.edge") == sealed(zipped(in_order()))


def test_other_zip_tools_read_it(tmp_path: Path) -> None:
    written(tmp_path / "model.edge")
    with zipfile.ZipFile(tmp_path / "model.edge") as archive:
        assert archive.testzip() is None
        assert archive.namelist() == ["manifest.json", *sorted(MEMBERS)]
        assert {name: archive.read(name) for name in MEMBERS} == MEMBERS
        assert json.loads(archive.read("manifest.json"))["labels"] == list(MANIFEST.labels)


@pytest.mark.skipif(shutil.which("unzip") is None, reason="unzip is not installed")
def test_unzip_reads_it(tmp_path: Path) -> None:
    written(tmp_path / "model.edge")
    tested = subprocess.run(["unzip", "-tq", "model.edge"], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert tested.returncode == 0, tested.stdout
    assert "No errors detected" in tested.stdout
    subprocess.run(["unzip", "-q", "model.edge"], cwd=tmp_path, stdout=subprocess.DEVNULL, check=True)
    assert (tmp_path / "cpu.onnx").read_bytes() == MEMBERS["cpu.onnx"]


def test_two_writers_leave_one_whole_bundle(tmp_path: Path) -> None:
    path = tmp_path / "model.edge"
    manifests = [replace(MANIFEST, name=name, engines=()) for name in ("left", "right")]
    members = [{"data": name * 50_000} for name in (b"left", b"right")]
    write_bundle(path, manifests[0], members[0])

    def write_often(side: int) -> None:
        for _ in range(20):
            write_bundle(path, manifests[side], members[side])

    writers = [threading.Thread(target=write_often, args=(side,)) for side in (0, 1)]
    for writer in writers:
        writer.start()
    while any(writer.is_alive() for writer in writers):
        bundle = open_bundle(path)
        assert bundle.read("data") == members[manifests.index(bundle.manifest)]["data"]
    for writer in writers:
        writer.join()
    open_bundle(path).verify_members()
    assert os.listdir(tmp_path) == ["model.edge"]


# What was changed on the way is noticed.


def test_every_changed_byte_is_noticed(tmp_path: Path) -> None:
    data = written(tmp_path / "model.edge", members={"cpu.onnx": b"network"})
    for place in range(len(data)):
        for mask in (0x01, 0x20, 0x80, 0xFF):  # 0x20 turns letters into small ones
            changed = bytearray(data)
            changed[place] ^= mask
            refusal(tmp_path, bytes(changed))


def test_every_truncation_is_noticed(tmp_path: Path) -> None:
    data = written(tmp_path / "model.edge")
    messages = [refusal(tmp_path, data[:length]) for length in range(len(data))]
    assert all("cut short" in message for message in messages[4:])


@pytest.mark.parametrize("extra", [b"\0", b"\n", b"more", bytes(100_000)])
def test_added_bytes_are_noticed(tmp_path: Path, extra: bytes) -> None:
    data = written(tmp_path / "model.edge")
    refusal(tmp_path, data + extra)
    refusal(tmp_path, extra + data)
    if len(extra) < 100:
        assert f"{len(extra)} bytes were added at its end" in refusal(tmp_path, data + extra)


def test_a_bundle_inside_a_bundle_does_not_pass_for_the_outer_one(tmp_path: Path) -> None:
    inner = written(tmp_path / "inner.edge")
    outer = written(tmp_path / "outer.edge", replace(MANIFEST, engines=()), {"inner.edge": inner})
    assert open_bundle(tmp_path / "outer.edge").read("inner.edge") == inner
    end = outer.index(inner) + len(inner)
    assert "SHA-256 differs" in refusal(tmp_path, outer[:end])


@pytest.mark.parametrize("version", [2, 10, 999])
def test_a_newer_format(tmp_path: Path, version: int) -> None:
    body = written(tmp_path / "model.edge")[:-93]
    data = body + f"edge-resnet bundle {version}\nsha256 {'0' * 64}\nsignature {'x' * 88}\n".encode()
    reason = f"made by a newer edge-resnet: format {version}, this one reads 1: upgrade edge-resnet"
    assert refusal(tmp_path, data).endswith(f": {reason}")


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "not an edge-resnet bundle: give a .edge file"),
        (b"\x89PNG\r\n\x1a\n and so on", "not an edge-resnet bundle: give a .edge file"),
        (zipped([("a", b"b")]), "cut short, or a zip of another kind: copy it again, whole"),
        (b"edge-resnet bundle 0\nsha256 " + b"0" * 64 + b"\n", "changed in its last bytes: copy it again"),
    ],
)
def test_other_files(tmp_path: Path, data: bytes, reason: str) -> None:
    assert refusal(tmp_path, data).endswith(reason)


def test_a_missing_file_a_folder_and_a_huge_file(tmp_path: Path) -> None:
    with pytest.raises(BundleError, match="missing.edge' does not exist: check the path, or make it with 'build'$"):
        open_bundle(tmp_path / "missing.edge")
    with pytest.raises(BundleError, match="not a bundle but a folder or device: give a .edge file$"):
        open_bundle(tmp_path)
    with (tmp_path / "huge").open("wb") as file:
        file.truncate(5 << 30)  # a hole: no disk is used
    with pytest.raises(
        BundleError,
        match="huge' has 5368709120 bytes: the limit bundle_bytes is 2147483648: if this file is meant, raise it",
    ):
        open_bundle(tmp_path / "huge")


# A file with the right digest in another form is refused too: the digest is no signature, anybody can make one.


def add_gap(archive: zipfile.ZipFile) -> None:
    assert archive.fp is not None
    archive.fp.write(b"gap")
    archive.start_dir = archive.fp.tell()


OTHER_FORMS: dict[str, tuple[bytes, str]] = {
    "a gap": (zipped(in_order(), add_gap), "do not follow one another exactly"),
    "compressed": (zipped(in_order(), compress_type=zipfile.ZIP_DEFLATED), "is compressed or has zip fields"),
    "a date": (zipped(in_order(), date_time=(2024, 5, 1, 0, 0, 0)), "has zip fields that a bundle does not use"),
    "an extra field": (zipped(in_order(), extra=b"\1\0\0\0"), "has zip fields that a bundle does not use"),
    "a comment": (zipped(in_order(), comment=b"hello"), "do not follow one another exactly"),
    "permissions": (zipped(in_order(), external_attr=0o100777 << 16), "do not follow one another exactly"),
    "a symlink": (zipped(in_order(), external_attr=0o120777 << 16), "do not follow one another exactly"),
    "no members": (zipped([]), "its first member is not manifest.json"),
    "no manifest": (zipped(sorted(MEMBERS.items())), "its first member is not manifest.json"),
    "manifest last": (zipped(in_order()[::-1]), "its first member is not manifest.json"),
    "unlisted": (zipped([*in_order(), ("more", b"")]), "member 'more' is inside but not in the manifest"),
    "lost": (zipped(in_order()[:-1]), "member 'golden.npz' is in the manifest but not inside"),
    "a folder": (zipped([*in_order(), ("folder/", b"")]), "member name 'folder/': use a relative path"),
    "outside": (zipped([*in_order(), ("../x", b"")]), "member name '../x': use a relative path"),
    "an absolute path": (zipped([*in_order(), ("/etc/passwd", b"")]), "member name '/etc/passwd': use a relative path"),
    "a size": (
        zipped([("manifest.json", document({**MEMBERS, "cpu.onnx": b"longer than it is"})), *sorted(MEMBERS.items())]),
        "member 'cpu.onnx' has 9 bytes, not 17: build it again",
    ),
}


@pytest.mark.parametrize("form", OTHER_FORMS)
def test_another_form_is_refused(tmp_path: Path, form: str) -> None:
    archive, reason = OTHER_FORMS[form]
    with zipfile.ZipFile(io.BytesIO(archive)) as readable:
        assert readable.testzip() is None, "a zip tool takes it, so the refusal is ours"
    assert reason in refusal(tmp_path, sealed(archive))


def with_zip64_size(size: int) -> bytes:
    """An archive whose second member has its sizes in zip64's extra field, which tools believe before the plain ones."""
    plain, name = zipped(in_order()), b"cpu.onnx"
    start = plain.index(b"PK\x03\x04", 1)
    extra = struct.pack("<2H2Q", 1, 16, size, size)
    header = plain[start : start + 18] + b"\xff" * 8 + struct.pack("<2H", len(name), len(extra)) + name + extra
    return plain[:start] + header + plain[start + 30 + len(name) :]


@pytest.mark.parametrize("size", [len(MEMBERS["cpu.onnx"]), 1 << 40])
def test_a_zip64_size_is_never_believed(tmp_path: Path, size: int) -> None:
    assert "has zip fields that a bundle does not use" in refusal(tmp_path, sealed(with_zip64_size(size)))


def test_a_zip64_directory_elsewhere_is_never_believed(tmp_path: Path) -> None:
    """The record alone, which sends tools to another directory than the one that is checked."""
    plain = zipped(in_order())
    end = plain.rindex(b"PK\x05\x06")
    record = struct.pack("<4sQ2H2I4Q", b"PK\x06\x06", 44, 45, 45, 0, 0, 1, 1, 46, 0)
    locator = struct.pack("<4sIQI", b"PK\x06\x07", 0, end, 1)
    archive = plain[:end] + record + locator + plain[end:]
    assert "do not follow one another exactly" in refusal(tmp_path, sealed(archive))


def test_a_name_that_occurs_twice(tmp_path: Path) -> None:
    with pytest.warns(UserWarning, match="Duplicate name"):
        archive = zipped([*in_order(), ("cpu.onnx", b"another")])
    assert "two members are called 'cpu.onnx'" in refusal(tmp_path, sealed(archive))


def test_a_member_that_differs_from_its_hash(tmp_path: Path) -> None:
    members = {**MEMBERS, "cpu.onnx": b"\x08\x08Network"}
    archive = zipped([("manifest.json", document(MEMBERS)), *sorted(members.items())])
    (tmp_path / "model.edge").write_bytes(sealed(archive))
    bundle = open_bundle(tmp_path / "model.edge")
    for use in (bundle.verify_members, lambda: bundle.read("cpu.onnx")):
        with pytest.raises(BundleError, match="member 'cpu.onnx' is not the one that the manifest lists"):
            use()


def test_a_member_in_the_place_of_another(tmp_path: Path) -> None:
    """Two of one size, whose hashes the manifest has the wrong way round."""
    members = {"a.onnx": b"one", "b.onnx": b"two"}
    swapped = document({"a.onnx": b"two", "b.onnx": b"one"}, {"engines": []})
    (tmp_path / "model.edge").write_bytes(sealed(zipped([("manifest.json", swapped), *members.items()])))
    bundle = open_bundle(tmp_path / "model.edge")
    for name in members:
        with pytest.raises(BundleError, match=f"member '{name}' is not the one that the manifest lists"):
            bundle.read(name)


def test_a_member_that_differs_from_its_crc(tmp_path: Path) -> None:
    crc = zlib.crc32(MEMBERS["cpu.onnx"])
    archive = zipped(in_order())
    assert archive.count(struct.pack("<I", crc)) == 2, "in the local header and in the directory"
    archive = archive.replace(struct.pack("<I", crc), struct.pack("<I", crc ^ 1))
    (tmp_path / "model.edge").write_bytes(sealed(archive))
    with pytest.raises(BundleError, match="member 'cpu.onnx' is not the one that its zip header says"):
        open_bundle(tmp_path / "model.edge").verify_members()


def test_a_changed_byte_under_a_new_seal_is_a_bundle_or_a_bundle_error(tmp_path: Path) -> None:
    body = written(tmp_path / "model.edge", members={"cpu.onnx": b"network"})[:-93]
    with zipfile.ZipFile(tmp_path / "model.edge") as archive:
        sizes = [(info.header_offset, info.filename, info.file_size) for info in archive.infolist()]
    free = {
        place for start, name, size in sizes for place in range(start + 30 + len(name), start + 30 + len(name) + size)
    }
    for place in range(len(body)):
        changed = bytearray(body)
        changed[place] ^= 1
        again = bytes(changed) + f"edge-resnet bundle 1\nsha256 {hashlib.sha256(changed).hexdigest()}\n".encode()
        if place not in free:
            refusal(tmp_path, again)
            continue
        (tmp_path / "changed.edge").write_bytes(again)
        with suppress(BundleError):
            open_bundle(tmp_path / "changed.edge")


@given(st.binary(max_size=400), st.booleans())
def test_any_bytes_under_a_seal_are_a_bundle_error(
    tmp_path_factory: pytest.TempPathFactory, data: bytes, marked: bool
) -> None:
    body = b"PK\x03\x04" * marked + data
    comment = f"edge-resnet bundle 1\nsha256 {hashlib.sha256(body).hexdigest()}\n".encode()
    refusal(tmp_path_factory.getbasetemp(), body + comment)


# The manifest.

LISTED = {"cpu.onnx": {"sha256": "00", "size": True}}
BAD_VALUES: list[tuple[dict[str, object], str]] = [
    ({"colour": 1}, "manifest key 'colour' is unknown: the keys are name, architecture, precision"),
    ({"name": 5}, "manifest key 'name' is 5: it must be text"),
    ({"architecture": ["resnet20"]}, "manifest key 'architecture' is ['resnet20']: it must be text"),
    ({"labels": "cat"}, "manifest key 'labels' is 'cat': it must be a list"),
    ({"labels": ["cat", 5]}, "manifest key 'labels[1]' is 5: it must be text"),
    ({"input_shape": [28, 28]}, "manifest key 'input_shape' is [28, 28]: it must be a list of three whole numbers"),
    ({"input_shape": [28, 28, True]}, "manifest key 'input_shape[2]' is True: it must be a whole number"),
    ({"input_shape": [28, 28, 2]}, "input_shape is 28×28×2: give height, width and 1 or 3 channels"),
    ({"preprocessing": None}, "manifest key 'preprocessing' is None: it must be an object"),
    ({"created_by": {"edge-resnet": 1}}, "manifest key 'created_by.edge-resnet' is 1: it must be text"),
    ({"engines": [{"target": "cpu"}]}, "manifest key 'engines[0].kind' is missing"),
    ({"engines": ["cpu"]}, "manifest key 'engines[0]' is 'cpu': it must be an object"),
    ({"format": 2}, "manifest key 'format' is 2, the archive says 1"),
    ({"members": LISTED}, "manifest key 'members.cpu.onnx.size' is True: it must be a whole number"),
    ({"accuracy": float("nan")}, "manifest.json is not JSON: NaN is no JSON number"),
]


@pytest.mark.parametrize(("changes", "reason"), BAD_VALUES)
def test_a_wrong_manifest_is_refused_by_key(tmp_path: Path, changes: dict[str, object], reason: str) -> None:
    assert reason in refusal(tmp_path, sealed(zipped(in_order(changes))))


@pytest.mark.parametrize("key", ["format", "members", *MANIFEST.to_json()])
def test_every_manifest_key_is_needed(tmp_path: Path, key: str) -> None:
    values = json.loads(document())
    del values[key]
    archive = zipped([("manifest.json", json.dumps(values).encode()), *sorted(MEMBERS.items())])
    assert f"manifest key '{key}' is missing" in refusal(tmp_path, sealed(archive))


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (b"{", "manifest.json is not JSON"),
        (b"\xff", "manifest.json is not JSON"),
        (b"[" * 100_000, "manifest.json is not JSON"),
        (b'{"name": 1, "name": 1}', "manifest.json is not JSON: a key occurs twice in one object"),
        (b"[]", "manifest key 'manifest.json' is []: it must be an object"),
    ],
)
def test_a_manifest_that_is_not_an_object(tmp_path: Path, text: bytes, reason: str) -> None:
    assert reason in refusal(tmp_path, sealed(zipped([("manifest.json", text)])))


def test_a_manifest_goes_through_json_and_back() -> None:
    assert Manifest.from_json(json.loads(json.dumps(MANIFEST.to_json()))) == MANIFEST
    entry = MANIFEST.engines[0]
    assert EngineEntry.from_json(json.loads(json.dumps(entry.to_json()))) == entry


def test_an_engine_entry_says_how_it_was_verified() -> None:
    with pytest.raises(BundleError, match="verified is 'guessed': use measured, predicted, deferred"):
        replace(MANIFEST.engines[0], verified="guessed")
    with pytest.raises(BundleError, match="engine for 'cpu': measured, but no member holds it"):
        replace(MANIFEST.engines[0], member=None)


# What cannot be read back is not written.

BAD_NAMES = [
    "",
    "/etc/passwd",
    "../x",
    "a/../b",
    "a/..",
    "./a",
    "a//b",
    "a/",
    "a\\b",
    "C:x",
    "ü",
    "a b",
    "a\n",
    "x" * 256,
]


@pytest.mark.parametrize("name", BAD_NAMES)
def test_names_that_are_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(BundleError, match="^member name '.*': use a relative path of ASCII letters"):
        write_bundle(tmp_path / "model.edge", MANIFEST, {**MEMBERS, name: b""})
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize("name", ["a", "a.b", "..a", "a..", ".hidden", "a/b/c.engine", "rtx-20+x_1", "x" * 255])
def test_names_that_are_taken(tmp_path: Path, name: str) -> None:
    write_bundle(tmp_path / "model.edge", replace(MANIFEST, engines=()), {name: b"data"})
    assert open_bundle(tmp_path / "model.edge").read(name) == b"data"


@pytest.mark.parametrize(
    ("manifest", "members", "reason"),
    [
        (MANIFEST, {}, "the engine for 'cpu' is member 'cpu.onnx', which is not there"),
        (MANIFEST, {**MEMBERS, "manifest.json": b""}, "member 'manifest.json': a bundle makes its own"),
        (replace(MANIFEST, accuracy={"snr": float("inf")}), MEMBERS, "the manifest holds a value that JSON cannot"),
        (replace(MANIFEST, accuracy={"path": Path("x")}), MEMBERS, "the manifest holds a value that JSON cannot"),
        (replace(MANIFEST, name="\ud800"), MEMBERS, "the manifest holds a value that JSON cannot"),
        (
            replace(MANIFEST, created_by=json.loads('{"torch": 2}')),
            MEMBERS,
            "key 'created_by.torch' is 2: it must be text",
        ),
    ],
)
def test_what_is_not_written(tmp_path: Path, manifest: Manifest, members: dict[str, bytes], reason: str) -> None:
    with pytest.raises(BundleError) as caught:
        write_bundle(tmp_path / "model.edge", manifest, members)
    assert reason in str(caught.value)
    assert os.listdir(tmp_path) == []


def test_more_than_zip_can_hold_is_not_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EDGE_RESNET_LIMITS", "bundle_members=100e3")
    members = {f"m{number}": b"" for number in range(65_535)}
    with pytest.raises(BundleError, match="65536 members of .* bytes in all: a bundle holds less than 4 GiB"):
        write_bundle(tmp_path / "model.edge", replace(MANIFEST, engines=()), members)


def test_a_place_that_cannot_be_written(tmp_path: Path) -> None:
    with pytest.raises(OutputError, match="the folder '.*missing' does not exist: create it first"):
        write_bundle(tmp_path / "missing" / "model.edge", MANIFEST, MEMBERS)


def test_a_member_that_is_not_there(tmp_path: Path) -> None:
    written(tmp_path / "model.edge")
    with pytest.raises(BundleError, match="no member 'x': it has cpu.onnx, engines/rtx-20.engine, golden.npz"):
        open_bundle(tmp_path / "model.edge").read("x")


def test_bundles_need_only_the_standard_library() -> None:
    script = "import sys, edge_resnet.bundle; print(*{'numpy', 'torch', 'onnx', 'PIL'} & sys.modules.keys())"
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    result = subprocess.run([sys.executable, "-c", script], env=environment, capture_output=True, text=True, check=True)
    assert result.stdout.strip() == ""
