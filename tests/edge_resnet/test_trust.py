"""Trust: a bundle that no trusted key has signed is refused, before anything in it is looked at."""

from __future__ import annotations

import hashlib
import stat
import struct
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, generate_private_key
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_pem_private_key,
    load_pem_public_key,
)
from hand_made_bundles import MEMBERS, in_order, sealed, written, zipped

from edge_resnet import bundle as bundle_module
from edge_resnet.bundle import open_bundle, write_bundle
from edge_resnet.chain import build
from edge_resnet.classifier import Classifier
from edge_resnet.companion import companion_path
from edge_resnet.errors import BundleError, EdgeResnetError, TrustError, UnavailableError
from edge_resnet.recipe import Recipe
from edge_resnet.report.making import report_of_build
from edge_resnet.signing import load_key, make_keys, sign_bundle
from edge_resnet.trust import VARIABLE, read_keys
from edge_resnet.web.board import Board

UNSIGNED_COMMENT = 93


def never() -> str:
    raise AssertionError("nobody is asked for a passphrase")


@pytest.fixture
def keys(tmp_path: Path) -> Path:
    """Private keys ``ours`` and ``theirs``, and a folder ``trusted`` with the public one of ``ours``."""
    for name in ("ours", "theirs"):
        make_keys(tmp_path / name)
    (tmp_path / "trusted").mkdir()
    (tmp_path / "ours.pub").rename(tmp_path / "trusted" / "ours.pub")
    return tmp_path / "trusted"


def signed_by(bundle: Path, *names: str) -> bytes:
    for name in names:
        sign_bundle(bundle, load_key(bundle.parent / f"{name}.key", never))
    return bundle.read_bytes()


def raw_key(folder: Path, name: str) -> Ed25519PrivateKey:
    key = load_pem_private_key((folder / f"{name}.key").read_bytes(), None)
    assert isinstance(key, Ed25519PrivateKey)
    return key


def by_hand(unsigned: bytes, key: Ed25519PrivateKey, message: bytes | None = None, public: str | None = None) -> bytes:
    """A bundle signed as docs/bundle.md says, without the package: over its digest, or another message."""
    body, comment = unsigned[:-UNSIGNED_COMMENT], unsigned[-UNSIGNED_COMMENT:]
    digest = hashlib.sha256(body).hexdigest()
    assert comment.endswith(f"sha256 {digest}\n".encode())
    value = key.sign(message or f"edge-resnet bundle signature\nformat 1\nsha256 {digest}\n".encode())
    comment += f"ed25519 {public or key.public_key().public_bytes_raw().hex()} {value.hex()}\n".encode()
    return body[:-2] + struct.pack("<H", len(comment)) + comment


# What is trusted.


def test_a_signed_bundle_opens_and_is_the_same_but_for_its_comment(tmp_path: Path, keys: Path) -> None:
    path = tmp_path / "model.edge"
    before = written(path)
    plain = open_bundle(path)
    after = signed_by(path, "ours")
    assert after == by_hand(before, raw_key(tmp_path, "ours")), "as the format's page has it"
    for trust in (keys, keys / "ours.pub", str(keys)):
        opened = open_bundle(path, trust)
        assert opened.digest == plain.digest
        assert {name: opened.read(name) for name in opened.names} == MEMBERS
    assert open_bundle(path).manifest == plain.manifest, "who asks for no trust reads it as before"


def test_other_zip_tools_read_a_signed_bundle(tmp_path: Path, keys: Path) -> None:
    import zipfile

    path = tmp_path / "model.edge"
    written(path)
    signed_by(path, "ours", "theirs")
    with zipfile.ZipFile(path) as archive:
        assert archive.testzip() is None
        assert archive.comment.count(b"ed25519 ") == 2


def test_one_of_several_signatures_suffices_and_their_order_leaves_no_trace(tmp_path: Path, keys: Path) -> None:
    first, second = tmp_path / "first.edge", tmp_path / "second.edge"
    written(first), written(second)
    assert signed_by(first, "ours", "theirs") == signed_by(second, "theirs", "ours", "ours")
    open_bundle(first, keys)
    (tmp_path / "theirs.pub").rename(keys / "theirs.pub")
    assert list(read_keys(keys).names.values()) == ["ours.pub", "theirs.pub"]
    written(second)
    signed_by(second, "theirs")
    open_bundle(second, keys)  # a folder trusts any of its keys


