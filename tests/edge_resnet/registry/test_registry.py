"""Push and pull: through a folder, and through a real S3 server on loopback."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from edge_resnet.bundle import Bundle, open_bundle
from edge_resnet.errors import BundleError, OutputError, RegistryError, TrustError, UnavailableError
from edge_resnet.progress import Progress
from edge_resnet.registry import Reference, Registry, content, located, open_registry, pull, push, transfer
from edge_resnet.registry import files as files_module
from edge_resnet.registry.files import FileRegistry, open_files
from edge_resnet.signing import load_key, make_keys, sign_bundle

V1, V2 = Reference.parse("shelf:v1"), Reference.parse("shelf:v2")


@pytest.fixture(autouse=True)
def small_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    """The bundles here have a MB: some dozen parts of it."""
    monkeypatch.setattr(content, "PART", 50_000)


@pytest.fixture(scope="module")
def s3() -> Iterator[str]:
    """The address of a bucket of an S3 server."""
    from moto.server import ThreadedMotoServer

    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    told = {
        "AWS_ENDPOINT_URL": f"http://{host}:{port}",
        "AWS_ACCESS_KEY_ID": "robot",
        "AWS_SECRET_ACCESS_KEY": "robot",
    }
    before = dict(os.environ)
    os.environ |= told
    import fsspec

    fsspec.filesystem("s3").mkdir("robots")
    yield "s3://robots/models"
    os.environ.clear()
    os.environ |= before
    server.stop()


@pytest.fixture(params=["folder", "s3"])
def registry(request: pytest.FixtureRequest, tmp_path: Path) -> FileRegistry:
    address = tmp_path / "registry" if request.param == "folder" else request.getfixturevalue("s3")
    return open_files(f"{address}/{tmp_path.name}")


def files(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*") if path.is_file())


def test_what_was_pushed_is_what_is_pulled(registry: Registry, quick_bundle: Path, tmp_path: Path) -> None:
    data = quick_bundle.read_bytes()
    pushed = push(quick_bundle, registry, V1, Progress())
    assert (pushed.bytes, pushed.sent, pushed.digest) == (len(data), len(data), open_bundle(quick_bundle).digest)
    pulled = pull(registry, V1, tmp_path / "model.edge", Progress())
    assert (tmp_path / "model.edge").read_bytes() == data
    assert pulled.file == pushed.file == hashlib.sha256(data).hexdigest() and pulled.fetched == len(data)
    assert [str(reference) for reference, _ in registry.listing()] == ["shelf:v1"]
    assert files(tmp_path) == sorted([tmp_path / "model.edge", *files(tmp_path / "registry")])


def test_what_is_there_is_not_sent_again(registry: Registry, quick_bundle: Path, fp32_bundle: Path) -> None:
    push(quick_bundle, registry, V1, Progress())
    assert push(quick_bundle, registry, V2, Progress()).sent == 0
    assert push(fp32_bundle, registry, V2, Progress()).sent > 0
    first, second = (kept.file for _, kept in registry.listing())
    assert first == hashlib.sha256(quick_bundle.read_bytes()).hexdigest() != second


def broken_after(owner: object, name: str, calls: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """The network goes away after so many calls of a method of the storage."""
    count, work = iter(range(calls)), getattr(owner, name)

    def limited(*arguments: Any, **named: Any) -> Any:
        if next(count, None) is None:
            raise ConnectionError("the network is gone")
        return work(*arguments, **named)

    monkeypatch.setattr(owner, name, limited)


def test_a_broken_push_goes_on(registry: FileRegistry, quick_bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as broken:
        if registry._local:
            broken_after(files_module, "write_atomically", 5, broken)
        else:
            broken_after(registry._files, "pipe_file", 5, broken)
        with pytest.raises(UnavailableError, match="cannot be used .ConnectionError: the network is gone"):
            push(quick_bundle, registry, V1, Progress())
    assert list(registry.listing()) == []
    whole = push(quick_bundle, registry, V1, Progress())
    assert whole.sent == whole.bytes - 5 * content.PART


def test_a_broken_pull_goes_on(
    registry: FileRegistry, quick_bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    push(quick_bundle, registry, V1, Progress())
    output = tmp_path / "model.edge"
    output.write_bytes(b"what was there")
    with monkeypatch.context() as broken:
        broken_after(registry._files, "cat_file", 2 + 5, broken)  # two documents, then parts
        with pytest.raises(UnavailableError, match="the network is gone"):
            pull(registry, V1, output, Progress())
    assert output.read_bytes() == b"what was there"
    again = pull(registry, V1, output, Progress())
    assert again.fetched == again.bytes - 5 * content.PART
    assert output.read_bytes() == quick_bundle.read_bytes()


@pytest.fixture
def folder(tmp_path: Path, quick_bundle: Path) -> Path:
    """A registry in a folder, with one bundle."""
    push(quick_bundle, open_registry(tmp_path / "registry"), V1, Progress())
    return tmp_path / "registry"


def refused(folder: Path, error: type[Exception], match: str, trust: Path | None = None) -> None:
    output = folder.with_name("model.edge")
    with pytest.raises(error, match=match):
        pull(open_registry(folder), V1, output, Progress(), trust)
    assert not output.exists()


def test_a_damaged_part_is_refused(folder: Path) -> None:
    part = files(folder / "parts")[3]
    part.write_bytes(part.read_bytes()[:-1] + b"?")
    refused(folder, RegistryError, f"the part {part.name[:16]} is damaged")


def test_parts_in_another_order_are_another_file(folder: Path) -> None:
    (document,) = files(folder / "files")
    content = json.loads(document.read_text())
    content["parts"][1:3] = reversed(content["parts"][1:3])
    document.write_text(json.dumps(content))
    refused(folder, RegistryError, "the parts make another file than")


def test_a_tag_that_leads_to_another_bundle_is_found_out(folder: Path, fp32_bundle: Path) -> None:
    push(fp32_bundle, open_registry(folder), V2, Progress())
    for document in files(folder / "files"):
        content = json.loads(document.read_text())
        document.write_text(json.dumps({**content, "digest": "0" * 64}))
    refused(folder, RegistryError, "'shelf:v1' is not the bundle that it says")


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"[]",
        b'{"format": 2}',
        b'{"format": 1, "bytes": 1, "digest": "' + b"0" * 64 + b'", "parts": ["../../etc/passwd"]}',
        b'{"format": 1, "bytes": 1e99, "digest": "' + b"0" * 64 + b'", "parts": []}',
        b'{"format": 1, "bytes": 9999999999, "digest": "' + b"0" * 64 + b'", "parts": []}',
        b"[" * 100_000,
    ],
)
def test_a_damaged_document_is_refused(folder: Path, content: bytes) -> None:
    (document,) = files(folder / "files")
    document.write_bytes(content)
    refused(folder, RegistryError, r"files/[0-9a-f]{64}\.json")


def test_a_file_that_is_no_bundle_is_refused(folder: Path, tmp_path: Path) -> None:
    registry, data = open_registry(folder), b"no bundle" * 20_000
    kept = content.described(data, "0" * 64)
    for part, piece in zip(kept.parts, content.parts_of(data), strict=True):
        registry.write_part(V1, part, piece)
    registry.write_tag(V1, kept)
    refused(folder, BundleError, "not an edge-resnet bundle")


def test_only_a_trusted_bundle_takes_the_place(folder: Path, quick_bundle: Path, tmp_path: Path) -> None:
    pair = make_keys(tmp_path / "ours")
    keys = tmp_path / "ours.pub"
    refused(folder, TrustError, "is not signed", keys)
    signed = tmp_path / "signed.edge"
    shutil.copy(quick_bundle, signed)
    sign_bundle(signed, load_key(pair.private, lambda: ""))
    registry = open_registry(folder)
    push(signed, registry, V1, Progress(), keys)
    pull(registry, V1, tmp_path / "model.edge", Progress(), keys)
    assert (tmp_path / "model.edge").read_bytes() == signed.read_bytes()


def test_what_was_checked_is_what_goes_in_and_comes_out(
    folder: Path, quick_bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another file takes the place of each bundle right after it was opened."""

    def opened_and_exchanged(path: Path, trust: Path | None) -> Bundle:
        bundle = open_bundle(path, trust)
        path.write_bytes(b"another file")
        return bundle

    given, came = tmp_path / "given.edge", tmp_path / "came.edge"
    shutil.copy(quick_bundle, given)
    monkeypatch.setattr(transfer, "open_bundle", opened_and_exchanged)
    registry = open_registry(folder)
    push(given, registry, V2, Progress())
    pull(registry, V2, came, Progress())
    assert came.read_bytes() == quick_bundle.read_bytes()


