"""Keys, and signatures made with them: on the build server, and on a device that compiles its own engine.

``trust`` is the other side. Needs ``cryptography`` where a key is made or read.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from edge_resnet.bundle import read_bundle
from edge_resnet.errors import BundleError, EdgeResnetError, OutputError
from edge_resnet.output import write_atomically
from edge_resnet.signatures import MAX_SIGNATURES, Signature, of_bundle
from edge_resnet.trust import PUBLIC_SUFFIX, require_cryptography

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

KEY_SUFFIX = ".key"
PASSPHRASE = "EDGE_RESNET_PASSPHRASE"
"""Of private keys, for where nobody is there to type it. It is never an argument: those are seen by all on a machine."""

_LARGEST_KEY = 64 << 10


@dataclass(frozen=True)
class KeyPair:
    """A new key's files."""

    private: Path
    public: Path
    key: str
    """The public key, in hex."""


@dataclass(frozen=True)
class SigningKey:
    """A private key, ready to sign."""

    public: str
    """Its public key, in hex."""
    _key: Ed25519PrivateKey

    def sign(self, message: bytes) -> Signature:
        """Its signature; the same message has the same one (RFC 8032)."""
        return Signature(self.public, self._key.sign(message).hex())


def make_keys(name: Path, passphrase: str | None = None) -> KeyPair:
    """Makes a key: ``NAME.key``, private, PKCS #8 in PEM, readable by its owner alone, and ``NAME.pub``.

    Args:
        name: the path of both, without suffix.
        passphrase: encrypts the private one; None leaves it plain.

    Raises:
        OutputError: one of the files is there already, and stays as it is; or the place cannot be written.
        EdgeResnetError: the passphrase is empty.
        UnavailableError: ``cryptography`` is not installed.
    """
    require_cryptography()
    from cryptography.hazmat.primitives import serialization as form
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

    if passphrase == "":
        raise EdgeResnetError("the passphrase is empty: give one, or none at all")
    locked = form.NoEncryption() if passphrase is None else form.BestAvailableEncryption(passphrase.encode())
    key = Ed25519PrivateKey.generate()
    private, public = (name.with_name(name.name + suffix) for suffix in (KEY_SUFFIX, PUBLIC_SUFFIX))
    _write_new(private, key.private_bytes(form.Encoding.PEM, form.PrivateFormat.PKCS8, locked), 0o600)
    try:
        open_key = key.public_key()
        pem = open_key.public_bytes(form.Encoding.PEM, form.PublicFormat.SubjectPublicKeyInfo)
        _write_new(public, pem, 0o644)
    except BaseException:
        private.unlink()
        raise
    return KeyPair(private, public, open_key.public_bytes_raw().hex())


def _write_new(path: Path, data: bytes, mode: int) -> None:
    """Writes a file that must not exist, with its permissions from the first byte on."""
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
    except FileExistsError as error:
        raise OutputError(
            f"cannot write '{path}': it exists already, and a key is never replaced: choose another name"
        ) from error
    except OSError as error:
        raise OutputError(f"cannot write '{path}': {error.strerror}: choose another place") from error
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
    except OSError as error:
        with suppress(OSError):
            path.unlink()
        raise OutputError(f"cannot write '{path}': {error.strerror}: choose another place") from error


def load_key(path: Path, ask: Callable[[], str]) -> SigningKey:
    """Reads a private key.

    Args:
        path: PKCS #8 in PEM, as ``make_keys`` writes it.
        ask: gives the passphrase; called only for a key that has one, where ``EDGE_RESNET_PASSPHRASE`` is not set.

    Raises:
        EdgeResnetError: it cannot be read, anybody may read it, it is no such key, or the passphrase is another.
        UnavailableError: ``cryptography`` is not installed.
    """
    require_cryptography()
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
    from cryptography.hazmat.primitives.serialization import load_pem_private_key

    wanted = f"give the private key, NAME{KEY_SUFFIX}, that `edge-resnet keygen` wrote"
    try:
        if not path.is_file() or path.stat().st_size > _LARGEST_KEY:
            raise EdgeResnetError(f"key {path} is not there, or no key file: {wanted}")
        everybodys = path.stat().st_mode & (stat.S_IROTH | stat.S_IWOTH)
        data = path.read_bytes()
    except OSError as error:
        raise EdgeResnetError(f"key {path} cannot be read: {error.strerror}: {wanted}") from error
    if b"PRIVATE KEY" not in data:  # such as the public one
        raise EdgeResnetError(f"key {path} cannot be opened: {wanted}")
    if everybodys:
        raise EdgeResnetError(f"key {path} can be read or written by anybody on this machine: run `chmod 600 {path}`")
    password = None
    if b"ENCRYPTED" in data:
        given = os.environ.get(PASSPHRASE)
        password = (ask() if given is None else given).encode()
    try:
        key = load_pem_private_key(data, password)
    except Exception as error:  # ValueError, TypeError, UnsupportedAlgorithm
        why = wanted if password is None else "check the passphrase"
        raise EdgeResnetError(f"key {path} cannot be opened: {why}") from error
    if not isinstance(key, Ed25519PrivateKey):
        raise EdgeResnetError(f"key {path} is a key of another kind than Ed25519: {wanted}")
    return SigningKey(key.public_key().public_bytes_raw().hex(), key)


@dataclass(frozen=True)
class Signed:
    """A bundle after signing."""

    digest: str
    signatures: tuple[Signature, ...]


def sign_bundle(path: Path, key: SigningKey) -> Signed:
    """Adds a signature to a bundle, in its place: the comment alone is written anew, and the digest stays.

    A bundle may carry several, by one key each, of which a device needs to trust one: so a fleet gets a new key without a
    day on which half of it refuses every bundle. Signing again with the same key changes nothing.

    Raises:
        BundleError: it is damaged, no bundle, or has as many signatures as it can.
        OutputError: the place cannot be written.
    """
    bundle = read_bundle(path, ())
    bundle.verify_members()  # nobody signs what cannot be used
    others = [each for each in bundle.signatures if each.key != key.public]
    if len(others) == MAX_SIGNATURES:
        raise BundleError(f"bundle '{path}' has {MAX_SIGNATURES} signatures, which is the most: build it again")
    signatures = tuple(sorted([*others, key.sign(of_bundle(bundle.digest))]))
    write_atomically(path, bundle.with_signatures(signatures))
    return Signed(bundle.digest, signatures)
