"""The bundle: one ``.edge`` file with the engines and everything that their answers depend on.

The archive is a sealed zip (``sealed_zip``); its first member, the manifest, says what the others are.
``docs/bundle.md`` gives the format byte by byte.
"""

from __future__ import annotations

import hashlib
import json
import stat
import zlib
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import NoReturn, TypeVar

from edge_resnet.errors import BundleError
from edge_resnet.limits import check, parse_json
from edge_resnet.output import write_atomically
from edge_resnet.sealed_zip import FORMAT, Entry, Seal, check_name, entries_of, read_seal, seal, signed
from edge_resnet.signatures import Signature, of_bundle
from edge_resnet.trust import TrustedKeys, required

MANIFEST = "manifest.json"
"""The first member of every bundle."""
BUNDLE_SUFFIX = ".edge"
FP32_MEMBER = "model.fp32.onnx"
"""The network that engines are held against."""
QDQ_MEMBER = "model.qdq.onnx"
"""An INT8 bundle's network for engines that are compiled later, in TensorRT's scheme."""
SBOM_MEMBER = "sbom.cdx.json"
"""What the bundle was built with, as a CycloneDX document."""
VERIFIED = ("measured", "predicted", "deferred")
"""How an engine's accuracy is known: run on its device, evaluated exactly without it, or not compiled yet."""

T = TypeVar("T")


MEASURED_ON = "measured on"
"""Key among an engine's versions: the device that answered the golden samples in the build."""


@dataclass(frozen=True)
class EngineEntry:
    """One engine of a bundle: what it was compiled for, and the member that holds it."""

    target: str
    kind: str
    precision: str
    member: str | None
    """None: not compiled yet, because the host that built the bundle could not."""
    versions: dict[str, str]
    verified: str
    """One of ``VERIFIED``."""

    def __post_init__(self) -> None:
        if self.verified not in VERIFIED:
            raise BundleError(f"engine for {self.target!r}: verified is {self.verified!r}: use {', '.join(VERIFIED)}")
        if self.member is None and self.verified != "deferred":
            raise BundleError(f"engine for {self.target!r}: {self.verified}, but no member holds it: name one")

    def to_json(self) -> dict[str, object]:
        """The entry as values that JSON knows."""
        return asdict(self)

    @classmethod
    def from_json(cls, data: object, at: str = "") -> EngineEntry:
        """Reads what ``to_json`` gave; ``at`` leads to it, as in ``engines[0].``, for messages.

        Raises:
            BundleError: a key is missing or unknown, or its value has the wrong type.
        """
        values = _exactly(data, [item.name for item in fields(cls)], at)
        return cls(
            target=_text(values["target"], f"{at}target"),
            kind=_text(values["kind"], f"{at}kind"),
            precision=_text(values["precision"], f"{at}precision"),
            member=_optional(_text, values["member"], f"{at}member"),
            versions=_texts(values["versions"], f"{at}versions"),
            verified=_text(values["verified"], f"{at}verified"),
        )