def test_what_cannot_be_is_refused(folder: Path, tmp_path: Path) -> None:
    registry = open_registry(folder)
    with pytest.raises(RegistryError, match="has no 'shelf:v9': of that name it has v1$"):
        pull(registry, Reference.parse("shelf:v9"), tmp_path / "model.edge", Progress())
    with pytest.raises(RegistryError, match="has no 'belt:v1': nothing of that name is there: push it, or see"):
        pull(registry, Reference.parse("belt:v1"), tmp_path / "model.edge", Progress())
    with pytest.raises(OutputError, match="does not exist: create it first"):
        pull(registry, V1, tmp_path / "no" / "model.edge", Progress())
    with pytest.raises(RegistryError, match="is no registry"):
        open_registry("carrier-pigeon://loft/models")
    for text in ("", ":", "a:", ":b", "A", "a/b", "../a", "a..b", "a:b:c", "-a", "a" * 200, "a\n"):
        with pytest.raises(RegistryError, match="names nothing in a registry"):
            Reference.parse(text)
    assert Reference.parse("a") == Reference("a", "latest")


def test_a_server_that_is_not_there_is_one_line(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "robot")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "robot")
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")
    import fsspec

    fsspec.filesystem("s3").clear_instance_cache()
    with pytest.raises(UnavailableError, match="s3://robots/models cannot be used"):
        pull(open_registry("s3://robots/models"), V1, tmp_path / "model.edge", Progress())


