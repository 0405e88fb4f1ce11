"""A browser, for the pages."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from playwright.sync_api import Browser


@pytest.fixture(scope="module")  # its loop must be gone before another module runs one
def browser() -> Iterator[Browser]:
    from playwright.sync_api import sync_playwright  # the runtime's own tests run without

    with sync_playwright() as playwright:
        found = playwright.chromium.launch(executable_path=shutil.which("chromium"))
        yield found
        found.close()
