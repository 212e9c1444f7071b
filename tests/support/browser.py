"""Chromium without a screen: a page as it is drawn, at any width."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from dataclasses import dataclass
from html import escape, unescape
from pathlib import Path
from typing import Any

import pytest

BROWSER = next(
    filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None
)
needs_browser = pytest.mark.skipif(
    BROWSER is None, reason="no Chromium on PATH: pages were not checked in a browser"
)
FLAGS = (
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
    "--disable-background-networking", "--disable-component-update", "--disable-sync",
    "--disable-dev-shm-usage", "--enable-logging=stderr",
)  # fmt: skip
# Windows are never narrower than 500 px; frames are.
_FRAME = """<!DOCTYPE html><body><iframe id="frame" width="{width}" height="800"
style="border: 0" srcdoc="{page}"></iframe><script>
document.getElementById("frame").onload = event => {{
  const page = event.target.contentDocument;
  document.body.setAttribute("data-probe", JSON.stringify(({measure})(page)));
}};
</script></body>"""


@dataclass(frozen=True)
class Browser:
    """Runs Chromium with a profile of its own."""

    folder: Path

    def __call__(self, page: Path, *options: str) -> subprocess.CompletedProcess[str]:
        command = [str(BROWSER), *FLAGS, f"--user-data-dir={self.folder}", *options, page.as_uri()]
        return subprocess.run(command, capture_output=True, text=True, timeout=120, check=True)

    def probe(self, page: Path, width: int) -> dict[str, Any]:
        """What a script of the page itself leaves in ``data-probe``, in a window so wide."""
        done = self(page, f"--window-size={width},900", "--dump-dom")
        found = re.search(r'data-probe="([^"]*)"', done.stdout)
        assert found, done.stderr[-500:]
        probed: dict[str, Any] = json.loads(unescape(found[1]))
        return probed

    def measure(self, page: str, width: int, script: str) -> dict[str, Any]:
        """What the function ``script(document)`` says of a page in a frame so wide."""
        text = _FRAME.format(width=width, page=escape(page), measure=script)
        framed = self.folder.parent / "framed.html"
        framed.write_text(text, encoding="utf-8")
        return self.probe(framed, max(width, 500))
