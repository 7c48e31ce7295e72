"""Debian's Chromium, driven by Playwright, and axe-core, which finds faults of accessibility."""

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tests.services import installed
from tests.services.installed import Availability

if TYPE_CHECKING:  # every run of tests asks for this module, and few start the browser
    from playwright.sync_api import Browser, Page

PROGRAM = "chromium"


def available() -> Availability:
    """Whether the browser can be started here."""
    program = installed.program(PROGRAM)
    if program is None:
        return Availability("chromium", why_not="no chromium")
    if not _axe().is_file():
        return Availability("chromium", why_not=f"no {_axe()}")
    return Availability("chromium", version=f"{installed.first_line(program, '--version')}, axe-core")


@contextlib.contextmanager
def start() -> Iterator["Browser"]:
    """Run the browser, without a window, while the block runs."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        # A browser of root has no sandbox; it opens the pages of these tests only.
        browser = playwright.chromium.launch(executable_path=installed.program(PROGRAM), chromium_sandbox=False)
        yield browser
        browser.close()


def find_faults(page: "Page") -> list[dict[str, Any]]:
    """What axe-core finds wrong with the page as it is now."""
    page.evaluate(_axe().read_text())
    found: list[dict[str, Any]] = page.evaluate("async () => (await axe.run()).violations")
    return [
        {"rule": each["id"], "help": each["help"], "nodes": [node["html"] for node in each["nodes"]]} for each in found
    ]


def _axe() -> Path:
    return installed.cache_folder() / f"axe-core-{installed.pinned()['AXE_CORE']}" / "axe.min.js"
