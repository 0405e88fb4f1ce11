"""Inputs that are nearly right: a valid file with one thing changed, and sealed again where it has a seal.

Every function takes a ``random.Random``, so that the same code serves hypothesis (``st.randoms()``), a seeded loop, and a
coverage-guided fuzzer's bytes.
"""

from __future__ import annotations

import hashlib
import json
import random
import struct
from collections.abc import Callable, Sequence
from copy import deepcopy
from typing import Any

from edge_resnet.errors import BundleError
from edge_resnet.sealed_zip import entries_of, read_seal, seal

Random = random.Random
Mutation = Callable[[Random, bytes], bytes]

NUMBERS = (0, -1, 1, 127, 128, 255, 256, 2**16, 2**31 - 1, 2**31, 2**32 - 1, 2**63, 2**64, 10**400, -(2**63))
VALUES: tuple[Any, ...] = (
    *NUMBERS, None, True, False, 0.5, -0.0, 1e308, 5e-324, "", "a", "\x00", "../x", "/etc/passwd", "a\nb", "é" * 300,
    "\ud800", [], {}, [[]], [None], {"": ""}, [1, "a"], {"a": {"a": {}}},
)  # fmt: skip
"""Each has broken a parser somewhere: the ends of integer types, other types, names that lead out, lone surrogates."""


def mutate_bytes(rng: Random, data: bytes) -> bytes:
    """Some bytes changed, left out, repeated, moved, or a number that says a length made an extreme one."""
    changed = bytearray(data)
    for _ in range(rng.choice((1, 1, 2, 4, 16))):
        place = rng.randrange(len(changed) + 1)
        length = rng.choice((1, 2, 4, 8, 64))
        act = rng.randrange(7)
        if act == 0 and place < len(changed):
            changed[place] ^= 1 << rng.randrange(8)
        elif act == 1:
            del changed[place : place + length]
        elif act == 2:
            changed[place:place] = rng.randbytes(length)
        elif act == 3:
            changed[place:place] = changed[place : place + length] * rng.choice((1, 2, 50))
        elif act == 4:
            number = rng.choice(NUMBERS) % 2 ** (8 * min(length, 8))
            order = rng.choice(("little", "big"))
            changed[place : place + min(length, 8)] = number.to_bytes(min(length, 8), order)
        elif act == 5:
            del changed[place:]
        else:
            other = rng.randrange(len(changed) + 1)
            changed[place : place + length] = changed[other : other + length]
    return bytes(changed)


def mutate_text(rng: Random, data: bytes) -> bytes:
    """Lines and words changed, left out, repeated or joined; then, sometimes, bytes."""
    lines = data.split(b"\n")
    for _ in range(rng.choice((1, 1, 2, 5))):
        place = rng.randrange(len(lines))
        act = rng.randrange(6)
        if act == 0 and len(lines) > 1:
            del lines[place]
        elif act == 1:
            lines[place:place] = [rng.choice(lines)] * rng.choice((1, 2, 500))
        elif act == 2:
            words = lines[place].split(b" ")
            words[rng.randrange(len(words))] = _written(rng.choice(VALUES))
            lines[place] = b" ".join(words)
        elif act == 3:
            head, mark, _ = lines[place].partition(rng.choice((b"=", b":", b",")))
            lines[place] = head + mark + b" " + _written(rng.choice(VALUES))
        elif act == 4:
            lines[place] += rng.choice((b"\r", b"\x00", b"\xff", b'"', b"[" * 3000, b"]", b"#", b"\xef\xbb\xbf"))
        else:
            lines[place] = mutate_bytes(rng, lines[place])
    return b"\n".join(lines)


def _written(value: Any) -> bytes:
    return json.dumps(value).encode()


def mutate_json(rng: Random, data: bytes) -> bytes:
    """One value of a document replaced, left out, repeated or put deeper; or its text changed."""
    if rng.random() < 0.2:
        return mutate_text(rng, data)
    try:
        document = json.loads(data)
        for _ in range(rng.choice((1, 1, 1, 2, 3))):
            document = _with_one_change(rng, document)
        return json.dumps(document).encode()
    except (ValueError, RecursionError):  # a fuzzer's own input: no JSON, or too deep for us
        return mutate_text(rng, data)


def _with_one_change(rng: Random, document: Any) -> Any:
    if not isinstance(document, (dict, list)) or not document or rng.random() < 0.1:
        return _another(rng, document)
    keys: Sequence[Any] = sorted(document) if isinstance(document, dict) else range(len(document))
    key = rng.choice(keys)
    if rng.random() < 0.6:
        document[key] = _with_one_change(rng, document[key])
    elif rng.random() < 0.4:
        del document[key]
    elif isinstance(document, dict):
        document[rng.choice(("", "é", "__class__", key + "x"))] = document[key]
    else:
        document[key:key] = [document[key]] * rng.choice((1, 2, 30))
    return document


def _another(rng: Random, value: Any) -> Any:
    if rng.random() < 0.1:
        for _ in range(rng.choice((2, 70, 400))):
            value = [value] if rng.random() < 0.5 else {"a": value}
        return value
    return deepcopy(rng.choice(VALUES))


def mutate_bundle(rng: Random, data: bytes) -> bytes:
    """A manifest or a member changed and all sealed again, with the manifest's listing made to fit or not; or bytes."""
    act = rng.randrange(4)
    try:
        members = {name: data[e.start : e.end] for name, e in entries_of(data, read_seal(data)).items()}
    except BundleError:
        act = 3
    if act == 3 or not members:
        return resealed(mutate_bytes(rng, data)) if rng.random() < 0.7 else mutate_bytes(rng, data)
    names = list(members)
    if act == 0:
        members[names[0]] = mutate_json(rng, members[names[0]])
    else:
        name = rng.choice(names[1:] or names)
        members[name] = mutate_bytes(rng, members[name])
        if act == 2:
            members[names[0]] = _listed_again(members[names[0]], members)
    return b"".join(seal(members))


def _listed_again(manifest: bytes, members: dict[str, bytes]) -> bytes:
    try:
        document = json.loads(manifest)
        listing = document["members"]
        for name in listing:
            listing[name].update(sha256=hashlib.sha256(members[name]).hexdigest(), size=len(members[name]))
        return json.dumps(document).encode()
    except (ValueError, LookupError, TypeError, AttributeError, RecursionError):
        return manifest


def resealed(data: bytes) -> bytes:
    """Bytes before a bundle's comment, with the digest that fits them."""
    start = data.rfind(b"edge-resnet bundle ")
    if start < 2:
        return data
    body = data[: start - 2] + struct.pack("<H", 93)
    return body + f"edge-resnet bundle 1\nsha256 {hashlib.sha256(body).hexdigest()}\n".encode()


def mutate_safetensors(rng: Random, data: bytes) -> bytes:
    """The header's JSON changed and its length made to fit; or bytes."""
    size = int.from_bytes(data[:8], "little")
    if rng.random() < 0.3 or len(data) < 8 + size:
        return mutate_bytes(rng, data)
    header = mutate_json(rng, data[8 : 8 + size])
    return len(header).to_bytes(8, "little") + header + data[8 + size :]
