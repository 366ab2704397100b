"""Look at pages in a headless Chromium, where there is one."""

from __future__ import annotations

import html
import json
import re
import shutil
import subprocess
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from pathlib import Path

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
QUIET = (
    "--headless=new", "--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-sync",
    "--disable-background-networking", "--disable-component-update", "--disable-default-apps",
    "--hide-scrollbars", "--disable-extensions", "--enable-logging=stderr",
)  # fmt: skip
PATIENCE = 120  # seconds

# The page allows no script, so that another one holds it in a frame and looks inside.
PROBE = """<!DOCTYPE html><meta charset="utf-8"><body style="margin: 0">
<iframe id="frame" src="{page}" style="width: {width}px; height: 800px; border: 0"></iframe>
<pre id="found"></pre>
<script>
frame.onload = () => {{
  const page = frame.contentDocument, root = page.documentElement;
  const style = frame.contentWindow.getComputedStyle(root);
  const box = each => each.getBoundingClientRect();
  const inFrame = each => each.closest(".frame");
  const shown = selector =>
    [...page.querySelectorAll(selector)].filter(each => each.getClientRects().length);
  page.querySelectorAll("details").forEach(each => each.open = true);
  found.textContent = JSON.stringify({{
    window: frame.contentWindow.innerWidth,
    width: root.scrollWidth,
    beyond: [...page.querySelectorAll("body *")]
      .filter(each => !inFrame(each) && box(each).right > frame.contentWindow.innerWidth + 1)
      .map(each => each.outerHTML.slice(0, 120)),
    images: [...page.images].map(each => [each.complete, each.naturalWidth, box(each).width]),
    drawings: shown("svg").map(each => [box(each).width, box(each).height]),
    drawn: shown("svg").map(each => each.getAttribute("aria-label")),
    scrolled: shown(".frame").filter(each => each.scrollWidth > each.clientWidth + 1)
      .filter(each => each.querySelector("svg")).map(each => each.outerHTML.slice(0, 200)),
    letters: shown("svg text").map(each => parseFloat(frame.contentWindow
      .getComputedStyle(each).fontSize) * box(each.closest("svg")).width
      / each.closest("svg").viewBox.baseVal.width),
    loaded: frame.contentWindow.performance.getEntriesByType("resource").map(each => each.name),
    colours: Object.fromEntries(["--ink", "--quiet", "--link", "--paper", "--ground"]
      .map(name => [name, style.getPropertyValue(name).trim()])),
    texts: [...page.querySelectorAll("svg text")].slice(0, 50)
      .map(each => frame.contentWindow.getComputedStyle(each).fill),
  }});
}};
</script>"""


def find() -> str:
    """Return the browser, or skip the test that needs it."""
    found = next(filter(None, map(shutil.which, NAMES)), None)
    if found is None:
        pytest.skip(f"there is no browser to look with: {', '.join(NAMES)}")
    return found


def look(page: Path, folder: Path, *, width: int, dark: bool = False) -> dict[str, Any]:
    """Return what a page is like in a window of this width."""
    probe = folder / f"probe-{width}-{dark}.html"
    probe.write_text(PROBE.format(page=page.as_uri(), width=width), encoding="utf-8")
    scheme = ["--blink-settings=preferredColorScheme=0"] if dark else []
    done = _run(
        folder, "--allow-file-access-from-files", *scheme, "--virtual-time-budget=10000",
        "--dump-dom", probe.as_uri(),
    )  # fmt: skip
    said = re.search(r'<pre id="found">(.*?)</pre>', done.stdout, re.DOTALL)
    assert said is not None, done.stderr
    found: dict[str, Any] = json.loads(html.unescape(said[1]))
    found["console"] = [line for line in done.stderr.splitlines() if "CONSOLE" in line]
    return found


def print_pdf(page: Path, folder: Path) -> bytes:
    """Return a page as it is printed."""
    target = folder / "printed.pdf"
    _run(folder, "--no-pdf-header-footer", f"--print-to-pdf={target}", page.as_uri())
    return target.read_bytes()


def screenshot(page: Path, folder: Path, *, width: int, height: int) -> Path:
    """Return the file of a picture of a page in a window of this size."""
    target = folder / "screenshot.png"
    _run(folder, f"--window-size={width},{height}", f"--screenshot={target}", page.as_uri())
    return target


def _run(folder: Path, *words: str) -> subprocess.CompletedProcess[str]:
    command = [find(), *QUIET, f"--user-data-dir={folder / 'profile'}", *words]
    return subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE, check=True)


def contrast(first: str, second: str) -> float:
    """Return the contrast of two colours (#rrggbb) as WCAG 2 defines it: 1 to 21."""
    high, low = sorted(map(_luminance, (first, second)), reverse=True)
    return (high + 0.05) / (low + 0.05)


def _luminance(colour: str) -> float:
    parts = [int(colour[at : at + 2], 16) / 255 for at in (1, 3, 5)]
    red, green, blue = (
        part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts
    )
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue
