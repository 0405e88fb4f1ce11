"""The report in a real browser: narrow and wide, light and dark, and on paper."""

from __future__ import annotations

from pathlib import Path

import pytest
from contrast import READABLE, contrast
from playwright.sync_api import Browser
from videos import needs

from edge_resnet.images import open_images
from edge_resnet.progress import Progress
from edge_resnet.report.making import write_report

pytestmark = needs("chromium")
TEXTS = (
    "body",
    ".lead",
    ".badge",
    "td",
    "figcaption",
    ".chip.quantized",
    ".chip.float",
    ".bar b",
    "dt",
    "code",
    ".legend",
)


@pytest.fixture(scope="module")
def report(quick_bundle: Path, fp32_bundle: Path, few: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two bundles side by side: every part of the page is there."""
    path = tmp_path_factory.mktemp("page") / "both.html"
    write_report([quick_bundle, fp32_bundle], path, open_images(few / "test"), Progress())
    return path


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [400, 1280])
def test_it_is_readable_at_every_width(width: int, scheme: str, report: Path, browser: Browser) -> None:
    context = browser.new_context(viewport={"width": width, "height": 900}, color_scheme=scheme)  # type: ignore[arg-type]
    page, complaints, asked = context.new_page(), [], []
    page.on("console", lambda message: complaints.append(message.text))
    page.on("pageerror", lambda error: complaints.append(str(error)))
    page.on("request", lambda request: asked.append(request.url))
    page.goto(report.as_uri())
    assert complaints == []
    assert [url for url in asked if not url.startswith("data:")] == [report.as_uri()]
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    for selector in TEXTS:
        assert contrast(page, selector) >= READABLE, selector
    drawn = page.locator("svg").evaluate_all(
        "all => all.filter(each => each.getBoundingClientRect().width < 100).length"
    )
    assert page.locator("svg").count() > 20 and drawn == 0
    page.locator("summary").first.click()
    assert page.locator("details[open] tr").count() > 5
    context.close()


def test_it_prints(report: Path, browser: Browser) -> None:
    """On paper, dark or not on the screen, it is dark on white."""
    context = browser.new_context(color_scheme="dark")
    page = context.new_page()
    page.goto(report.as_uri())
    page.emulate_media(media="print")
    assert page.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"
    assert contrast(page, "th[scope=row]") >= READABLE
    printed = page.pdf(format="A4", print_background=True)
    assert printed.startswith(b"%PDF") and len(printed) > 20_000
    context.close()
