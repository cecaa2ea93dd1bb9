"""A real browser for the pages: Chromium without a window, driven by Playwright."""

import contextlib
import os
import pathlib
import shutil

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser, Page, sync_playwright

NAMES = ("chromium", "chromium-browser", "google-chrome", "chrome")
OWN = ("data:", "blob:", "file:")  # addresses that leave the page for nothing
PHONE, DESK = {"width": 360, "height": 740}, {"width": 1280, "height": 900}


@pytest.fixture(scope="module")
def browser():
    """Chromium. Where there is none its tests are skipped, unless NO_SKIPS says that there must be one."""
    path = next(filter(None, map(shutil.which, NAMES)), None)
    if path is None and not os.environ.get("NO_SKIPS"):
        pytest.skip("no Chromium: apt-get install chromium")
    assert path, f"expected one of {', '.join(NAMES)}; apt-get install chromium"
    with sync_playwright() as playwright:
        flags = ["--no-sandbox", "--disable-gpu", "--disable-quic"]
        with playwright.chromium.launch(executable_path=path, args=flags) as chromium:
            yield chromium


@contextlib.contextmanager
def opened(browser: Browser, path: pathlib.Path | str, **options):
    """The page as a person sees it, of a file or at an address of this machine.

    What goes wrong in it, or wants anything from elsewhere, is an error.
    """
    address = path if isinstance(path, str) else path.as_uri()
    page, wrong = browser.new_page(**options), []
    page.on("pageerror", lambda error: wrong.append(str(error)))
    page.on("console", lambda message: wrong.append(message.text) if message.type == "error" else None)
    page.on("request", lambda request: None if request.url.startswith((*OWN, address)) else wrong.append(request.url))
    page.goto(address)
    yield page
    assert wrong == [], wrong
    page.close()


def reads_well(page: Page) -> None:
    """Assert that the page fits the window, that its pictures are there, and that axe finds nothing to mend."""
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    wide = "[...document.querySelectorAll('.scroll')].filter((part) => part.scrollWidth > part.clientWidth + 1)"
    assert page.evaluate(f"{wide}.map((part) => part.textContent)") == []  # a table shows all of it without scrolling
    assert page.evaluate("[...document.images].every((image) => image.complete && image.naturalWidth && image.alt)")
    clipped = (
        "[...document.querySelectorAll('p, dd, li, h1, h2')].filter((part) => part.scrollWidth > part.clientWidth + 1)"
    )
    assert page.evaluate(f"{clipped}.map((part) => part.textContent)") == []
    found = Axe().run(page).response["violations"]
    assert [(one["id"], one["nodes"][0]["html"], one["nodes"][0]["failureSummary"]) for one in found] == []
