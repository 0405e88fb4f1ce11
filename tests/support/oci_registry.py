"""A real OCI registry on loopback: Debian's package docker-registry, on a port of its own, with its files in a folder."""

from __future__ import annotations

import re
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

CONFIG = """
version: 0.1
log: {{accesslog: {{disabled: false}}, level: info}}
storage: {{filesystem: {{rootdirectory: {root}}}, delete: {{enabled: true}}}}
http: {{addr: "127.0.0.1:0", secret: not-one}}
{more}
"""
USER, PASSWORD = "robot", "secret"
HTPASSWD = f"{USER}:$2b$04$0m6.mkwVm/Dc9BFmtX/DbOzXtwbXFi8JmWeYkQ43HZg9SXVo7wViC\n"
"""bcrypt of ``PASSWORD``, at its lowest cost."""


@dataclass(frozen=True)
class Served:
    """A registry that runs."""

    host: str
    root: Path
    """Its files."""
    log: Path

    def requests(self, method: str, path: str) -> int:
        """How many requests it has served, by its own access log."""
        return len(re.findall(rf'"{method} {path}', self.log.read_text()))

    def blob(self, digest: str) -> Path:
        """Where the bytes of a blob lie."""
        return self.root / "docker/registry/v2/blobs/sha256" / digest[:2] / digest / "data"


@contextmanager
def served(folder: Path, *, login: bool = False) -> Iterator[Served]:
    """Starts one; ``login``: it lets in ``USER`` with ``PASSWORD`` alone."""
    folder.mkdir()
    password = folder / "htpasswd"
    password.write_text(HTPASSWD)
    more = f"auth: {{htpasswd: {{realm: robots, path: {password}}}}}" if login else ""
    config, log, root = folder / "config.yml", folder / "log", folder / "root"
    config.write_text(CONFIG.format(root=root, more=more))
    with (
        log.open("wb") as told,
        subprocess.Popen(["docker-registry", "serve", config], stdout=told, stderr=subprocess.STDOUT) as process,
    ):
        try:
            yield Served(_listening(log, process), root, log)
        finally:
            process.kill()


def _listening(log: Path, process: subprocess.Popen[bytes]) -> str:
    end = time.monotonic() + 20
    while time.monotonic() < end and process.poll() is None:
        found = re.search(r"listening on (127\.0\.0\.1:[0-9]+)", log.read_text())
        if found is not None:
            return found[1]
        time.sleep(0.02)
    raise AssertionError(f"the registry does not start: {log.read_text()}")
