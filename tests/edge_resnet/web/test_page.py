"""The page in a real browser: what is seen at both widths and in both schemes, and what it says when something is gone."""

from __future__ import annotations

import re
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit

import numpy as np
import numpy.typing as npt
import pytest
from contrast import READABLE, contrast, luminance
from live_page import Plugged, live_page, until
from playwright.sync_api import Browser, Page, expect
from videos import needs

from edge_resnet import demo
from edge_resnet.frames import FrameColor
from edge_resnet.web.server import Address

Frames = npt.NDArray[np.uint8]
pytestmark = needs("chromium")
EDGE_RESNET = Path(sys.executable).with_name("edge-resnet")


@dataclass
class Seen:
    """A page, and what it asked for and complained of."""

    page: Page
    requests: set[str] = field(default_factory=set)
    complaints: list[str] = field(default_factory=list)


Look = Callable[..., AbstractContextManager[Seen]]


@pytest.fixture
def look(browser: Browser) -> Look:
    """Opens a page; it must not have complained when the block ends."""

    @contextmanager
    def open_page(url: str, width: int = 1280, scheme: str = "light", complains: bool = False) -> Iterator[Seen]:
        context = browser.new_context(viewport={"width": width, "height": 850}, color_scheme=scheme)  # type: ignore[arg-type]
        context.set_default_timeout(15_000)
        seen = Seen(context.new_page())
        seen.page.on("request", lambda request: seen.requests.add(urlsplit(request.url).netloc))
        seen.page.on("console", lambda message: seen.complaints.append(message.text))
        seen.page.on("pageerror", lambda error: seen.complaints.append(str(error)))
        seen.page.goto(url, wait_until="domcontentloaded")
        yield seen
        assert complains or seen.complaints == []
        context.close()

    expect.set_options(timeout=15_000)
    return open_page


def is_live(page: Page) -> None:
    expect(page.locator("#status")).to_have_text("Live")
    expect(page.locator("#trouble")).to_be_hidden()
    until(lambda: page.locator("#video").evaluate("node => node.naturalWidth") > 1)


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [400, 1280])
def test_all_of_it_is_there(width: int, scheme: str, quick_bundle: Path, ten_frames: Frames, look: Look) -> None:
    with live_page(quick_bundle, Plugged(ten_frames)) as running, look(running.url, width, scheme) as seen:
        page = seen.page
        is_live(page)
        expect(page.locator("#source")).to_have_text("camera 'test <b>'")
        expect(page.locator("#top li")).to_have_count(5)
        expect(page.get_by_role("heading", name="INT8 beside FP32")).to_be_visible()
        for side in ("#given li", "#fp32 li"):
            expect(page.locator(side)).to_have_count(5)
        expect(page.locator("#agreement")).to_contain_text(re.compile(r"\d %.* agreement over \d+ frames"))
        for plot in ("#latency .age", "#history .k0"):
            expect(page.locator(plot).first).to_be_visible()
        expect(page.locator("#latency")).to_have_attribute("aria-label", re.compile(r"now [\d.]+ ms from capture"))
        for figure in ("per-second", "age", "age-p99", "run", "dropped", "reconnects"):
            expect(page.locator(f"#{figure}")).to_have_text(re.compile(r"^\d"))
        assert page.evaluate("document.documentElement.scrollWidth") <= width, "nothing is to be scrolled sideways"
        (bright,) = {luminance(page.evaluate("getComputedStyle(document.documentElement).backgroundColor"))}
        assert (bright > 0.5) == (scheme == "light")
        for text in ("h2", "#source", "#status", "#best b", "#best span", "#top data", "dt", ".legend li", "#pause"):
            assert contrast(page, text) >= READABLE, text
        assert seen.requests == {urlsplit(running.url).netloc}, "it asks nobody else for anything"


def test_a_lost_camera_is_said_and_so_is_its_return(quick_bundle: Path, ten_frames: Frames, look: Look) -> None:
    source = Plugged(ten_frames)
    with live_page(quick_bundle, source) as running, look(running.url) as seen:
        is_live(seen.page)
        source.plugged.clear()
        expect(seen.page.locator("#status")).to_have_text("Camera lost")
        expect(seen.page.get_by_role("alert")).to_contain_text("camera 'test <b>' is not there. It is tried again")
        assert contrast(seen.page, "#trouble") >= READABLE
        source.plugged.set()
        is_live(seen.page)
        expect(seen.page.locator("#reconnects")).to_have_text(re.compile("^1"))