# What is not.


def test_downgrade_to_unsigned(tmp_path: Path, keys: Path) -> None:
    path = tmp_path / "model.edge"
    unsigned = written(path)
    with pytest.raises(TrustError, match="model.edge' is not signed, and .*trusted is to be trusted: sign it with"):
        open_bundle(path, keys)
    signed_by(path, "ours")
    path.write_bytes(unsigned)  # its signature taken away, and nothing else changed
    with pytest.raises(TrustError, match="is not signed"):
        open_bundle(path, keys)


def test_signed_by_a_stranger(tmp_path: Path, keys: Path) -> None:
    path = tmp_path / "model.edge"
    written(path)
    signed_by(path, "theirs")
    stranger = raw_key(tmp_path, "theirs").public_key().public_bytes_raw().hex()
    with pytest.raises(TrustError, match=rf"is signed by {stranger[:16]}, and .*trusted has ours.pub \("):
        open_bundle(path, keys)


def test_a_stranger_in_the_name_of_a_trusted_key(tmp_path: Path, keys: Path) -> None:
    path = tmp_path / "model.edge"
    ours = raw_key(tmp_path, "ours").public_key().public_bytes_raw().hex()
    path.write_bytes(by_hand(written(path), raw_key(tmp_path, "theirs"), public=ours))
    with pytest.raises(TrustError, match=r"has a signature of ours.pub \(.*\) that is not over these bytes"):
        open_bundle(path, keys)


@pytest.mark.parametrize("prefix", ["", "edge-resnet engine signature\nformat 1\nsha256 ", "sha256 "])
def test_signature_over_other_bytes(tmp_path: Path, keys: Path, prefix: str) -> None:
    """That of another bundle, and one over the right digest that was made for another purpose."""
    path, ours = tmp_path / "model.edge", raw_key(tmp_path, "ours")
    digest = hashlib.sha256(written(path)[:-UNSIGNED_COMMENT]).hexdigest()
    message = f"{prefix}{digest}\n" if prefix else f"edge-resnet bundle signature\nformat 1\nsha256 {'0' * 64}\n"
    path.write_bytes(by_hand(path.read_bytes(), ours, message.encode()))
    with pytest.raises(TrustError, match="that is not over these bytes: get it again from who signed it"):
        open_bundle(path, keys)


def test_another_bundle_under_a_good_signature(tmp_path: Path, keys: Path) -> None:
    """The comment of a signed bundle moved to another one: with its own digest, or with the other's."""
    path, other = tmp_path / "model.edge", tmp_path / "other.edge"
    written(path)
    comment = signed_by(path, "ours").rpartition(b"edge-resnet bundle 1\n")
    body = written(other, members={**MEMBERS, "cpu.onnx": b"\x08\x08another"})[:-UNSIGNED_COMMENT]
    moved = body[:-2] + struct.pack("<H", len(comment[1] + comment[2])) + comment[1] + comment[2]
    path.write_bytes(moved)
    with pytest.raises(BundleError, match="not the ones that were written"):
        open_bundle(path, keys)
    digest = hashlib.sha256(body).hexdigest().encode()
    path.write_bytes(moved.replace(comment[2][7:71], digest))
    with pytest.raises(TrustError, match="that is not over these bytes"):
        open_bundle(path, keys)


