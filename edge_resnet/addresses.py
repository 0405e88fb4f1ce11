"""Addresses in messages: without the password that may stand in them."""

from __future__ import annotations

import re

_PASSWORD = re.compile(r"(://[^/\s:@]*):[^/\s@]*@")


def without_password(text: str) -> str:
    """An address, or a message with addresses in it, that may be shown."""
    return _PASSWORD.sub(r"\1:…@", text)