def test_it_goes_on_by_itself_when_the_command_is_started_again(
    quick_bundle: Path, fp32_bundle: Path, ten_frames: Frames, look: Look
) -> None:
    with ExitStack() as looking:
        with live_page(quick_bundle, Plugged(ten_frames)) as running:
            address = Address(port=urlsplit(running.url).port or 0)
            seen = looking.enter_context(look(running.url, complains=True))  # of every connection that is refused
            is_live(seen.page)
        expect(seen.page.locator("#status")).to_have_text("Stopped")
        with live_page(fp32_bundle, Plugged(ten_frames), address) as again:
            is_live(seen.page)
            until(lambda: again.board.pictures.watchers == 1)
            expect(seen.page.locator("#compare-card")).to_be_hidden()


def test_a_connection_that_is_cut_without_a_word(quick_bundle: Path, look: Look) -> None:
    """A process that is stopped answers nothing and closes nothing, as a network that is gone does not."""
    command = [
        EDGE_RESNET,
        "live",
        demo.TEST / "bag",
        "--bundle",
        quick_bundle,
        "--target",
        "cpu",
        "--web",
        "--port",
        "0",
    ]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    try:
        with look(process.stdout.readline().strip(), complains=True) as seen:
            expect(seen.page.locator("#status")).to_have_text("Ended")
            process.send_signal(signal.SIGSTOP)
            expect(seen.page.locator("#status")).to_have_text("Not reachable")
            process.send_signal(signal.SIGCONT)
            expect(seen.page.locator("#status")).to_have_text("Ended")
            process.kill()
            expect(seen.page.locator("#status")).to_have_text("Not reachable")
    finally:
        process.kill()
        process.communicate()


def test_the_token_stays_out_of_sight_and_a_stale_one_is_told(
    quick_bundle: Path, ten_frames: Frames, look: Look
) -> None:
    with ExitStack() as looking:
        with live_page(quick_bundle, Plugged(ten_frames), Address("0.0.0.0", 0)) as running:
            port = urlsplit(running.url).port or 0
            here = f"http://127.0.0.1:{port}/"
            seen = looking.enter_context(look(f"{here}?{urlsplit(running.url).query}", complains=True))
            is_live(seen.page)
            assert seen.page.url == here
        with live_page(quick_bundle, Plugged(ten_frames), Address("0.0.0.0", port)):
            expect(seen.page.locator("#status")).to_have_text("No access")
            expect(seen.page.get_by_role("alert")).to_contain_text("open the new address")


def test_the_space_bar_holds_it(quick_bundle: Path, ten_frames: Frames, look: Look) -> None:
    with live_page(quick_bundle, Plugged(ten_frames)) as running, look(running.url) as seen:
        page, button = seen.page, seen.page.get_by_role("button", name="Pause")
        is_live(page)
        page.keyboard.press("Space")
        expect(button).to_have_attribute("aria-pressed", "true")
        expect(page.locator("#still")).to_be_visible()
        held = page.locator("#frame").text_content()
        page.wait_for_timeout(500)
        assert page.locator("#frame").text_content() == held
        button.press("Space")
        expect(button).to_have_attribute("aria-pressed", "false")
        is_live(page)
        expect(page.locator("#frame")).not_to_have_text(held or "")


def test_a_cameras_own_format_has_its_colours(quick_bundle: Path, look: Look) -> None:
    """YUYV whose every pixel is red, by BT.601: Y 81, Cb 90, Cr 240."""
    frames = np.tile(np.array([[81, 90], [81, 240]], np.uint8), (1, 48, 32, 1))
    with live_page(quick_bundle, Plugged(frames, FrameColor.YUYV)) as running, look(running.url) as seen:
        is_live(seen.page)
        pixel = seen.page.evaluate(
            """() => {
                 const canvas = document.createElement("canvas"), video = document.getElementById("video");
                 Object.assign(canvas, { width: video.naturalWidth, height: video.naturalHeight });
                 canvas.getContext("2d").drawImage(video, 0, 0);
                 return [canvas.width, canvas.height, ...canvas.getContext("2d").getImageData(30, 20, 1, 1).data];
               }"""
        )
        assert pixel[:2] == [64, 48]
        assert np.abs(np.array(pixel[2:5]) - (255, 0, 0)).max() <= 8


def test_a_folder_ends_and_its_last_moment_stays(quick_bundle: Path, ten_frames: Frames, look: Look) -> None:
    with live_page(quick_bundle, Plugged(ten_frames, live=False)) as running, look(running.url) as seen:
        expect(seen.page.locator("#status")).to_have_text("Ended")
        expect(seen.page.locator("#frame")).to_have_text("frame 9")
        expect(seen.page.get_by_role("alert")).to_contain_text("The source has ended")
