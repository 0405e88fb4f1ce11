"""The page: one HTML document, with its style and its script in it, that asks nobody but this server for anything."""

from __future__ import annotations

import base64
import hashlib
from dataclasses import dataclass
from functools import cache
from importlib import resources


@dataclass(frozen=True)
class Document:
    """The page, and what it may do."""

    html: str
    policy: str
    """Its Content-Security-Policy: this very style and script, and pictures and data of this server."""


@cache
def document() -> Document:
    """Puts the page together."""
    folder = resources.files("edge_resnet.web") / "page"
    html, style, script = ((folder / f"page.{kind}").read_text(encoding="utf-8") for kind in ("html", "css", "js"))
    policy = (
        f"default-src 'none'; style-src '{_hash(style)}'; script-src '{_hash(script)}'; img-src 'self' data:; "
        "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    )
    return Document(html.replace("/*STYLE*/", style).replace("/*SCRIPT*/", script), policy)


def _hash(text: str) -> str:
    """Of an inline style or script, as the policy has it (CSP Level 3, section 2.3.1)."""
    return f"sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}"