def test_nothing_is_parsed_before_the_signature_is_checked(
    tmp_path: Path, keys: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "model.edge"
    archive = sealed(zipped([*in_order(), ("../../evil", b"")]))
    path.write_bytes(archive)
    monkeypatch.setattr(bundle_module, "entries_of", lambda data, seal: pytest.fail("the archive was looked at"))
    with pytest.raises(TrustError, match="is not signed"):
        open_bundle(path, keys)


def test_a_trusted_signature_does_not_excuse_a_wrong_archive(tmp_path: Path, keys: Path) -> None:
    path = tmp_path / "model.edge"
    path.write_bytes(by_hand(sealed(zipped([*in_order(), ("../../evil", b"")])), raw_key(tmp_path, "ours")))
    with pytest.raises(BundleError, match="member name '../../evil': use a relative path"):
        open_bundle(path, keys)


def test_every_flipped_bit_of_the_comment_is_refused(tmp_path: Path, keys: Path) -> None:
    path = tmp_path / "model.edge"
    unsigned = len(written(path, members={"cpu.onnx": b""})) - UNSIGNED_COMMENT
    data = signed_by(path, "ours")
    for place in range(unsigned - 2, len(data)):
        changed = bytearray(data)
        changed[place] ^= 1 << place % 8
        path.write_bytes(changed)
        with pytest.raises((BundleError, TrustError)):
            open_bundle(path, keys)


@pytest.mark.parametrize("lines", ["once more", "nine", "upper case", "cut"])
def test_other_comments(tmp_path: Path, keys: Path, lines: str) -> None:
    path = tmp_path / "model.edge"
    written(path)
    data = signed_by(path, "ours")
    line = data[data.rindex(b"ed25519 ") :]
    other = b"".join(b"ed25519 %064x %0128x\n" % (n, n) for n in range(9))
    added = {"once more": line, "nine": other, "upper case": line.upper(), "cut": line[:-2] + b"\n"}[lines]
    start = data.rindex(b"edge-resnet bundle 1\n")
    comment = data[start:] + added
    path.write_bytes(data[: start - 2] + struct.pack("<H", len(comment)) + comment)
    with pytest.raises(BundleError, match="cut short or changed|were added at its end"):
        open_bundle(path)


def test_a_signature_cut_off_or_put_on_without_care(tmp_path: Path, keys: Path) -> None:
    path = tmp_path / "model.edge"
    unsigned = written(path)
    line = (signed := signed_by(path, "ours"))[signed.rindex(b"ed25519 ") :]
    for data in (signed[: -len(line)], unsigned + line):
        path.write_bytes(data)
        with pytest.raises(BundleError, match="signatures were added or taken away: copy it again"):
            open_bundle(path)


@pytest.mark.parametrize("mode", [0o644, 0o602])
def test_a_private_key_that_anybody_can_read_signs_nothing(tmp_path: Path, keys: Path, mode: int) -> None:
    written(tmp_path / "model.edge")
    key = tmp_path / "ours.key"
    assert stat.S_IMODE(key.stat().st_mode) == 0o600
    key.chmod(mode)
    with pytest.raises(EdgeResnetError, match="can be read or written by anybody on this machine: run `chmod 600"):
        load_key(key, never)


# What is opened a second time.


def test_what_a_classifier_reopens_is_the_same_bundle_by_the_same_trust(
    tmp_path: Path, keys: Path, quick_bundle: Path
) -> None:
    path = tmp_path / "model.edge"
    unsigned = quick_bundle.read_bytes()
    path.write_bytes(unsigned)
    signed = signed_by(path, "ours")
    with Classifier(path, trust=keys) as classify:
        assert classify.reopen().digest == classify.digest == open_bundle(path).digest
        path.write_bytes(unsigned)
        for again in (classify.reopen, lambda: Board(classify, None)):  # type: ignore[arg-type]  # it comes not so far
            with pytest.raises(TrustError, match="is not signed"):
                again()
        other = open_bundle(path)
        members = {name: other.read(name) for name in other.names}
        write_bundle(path, replace(other.manifest, name="older"), members)
        signed_by(path, "ours")
        for again in (classify.reopen, lambda: Board(classify, None)):  # type: ignore[arg-type]
            with pytest.raises(BundleError, match="has become another one since its engine was loaded: start again"):
                again()
        path.write_bytes(signed)
        classify.reopen()


# Who says whom to trust.


def test_an_operator_and_a_program_must_both_be_satisfied(
    tmp_path: Path, keys: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, other = tmp_path / "model.edge", tmp_path / "other"
    other.mkdir()
    (tmp_path / "theirs.pub").rename(other / "theirs.pub")
    written(path)
    monkeypatch.setenv(VARIABLE, str(other))
    with pytest.raises(TrustError, match="is not signed"):
        open_bundle(path)
    signed_by(path, "ours")
    with pytest.raises(TrustError, match="other has theirs.pub"):
        open_bundle(path, keys)
    signed_by(path, "theirs")
    open_bundle(path, keys)
    with pytest.raises(EdgeResnetError, match="trust is empty text: give a folder of .pub files"):
        open_bundle(path, "")
    monkeypatch.setenv(VARIABLE, "")
    with pytest.raises(EdgeResnetError, match="EDGE_RESNET_TRUST is set, but empty: give a folder of .pub files"):
        open_bundle(path, keys)


def test_a_build_need_not_be_signed_to_be_reported_on(
    small_recipe: Recipe, keys: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It has made its bundle in this moment: by the digest, no other is taken for it, and nothing unsigned beside it."""
    monkeypatch.setenv(VARIABLE, str(keys))
    recipe = replace(small_recipe, build=replace(small_recipe.build, report=True))
    result = build(recipe)
    assert result.bundle is not None and result.report is not None
    digest = hashlib.sha256(Path(result.bundle).read_bytes()[:-UNSIGNED_COMMENT]).hexdigest()
    page = Path(result.report)
    assert digest in page.read_text()
    with pytest.raises(TrustError, match="is not signed"):
        open_bundle(Path(result.bundle))
    companion_path(Path(result.bundle), "cpu").write_bytes(b"an engine of nobody's")
    companion_path(Path(result.bundle), "cpu").with_suffix(".json").write_text("{}")
    with pytest.raises(TrustError, match="engine .*model.cpu.engine is not signed"):
        report_of_build(Path(result.bundle), digest, page, None, {})
    written(Path(result.bundle))
    with pytest.raises(BundleError, match="has become another one since it was built"):
        report_of_build(Path(result.bundle), digest, page, None, {})


def test_folders_that_are_no_ground_for_trust(tmp_path: Path, keys: Path) -> None:
    def refusal(source: Path) -> str:
        with pytest.raises(EdgeResnetError) as caught:
            read_keys(source)
        assert "\n" not in str(caught.value)
        return str(caught.value)

    (tmp_path / "empty").mkdir()
    assert "empty is a folder without .pub files: give a folder of .pub files" in refusal(tmp_path / "empty")
    assert "No such file" in refusal(tmp_path / "missing")
    link = keys / "gone.pub"
    link.symlink_to(tmp_path / "nowhere")
    assert "No such file" in refusal(keys)
    link.unlink()
    for content, reason in (
        (b"no key", "is no public key in PEM"),
        ((tmp_path / "theirs.key").read_bytes(), "is no public key in PEM"),
        (p256(), "is a key of another kind than Ed25519"),
        (bytes(100_000), "is no key file"),
    ):
        (keys / "more.pub").write_bytes(content)
        assert reason in refusal(keys), "one that cannot be used is not passed over"
    (keys / "more.pub").unlink()
    for place in (keys / "ours.pub", keys):
        mode = place.stat().st_mode
        place.chmod(mode | stat.S_IWOTH)
        assert f"anybody may write {place}: run `chmod o-w {place}`" in refusal(keys)
        place.chmod(mode)
    tmp_path.chmod(0o777)
    for source in (keys, tmp_path / "theirs.pub"):
        assert f"anybody may replace {source}: run `chmod o-w {tmp_path}`" in refusal(source)
    tmp_path.chmod(0o1777)
    read_keys(keys)  # as in /tmp, where nobody can replace what is another's
    link.symlink_to(tmp_path / "theirs.pub")
    assert len(read_keys(keys).names) == 2, "a link is followed, as a mounted secret is one"


def p256() -> bytes:
    key = generate_private_key(SECP256R1()).public_key()
    return key.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)


def test_keys_of_openssl_are_taken(tmp_path: Path) -> None:
    """The forms are the standard ones (RFC 8410), so keys may come from any tool."""
    key = Ed25519PrivateKey.generate()
    (tmp_path / "k.key").write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    (tmp_path / "k.key").chmod(0o640)
    (tmp_path / "k.pub").write_bytes(key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo))
    path = tmp_path / "model.edge"
    written(path)
    signed_by(path, "k")
    open_bundle(path, tmp_path / "k.pub")
    ours = load_pem_public_key((tmp_path / "k.pub").read_bytes())
    assert isinstance(ours, Ed25519PublicKey)


def test_without_cryptography(tmp_path: Path, keys: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "model.edge"
    written(path)
    signed_by(path, "ours")
    for name in [name for name in sys.modules if name.partition(".")[0] == "cryptography"]:
        monkeypatch.setitem(sys.modules, name, None)
    monkeypatch.setitem(sys.modules, "cryptography", None)
    open_bundle(path)
    with pytest.raises(UnavailableError, match=r"signatures need cryptography.*: pip install 'edge-resnet\[trust\]'"):
        open_bundle(path, keys)
