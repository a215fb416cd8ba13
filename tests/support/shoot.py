"""The picture of a page, by a real headless browser: `python -m tests.support.shoot report.html docs/report.png`."""

from __future__ import annotations

import shutil
import sys
import tempfile
from pathlib import Path

from PIL import Image

from tests.support.browser import Browser

COLOURS = 128
"""A page needs no more; the file is a third as large."""


def main() -> int:
    """Take it."""
    page, picture = (Path(name).resolve() for name in sys.argv[1:3])
    program = shutil.which("chromium")
    if program is None:
        print("needs the program chromium: sudo apt-get install chromium", file=sys.stderr)
        return 1
    with tempfile.TemporaryDirectory() as profile, Browser(program, Path(profile)) as browser:
        browser.open(page)
        browser.screenshot(picture)
        if browser.complaints:
            print("\n".join(browser.complaints), file=sys.stderr)
            return 1
    with Image.open(picture) as shot:
        shot.convert("RGB").quantize(COLOURS).save(picture, optimize=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