@dataclass(frozen=True)
class Manifest:
    """What a bundle says about itself. The dictionaries hold JSON values; a tuple in one comes back as a list."""

    name: str
    architecture: str | None
    """None: the model came as an ONNX file."""
    precision: str
    labels: tuple[str, ...] | None
    """One a logit; None: the network gives features."""
    input_shape: tuple[int, int, int]
    """Height, width and channels of a uint8 frame."""
    preprocessing: dict[str, object]
    engines: tuple[EngineEntry, ...]
    calibration: dict[str, object] | None
    accuracy: dict[str, object] | None
    created_by: dict[str, str]
    """Package name to version, of what made the bundle."""
    provenance: dict[str, object] | None = None
    """What it was built from: hashes of the files and the recipe, see ``provenance``; None: not by a recipe."""

    def __post_init__(self) -> None:
        if min(self.input_shape) < 1 or self.input_shape[2] not in (1, 3):
            shape = "×".join(map(str, self.input_shape))
            raise BundleError(f"input_shape is {shape}: give height, width and 1 or 3 channels")

    def to_json(self) -> dict[str, object]:
        """The manifest as values that JSON knows."""
        return asdict(self)

    @classmethod
    def from_json(cls, data: object) -> Manifest:
        """Reads what ``to_json`` gave.

        Raises:
            BundleError: a key is missing or unknown, or its value has the wrong type or is out of range.
        """
        values = _exactly(data, [item.name for item in fields(cls)])
        labels = _optional(_list, values["labels"], "labels")
        engines = _list(values["engines"], "engines")
        return cls(
            name=_text(values["name"], "name"),
            architecture=_optional(_text, values["architecture"], "architecture"),
            precision=_text(values["precision"], "precision"),
            labels=None
            if labels is None
            else tuple(_text(label, f"labels[{index}]") for index, label in enumerate(labels)),
            input_shape=_shape(values["input_shape"], "input_shape"),
            preprocessing=_object(values["preprocessing"], "preprocessing"),
            engines=tuple(EngineEntry.from_json(entry, f"engines[{index}].") for index, entry in enumerate(engines)),
            calibration=_optional(_object, values["calibration"], "calibration"),
            accuracy=_optional(_object, values["accuracy"], "accuracy"),
            created_by=_texts(values["created_by"], "created_by"),
            provenance=_optional(_object, values["provenance"], "provenance"),
        )


@dataclass(frozen=True)
class _Listed:
    """What the manifest says of a member."""

    sha256: str
    size: int


@dataclass(frozen=True)
class Bundle:
    """An opened bundle, in memory; every byte is the one that was written."""

    manifest: Manifest
    trust: tuple[TrustedKeys, ...] = field(repr=False)
    """Whoever was to be trusted has signed it, and must have signed any engine beside it; empty: nobody asked."""
    _seal: Seal = field(repr=False)
    _data: bytes = field(repr=False)
    _entries: dict[str, Entry] = field(repr=False)
    _listed: dict[str, _Listed] = field(repr=False)

    @property
    def digest(self) -> str:
        """SHA-256 of the archive without its comment, in hex: the bundle's identity, signed or not."""
        return self._seal.digest

    @property
    def signatures(self) -> tuple[Signature, ...]:
        """As they stand in the file; unless ``trust`` says so, nobody has checked them."""
        return self._seal.signatures

    def with_signatures(self, signatures: Iterable[Signature]) -> list[bytes]:
        """The pieces of the file with these signatures in the place of its own."""
        return signed(self._data, self._seal, signatures)

    @property
    def file(self) -> bytes:
        """The whole file, as it was when it was checked."""
        return self._data

    @property
    def names(self) -> tuple[str, ...]:
        """The members in the order in which they are stored, without the manifest."""
        return tuple(self._entries)

    def read(self, name: str) -> bytes:
        """The bytes of a member, which are those that the manifest lists.

        Raises:
            BundleError: there is no such member, or the manifest has the hash of another.
        """
        if name not in self._entries:
            raise BundleError(f"the bundle has no member '{name}': it has {', '.join(self._entries) or 'none'}")
        entry = self._entries[name]
        data = self._data[entry.start : entry.end]
        self._check_hash(name, data)
        return data

    def verify_members(self) -> None:
        """Checks each member alone; ``open_bundle`` has already checked all bytes together.

        Raises:
            BundleError: a member is not what the manifest or its zip header says: whoever wrote the bundle erred.
        """
        for name, entry in self._entries.items():
            data = memoryview(self._data)[entry.start : entry.end]
            self._check_hash(name, data)
            if zlib.crc32(data) != entry.crc:
                raise BundleError(f"member '{name}' is not the one that its zip header says: build the bundle again")

    def _check_hash(self, name: str, data: bytes | memoryview) -> None:
        if hashlib.sha256(data).hexdigest() != self._listed[name].sha256:
            raise BundleError(f"member '{name}' is not the one that the manifest lists: build the bundle again")


