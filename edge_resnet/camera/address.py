"""Reading camera addresses: a path, ``key=value&…`` options, and what of it may be shown."""

from __future__ import annotations

import re
from urllib.parse import parse_qsl, urlsplit

from edge_resnet.errors import CameraError

_DIGITS = 9
"""Of the largest number in an address; Python reads no more than 4300."""


def options(text: str, allowed: tuple[str, ...], name: str) -> dict[str, str]:
    """Reads ``key=value&key=value``; an empty text has none.

    Args:
        name: of the source, for messages.

    Raises:
        CameraError: a key is unknown, there twice, or has no value.
    """
    pairs = parse_qsl(text, keep_blank_values=True)
    found = dict(pairs)
    for key, value in pairs:
        if key not in allowed:
            raise CameraError(f"{name} has no option '{key}': give {', '.join(allowed)}")
        if not value or value != found[key]:
            raise CameraError(f"{name}: option '{key}' needs one value")
    return found


def size(text: str, name: str) -> tuple[int, int]:
    """Reads ``WIDTHxHEIGHT``, in pixels, as cameras have it.

    Raises:
        CameraError: it is something else.
    """
    match = re.fullmatch(r"([1-9]\d{0,4})x([1-9]\d{0,4})", text, re.ASCII)
    if match is None:
        raise CameraError(f"{name}: size is '{text}': give WIDTHxHEIGHT, such as 1280x720")
    return int(match[1]), int(match[2])


def whole(text: str, key: str, name: str) -> int:
    """Reads a whole number, 0 or more.

    Raises:
        CameraError: it is something else.
    """
    if not (text.isascii() and text.isdecimal() and len(text) <= _DIGITS):
        raise CameraError(f"{name}: {key} is '{text:.40}': give a whole number")
    return int(text)


def split(address: str) -> tuple[str, str, str]:
    """``scheme://PLACE?QUERY#FRAGMENT`` without its scheme: place, query and fragment."""
    place, _, fragment = address.partition("://")[2].partition("#")
    place, _, query = place.partition("?")
    return place, query, fragment


def shown(address: str) -> str:
    """An address without the user name and password in it, and without its query, which may hold either.

    Raises:
        CameraError: it has no host that could be one; the address is not in the message.
    """
    try:
        parts = urlsplit(address)
    except ValueError as error:
        raise CameraError(f"a camera's address cannot be read ({error}): give rtsp://HOST/PATH") from error
    try:
        parts.port  # noqa: B018 - reading it is the check
    except ValueError:  # a password with one of these in it ends the host; the error has a piece of it
        raise CameraError(
            "a camera's address has a port that is no number: give rtsp://HOST:PORT/PATH, and in a name or password "
            "write %2F for /, %3F for ? and %23 for #"
        ) from None
    return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path}"


def without_secrets(given: str) -> str:
    """What was given as a source, for people and records: an address as ``shown`` has it, a path as it is.

    An address that was mistyped is a path, and loses what stands before its host too.
    """
    return shown(given) if "://" in given else re.sub(r".*:.*@", "", given)