def test_a_refused_bundle_leaves_nothing_behind(folder: Path, tmp_path: Path) -> None:
    make_keys(tmp_path / "ours")
    before = files(tmp_path)
    refused(folder, TrustError, "is not signed", tmp_path / "ours.pub")
    assert files(tmp_path) == before


def test_what_had_come_of_another_part_is_fetched_anew(folder: Path, quick_bundle: Path, tmp_path: Path) -> None:
    registry, output = open_registry(folder), tmp_path / "model.edge"
    kept = registry.find(V1)
    begun = tmp_path / f".model.edge.{kept.file[:16]}.pull"
    begun.mkdir()
    (begun / kept.parts[0]).write_bytes(b"zeros, say, after the power was lost")
    assert pull(registry, V1, output, Progress()).fetched == kept.bytes
    assert output.read_bytes() == quick_bundle.read_bytes() and not begun.exists()


def test_a_name_apart_or_in_the_address(folder: Path) -> None:
    for given in ((str(folder), "shelf:v1"), (f"{folder}/shelf:v1", None)):
        registry, reference = located(*given)
        assert (registry.address, reference) == (str(folder), V1)
    assert located("oci://127.0.0.1:5000/shelf", None)[1] == Reference("shelf", "latest")
    for address in ("shelf:v1", "/shelf", "oci://127.0.0.1:5000", "s3://robots"):
        with pytest.raises(RegistryError, match="is a registry, or a name in none: give REGISTRY and NAME"):
            located(address, None)


def test_a_password_in_an_address_is_not_shown(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    with pytest.raises(UnavailableError) as caught:
        pull(open_registry("ftp://robot:hunter2@127.0.0.1:9/models"), V1, tmp_path / "model.edge", Progress())
    assert "hunter2" not in str(caught.value) and "ftp://robot:" in str(caught.value)