def write_bundle(path: Path, manifest: Manifest, members: Mapping[str, bytes]) -> None:
    """Writes a bundle, whole or not at all; the same manifest and members give the same bytes.

    Args:
        path: the ``.edge`` file; its folder must exist.
        manifest: what the bundle says about itself; each engine's member must be among ``members``.
        members: name to content; a name is a relative path of ASCII letters, digits, ``.``, ``_``, ``+`` and ``-``.

    Raises:
        BundleError: a name cannot be used, the manifest does not fit the members, or all is over a limit.
        OutputError: the place cannot be written.
    """
    for name in members:
        check_name(name)
    if MANIFEST in members:
        raise BundleError(f"member '{MANIFEST}': a bundle makes its own: choose another name")
    in_order = {name: members[name] for name in sorted(members)}
    check(len(members) + 1, "bundle_members", f"bundle '{path}'", BundleError, "members")
    listed = {name: _Listed(hashlib.sha256(data).hexdigest(), len(data)) for name, data in in_order.items()}
    document = _document(manifest, listed)
    _parse_document(document)  # what could not be read back is not written
    pieces = seal({MANIFEST: document, **in_order})
    check(sum(map(len, pieces)), "bundle_bytes", f"bundle '{path}'", BundleError, "bytes")
    write_atomically(path, pieces)


def open_bundle(path: Path, trust: str | Path | None = None) -> Bundle:
    """Reads a bundle into memory, once, and checks it: digest, signature, structure, then the manifest.

    Args:
        path: the ``.edge`` file.
        trust: a folder of public keys (``.pub`` files), or one of them: one of these keys must have signed the bundle,
            and so it must where the environment's ``EDGE_RESNET_TRUST`` names keys. None and no such variable: nobody.

    Raises:
        BundleError: the file is missing, no bundle, cut short, changed, of a newer format, or over a limit.
        TrustError: no trusted key has signed it; nothing in it has been looked at.
        EdgeResnetError: the keys cannot be used.
        UnavailableError: ``cryptography`` is not installed, and somebody asks for trust.
    """
    return read_bundle(path, required(trust))


def read_bundle(path: Path, trust: tuple[TrustedKeys, ...]) -> Bundle:
    """``open_bundle`` with keys that have been read, of each of which one must have signed; raises as it does."""
    data = _read_file(path)
    found = _seal_of(path, data)
    for keys in trust:
        keys.require(f"bundle '{path}'", of_bundle(found.digest), found.signatures)
    try:
        entries = entries_of(data, found)
        if next(iter(entries), None) != MANIFEST:
            raise BundleError(f"its first member is not {MANIFEST}: build it again")
        first = entries.pop(MANIFEST)
        manifest, listed = _parse_document(data[first.start : first.end])
        _check_listing(entries, listed)
    except BundleError as error:
        raise BundleError(f"bundle '{path}': {error}") from error
    return Bundle(manifest, trust, found, data, entries, listed)


def _seal_of(path: Path, data: bytes) -> Seal:
    try:
        return read_seal(data)
    except BundleError as error:
        raise BundleError(f"bundle '{path}': {error}") from error


def _read_file(path: Path) -> bytes:
    try:
        status = path.stat()
        if not stat.S_ISREG(status.st_mode):
            raise BundleError(f"bundle '{path}': not a bundle but a folder or device: give a .edge file")
        check(status.st_size, "bundle_bytes", f"bundle '{path}'", BundleError, "bytes")
        return path.read_bytes()
    except FileNotFoundError:
        raise BundleError(f"bundle '{path}' does not exist: check the path, or make it with 'build'") from None
    except OSError as error:
        raise BundleError(f"bundle '{path}' cannot be read: {error.strerror}: check the path") from error


def _check_listing(entries: Mapping[str, Entry], listed: Mapping[str, _Listed]) -> None:
    for name in sorted(entries.keys() ^ listed.keys()):
        where = "inside but not in the manifest" if name in entries else "in the manifest but not inside"
        raise BundleError(f"member {name!r} is {where}: build it again")
    for name, entry in entries.items():
        if entry.size != listed[name].size:
            raise BundleError(f"member '{name}' has {entry.size} bytes, not {listed[name].size}: build it again")


