"""Whose bundles are trusted: a folder of public keys, and the check of a signature by one of them.

Needs ``cryptography``, and only where somebody asks for trust. ``docs/threats.md`` says what this is against.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from edge_resnet.errors import EdgeResnetError, TrustError, UnavailableError
from edge_resnet.signatures import Signature

VARIABLE = "EDGE_RESNET_TRUST"
"""An operator's keys: a bundle must be signed by one of these too, whatever a program or command asks for."""
PUBLIC_SUFFIX = ".pub"
SHOWN = 16
"""Hexadecimal digits by which messages call a key."""

_LARGEST_KEY = 64 << 10
_ADVICE = f"give a folder of {PUBLIC_SUFFIX} files from `edge-resnet keygen`, or one of them"


@dataclass(frozen=True)
class TrustedKeys:
    """Public keys, any of which suffices."""

    source: Path
    """The folder or file that they were read from."""
    names: Mapping[str, str]
    """Key in hex → the name of its file."""

    def require(self, what: str, message: bytes, signatures: Sequence[Signature]) -> None:
        """Refuses what none of these keys has signed.

        Args:
            what: is checked, for messages.
            message: the bytes that a signature is over.
            signatures: those that came with it; others' are passed over.

        Raises:
            TrustError: there is none, or none by these keys, or one in the name of such a key that it never made.
            UnavailableError: ``cryptography`` is not installed.
        """
        if not signatures:
            raise TrustError(
                f"{what} is not signed, and {self.source} is to be trusted: sign it with `edge-resnet sign`"
            )
        ours = [each for each in signatures if each.key in self.names]
        if not ours:
            others = ", ".join(each.key[:SHOWN] for each in signatures)
            raise TrustError(
                f"{what} is signed by {others}, and {self.source} has {', '.join(map(self._shown, self.names))}: "
                f"have it signed by one of these, or add the other's {PUBLIC_SUFFIX} file if you trust it"
            )
        for each in ours:
            if not _made_by(each, message):
                raise TrustError(
                    f"{what} has a signature of {self._shown(each.key)} that is not over these bytes: get it again from "
                    f"who signed it"
                )

    def _shown(self, key: str) -> str:
        return f"{self.names[key]} ({key[:SHOWN]})"


def required(given: str | Path | None) -> tuple[TrustedKeys, ...]:
    """The keys that must have signed: one of each of these sets.

    Args:
        given: what a program or command asks for: a folder of ``.pub`` files, or one of them. Where the environment's
            ``EDGE_RESNET_TRUST`` names another, both must be satisfied, so that neither takes the other's word away.

    Returns:
        Nothing where nobody asks for trust.

    Raises:
        EdgeResnetError: a folder has no keys, or one that cannot be used; or one of the two is empty text.
        UnavailableError: ``cryptography`` is not installed.
    """
    operator = os.environ.get(VARIABLE)
    if operator == "":
        raise EdgeResnetError(f"{VARIABLE} is set, but empty: {_ADVICE}, or unset it")
    if given == "":  # Path("") is the current folder
        raise EdgeResnetError(f"trust is empty text: {_ADVICE}; None asks for none")
    sources = dict.fromkeys(Path(each) for each in (given, operator) if each is not None)
    return tuple(read_keys(source) for source in sources)


def refuse_trust(file: Path, given: Path | None) -> None:
    """Refuses to be asked for trust in a file that carries no signature.

    Raises:
        EdgeResnetError: it is asked for.
    """
    if given is not None:
        raise EdgeResnetError(f"{file} is no bundle, and only those are signed: leave --trust {given} out")


def read_keys(source: Path) -> TrustedKeys:
    """Reads a folder's ``.pub`` files, or one such file; every one of them must be usable.

    Links are followed, as a mounted secret needs it. What anybody on the machine may write or replace is no ground for
    trust.

    Raises:
        EdgeResnetError: there are none, or one is no Ed25519 public key, cannot be read, or may be written or
            replaced by anybody.
        UnavailableError: ``cryptography`` is not installed.
    """
    try:
        files = sorted(source.glob(f"*{PUBLIC_SUFFIX}")) if source.is_dir() else [source]
        for place in dict.fromkeys((source, *files)):
            if place.stat().st_mode & stat.S_IWOTH:
                raise EdgeResnetError(f"trusted keys: anybody may write {place}: run `chmod o-w {place}`")
            above = place.resolve().parent
            if above.stat().st_mode & (stat.S_IWOTH | stat.S_ISVTX) == stat.S_IWOTH:
                raise EdgeResnetError(f"trusted keys: anybody may replace {place}: run `chmod o-w {above}`")
        names = {_read_key(file): file.name for file in reversed(files)}
    except OSError as error:
        raise EdgeResnetError(f"trusted keys {source} cannot be read: {error.filename}: {error.strerror}") from error
    if not names:
        raise EdgeResnetError(f"trusted keys {source} is a folder without {PUBLIC_SUFFIX} files: {_ADVICE}")
    return TrustedKeys(source, dict(sorted(names.items(), key=lambda item: item[1])))


def _read_key(path: Path) -> str:
    """The public key in a PEM file, in hex."""
    require_cryptography()
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
    from cryptography.hazmat.primitives.serialization import load_pem_public_key

    if not path.is_file() or path.stat().st_size > _LARGEST_KEY:
        raise EdgeResnetError(f"trusted keys: {path} is no key file: {_ADVICE}")
    try:
        key = load_pem_public_key(path.read_bytes())
    except Exception as error:  # ValueError, UnsupportedAlgorithm
        raise EdgeResnetError(f"trusted keys: {path} is no public key in PEM: {_ADVICE}") from error
    if not isinstance(key, Ed25519PublicKey):
        raise EdgeResnetError(f"trusted keys: {path} is a key of another kind than Ed25519: {_ADVICE}")
    return key.public_bytes_raw().hex()


def _made_by(signature: Signature, message: bytes) -> bool:
    require_cryptography()
    from cryptography.exceptions import InvalidSignature
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

    try:
        key = Ed25519PublicKey.from_public_bytes(bytes.fromhex(signature.key))
        key.verify(bytes.fromhex(signature.value), message)
    except (InvalidSignature, ValueError):
        return False
    return True


def require_cryptography() -> None:
    """Refuses to go on without the library.

    Raises:
        UnavailableError: it is not installed.
    """
    try:
        import cryptography  # noqa: F401
    except ImportError as error:
        raise UnavailableError(
            "signatures need cryptography, which is not installed: pip install 'edge-resnet[trust]'"
        ) from error
