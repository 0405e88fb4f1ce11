"""Push and pull through a real OCI registry on loopback."""

from __future__ import annotations

import base64
import hashlib
import json
import shutil
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any, ClassVar
from urllib.parse import parse_qs, urlsplit

import pytest
import requests
from oci_registry import PASSWORD, USER, Served, served

from edge_resnet.bundle import open_bundle
from edge_resnet.errors import RegistryError, TrustError, UnavailableError
from edge_resnet.progress import Progress
from edge_resnet.registry import Reference, content, open_registry, pull, push
from edge_resnet.registry.oci import OciRegistry, _is_here, open_oci
from edge_resnet.registry.oci_client import Client
from edge_resnet.signing import load_key, make_keys, sign_bundle

V1, V2 = Reference.parse("shelf:v1"), Reference.parse("shelf:v2")
UPLOADS = "/v2/.*/blobs/uploads/"


@pytest.fixture(autouse=True)
def small_parts(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The bundles here have a MB: a handful of parts of it. Nobody is logged in."""
    monkeypatch.setattr(content, "PART", 300_000)
    monkeypatch.setenv("HOME", str(tmp_path))


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    if shutil.which("docker-registry") is None:
        pytest.skip("needs Debian's package docker-registry")
    with served(tmp_path_factory.mktemp("oci") / "open") as found:
        yield found


@pytest.fixture(scope="module")
def closed_server(server: Served, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    with served(tmp_path_factory.mktemp("oci") / "closed", login=True) as found:
        yield found


@pytest.fixture
def registry(server: Served, tmp_path: Path) -> OciRegistry:
    """A folder of the registry for this test alone."""
    name = hashlib.sha256(str(tmp_path).encode()).hexdigest()[:12]
    return open_oci(f"oci://{server.host}/robots/{name}")


def test_what_was_pushed_is_what_is_pulled(registry: OciRegistry, quick_bundle: Path, tmp_path: Path) -> None:
    data = quick_bundle.read_bytes()
    pushed = push(quick_bundle, registry, V1, Progress())
    assert (pushed.bytes, pushed.sent, pushed.digest) == (len(data), len(data), open_bundle(quick_bundle).digest)
    pulled = pull(registry, V1, tmp_path / "model.edge", Progress())
    assert (tmp_path / "model.edge").read_bytes() == data
    assert pulled.file == pushed.file == hashlib.sha256(data).hexdigest() and pulled.fetched == len(data)
    assert [path.name for path in tmp_path.iterdir()] == ["model.edge"]


def test_any_other_client_gets_the_file(registry: OciRegistry, server: Served, quick_bundle: Path) -> None:
    """By the distribution and image specifications alone: layers, put together in order, are the bundle."""
    push(quick_bundle, registry, V1, Progress())
    place = f"http://{server.host}/v2/{registry.address.split('/', 3)[3]}/shelf"
    manifest = requests.get(
        f"{place}/manifests/v1", headers={"Accept": "application/vnd.oci.image.manifest.v1+json"}, timeout=10
    ).json()
    layers = [requests.get(f"{place}/blobs/{layer['digest']}", timeout=10).content for layer in manifest["layers"]]
    assert b"".join(layers) == quick_bundle.read_bytes()
    assert [len(layer) for layer in layers] == [layer["size"] for layer in manifest["layers"]]
    names = [layer["annotations"]["org.opencontainers.image.title"] for layer in manifest["layers"]]
    assert names == sorted(names) and names[0] == "shelf.edge.000"
    assert requests.get(f"{place}/blobs/{manifest['config']['digest']}", timeout=10).content == b"{}"


def test_what_is_there_is_not_sent_again(
    registry: OciRegistry, server: Served, quick_bundle: Path, fp32_bundle: Path, tmp_path: Path
) -> None:
    push(quick_bundle, registry, V1, Progress())
    uploads = server.requests("PUT", UPLOADS)
    assert uploads > 0
    assert push(quick_bundle, registry, V2, Progress()).sent == 0
    assert server.requests("PUT", UPLOADS) == uploads
    assert push(fp32_bundle, registry, V2, Progress()).sent > 0, "the tag moves"
    found = dict(registry.listing())
    assert [str(reference) for reference in found] == ["shelf:v1", "shelf:v2"]
    assert found[V1].file == hashlib.sha256(quick_bundle.read_bytes()).hexdigest() != found[V2].file
    assert list(registry.listing("shelf")) == list(found.items())
    pull(registry, V2, tmp_path / "model.edge", Progress())
    assert (tmp_path / "model.edge").read_bytes() == fp32_bundle.read_bytes()


def broken_after(method: str, requests_let_through: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """The network goes away after so many requests of a method."""
    count, work = iter(range(requests_let_through)), Client.do_request

    def limited(self: Client, url: str, *arguments: Any, **named: Any) -> Any:
        asked = arguments[0] if arguments else named.get("method", "GET")
        if asked == method and next(count, None) is None:
            raise ConnectionError("the network is gone")
        return work(self, url, *arguments, **named)

    monkeypatch.setattr(Client, "do_request", limited)


def test_a_broken_push_goes_on(registry: OciRegistry, quick_bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as broken:
        broken_after("PUT", 2, broken)
        with pytest.raises(UnavailableError, match="cannot be used .ConnectionError: the network is gone"):
            push(quick_bundle, registry, V1, Progress())
    assert list(registry.listing()) == []
    whole = push(quick_bundle, registry, V1, Progress())
    assert whole.sent == whole.bytes - 2 * content.PART


@pytest.mark.parametrize("ranges", [True, False])
def test_a_broken_pull_goes_on_in_the_middle_of_a_part(
    registry: OciRegistry, quick_bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, ranges: bool
) -> None:
    push(quick_bundle, registry, V1, Progress())
    output = tmp_path / "model.edge"
    output.write_bytes(b"what was there")
    came: list[int] = []

    def cut(self: requests.Response, size: int) -> Iterator[bytes]:
        for piece in all_of(self, 100_000):
            if sum(came) + len(piece) > content.PART + 200_000:  # of the second part, some is there
                raise requests.ConnectionError("the network is gone")
            if "/blobs/" in self.url:
                came.append(len(piece))
            yield piece

    with monkeypatch.context() as broken:
        all_of = requests.Response.iter_content
        broken.setattr(requests.Response, "iter_content", cut)
        with pytest.raises(UnavailableError, match="the network is gone"):
            pull(registry, V1, output, Progress())
    assert output.read_bytes() == b"what was there"
    if not ranges:  # a registry that always sends the whole

        def whole(self: Client, url: str, *given: Any, headers: dict[str, str] | None = None, **named: Any) -> Any:
            rest = {key: value for key, value in (headers or {}).items() if key != "Range"}
            return request(self, url, *given, headers=rest, **named)

        request = Client.do_request
        monkeypatch.setattr(Client, "do_request", whole)
    again = pull(registry, V1, output, Progress())
    assert again.fetched == again.bytes - content.PART - (200_000 if ranges else 0)
    assert output.read_bytes() == quick_bundle.read_bytes()
    assert [path.name for path in tmp_path.iterdir()] == ["model.edge"]


def test_the_end_of_another_part_is_not_believed(registry: OciRegistry, quick_bundle: Path, tmp_path: Path) -> None:
    push(quick_bundle, registry, V1, Progress())
    kept = registry.find(V1)
    begun = tmp_path / f".model.edge.{kept.file[:16]}.pull"
    begun.mkdir()
    (begun / kept.parts[0]).write_bytes(b"another beginning")
    (begun / kept.parts[1]).write_bytes(bytes(400_000))  # longer than the part: there is nothing to go on with
    again = pull(registry, V1, tmp_path / "model.edge", Progress())
    assert again.fetched == kept.bytes + content.PART - len(b"another beginning")
    assert (tmp_path / "model.edge").read_bytes() == quick_bundle.read_bytes()


def test_a_changed_blob_is_refused(registry: OciRegistry, server: Served, quick_bundle: Path, tmp_path: Path) -> None:
    changed = tmp_path / "own.edge"
    shutil.copy(quick_bundle, changed)
    pair = make_keys(tmp_path / "own")
    sign_bundle(changed, load_key(pair.private, lambda: ""))  # a last part that no other test has
    push(changed, registry, V1, Progress())
    blob = server.blob(registry.find(V1).parts[-1])
    blob.write_bytes(blob.read_bytes()[:-1] + b"?")
    with pytest.raises(RegistryError, match=f"the part {blob.parent.name[:16]} is damaged"):
        pull(registry, V1, tmp_path / "model.edge", Progress())
    assert not (tmp_path / "model.edge").exists()
    blob.unlink()
    with pytest.raises((RegistryError, UnavailableError), match="has lost the part|cannot be used"):
        pull(registry, V1, tmp_path / "model.edge", Progress())


def test_only_a_trusted_bundle_takes_the_place(registry: OciRegistry, quick_bundle: Path, tmp_path: Path) -> None:
    pair = make_keys(tmp_path / "ours")
    make_keys(tmp_path / "theirs")
    output, ours, theirs = (tmp_path / name for name in ("model.edge", "ours.pub", "theirs.pub"))
    push(quick_bundle, registry, V1, Progress())
    with pytest.raises(TrustError, match="is not signed"):
        pull(registry, V1, output, Progress(), ours)
    signed = tmp_path / "signed.edge"
    shutil.copy(quick_bundle, signed)
    sign_bundle(signed, load_key(pair.private, lambda: ""))
    push(signed, registry, V1, Progress(), ours)
    with pytest.raises(TrustError, match="is signed by"):
        pull(registry, V1, output, Progress(), theirs)
    assert not output.exists()
    pull(registry, V1, output, Progress(), ours)
    assert output.read_bytes() == signed.read_bytes()


def manifest_of(registry: OciRegistry, change: Callable[[dict[str, Any]], object]) -> None:
    """Changes the manifest of a tag."""
    document = registry._manifest(V1)
    assert document is not None
    change(document)
    answer = registry._client.upload_manifest(document, registry._container(V1))
    assert answer.status_code == 201, answer.text


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda it: it["annotations"].update({"dev.edge-resnet.bytes": "1e99"}), "of 'shelf:v1' is damaged"),
        (lambda it: it["annotations"].update({"dev.edge-resnet.bytes": "9999999999999"}), "of 'shelf:v1' is damaged"),
        (lambda it: it["annotations"].update({"dev.edge-resnet.digest": "../../x"}), "'digest' is '../../x', no SHA"),
        (lambda it: it.pop("annotations"), "of 'shelf:v1' is damaged"),
        (lambda it: it["layers"].reverse(), "the parts make another file than"),
        (lambda it: it["annotations"].update({"dev.edge-resnet.digest": "0" * 64}), "is not the bundle that it says"),
        (lambda it: it.pop("artifactType"), "'shelf:v1' is no bundle of edge-resnet, but another artefact"),
    ],
)
def test_a_damaged_manifest_is_refused(
    registry: OciRegistry,
    quick_bundle: Path,
    tmp_path: Path,
    change: Callable[[dict[str, Any]], object],
    message: str,
) -> None:
    push(quick_bundle, registry, V1, Progress())
    manifest_of(registry, change)
    with pytest.raises(RegistryError, match=message):
        pull(registry, V1, tmp_path / "model.edge", Progress())
    assert not (tmp_path / "model.edge").exists()


def test_what_is_of_others_is_not_listed(registry: OciRegistry, quick_bundle: Path) -> None:
    push(quick_bundle, registry, V1, Progress())
    push(quick_bundle, registry, V2, Progress())
    manifest_of(registry, lambda it: it.pop("artifactType"))
    assert [str(reference) for reference, _ in registry.listing()] == ["shelf:v2"]


def test_the_commands(
    registry: OciRegistry, quick_bundle: Path, cli_json: Callable[..., Any], refused: Callable[..., str]
) -> None:
    place = registry.address
    assert cli_json("push", quick_bundle, f"{place}/shelf:v1")["reference"] == "shelf:v1"
    assert [row["tag"] for row in cli_json("registry", place)] == ["v1"]
    assert [row["tag"] for row in cli_json("registry", place, "shelf")] == ["v1"]
    assert cli_json("registry", place, "belt") == []
    pulled = cli_json("pull", f"{place}/shelf:v1", "-o", "model.edge")
    assert Path(pulled["bundle"]).read_bytes() == quick_bundle.read_bytes()
    line = refused(2, "pull", f"{place}/shelf:v9", "-o", "other.edge")
    assert line == f"{place} has no 'shelf:v9': of that name it has v1"
    line = refused(2, "pull", place, "belt", "-o", "other.edge")
    assert line.startswith(
        f"{place} has no 'belt:latest': nothing of that name is there: push it, or see `edge-resnet re"
    )
    assert "is no host" in refused(2, "pull", "oci://localhost/shelf:v1", "-o", "other.edge")
    line = refused(4, "pull", "oci://127.0.0.1:9/shelf:v1", "-o", "other.edge")
    assert line.startswith("oci://127.0.0.1:9 cannot be used (ConnectionError: ")


def test_a_registry_that_asks_for_a_login(
    closed_server: Served, quick_bundle: Path, tmp_path: Path, refused: Callable[..., str]
) -> None:
    host, output = closed_server.host, tmp_path / "model.edge"
    logins = tmp_path / ".docker" / "config.json"
    logins.parent.mkdir()
    for password in (None, "wrong"):
        if password is not None:
            logins.write_text(login(host, password))
        line = refused(4, "push", quick_bundle, f"oci://{host}/shelf:v1")
        assert line.startswith(
            f"oci://{host} asks for a login, and ~/.docker/config.json has none for {host} that it tak"
        )
        assert f"run `docker login {host}`" in line
    logins.write_text(login(host, PASSWORD))
    push(quick_bundle, open_registry(f"oci://{host}"), V1, Progress())
    logins.write_text(json.dumps({"credHelpers": {host: "of-this-test"}}))
    assert "asks for a login" in refused(4, "pull", f"oci://{host}/shelf:v1", "-o", output)


def login(host: str, password: str) -> str:
    """What ``docker login`` writes."""
    return json.dumps({"auths": {host: {"auth": base64.b64encode(f"{USER}:{password}".encode()).decode()}}})


def test_a_login_of_a_credential_helper(
    closed_server: Served, quick_bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    logins, helper = tmp_path / ".docker" / "config.json", tmp_path / "docker-credential-of-this-test"
    logins.parent.mkdir()
    logins.write_text(json.dumps({"credsStore": "of-this-test"}))
    helper.write_text(f'#!/bin/sh\ncat >/dev/null\necho \'{{"Username": "{USER}", "Secret": "{PASSWORD}"}}\'\n')
    helper.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    registry = open_registry(f"oci://{closed_server.host}")
    push(quick_bundle, registry, V2, Progress())
    pull(registry, V2, tmp_path / "model.edge", Progress())
    assert (tmp_path / "model.edge").read_bytes() == quick_bundle.read_bytes()


class TokenServer(BaseHTTPRequestHandler):
    """A registry that asks for a token of each scope, which its token server gives to ``USER``; blobs lie elsewhere."""

    seen: ClassVar[list[tuple[str, str]]] = []
    """Path and login of each request."""

    def do_GET(self) -> None:
        login, port = self.headers.get("Authorization", ""), self.server.server_address[1]
        self.seen.append((self.path, login))
        place = urlsplit(self.path)
        if place.path == "/token":
            known = login == "Basic " + base64.b64encode(f"{USER}:{PASSWORD}".encode()).decode()
            self.answer(200 if known else 401, {"token": parse_qs(place.query)["scope"][0]})
        elif place.path == "/elsewhere":
            self.answer(200, {"here": True})
        elif login != f"Bearer {self.command}":
            realm = f'Bearer realm="http://127.0.0.1:{port}/token",service="robots",scope="{self.command}"'
            self.answer(401, {}, {"WWW-Authenticate": realm})
        elif self.command == "GET":
            self.answer(307, {}, {"Location": f"http://localhost:{port}/elsewhere"})
        else:
            self.answer(202, {})

    def do_POST(self) -> None:
        self.do_GET()

    def answer(self, status: int, document: object, headers: dict[str, str] | None = None) -> None:
        data = json.dumps(document).encode()
        self.send_response(status)
        for name, value in {"Content-Length": str(len(data)), **(headers or {})}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, *_: object) -> None:
        """Says nothing."""


def test_tokens(tmp_path: Path) -> None:
    """One is asked for anew where the old one is for less, with Docker's login; neither goes to another host."""
    TokenServer.seen.clear()
    with ThreadingHTTPServer(("127.0.0.1", 0), TokenServer) as server:
        Thread(target=server.serve_forever, daemon=True).start()
        host = f"127.0.0.1:{server.server_address[1]}"
        client = Client(host, plain=True)
        assert client.do_request(f"http://{host}/v2/shelf").status_code == 401, "nobody is logged in"
        (tmp_path / ".docker").mkdir()
        (tmp_path / ".docker" / "config.json").write_text(login(host, PASSWORD))
        client = Client(host, plain=True)
        assert client.do_request(f"http://{host}/v2/shelf").json() == {"here": True}
        assert client.do_request(f"http://{host}/v2/shelf", "POST").status_code == 202
        assert client.do_request(f"http://{host}/v2/shelf").status_code == 200
        server.shutdown()
    assert ("/v2/shelf", "Bearer GET") in TokenServer.seen and ("/v2/shelf", "Bearer POST") in TokenServer.seen
    assert {login for path, login in TokenServer.seen if path == "/elsewhere"} == {""}


def test_addresses() -> None:
    for host in ("127.0.0.1:5000", "127.1.2.3", "[::1]:5000", "localhost:5000"):
        assert open_oci(f"oci://{host}")._client.root == f"http://{host}" and _is_here(host)
    for host in ("ghcr.io", "128.0.0.1:5000", "localhost.example.com", "127.0.0.1.example.com", "[fe80::1]:5000"):
        assert open_oci(f"oci://{host}/robots")._client.root == f"https://{host}" and not _is_here(host)
    assert open_oci("oci+http://registry.lan:5000/robots/")._client.root == "http://registry.lan:5000"
    with pytest.raises(RegistryError, match="has a user in it") as caught:
        open_registry("oci://robot:hunter2@ghcr.io/robots")
    assert "hunter2" not in str(caught.value)
    for address in ("oci://", "oci://ghcr.io/Robots", "oci://ghcr.io//x", "oci://localhost", "oci://ghcr.io/a?b"):
        with pytest.raises(RegistryError, match="is no OCI registry|is no host of an OCI registry"):
            open_registry(address)


def test_a_registry_that_leads_elsewhere_is_not_followed() -> None:
    client = open_oci("oci://ghcr.io/robots")._client
    for url in ("http://ghcr.io/v2/x/blobs/uploads/1", "https://elsewhere.example/upload", "https://ghcr.io:8443/v2/"):
        with pytest.raises(RegistryError, match="another place"):
            client.do_request(url, "PUT", data=b"a bundle")
    answer = requests.Response()
    answer.status_code, answer.headers["WWW-Authenticate"] = (
        401,
        'Bearer realm="http://ghcr.io/token",service="ghcr.io"',
    )
    with pytest.raises(RegistryError, match="asks for a login at http://ghcr.io/token, without encryption"):
        client._logs_in(answer)