def _document(manifest: Manifest, listed: Mapping[str, _Listed]) -> bytes:
    """The manifest as it is stored: JSON with sorted keys, the format and the members added."""
    added = {"format": FORMAT, "members": {name: asdict(entry) for name, entry in listed.items()}}
    values = manifest.to_json() | added
    try:
        text = json.dumps(values, indent=2, sort_keys=True, ensure_ascii=False, allow_nan=False) + "\n"
        return text.encode("utf-8")
    except (TypeError, ValueError) as error:
        raise BundleError(f"the manifest holds a value that JSON cannot: {error}: leave it out") from error


def _parse_document(data: bytes) -> tuple[Manifest, dict[str, _Listed]]:
    try:
        parsed = parse_json(data, _without_repeats)
    except ValueError as error:
        raise BundleError(f"{MANIFEST} is not JSON: {error}: build it again") from error
    own = dict(_object(parsed, MANIFEST))
    added = _exactly({key: own.pop(key) for key in ("format", "members") if key in own}, ["format", "members"])
    if _integer(added["format"], "format") != FORMAT:
        raise BundleError(f"manifest key 'format' is {added['format']}, the archive says {FORMAT}: build it again")
    manifest = Manifest.from_json(own)
    listed = {
        name: _read_listed(entry, f"members.{name}.") for name, entry in _object(added["members"], "members").items()
    }
    for engine in manifest.engines:
        if engine.member is not None and engine.member not in listed:
            raise BundleError(f"the engine for {engine.target!r} is member {engine.member!r}, which is not there")
    return manifest, listed


def _read_listed(data: object, at: str) -> _Listed:
    values = _exactly(data, ["sha256", "size"], at)
    return _Listed(_text(values["sha256"], f"{at}sha256"), _integer(values["size"], f"{at}size"))


def _without_repeats(pairs: list[tuple[str, object]]) -> dict[str, object]:
    values = dict(pairs)
    if len(values) != len(pairs):
        raise ValueError("a key occurs twice in one object")
    return values


# Each of these takes a JSON value and the path of keys to it, and returns the value with its type, or names the key.


def _exactly(data: object, keys: Collection[str], at: str = "") -> dict[str, object]:
    """The values of an object that has these keys and no others."""
    values = _object(data, at.rstrip(".") or MANIFEST)
    for key in keys:
        if key not in values:
            raise BundleError(f"manifest key {at + key!r} is missing: build it again with this version of edge-resnet")
    for key in values:
        if key not in keys:
            raise BundleError(f"manifest key {at + key!r} is unknown: the keys are {', '.join(keys)}")
    return values


def _text(value: object, key: str) -> str:
    return value if isinstance(value, str) else _wrong(value, key, "text")


def _integer(value: object, key: str) -> int:
    if isinstance(value, bool) or not isinstance(value, int):
        _wrong(value, key, "a whole number")
    return value


def _object(value: object, key: str) -> dict[str, object]:
    return value if isinstance(value, dict) else _wrong(value, key, "an object")


def _list(value: object, key: str) -> Sequence[object]:
    return value if isinstance(value, (list, tuple)) else _wrong(value, key, "a list")


def _texts(value: object, key: str) -> dict[str, str]:
    return {name: _text(item, f"{key}.{name}") for name, item in _object(value, key).items()}


def _shape(value: object, key: str) -> tuple[int, int, int]:
    sizes = [_integer(size, f"{key}[{index}]") for index, size in enumerate(_list(value, key))]
    return (sizes[0], sizes[1], sizes[2]) if len(sizes) == 3 else _wrong(value, key, "a list of three whole numbers")


def _optional(read: Callable[[object, str], T], value: object, key: str) -> T | None:
    return None if value is None else read(value, key)


def _wrong(value: object, key: str, wanted: str) -> NoReturn:
    raise BundleError(f"manifest key {key!r} is {value!r:.60}: it must be {wanted}")
