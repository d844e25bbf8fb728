"""Chromium driven by Playwright.

The browser is the system's (Debian: `apt install chromium`).
"""

import shutil
from contextlib import contextmanager

import pytest

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
WIDTHS = (1280, 390)
SCHEMES = ("light", "dark")


def executable():
    """Return the path of a Chromium, or None."""
    return next((path for path in map(shutil.which, NAMES) if path), None)


@contextmanager
def browser():
    """Yield a headless browser; the test is skipped where there is none."""
    sync = pytest.importorskip("playwright.sync_api", reason="playwright is not installed; it is in the group `dev`")
    path = executable()
    if path is None:
        pytest.skip(f"no Chromium on this machine (looked for {', '.join(NAMES)}); on Debian: apt install chromium")
    with sync.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=["--no-sandbox"])
        try:
            yield browser
        finally:
            browser.close()
