"""A real browser, headless: what a page becomes, and what it looks like.

It reaches this machine only.
"""

from __future__ import annotations

import subprocess
import tempfile
from pathlib import Path

from . import tools

SECONDS = 120
#: How long the page's own clock runs before it is looked at, in milliseconds. It stands still
#: while something is being loaded.
BUDGET = 60_000


def _run(url: str, *options: str) -> str:
    with tempfile.TemporaryDirectory(prefix="imagefarm-browser-") as profile:
        done = subprocess.run(
            [
                tools.tool("chromium", "chromium-browser", "google-chrome"),
                "--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage",
                "--no-first-run", "--disable-extensions", "--disable-component-update",
                "--disable-background-networking", "--disable-sync", "--hide-scrollbars",
                "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1",
                f"--user-data-dir={profile}", f"--virtual-time-budget={BUDGET}", *options, url,
            ],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=SECONDS,
            check=True,
        )  # fmt: skip
    return done.stdout


def document(url: str, width: int = 1280, height: int = 800) -> str:
    """The page as HTML after its scripts have run."""
    return _run(url, f"--window-size={width},{height}", "--dump-dom")


def screenshot(url: str, path: Path, width: int = 1280, height: int = 800) -> None:
    """A PNG of what a window of that size shows."""
    _run(url, f"--window-size={width},{height}", f"--screenshot={path}")
