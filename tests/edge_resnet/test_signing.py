"""Keys and signing: files that are never replaced, never readable by others, and a bundle that is signed whole or not."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.serialization import load_pem_private_key, load_pem_public_key
from hand_made_bundles import MEMBERS, document, sealed, written, zipped

from edge_resnet import output
from edge_resnet.errors import BundleError, EdgeResnetError, OutputError
from edge_resnet.signing import PASSPHRASE, load_key, make_keys, sign_bundle


def never() -> str:
    raise AssertionError("nobody is asked for a passphrase")


def test_the_private_key_is_its_owners_alone(tmp_path: Path) -> None:
    before = os.umask(0)
    try:
        made = make_keys(tmp_path / "release-1.2")
    finally:
        os.umask(before)
    assert (made.private.name, made.public.name) == ("release-1.2.key", "release-1.2.pub")
    assert stat.S_IMODE(made.private.stat().st_mode) == 0o600
    private = load_pem_private_key(made.private.read_bytes(), None)
    public = load_pem_public_key(made.public.read_bytes())
    assert private.public_key().public_bytes_raw() == public.public_bytes_raw() == bytes.fromhex(made.key)  # type: ignore[union-attr]


@pytest.mark.parametrize("there", ["k.key", "k.pub"])
def test_a_key_is_never_replaced(tmp_path: Path, there: str) -> None:
    (tmp_path / there).write_bytes(b"precious")
    with pytest.raises(OutputError, match=f"{there}': it exists already, and a key is never replaced"):
        make_keys(tmp_path / "k")
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == {there: b"precious"}


def test_a_key_is_not_written_through_a_link(tmp_path: Path) -> None:
    (tmp_path / "k.key").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(OutputError, match="it exists already"):
        make_keys(tmp_path / "k")
    assert not (tmp_path / "elsewhere").exists()


def test_a_passphrase(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = make_keys(tmp_path / "k", "correct horse")
    assert b"BEGIN ENCRYPTED PRIVATE KEY" in made.private.read_bytes()
    assert load_key(made.private, lambda: "correct horse").public == made.key
    with pytest.raises(EdgeResnetError, match=r"k.key cannot be opened: check the passphrase$"):
        load_key(made.private, lambda: "wrong")
    monkeypatch.setenv(PASSPHRASE, "correct horse")
    assert load_key(made.private, never).public == made.key
    with pytest.raises(EdgeResnetError, match="the passphrase is empty"):
        make_keys(tmp_path / "other", "")


def test_what_is_no_private_key(tmp_path: Path) -> None:
    made = make_keys(tmp_path / "k")
    for path, reason in ((made.public, "cannot be opened"), (tmp_path, "no key file"), (tmp_path / "no", "not there")):
        with pytest.raises(EdgeResnetError, match=f"{reason}.*: give the private key, NAME.key"):
            load_key(path, never)


def test_a_bundle_is_signed_whole_or_not_at_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "model.edge"
    before = written(path)
    key = load_key(make_keys(tmp_path / "k").private, never)

    def full(*args: object) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as broken:
        broken.setattr(output.os, "fsync", full)
        with pytest.raises(OutputError, match="no space left"):
            sign_bundle(path, key)
    assert path.read_bytes() == before
    sign_bundle(path, key)
    assert path.read_bytes() != before


def test_what_cannot_be_used_is_not_signed(tmp_path: Path) -> None:
    key = load_key(make_keys(tmp_path / "k").private, never)
    members = {**MEMBERS, "cpu.onnx": b"\x08\x08Network"}
    path = tmp_path / "model.edge"
    path.write_bytes(sealed(zipped([("manifest.json", document(MEMBERS)), *sorted(members.items())])))
    with pytest.raises(BundleError, match="member 'cpu.onnx' is not the one that the manifest lists"):
        sign_bundle(path, key)


def test_more_signatures_than_fit(tmp_path: Path) -> None:
    path = tmp_path / "model.edge"
    written(path)
    keys = [load_key(make_keys(tmp_path / str(number)).private, never) for number in range(9)]
    for key in keys[:8]:
        assert key.public in {each.key for each in sign_bundle(path, key).signatures}
    with pytest.raises(BundleError, match="has 8 signatures, which is the most"):
        sign_bundle(path, keys[8])
    assert len(sign_bundle(path, keys[0]).signatures) == 8
