"""Whether a bundle, and the engines beside it, are those that trusted keys signed: to be asked before it is deployed."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edge_resnet.bundle import read_bundle
from edge_resnet.companion import companion_path, engine_of, targets_of
from edge_resnet.errors import EdgeResnetError, TrustError
from edge_resnet.trust import required


@dataclass(frozen=True)
class Verified:
    """What was found."""

    bundle: str
    passed: bool
    digest: str | None
    """None where it did not pass: then nothing in the file is worth to be told."""
    signed_by: tuple[str, ...]
    """Files of trusted keys that have signed it."""
    engines: tuple[str, ...]
    """Targets of engines beside the bundle, signed too."""
    why: str | None
    """What is wrong, where it did not pass."""

    def to_json(self) -> dict[str, Any]:
        """The document that ``verify --json`` prints."""
        return {
            "bundle": self.bundle,
            "passed": self.passed,
            "digest": self.digest,
            "signed_by": list(self.signed_by),
            "engines": list(self.engines),
            "why": self.why,
        }


def verify_file(path: Path, trust: Path | None = None) -> Verified:
    """Checks a bundle's signature, then every member by the manifest, then the engines beside it. Nothing is run.

    Args:
        path: the bundle.
        trust: as ``open_bundle`` takes it; None: the environment's alone.

    Raises:
        BundleError: it is damaged or no bundle, or an engine beside it is of another one.
        EdgeResnetError: nobody says who is to be trusted, or the keys cannot be used.
        UnavailableError: ``cryptography`` is not installed.
    """
    keys = required(trust)
    if not keys:
        raise EdgeResnetError(
            f"nobody says who is to be trusted with {path}: give --trust KEYS, a folder of .pub files"
        )
    try:
        bundle = read_bundle(path, keys)
        bundle.verify_members()
        engines = [target for target in targets_of(path, bundle) if companion_path(path, target).is_file()]
        for target in engines:
            engine_of(path, bundle, target)
    except TrustError as error:
        return Verified(str(path), False, None, (), (), str(error))
    names = {each.names[found.key]: None for each in keys for found in bundle.signatures if found.key in each.names}
    return Verified(str(path), True, bundle.digest, tuple(names), tuple(engines), None)
