"""The picture of the README: the page of the demonstration's last run, on a desk and on a phone.

make demo picture
"""

import io
import pathlib
import shutil

from PIL import Image
from playwright.sync_api import sync_playwright

from toolkit.config.settings import DEMO

PICTURE = pathlib.Path("docs/report.jpg")
DESK, PHONE, GAP = (1100, 1420), (380, 1420), 24


def main() -> None:
    report = max(DEMO.glob("runs/*/report.html"), key=lambda path: path.stat().st_mtime)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=shutil.which("chromium"), args=["--no-sandbox"])
        sides = [
            shot(browser, report, DESK, "light", "body"),
            shot(browser, report, PHONE, "dark", "#mistakes"),
        ]
        browser.close()
    sheet = Image.new("RGB", (DESK[0] + GAP + PHONE[0], DESK[1]), "white")
    sheet.paste(sides[0], (0, 0))
    sheet.paste(sides[1], (DESK[0] + GAP, 0))
    sheet.save(PICTURE, quality=85)
    print(f"written: {PICTURE}, of {report}")


def shot(browser, page: pathlib.Path, window: tuple[int, int], scheme: str, part: str) -> Image.Image:
    """What such a window shows from a part of the page on."""
    shown = browser.new_page(viewport=dict(zip(("width", "height"), window, strict=True)), color_scheme=scheme)
    shown.goto(page.absolute().as_uri())
    shown.locator(part).evaluate("(part) => part.scrollIntoView()")
    return Image.open(io.BytesIO(shown.screenshot()))


if __name__ == "__main__":
    main()
