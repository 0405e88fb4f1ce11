"""Protobuf's text format, as far as a Triton configuration needs it: strings, whole numbers, enums, messages, lists."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Enum:
    """A value of an enum, which stands without quotes."""

    name: str


Scalar = str | int | Enum
Message = Mapping[str, Any]
"""Field → a scalar, a message, or a list of either for a repeated field."""


def text_format(message: Message) -> str:
    """Writes a message, fields in their order, one a line."""
    return "\n".join(_lines(message, "")) + "\n"


def _lines(message: Message, indent: str) -> Iterator[str]:
    for field, value in message.items():
        for item in value if isinstance(value, list) else [value]:
            if isinstance(item, Mapping):
                yield f"{indent}{field} {{"
                yield from _lines(item, f"{indent}  ")
                yield f"{indent}}}"
            else:
                yield f"{indent}{field}: {_scalar(item)}"


def _scalar(value: Scalar) -> str:
    if isinstance(value, str):
        return _quoted(value)
    return value.name if isinstance(value, Enum) else str(value)


def _quoted(text: str) -> str:
    """A string in ASCII; what else there is stands as octal bytes of its UTF-8, which every reader knows."""
    return '"' + "".join(_ESCAPES.get(byte) or _plain(byte) for byte in text.encode()) + '"'


def _plain(byte: int) -> str:
    return chr(byte) if 32 <= byte < 127 else f"\\{byte:03o}"


_ESCAPES = {ord('"'): '\\"', ord("\\"): "\\\\"}
