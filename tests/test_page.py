"""The page of the server in headless Chromium: it streams, stops, works by keys, on a phone, and asks nobody else."""

from __future__ import annotations

import os
import re
import shutil
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from serving import Server, serving

pytestmark = pytest.mark.filterwarnings("default")

ARTEFACTS = Path(__file__).parent / "artefacts"
SIZES = {"desktop": {"width": 1280, "height": 800}, "phone": {"width": 390, "height": 844}}


def missing(what: str) -> None:
    """Skips, or fails where the browser must be there (FASTQ_REQUIRE_BROWSER)."""
    if os.environ.get("FASTQ_REQUIRE_BROWSER"):
        pytest.fail(f"the page must be tested here: {what}")
    pytest.skip(f"page of the server: {what}")


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    path = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if path is None:
        missing("no chromium (apt-get install chromium)")
    try:
        from playwright.sync_api import sync_playwright
    except ImportError:
        missing("no playwright")
    with sync_playwright() as play:
        browser = play.chromium.launch(executable_path=path, args=["--no-sandbox", "--disable-dev-shm-usage"])
        yield browser
        browser.close()


@pytest.fixture(scope="module")
def server(smollm2: Path) -> Iterator[Server]:
    with serving(smollm2) as server:
        yield server


class Visit:
    """A page, what it asked for and what it complained of."""

    def __init__(self, browser: Any, server: Server, size: str = "desktop", scheme: str = "light") -> None:
        self.context = browser.new_context(viewport=SIZES[size], color_scheme=scheme)
        self.page = self.context.new_page()
        self.asked: list[str] = []
        self.complaints: list[str] = []
        self.context.on("request", lambda request: self.asked.append(request.url))
        self.page.on("console", lambda message: self.complaints.append(message.text))
        self.page.on("pageerror", lambda error: self.complaints.append(str(error)))
        self.page.goto(server.url)
        self.server = server

    def wait(self, condition: str, seconds: float = 60) -> None:
        """Waits until an expression is true. Not with wait_for_function, which the page's policy forbids."""
        end = time.monotonic() + seconds
        while not self.page.evaluate(condition):
            assert time.monotonic() < end, condition
            self.page.wait_for_timeout(30)

    def check(self) -> None:
        """Nothing was asked of anybody else, and nothing went wrong."""
        local = (f"{self.server.url}/", "data:")
        assert [url for url in self.asked if not url.startswith(local)] == []
        assert self.complaints == []
        self.context.close()

    def answered(self) -> str:
        """Waits for the end of an answer; its text."""
        self.page.wait_for_selector("#send:not([hidden])", timeout=60_000)
        return str(self.page.locator("#messages li.assistant").last.text_content())


@pytest.mark.parametrize(("size", "scheme"), [("desktop", "light"), ("phone", "dark")])
def test_an_answer_is_streamed(browser: Any, server: Server, size: str, scheme: str) -> None:
    visit = Visit(browser, server, size, scheme)
    page = visit.page
    visit.wait("document.title.startsWith('smollm2')")
    assert page.evaluate("document.activeElement.id") == "text"
    if page.locator("#side").is_hidden():
        page.keyboard.press("Alt+s")
    page.fill("#temperature", "0")
    page.fill("#max_tokens", "60")
    assert re.search(r"Weights\s*134\.5 M", page.locator("#facts").inner_text())
    assert re.search(r"Memory now\s*[\d.]+ MiB", page.locator("#facts").inner_text())
    if size == "phone":
        page.keyboard.press("Escape")
    page.focus("#text")
    page.keyboard.type("Where is the Eiffel Tower?")
    # How the text grows while it comes.
    page.evaluate(
        "window.seen = [];"
        "new MutationObserver(() => seen.push(document.querySelector('#messages').textContent.length)).observe("
        "document.querySelector('#messages'), {childList: true, subtree: true, characterData: true})"
    )
    page.keyboard.press("Enter")
    text = visit.answered()
    assert "Paris" in text
    seen = page.evaluate("seen")
    assert len(set(seen)) > 5, "the answer came in pieces"
    assert re.fullmatch(r"[\d.]+ tokens/s, \d+ tokens", page.locator("#speed").inner_text())
    page.keyboard.type("And the Colosseum?")
    page.keyboard.press("Enter")
    visit.answered()
    assert page.locator("#messages li").count() == 4
    # Nothing is wider than the screen.
    assert page.evaluate("document.documentElement.scrollWidth") <= SIZES[size]["width"]
    back = page.evaluate("getComputedStyle(document.body).backgroundColor")
    dark = sum(map(int, re.findall(r"\d+", back))) < 380
    assert dark == (scheme == "dark")
    ARTEFACTS.mkdir(exist_ok=True)
    page.screenshot(path=ARTEFACTS / f"page-{size}.png")
    if size == "phone":
        page.click("#toggle")
        page.screenshot(path=ARTEFACTS / "page-phone-settings.png")
    visit.check()


@pytest.mark.parametrize("how", ["button", "key"])
def test_stop_works(browser: Any, server: Server, how: str) -> None:
    visit = Visit(browser, server)
    page = visit.page
    page.fill("#max_tokens", "4000")
    page.fill("#text", "Write a very long story about a fox.")
    page.keyboard.press("Enter")
    visit.wait("document.querySelector('#messages li.assistant')?.textContent.length > 40")
    if how == "button":
        page.click("#stop")
    else:
        page.keyboard.press("Escape")
    text = visit.answered()
    assert 40 < len(text) < 8000
    page.wait_for_timeout(300)
    assert visit.page.locator("#messages li.assistant").last.text_content() == text
    for _ in range(100):
        if server.metrics()["fastq_requests_running"] == 0:
            break
        time.sleep(0.05)
    else:
        pytest.fail("the answer is computed although nobody wants it")
    # The conversation goes on from what there is.
    page.fill("#max_tokens", "5")
    page.fill("#text", "Thanks")
    page.keyboard.press("Enter")
    visit.answered()
    assert page.locator("#messages li.assistant").count() == 2
    page.keyboard.press("Alt+n")
    assert page.locator("#messages li").count() == 0
    visit.check()


def test_what_is_wrong_is_said(browser: Any, server: Server) -> None:
    visit = Visit(browser, server)
    page = visit.page
    page.fill("#temperature", "5")
    page.fill("#text", "Hello")
    page.keyboard.press("Enter")
    page.wait_for_timeout(200)
    assert page.locator("#messages li").count() == 0, "the form says that 5 is too much"
    page.fill("#temperature", "0")
    page.fill("#text", "word " * 20_000)
    page.click("#send")
    page.wait_for_selector("#messages li.error")
    assert "20030 tokens" in page.locator("#messages li.error").inner_text()
    # What the model or the user writes is text, never markup.
    page.keyboard.press("Alt+n")
    page.fill("#max_tokens", "1")
    page.fill("#text", "<img src=x onerror=alert(1)>")
    page.keyboard.press("Enter")
    visit.answered()
    assert page.locator("#messages img").count() == 0
    visit.complaints = [text for text in visit.complaints if "400" not in text]
    visit.check()


def test_a_key_is_asked_for(browser: Any, smollm2: Path) -> None:
    with serving(smollm2, "--api-key", "k1") as server:
        visit = Visit(browser, server)
        page = visit.page
        visit.wait("document.querySelector('#model').textContent.includes('key')")
        page.fill("#key", "k1")
        page.keyboard.press("Tab")
        visit.wait("document.title.startsWith('smollm2')")
        assert page.evaluate("JSON.stringify(localStorage)").find("k1") < 0
        visit.complaints = [text for text in visit.complaints if "401" not in text]
        visit.check()
