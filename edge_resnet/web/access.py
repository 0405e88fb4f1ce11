"""Who may see the page: on this machine whoever asks it by its own name, elsewhere whoever has the token."""

from __future__ import annotations

import hmac
import re
from collections.abc import Iterable
from dataclasses import dataclass
from http.cookies import CookieError, SimpleCookie

from starlette.datastructures import Headers, MutableHeaders, QueryParams
from starlette.responses import PlainTextResponse, RedirectResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

HEADERS = {
    "cache-control": "no-store",
    "content-security-policy": "default-src 'none'; frame-ancestors 'none'",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "referrer-policy": "no-referrer",
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
}
"""Of every answer; the page itself has a policy of its own, which lets it run."""
COOKIE_S = 30 * 24 * 3600
_HOST = re.compile(r"(?P<name>\[[0-9a-f:.]+\]|[^][:@/]+)(:\d+)?")
"""The header, in small letters: a name or an IPv6 address in brackets, and maybe a port (RFC 9110, section 7.2)."""


@dataclass(frozen=True)
class Loopback:
    """Lets in whoever names this machine by a name that only this machine has.

    A page of somebody else's can make a browser ask 127.0.0.1 by a name of its own (DNS rebinding), and would then read
    what is answered; the ``Host`` header tells.
    """

    names: frozenset[str]

    def refusal(self, scope: Scope) -> Response | None:
        """What whoever may not see the page is told; None for others."""
        found = _HOST.fullmatch(Headers(scope=scope).get("host", "").lower())
        if found is not None and found["name"].strip("[]") in self.names:
            return None
        return PlainTextResponse("This page answers to localhost alone: open it as http://localhost\n", 403)


@dataclass(frozen=True)
class Token:
    """Lets in whoever has the token: in the URL, from where it goes into a cookie, or in the header ``Authorization``."""

    token: str
    cookie: str
    """Its name; browsers do not tell ports apart, so that of another page on this machine must be another."""

    def refusal(self, scope: Scope) -> Response | None:
        """What whoever may not see the page is told; None for others."""
        headers, query = Headers(scope=scope), QueryParams(scope.get("query_string", b""))
        if self._is_it(query.getlist("token")):
            return self._welcome() if scope["path"] == "/" else None
        bearer = headers.get("authorization", "").removeprefix("Bearer ")
        if self._is_it([bearer, *_cookies(headers.get("cookie", ""), self.cookie)]):
            return None
        return PlainTextResponse("This page needs its token: open the address that edge-resnet printed\n", 403)

    def _welcome(self) -> Response:
        """Takes the token out of the address, which browsers keep and show."""
        response = RedirectResponse("/", 303)
        response.set_cookie(self.cookie, self.token, max_age=COOKIE_S, httponly=True, samesite="lax")
        return response

    def _is_it(self, given: Iterable[str]) -> bool:
        return any(hmac.compare_digest(each.encode(), self.token.encode()) for each in given)


def _cookies(header: str, name: str) -> list[str]:
    try:
        found = SimpleCookie(header).get(name)
    except CookieError:
        return []
    return [] if found is None else [found.value]


class Guarded:
    """An ASGI application behind a rule of who may see it; every answer gets ``HEADERS``."""

    def __init__(self, app: ASGIApp, rule: Loopback | Token) -> None:
        self._app, self._rule = app, rule

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def sealed(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for name, value in HEADERS.items():
                    headers.setdefault(name, value)
            await send(message)

        await (self._rule.refusal(scope) or self._app)(scope, receive, sealed)
