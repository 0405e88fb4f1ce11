"""The documentation as a site: no broken link, nothing asked of a network, and all there that was written elsewhere."""

from __future__ import annotations

import re
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path

import pytest

import edge_resnet
from edge_resnet.cli import COMMANDS

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    pytest.importorskip("mkdocs", reason="the site needs the extra 'docs'")
    folder = tmp_path_factory.mktemp("site")
    # Not --quiet: with it, --strict counts no warnings.
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(folder)]
    result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stdout + result.stderr
    return folder


class _Fetched(HTMLParser):
    """What a browser loads for a page by itself; ordinary links it does not follow."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = dict(attrs)
        wanted = [
            given.get("src"),
            given.get("srcset"),
            given.get("poster"),
            given.get("href") if tag == "link" else None,
        ]
        self.found += [each for each in wanted if each]


def test_nothing_is_fetched_from_elsewhere(site: Path) -> None:
    pages = list(site.rglob("*.html"))
    assert len(pages) > 20
    for page in pages:
        parser = _Fetched()
        parser.feed(page.read_text(encoding="utf-8"))
        assert parser.found, page
        assert [each for each in parser.found if re.match(r"(\w+:)?//", each)] == [], page
    for sheet in site.rglob("*.css"):
        assert not re.findall(r"(?:url\(|@import)\s*[\"']?(?:https?:)?//", sheet.read_text(encoding="utf-8")), sheet


def test_every_page_is_there_and_can_be_found(site: Path) -> None:
    """Those of docs/, the README, every command and every public name."""
    for page in (ROOT / "docs").glob("*.md"):
        assert (site / page.with_suffix(".html").name).is_file(), page
    assert "it still answers as FP32 did" in (site / "index.html").read_text(encoding="utf-8")
    commands = (site / "commands.html").read_text(encoding="utf-8")
    assert re.findall(r'<h2 id="([a-z-]+)">', commands) == list(COMMANDS)
    assert "--max-drop" in commands and "Points of top-1 that may be lost." in commands
    python = (site / "python.html").read_text(encoding="utf-8")
    for name in edge_resnet.__all__:
        assert f"<code>{name}</code>" in python or f'">{name}</span>' in python, name


def test_sources_that_pages_lead_to_are_there(site: Path) -> None:
    assert (site / "source/examples/robot_loop.py.txt").read_text() == (ROOT / "examples/robot_loop.py").read_text()
    assert 'href="source/edge_resnet/drift.py.txt"' in (site / "runtime.html").read_text(encoding="utf-8")
