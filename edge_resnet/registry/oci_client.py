"""Requests to an OCI registry by oras: it keeps the addresses, Docker's logins and the exchange of a login for a token.

What is ours: an answer or an error at once, where oras tries five times in two minutes; timeouts; the login that the
registry asks for, Basic or Bearer, and a new token where the old one does not suffice; and nothing is sent elsewhere.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Iterator
from typing import Any
from urllib.parse import urljoin, urlsplit

from oras.auth.utils import parse_auth_header
from oras.container import Container
from oras.provider import Registry
from requests import Response
from requests.adapters import HTTPAdapter

from edge_resnet.errors import RegistryError, UnavailableError
from edge_resnet.limits import limits, parse_json

CONNECT_S, READ_S = 10, 60
"""How long a registry may take to answer, and to go on."""
_PIECE = 256 << 10

logging.getLogger("oras.logger").setLevel(logging.CRITICAL)  # what matters is raised, in one line


class _Timely(HTTPAdapter):
    def send(self, *arguments: Any, **named: Any) -> Response:
        return super().send(*arguments, **{**named, "timeout": (CONNECT_S, READ_S)})


class Client(Registry):  # type: ignore[misc]  # oras has no types
    """oras's client of one host."""

    def __init__(self, host: str, plain: bool) -> None:
        super().__init__(host, insecure=plain, auth_backend="token")
        self.root = f"{self.prefix}://{host}"
        self._host = host
        self._login: dict[str, str] = {}
        for scheme in ("http://", "https://"):
            self.session.mount(scheme, _Timely())
        self.session.auth = lambda request: request  # else requests would take a login out of ~/.netrc

    def container(self, repository: str, tag: str = "latest") -> Container:
        """A tag of a repository, as oras takes it.

        Raises:
            RegistryError: oras would look for it elsewhere.
        """
        found = Container(f"{self._host}/{repository}:{tag}")
        if (found.registry, found.api_prefix, found.tag) != (self._host, repository, tag):
            raise RegistryError(f"'{self._host}' is no host of an OCI registry: give one with a dot, or with a port")
        return found

    def do_request(
        self,
        url: str,
        method: str = "GET",
        data: Any = None,
        headers: dict[str, str] | None = None,
        json: Any = None,
        stream: bool = False,
    ) -> Response:
        """One request; once more with a login where it asks for one.

        Raises:
            RegistryError: the registry leads to another host, or to one without encryption.
            requests.RequestException: there is no answer.
        """
        if urlsplit(url)[:2] != urlsplit(self.root)[:2]:
            raise RegistryError(f"{self.root} leads to {url:.120}, another place: have its own address corrected there")

        def asked() -> Response:
            given = {"Accept-Encoding": "identity", **(headers or {}), **self._login}
            found: Response = self.session.request(method, url, data=data, json=json, headers=given, stream=stream)
            return found

        answer = asked()
        if answer.status_code == 401 and self._logs_in(answer):
            answer = asked()
        return answer

    def _logs_in(self, refused: Response) -> bool:
        """Takes the login that a refusal asks for out of Docker's configuration; False: there is none."""
        challenge = refused.headers.get("WWW-Authenticate", "")
        kind = challenge.partition(" ")[0].lower()
        self.auth.load_configs(self.container("any"))
        basic = getattr(self.auth, "_basic_auth", None)
        if kind == "bearer":
            realm = str(parse_auth_header(challenge).realm)
            if self.prefix == "https" and urlsplit(realm).scheme != "https":
                raise RegistryError(
                    f"{self.root} asks for a login at {realm:.120}, without encryption: have it corrected"
                )
            self.auth.token = None  # it was for less
            self._login, found = self.auth.authenticate_request(refused, {})
            return bool(found)
        if kind == "basic" and basic:
            self._login = {"Authorization": f"Basic {basic}"}
            return True
        return False

    def checked(self, answer: Response, address: str, *absent: int) -> Response | None:
        """An answer that is one; None where its status is among ``absent``.

        Raises:
            UnavailableError: it asks for a login, or for other rights, or says that it cannot.
        """
        if answer.status_code < 300:
            return answer
        if answer.status_code in absent:
            return None
        if answer.status_code == 401:
            raise UnavailableError(
                f"{address} asks for a login, and ~/.docker/config.json has none for {self._host} that it takes: run "
                f"`docker login {self._host}`, or `oras login {self._host}`"
            )
        why = _reason(answer)
        if answer.status_code == 403:
            raise UnavailableError(
                f"{address} does not let you do this ({why}): ask for the rights, or log in as another"
            )
        raise UnavailableError(f"{address} cannot be used ({why}): check the address, the network and the rights there")

    def document(self, answer: Response, what: str) -> dict[str, Any]:
        """The JSON of an answer.

        Raises:
            RegistryError: it is none, or too large.
        """
        data, most = b"", limits().document_bytes
        for piece in answer.iter_content(_PIECE):
            data += piece
            if len(data) > most:
                raise RegistryError(f"{what} is larger than {most} bytes: {limits().advice('document_bytes')}")
        try:
            document = parse_json(data)
        except ValueError as error:
            raise RegistryError(f"{what} is no document of an OCI registry ({error})") from error
        if not isinstance(document, dict):
            raise RegistryError(f"{what} is no document of an OCI registry")
        return document

    def pages(self, path: str, key: str, address: str, *absent: int) -> Iterator[str] | None:
        """The texts of a list that comes in pages; None where its status is among ``absent``."""
        first = self.checked(self.do_request(f"{self.root}/v2/{path}", stream=True), address, *absent)
        return None if first is None else self._pages(first, key, address)

    def _pages(self, answer: Response, key: str, address: str) -> Iterator[str]:
        seen = set()
        while True:
            yield from (
                text for text in self.document(answer, f"{address}: its list").get(key) or () if isinstance(text, str)
            )
            following = answer.links.get("next", {}).get("url")
            if following is None or following in seen:
                return
            seen.add(following)
            found = self.checked(self.do_request(urljoin(answer.url, following), stream=True), address)
            assert found is not None
            answer = found


def pieces(answer: Response, most: int) -> Iterator[bytes]:
    """The bytes of a blob.

    Raises:
        RegistryError: there are more than can be.
    """
    came = 0
    for piece in answer.iter_content(_PIECE):
        came += len(piece)
        if came > most:
            raise RegistryError(f"{answer.url:.120} is of more than {most} bytes, as no part is: push its bundle again")
        yield piece


def _reason(answer: Response) -> str:
    """What a refusal says, in a few words: its status, and the distribution specification's code and message."""
    found = re.search(rb'"code":\s*"([A-Z_]{1,40})"(?:,\s*"message":\s*"([^"]{1,120})")?', answer.content[:4096])
    told = "" if found is None else ": " + " ".join(part.decode(errors="replace") for part in found.groups() if part)
    return f"{answer.status_code} {answer.reason}{told}"
