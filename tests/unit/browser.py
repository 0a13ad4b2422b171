"""A page in a real browser without a window: what is in it after some JavaScript ran."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from html import unescape
from pathlib import Path
from typing import Any

import pytest

BROWSERS = ("chromium", "chromium-browser", "google-chrome")
# Waits for the explorer, runs `act`, and leaves what it returns in the page.
DRIVER = """
<script>
(async function () {
  while (!window.hedflow || document.getElementById("status")) await new Promise((next) => setTimeout(next, 20));
  const result = document.createElement("pre");
  result.id = "result";
  try { result.textContent = JSON.stringify(await (async () => { %s })()); }
  catch (error) { result.textContent = JSON.stringify({ error: String(error), stack: error.stack }); }
  document.body.append(result);
})();
</script>
"""


def run_in_browser(page: str, act: str, folder: Path) -> Any:
    """What the JavaScript `act` (the body of an async function) returns in the explorer `page`."""
    browser = next(filter(None, map(shutil.which, BROWSERS)), None)
    if browser is None:
        pytest.skip(f"none of {', '.join(BROWSERS)} is installed")
    path = folder / "page.html"
    path.write_text(page.replace("</body>", DRIVER % act + "</body>"), encoding="utf-8")
    command = [
        browser, "--headless", "--no-sandbox", "--disable-gpu", f"--user-data-dir={folder / 'profile'}",
        "--virtual-time-budget=60000", "--dump-dom", path.as_uri(),
    ]  # fmt: skip
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True)
    found = re.search(r'<pre id="result">(.*?)</pre>', done.stdout, re.DOTALL)
    assert found, done.stdout[-2000:] + done.stderr[-2000:]
    return json.loads(unescape(found[1]))
